"""`swarm eval`: rules compared where the truth is known. It needs no daemon."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, TypeVar

from node.cli.progress import Progress
from node.cli.text import columns, line, percent, print_json
from protocol import limits
from protocol.errors import EXIT_ANSWER, UsageError
from swarm.heldout import contests, select
from swarm.recorded import Recorded, RecordedError, read_scores, read_votes
from swarm.rules import Contest, compare
from swarm.scoreboard import Scoreboard
from swarm.simulate import admission as admitting
from swarm.simulate import attacks
from swarm.simulate.attacks import Attack
from swarm.simulate.fresh import CALIBRATION, TRAINING_ROUNDS, Fresh
from swarm.simulate.online import CALIBRATION_RATE, Online
from swarm.simulate.stopping import play, saved
from swarm.simulate.world import ABOUT, WORLDS
from swarm.stake import GAINS
from swarm.stake import stake as staked

T = TypeVar("T")

PEERS_MOST: Final = 200
STOP_PEERS_MOST: Final = limits.COMMITTEE
PAIRS_MOST: Final = 500
ROUNDS_MOST: Final = 200_000
JUDGES_MOST: Final = 100_000
FILE_BYTES: Final = 512 << 20
LINE_BYTES: Final = 4 << 20
_ACCURACIES = (0.65, 0.7, 0.77, 0.85)


def world(args: argparse.Namespace) -> int:
    """Compare the rules in a simulated world."""
    peers, each, rounds = (args.n or 20, args.k or 6, args.rounds or 480)
    if not args.online:
        peers, each, rounds = (args.n or 15, args.k or 3, args.rounds or 1500)
    _within("--n", peers, 2, PEERS_MOST)
    _within("--k", each, 1, PAIRS_MOST)
    _within("--rounds", rounds, 2, ROUNDS_MOST)
    attack = _attack(args.attack)
    seed = args.seed
    if args.online:
        seed = 900 if seed is None else seed
        swarm = Online(WORLDS[args.world], peers, each, rounds, seed, attack)
        drawn, reported = swarm.contests(), rounds - rounds // 2
    else:
        seed = 31000 + 1000 * peers + each if seed is None else seed
        drawn, reported = (
            Fresh(WORLDS[args.world], peers, each, seed, attack).contests(rounds),
            rounds,
        )
    board = _play(drawn, reported)
    found = board.summary() | {
        "world": args.world,
        "online": args.online,
        "n": peers,
        "k": each,
        "seed": seed,
        "attack": str(attack),
    }
    if args.json:
        print_json(found)
        return EXIT_ANSWER
    how = (
        f"one swarm over {rounds} rounds, the later half reported, {CALIBRATION_RATE:.0%} of them "
        "hidden calibration"
        if args.online
        else f"new peers each round, {CALIBRATION} calibration tasks behind each, the confidence "
        f"fitted to {TRAINING_ROUNDS} other rounds"
    )
    print(
        f"World {args.world}: {ABOUT[args.world]}. {peers} peers, {each} pairs a judge; {how}. "
        f"Seed {seed}.\nAttack: {attack}, {attacks.ABOUT[attack.kind]}.\n"
    )
    _print_table(found)
    return EXIT_ANSWER


def recorded(args: argparse.Namespace) -> int:
    """Compare the rules on recorded answers and judgements."""
    data = _read(Path(args.dir), args.mode)
    judges = data.judges[: args.judges]
    liars = _liars(data, judges, args.invert)
    try:
        chosen = select(data, args.limit, judges, liars)
    except RecordedError as error:
        raise UsageError(f"{args.dir}: {error}.") from error
    board = _play(contests(chosen), len(chosen.questions))
    found = board.summary() | {
        "judges": [data.seats[seat] for seat in judges],
        "inverted": [data.seats[seat] for seat in liars],
    }
    if args.json:
        print_json(found)
        return EXIT_ANSWER
    print(
        f"{len(chosen.questions)} questions, weights from the other questions.\n"
        f"Judges: {line(', '.join(found['judges']))}.\n"
        f"Of these lie, with every verdict: {line(', '.join(found['inverted']) or 'none')}.\n"
    )
    _print_table(found)
    return EXIT_ANSWER


def stop(args: argparse.Namespace) -> int:
    """Print what the early stop saves, and what it costs."""
    peers, rounds = args.n, args.rounds
    _within("--n", peers, 2, STOP_PEERS_MOST)
    _within("--rounds", rounds, 2, ROUNDS_MOST)
    steps = Progress(rounds)
    found = []
    for one in play(WORLDS[args.world], peers, rounds, args.at, args.seed):
        found.append(one)
        steps.done()
    steps.end()
    result = saved(found) | {
        "world": args.world, "peers": peers, "stop": args.at, "seed": args.seed,
    }  # fmt: skip
    if args.json:
        print_json(result)
        return EXIT_ANSWER
    print(f"World {args.world}, {peers} peers, {rounds} rounds, stop at {percent(args.at)}\n")
    schedules: dict[str, dict[str, float]] = result["schedules"]
    table = [
        (name, f"{row['comparisons']:.1f}", f"{row['accuracy']:.1%}")
        for name, row in schedules.items()
    ]
    print(columns(("SCHEDULE", "COMPARISONS", "RIGHT"), table))
    for name in ("everything", "full"):
        gain = result["against"][name]
        print(
            f"adaptive against {name}: {gain['fewer']:.1f} times fewer, "
            f"{100 * gain['difference']:+.2f} ± {100 * gain['ci95']:.2f} points"
        )
    return EXIT_ANSWER


def stake(args: argparse.Namespace) -> int:
    """Compute what an identity would have to stake."""
    _within("--honest", args.honest, 1, PEERS_MOST)
    rows = [staked(accuracy, args.honest) for accuracy in _ACCURACIES]
    if args.json:
        print_json({"gains": GAINS, "terms": [asdict(row) for row in rows]})
        return EXIT_ANSWER
    print(
        f"{args.honest} honest peers; all costs and gains in answers. A ring is admitted, earns "
        "its full weight, then strikes.\n"
    )
    heads = (
        "ACCURACY", "RING", "OF COMMITTEE", "COST OF EACH", "ROUNDS UNTIL FOUND", "HARMLESS GAIN",
        *(f"STAKE AT {gain:g}" for gain in GAINS),
    )  # fmt: skip
    table = [
        (
            f"{row.accuracy:.0%}", f"{row.identities}", percent(row.fraction), f"{row.cost:.0f}",
            f"{row.rounds:.0f}", f"{row.harmless:.0f}", *(f"{one:.0f}" for one in row.needed),
        )
        for row in rows
    ]  # fmt: skip
    print(columns(heads, table))
    print(
        "\nNewcomers alone never turn a round, however many: together they weigh a tenth of the "
        "proven.\nA stake above 0 says that an attack of this gain pays: nothing is deposited. "
        "Against a ring that can\ntell calibration from questions no stake is enough."
    )
    return EXIT_ANSWER


def admission(args: argparse.Namespace) -> int:
    """Measure the admission test, and how soon a swapped model is found."""
    _within("--judges", args.judges, 10, JUDGES_MOST)
    where, seed = WORLDS[args.world], args.seed
    swapped_peers = max(10, args.judges // 10)
    steps = Progress(3 + len(admitting.GAPS))
    able = admitting.skill_of(where, 0.7, seed)
    tested = []
    for name, skill in (
        ("by a coin", None),
        ("right on 70 %", able),
        ("typical", where.skill_mean),
    ):
        tested.append(admitting.admit(where, name, skill, args.judges, seed))
        steps.done()
    swaps = []
    for gap in admitting.GAPS:
        swaps.append(admitting.swap(where, gap, swapped_peers, seed))
        steps.done()
    steps.end()
    found = {
        "world": args.world,
        "seed": seed,
        "judges": args.judges,
        "pairs_per_question": admitting.PAIRS,
        "tests": [asdict(one) for one in tested],
        "swapped_peers": swapped_peers,
        "looked_for": admitting.AFTER_SWAP,
        "calibration_rate": CALIBRATION_RATE,
        "swaps": [
            asdict(one)
            | {
                "undetectable": one.gap == 0.0,
                "rounds": None if one.questions is None else one.questions / CALIBRATION_RATE,
            }
            for one in swaps
        ],
    }
    if args.json:
        print_json(found)
        return EXIT_ANSWER
    print(
        f"{args.judges} judges of each kind in world {args.world}, up to {admitting.PAIRS} pairs a "
        "question.\n"
    )
    print(
        columns(
            ("JUDGES", "RIGHT", "ADMITTED", "REFUSED", "UNDECIDED", "QUESTIONS", "90 % WITHIN"),
            [
                (
                    one.name, f"{one.accuracy:.1%}", f"{one.admitted:.1%}", f"{one.refused:.1%}",
                    f"{one.undecided:.1%}", f"{one.questions:.0f}", f"{one.longest:.0f}",
                )
                for one in tested
            ],
        )
    )  # fmt: skip
    print(
        f"\nA model swapped after admission, {swapped_peers} peers for each gap in skill (logits), "
        f"looked for in\n{admitting.AFTER_SWAP} calibration questions, {CALIBRATION_RATE:.0%} of "
        "all rounds:\n"
    )
    print(
        columns(
            ("GAP", "RIGHT BEFORE", "AFTER", "FOUND", "MEDIAN ROUNDS"),
            [
                (
                    f"{one.gap:g}",
                    f"{one.before:.1%}",
                    f"{one.after:.1%}",
                    f"{one.found:.0%}" + (" falsely" if one.gap == 0.0 else ""),
                    "undetectable: the same judge under another name"
                    if one.gap == 0.0
                    else "over half not found"
                    if one.questions is None
                    else f"{one.questions / CALIBRATION_RATE:.0f}",
                )
                for one in swaps
            ],
        )
    )  # fmt: skip
    return EXIT_ANSWER


# --- what the commands share --------------------------------------------------------------------


def _within(flag: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise UsageError(f"{flag} takes {least} to {most}.")


def _attack(text: str) -> Attack:
    try:
        return attacks.parse(text)
    except ValueError as error:
        raise UsageError(f"--attack {line(text, 40)}: {error}.") from error


def _play(drawn: Iterable[Contest], total: int) -> Scoreboard:
    board = Scoreboard()
    progress = Progress(total)
    for contest in drawn:
        board.add(contest, compare(contest))
        progress.done()
    progress.end()
    return board


def _print_table(found: dict[str, Any]) -> None:
    gains = found["paired"]
    rows = []
    for rule, row in found["rules"].items():
        gain = gains.get(rule)
        rows.append(
            (
                rule,
                f"{100 * row['accuracy']:.1f}",
                f"{100 * row['low']:.1f}–{100 * row['high']:.1f}",
                f"{100 * gain['difference']:+.1f} ± {50 * (gain['high'] - gain['low']):.1f}"
                if gain
                else "",
            )
        )
    print(columns(("RULE", "% RIGHT", "95 %", "CONSENSUS GAINS ON IT"), rows))
    correlation = found["error_correlation"]
    print(
        f"\n{found['rounds']} rounds, {found['comparisons']:.0f} comparisons each. Two judges' "
        f"errors on one pair correlate by {'–' if correlation is None else f'{correlation:.2f}'}."
    )
    if found["ece"] is None:
        print("No confidence: too few calibration rounds stand behind it.")
        return
    sure = found["p_at_least_90"]
    print(
        f"Confidence: calibration error {100 * found['ece']:.1f} %; "
        f"{percent(sure['share'])} of the answers at 0.9 or more, "
        f"of which {_tenths(sure['accuracy'])} are right."
    )


def _tenths(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


# --- recorded data --------------------------------------------------------------------------------


def _read(directory: Path, mode: str | None) -> Recorded:
    """The data set of a directory.

    Raises:
        UsageError: it is none, cannot be read, or is broken; names file and line.
    """
    there = {name for name in _FILES if (directory / name).is_file()}
    try:
        if {"answers.jsonl", "judgments.jsonl"} <= there:
            return read_scores(
                _lines(directory / "answers.jsonl"), _lines(directory / "judgments.jsonl"), mode
            )
        if {"answers.jsonl", "votes.jsonl", "human.jsonl"} <= there:
            return read_votes(*(_lines(directory / name) for name in _VOTES))
    except RecordedError as error:
        raise UsageError(f"{directory}/{error}.") from error
    except OSError as error:
        raise UsageError(f"{error.filename} cannot be read: {error.strerror}.") from error
    raise UsageError(
        f"{directory} holds no recorded judgements: answers.jsonl with judgments.jsonl, or with "
        "votes.jsonl and human.jsonl."
    )


_VOTES = ("answers.jsonl", "votes.jsonl", "human.jsonl")
_FILES = (*_VOTES, "judgments.jsonl")


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, if neither it nor any of them is too long."""
    if path.stat().st_size > FILE_BYTES:
        raise RecordedError(f"{path.name}: it has more than {FILE_BYTES} bytes")
    with path.open("rb") as file:
        number = 0
        while text := file.readline(LINE_BYTES + 1):
            number += 1
            if len(text) > LINE_BYTES:
                raise RecordedError(f"{path.name}:{number}: over {LINE_BYTES} bytes on one line")
            yield text


def _liars(data: Recorded, judges: tuple[int, ...], text: str | None) -> tuple[int, ...]:
    """The judges named, or the first of them if it is a number."""
    if text is None:
        return ()
    if text.isdecimal():
        if int(text) > len(judges):
            raise UsageError(f"--invert {text}: there are {len(judges)} judges.")
        return judges[: int(text)]
    names = {data.seats[seat]: seat for seat in judges}
    chosen = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in chosen if name not in names]
    if unknown or not chosen:
        raise UsageError(
            f"--invert: {line(unknown[0], 80) if unknown else 'nobody'} is no judge here; "
            f"there are {line(', '.join(names))}."
        )
    return tuple(names[name] for name in chosen)
