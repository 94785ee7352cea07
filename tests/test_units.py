"""The systemd units: what they start exists, and systemd understands them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from node import daemon
from node.config import KEYS
from node.daemon import _parser as swarmd
from protocol import limits

ROOT = Path(__file__).resolve().parent.parent
UNITS = sorted((ROOT / "packaging").glob("*.service"))

units = pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)


def settings(unit: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        name, is_setting, value = line.partition("=")
        if is_setting and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


@units
def test_what_it_starts_is_understood(unit: Path) -> None:
    (command,) = settings(unit)["ExecStart"]
    program, *arguments = shlex.split(command)
    assert Path(program).name == "swarmd"
    options = vars(swarmd().parse_args(arguments))
    assert bool(options["relay"]) == ("relay" in unit.name)


@units
def test_it_can_write_where_its_data_is(unit: Path) -> None:
    """ProtectSystem=strict leaves it nothing but its state directory."""
    found = settings(unit)
    (data_dir,) = (one for one in found["Environment"] if one.startswith("SWARMD_DATA_DIR="))
    assert data_dir == f"SWARMD_DATA_DIR=/var/lib/{found['StateDirectory'][0]}"


@units
def test_a_wrong_configuration_is_not_tried_again(unit: Path, tmp_path: Path) -> None:
    (code,) = settings(unit)["RestartPreventExitStatus"]
    assert daemon.main(["--swarm", "no/name", "--data-dir", str(tmp_path)]) == int(code)


@units
def test_it_may_open_as_many_files_as_it_takes_connections(unit: Path) -> None:
    connections = 2 * limits.PEERS + limits.KNOCKS
    assert int(settings(unit)["LimitNOFILE"][0]) > 2 * connections


@units
def test_it_may_ask_for_the_machines_addresses(unit: Path) -> None:
    """getifaddrs(3) is a netlink socket."""
    (families,) = settings(unit)["RestrictAddressFamilies"]
    assert set(families.split()) == {"AF_INET", "AF_INET6", "AF_NETLINK", "AF_UNIX"}


@units
def test_it_says_where_its_settings_are(unit: Path) -> None:
    (file,) = settings(unit)["EnvironmentFile"]
    assert file.startswith("-/etc/swarmd/")
    pages = (ROOT / "docs" / "relay.md").read_text()
    assert file.removeprefix("-") in pages
    named = set(re.findall(r"SWARMD_[A-Z_]+[A-Z]", pages))
    assert named <= {key.variable for key in KEYS}


@units
def test_systemd_understands_it(unit: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd here")
    # It wants to see the program, which is not installed where tests run.
    text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text(), flags=re.MULTILINE)
    copy = tmp_path / unit.name
    copy.write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True)
    complaints = [line for line in done.stderr.splitlines() if unit.name in line]
    assert complaints == []
    assert done.returncode == 0, done.stderr
