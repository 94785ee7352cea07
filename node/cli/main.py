"""The `swarm` command: its arguments, its exit codes, and the one place where errors end.

``swarm --help`` must feel instant, so this module imports argparse alone; each command is a
module that is imported when it runs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

_EPILOG = """\
Exit codes:
  0  answer, or done                 6  not enough peers can answer
  1  a fault in swarm itself         7  none of the answers is right
  2  wrong usage or configuration    8  the daemon failed
  3  no daemon                       9  a receipt, or a log, does not hold
  4  no consensus                  130  cancelled
  5  deadline passed, partial answer
 10  doctor: it works, with limits   11  doctor: trouble

The node itself is `swarmd`. Start one, then: swarm ask "What is 17 * 23?"
"""
_WIDTH = 100
_EXIT_FAULT = 1
_EXIT_CANCELLED = 130
_EXIT_PIPE = 141  # 128 + SIGPIPE, as the shell would have it


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        # Left to itself argparse imports shutil, and with it every compressor, to ask this.
        try:
            columns = os.get_terminal_size(1).columns
        except OSError:
            columns = _WIDTH
        super().__init__(prog, width=max(40, min(columns, _WIDTH)))


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=_Formatter, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"swarm: {message}\nTry `{self.prog} --help`.\n")


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version

        print(f"swarm {version('swarmd')}")
        parser.exit()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code (see ``swarm --help``)."""
    parser = _parser()
    try:
        args = parser.parse_args(argv)
        if args.run is None:
            args.parser.print_help()
            code = 0
        else:
            code = _run(args)
        # A reader that has gone shows only when the buffer is written: here, not after the end.
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return _EXIT_PIPE
    except KeyboardInterrupt:
        return _EXIT_CANCELLED
    return code


