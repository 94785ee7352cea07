"""What the documents say of the code holds: names, defaults, limits, commands, links."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from node import config, daemon
from node.cli import doctor as doctor_command
from node.cli import main as command_line
from node.config import KEYS, Key
from protocol import limits, methods
from protocol.errors import EXIT_ANSWER

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md")))
OTHER_VARIABLES = {config.CONFIG_VARIABLE, "SWARMD_PASSPHRASE", "SWARMD_TRACEBACK", "SWARMD_NAME"}

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def code_lines(text: str) -> Iterator[str]:
    """The lines of code blocks, fenced or indented."""
    fenced = False
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            yield line.strip()


def without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def spans(text: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`\n]+)`", without_blocks(text))


def tables(page: str, *heads: str) -> list[list[list[str]]]:
    """The rows of each table on ``page`` whose header begins with ``heads``."""
    lines = [cells(line) for line in (DOCS / page).read_text().splitlines()]
    found = [at for at, line in enumerate(lines) if line[: len(heads)] == list(heads)]
    return [list(takewhile(bool, lines[head + 2 :])) for head in found]


def table(page: str, *heads: str) -> list[list[str]]:
    """The rows of the only such table."""
    (found,) = tables(page, *heads)
    return found


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []


def named(cell: str) -> str:
    """The one name in a cell."""
    (name,) = re.findall(r"`([^`]+)`", cell)
    return str(name)


# --- links ----------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    titles = re.findall(r"^#+ (.+)$", without_blocks(page.read_text()), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pages
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", without_blocks(page.read_text())):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(found), target


def test_every_page_is_linked_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    missing = [page.name for page in DOCS.glob("*.md") if f"(docs/{page.name})" not in readme]
    assert missing == []


@pages
def test_scripts_that_are_named_exist(page: Path) -> None:
    for name in re.findall(r"\bscripts/[a-z_]+(?:\.py)?", page.read_text()):
        assert (ROOT / name).is_file(), name


@pytest.mark.parametrize("picture", sorted(DOCS.glob("*.svg")), ids=lambda path: path.name)
def test_pictures_are_whole_and_shown(picture: Path) -> None:
    assert ElementTree.parse(picture).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert any(f"{picture.name})" in page.read_text() for page in PAGES)


# --- configuration --------------------------------------------------------------------------------


def shown(key: Key) -> str:
    """A default as the table has it."""
    special = {"data_dir": "`~/.local/share/swarmd`", "socket": "`swarmd.sock` in it"}
    if key.name in special:
        return special[key.name]
    if isinstance(key.default, bool):
        return "on" if key.default else "off"
    if isinstance(key.default, int | float):
        return f"{key.default:g}"
    text = ", ".join(key.default) if isinstance(key.default, tuple) else key.default
    return f"`{text}`" if text else "–"


def test_every_key_is_documented_with_its_default() -> None:
    documented = [(named(row[0]), row[1]) for row in table("configuration.md", "key", "default")]
    assert documented == [(key.name, shown(key)) for key in KEYS]


def test_variables_that_are_named_exist() -> None:
    known = {key.variable for key in KEYS} | OTHER_VARIABLES
    for page in (*PAGES, *(ROOT / "packaging").iterdir()):
        assert set(re.findall(r"\bSWARMD_[A-Z]+(?:_[A-Z]+)*", page.read_text())) <= known, page


# --- commands -------------------------------------------------------------------------------------


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from parsers(child)


SWARM = command_line._parser()
SWARMD = daemon._parser()
OPTIONS = {
    option
    for root in (SWARM, SWARMD)
    for parser in parsers(root)
    for action in parser._actions
    for option in action.option_strings
}


def test_every_command_is_in_the_readme() -> None:
    words = {word for span in spans((ROOT / "README.md").read_text()) for word in span.split()}
    words = {part.strip("\\") for word in words for part in word.split("|")}
    names = {name for parser in parsers(SWARM) for name in parser.prog.split()[1:]}
    assert names <= words


def commands(page: Path) -> list[list[str]]:
    """The arguments of each call of swarm or swarmd in a code block."""
    found = []
    for line in code_lines(page.read_text()):
        match = re.match(r"(?:sudo )?(?:\S*/)?(swarmd?) (?!=)(.*)", line)
        if match:
            found.append([match[1], *shlex.split(match[2], comments=True)])
    return found


@pages
def test_commands_are_understood(page: Path) -> None:
    for name, *arguments in commands(page):
        if name == "swarmd" and arguments[-1] == "…":
            arguments.pop()
        try:
            (SWARM if name == "swarm" else SWARMD).parse_args(arguments)
        except SystemExit:
            pytest.fail(f"{name} {shlex.join(arguments)}")


@pages
def test_flags_that_are_named_exist(page: Path) -> None:
    for span in spans(page.read_text()):
        if re.match(r"swarmd? ", span):
            assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", span)) <= OPTIONS, span


# --- the doctor -----------------------------------------------------------------------------------


def findings() -> set[tuple[str, str]]:
    """What node/doctor.py can find, as (about, level)."""
    tree = ast.parse((ROOT / "node" / "doctor.py").read_text())
    found = set()
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "Finding":
            level, about = call.args[:2]
            assert isinstance(about, ast.Constant)
            # Either a text, or one of two, which may be such a choice again.
            texts = [level]
            while texts:
                one = texts.pop()
                if isinstance(one, ast.IfExp):
                    texts += [one.body, one.orelse]
                else:
                    assert isinstance(one, ast.Constant)
                    found.add((str(about.value), str(one.value)))
    return found


def test_every_finding_is_documented() -> None:
    rows = table("doctor.md", "finding", "level")
    assert {(named(row[0]), row[1]) for row in rows} == findings()


def test_the_exit_codes_of_the_doctor() -> None:
    documented = {named(row[0]): int(row[2]) for row in table("doctor.md", "`health`", "mark")}
    expected = {one: doctor_command._EXITS.get(one, EXIT_ANSWER) for one in documented}
    assert documented == expected
    assert set(doctor_command._MARKS.items()) == {
        (named(row[0]), row[1]) for row in table("doctor.md", "`health`", "mark")
    }


def fields(kind: type[msgspec.Struct]) -> list[str]:
    return [field.name for field in msgspec.structs.fields(kind)]


def test_the_json_of_the_doctor() -> None:
    rows = {named(row[0]): row[1] for row in table("doctor.md", "field")}
    assert list(rows) == fields(methods.Doctor)
    for name, kind in (
        ("findings", methods.Finding),
        ("reach", methods.Reachability),
        ("bootstraps", methods.BootstrapRow),
        ("relays", methods.RelayRow),
        ("relaying", methods.Relaying),
    ):
        assert set(fields(kind)) <= set(re.findall(r"`(\w+)`", rows[name])), name


def test_the_json_of_the_peers() -> None:
    text = (DOCS / "doctor.md").read_text()
    part = text[text.index("`swarm peers --json` has") :]
    assert set(fields(methods.PeerRow)) <= set(re.findall(r"`(\w+)`", part))


# --- the mesh, the ledger -------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["mesh.md", "ledger.md"])
def test_the_limits_are_those_of_the_code(page: str) -> None:
    units = {"": 1, "s": 1, "KiB": 1 << 10, "MiB": 1 << 20}
    for row in table(page, "limit"):
        number, _, unit = row[1].partition(" ")
        assert getattr(limits, named(row[0])) == int(number) * units[unit], row


def test_the_json_of_the_logs() -> None:
    rows = {
        row[0]: set(re.findall(r"`(\w+)`", row[1])) for row in table("ledger.md", "`--json` of")
    }
    for name, kind in (
        ("`import`", methods.StateImported),
        ("`label`", methods.StateLabelled),
        ("`status`", methods.Ledger),
    ):
        assert rows[name] - {"ledger"} == set(fields(kind)), name


def test_every_attack_names_tests_that_exist() -> None:
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    mesh, ledger = tables("attacks.md", "tried")
    for row in mesh + ledger:
        tests = re.findall(r"`(test_\w+)`", row[2])
        assert tests, row
        assert set(tests) <= defined, set(tests) - defined


@pytest.mark.parametrize(
    "room", ["protocol", "swarm", "swarm/ledger", "node", "node/mesh", "node/replication"]
)
def test_every_module_has_its_place(room: str) -> None:
    words = set(re.findall(r"[\w]+", (DOCS / "architecture.md").read_text()))
    modules = {path.stem for path in (ROOT / room).glob("*.py")} - {"__init__"}
    assert modules <= words