def _run(args: argparse.Namespace) -> int:
    from importlib import import_module

    from protocol.errors import SwarmError

    for stream in (sys.stdout, sys.stderr):
        # An answer may hold what the terminal's encoding lacks.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    module, function = args.run.split(":")
    try:
        code: int = getattr(import_module(f"node.cli.{module}"), function)(args)
    except SwarmError as error:
        from node.cli.text import clean

        print(f"swarm: {clean(error.user_text())}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        raise
    except Exception as error:
        if os.environ.get("SWARMD_TRACEBACK"):
            raise
        print(
            f"swarm: a fault in swarm itself: {type(error).__name__}: {error}\n"
            "SWARMD_TRACEBACK=1 shows where; please report it.",
            file=sys.stderr,
        )
        return _EXIT_FAULT
    return code


def _parser() -> _Parser:
    parser = _Parser(
        prog="swarm",
        description="Ask a swarm of models, and see what it did.",
        epilog=_EPILOG,
    )
    parser.set_defaults(run=None, parser=parser)
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    ask = _command(commands, "ask", "ask:run", "put a question to the swarm")
    ask.add_argument("question", nargs="+", metavar="QUESTION", help="the question; - reads stdin")
    ask.add_argument(
        "--timeout", type=_seconds, metavar="SECONDS", help="close with what is there by"
    )
    ask.add_argument("--min-answers", type=_count, metavar="N", help="fewest answers to go on with")
    ask.add_argument("--peers", type=_count, metavar="N", help="ask at most so many")
    ask.add_argument(
        "--stop",
        type=_chance,
        metavar="P",
        help="stop judging at this confidence, as 0.95; needs calibrated peers",
    )
    ask.add_argument("--max-tokens", type=_count, metavar="N", help="what an answer may take")
    ask.add_argument(
        "--energy", type=_positive, metavar="JOULES", help="for all answers, as peers advertise it"
    )
    _daemon_flags(ask)

    _daemon_flags(_command(commands, "status", "listings:status", "how this node is"))
    peers = _command(commands, "peers", "listings:peers", "the peers connected now")
    peers.add_argument("--all", action="store_true", help="those that are not connected, too")
    _daemon_flags(peers)
    _daemon_flags(
        _command(commands, "doctor", "doctor:run", "what is wrong with the connections, and why")
    )
    find = _command(commands, "find", "doctor:find", "where a peer is, as it says itself")
    find.add_argument("peer", metavar="PEER", help="its peer id; if connected, its end")
    find.add_argument("--dht", action="store_true", help="ask the DHT, even if it is connected")
    _daemon_flags(find)
    history = _command(commands, "history", "listings:history", "the latest questions")
    history.add_argument("--limit", type=_count, default=20, metavar="N", help="how many (20)")
    _daemon_flags(history)
    why = _command(commands, "why", "why:run", "why a round chose its answer")
    why.add_argument(
        "round", metavar="ROUND", help="the round's id, or how it begins, or a receipt file"
    )
    _daemon_flags(why)

    grade = _command(
        commands, "grade", "capability:grade", "say whether a round's answer was right"
    )
    grade.add_argument("round", metavar="ROUND", help="the round's id, or how it begins")
    grade.add_argument("grade", choices=("right", "wrong"), help="of the swarm's answer")
    grade.add_argument("--answer", metavar="TEXT", help="the right answer, where it is known")
    _daemon_flags(grade)
    calibrate = _command(
        commands, "calibrate", "capability:calibrate", "test the peers now with known questions"
    )
    calibrate.add_argument(
        "--rounds", type=_count, default=120, metavar="N", help="how many, up to 1000 (120)"
    )
    _daemon_flags(calibrate)
    capability = _command(
        commands,
        "capability",
        "capability:show",
        "what peers can do, how that is known, their weight",
    )
    capability.add_argument("peer", nargs="?", metavar="PEER", help="either end of its peer id")
    capability.add_argument("--topic", metavar="TOPIC", help="for questions of this topic")
    _daemon_flags(capability)

    _state_commands(_group(commands, "state", "what everybody has stated, as this node holds it"))
    _eval_commands(_group(commands, "eval", "rules and tests measured; no daemon needed"))

    receipt = _group(commands, "receipt", "check a receipt, with no node and no network")
    for name, about in (
        ("show", "what a receipt says"),
        ("verify", "check its signatures, schedule and arithmetic"),
        ("replay", "compute the winner again from its ballots"),
    ):
        command = _command(receipt, name, f"receipt:{name}", about)
        command.add_argument("file", metavar="FILE", help="a receipt file; - reads stdin")

    config = _group(commands, "config", "the configuration")
    show = _command(config, "show", "listings:config", "every value and where it comes from")
    show.add_argument("--running", action="store_true", help="as the running daemon has it")
    _daemon_flags(show)
    return parser


def _state_commands(commands: Any) -> None:
    show = _command(commands, "show", "state:show", "the logs of all authors; no daemon needed")
    show.add_argument("peer", nargs="?", metavar="PEER", help="all of one: an end of its peer id")
    verify = _command(
        commands, "verify", "state_verify:verify", "check every signature, ticket and rule again"
    )
    verify.add_argument(
        "file", nargs="?", metavar="FILE", help="exported logs, - for stdin; else the database"
    )
    verify.add_argument("--swarm-key", metavar="FILE", help="checks certificates; as of swarmd")
    export = _command(commands, "export", "state:export", "all logs in one file; no daemon needed")
    export.add_argument("file", metavar="FILE", help="where to; - writes to stdout")
    for command in (show, verify, export):
        command.add_argument("--swarm", metavar="NAME", help="if there are logs of several")
        command.add_argument("--data-dir", metavar="DIR", help="the node's data directory")
        command.add_argument("--config", metavar="FILE", help="the node's configuration file")
    take_in = _command(commands, "import", "state:take_in", "have the daemon take in a file")
    take_in.add_argument("file", metavar="FILE", help="exported logs")
    label = _command(commands, "label", "state:label", "what others see this node called")
    label.add_argument("text", nargs="+", metavar="TEXT", help="up to 64 characters; '' for none")
    for command in (take_in, label):
        _daemon_flags(command)


def _eval_commands(commands: Any) -> None:
    world = _command(commands, "world", "evaluate:world", "in a simulated world")
    world.add_argument("--world", choices=tuple("ABCDE"), default="A", help="which (A)")
    world.add_argument("--n", type=_count, metavar="N", help="peers (15; online 20)")
    world.add_argument("--k", type=_count, metavar="K", help="pairs a judge (3; online 6)")
    world.add_argument("--rounds", type=_count, metavar="R", help="how many (1500; online 480)")
    world.add_argument("--seed", type=_whole, metavar="S", help="(31000 + 1000 N + K; online 900)")
    world.add_argument(
        "--online", action="store_true", help="one swarm over all rounds, the later half reported"
    )
    world.add_argument(
        "--attack",
        default="none",
        metavar="KIND:SIZE",
        help="collude, invert, lazy, clones, camouflage, betray or leak with a fraction of the "
        "peers, as collude:.5, or sybil with a count of newcomers, as sybil:72 (none)",
    )

    recorded = _command(commands, "recorded", "evaluate:recorded", "on recorded judgements")
    recorded.add_argument("dir", metavar="DIR", help="with answers.jsonl and judgements")
    recorded.add_argument("--limit", type=_count, metavar="Q", help="the first Q questions")
    recorded.add_argument("--judges", type=_count, metavar="N", help="the first N judges")
    recorded.add_argument(
        "--invert", metavar="JUDGES", help="judges that lie: names between commas, or how many"
    )
    recorded.add_argument("--mode", metavar="MODE", help="of the judgements (triple)")

    detect = _command(
        commands, "detect", "detect:run", "whether a peer can tell hidden calibration (minutes)"
    )
    detect.add_argument(
        "--questions", type=_count, default=300, metavar="N", help="real ones (300)"
    )
    detect.add_argument("--rate", type=_share, default=0.2, help="of rounds, hidden ones (0.2)")
    detect.add_argument("--traffic", metavar="FILE", help="your own questions, one a line")
    detect.add_argument("--seed", type=int, default=1, metavar="S", help="of the questions (1)")
    stop = _command(commands, "stop", "evaluate:stop", "comparisons that an early stop saves")
    stop.add_argument("--world", choices=tuple("ABCDE"), default="A", help="which (A)")
    stop.add_argument("--n", type=_count, default=15, metavar="N", help="peers (15)")
    stop.add_argument("--rounds", type=_count, default=1000, metavar="R", help="how many (1000)")
    stop.add_argument("--at", type=_chance, default=0.8, metavar="P", help="confidence (0.8)")
    stop.add_argument("--seed", type=_whole, default=12, metavar="S", help="(12)")

    stake = _command(commands, "stake", "evaluate:stake", "what a Sybil attack costs and gains")
    stake.add_argument("--honest", type=_count, default=15, metavar="N", help="peers (15)")

    admission = _command(
        commands, "admission", "evaluate:admission", "errors and length of the admission test"
    )
    admission.add_argument("--world", choices=tuple("ABCDE"), default="A", help="which (A)")
    admission.add_argument("--judges", type=_count, default=500, metavar="N", help="tested (500)")
    admission.add_argument("--seed", type=_whole, default=1, metavar="S", help="(1)")


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.5 <= value <= 900:
        raise argparse.ArgumentTypeError("it takes 0.5 to 900 seconds")
    return value


def _positive(text: str) -> float:
    value = float(text)
    if not 0.0 < value <= 1e9:
        raise argparse.ArgumentTypeError("it takes more than 0")
    return value


def _chance(text: str) -> float:
    value = float(text)
    if not 0.0 < value < 1.0:
        raise argparse.ArgumentTypeError("it takes more than 0 and less than 1")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0.0 < value <= 0.5:
        raise argparse.ArgumentTypeError("it takes more than 0 and at most 0.5")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("it takes 1 or more")
    return value


def _whole(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError("it takes 0 or more")
    return value


def _group(commands: Any, name: str, about: str) -> Any:
    parser = commands.add_parser(name, help=about, description=about)
    parser.set_defaults(run=None, parser=parser)
    return parser.add_subparsers(title="commands", metavar="COMMAND")


def _command(commands: Any, name: str, run: str, about: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=about, description=about)
    parser.set_defaults(run=run)
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _daemon_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--socket", metavar="PATH", help="the daemon's control socket")
    parser.add_argument("--data-dir", metavar="DIR", help="the daemon's data directory")
    parser.add_argument("--config", metavar="FILE", help="the daemon's configuration file")


if __name__ == "__main__":
    sys.exit(main())
