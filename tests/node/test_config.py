"""Configuration: precedence, sources, and an error for every way to get it wrong."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node import config
from protocol.errors import EXIT_USAGE, ConfigError, DataDirError, SocketPathError

PEER = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path)}


def write(tmp_path: Path, text: str) -> dict[str, object]:
    file = tmp_path / "swarmd.toml"
    file.write_text(text)
    return {"config": str(file)}


def test_defaults_work_with_nothing_configured(tmp_path: Path, environ: dict[str, str]) -> None:
    found = config.load({}, environ)
    assert found.data_dir == tmp_path / ".local/share/swarmd"
    assert found.socket == found.data_dir / "swarmd.sock"
    assert found.listen == ("/ip4/0.0.0.0/tcp/4747",)
    assert (found.timeout_s, found.min_answers, found.swarm) == (60.0, 2, "public")
    assert found.passphrase_file is None
    assert (found.calibration_rate, found.calibration_per_hour) == (0.1, 240.0)
    assert (found.calibration_file, found.trust) == (None, ())
    assert (found.solo_guard, found.own_weight, found.energy_per_token) == ("on", 1.0, 0.0)
    assert set(found.sources.values()) == {"default"}


def test_the_xdg_directories_are_heeded(tmp_path: Path, environ: dict[str, str]) -> None:
    environ |= {"XDG_DATA_HOME": "/data", "XDG_CONFIG_HOME": str(tmp_path / "etc")}
    file = tmp_path / "etc" / "swarmd" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_text('swarm = "mine"')
    found = config.load({}, environ)
    assert found.data_dir == Path("/data/swarmd")
    assert (found.swarm, found.sources["swarm"]) == ("mine", f"file {file}")


def test_relative_xdg_directories_are_ignored(tmp_path: Path, environ: dict[str, str]) -> None:
    environ["XDG_DATA_HOME"] = "data"
    assert config.load({}, environ).data_dir == tmp_path / ".local/share/swarmd"


def test_flags_beat_environment_beats_file_beats_defaults(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    flags = write(tmp_path, 'swarm = "a"\nmodel = "a"\ndevice = "cpu"\n')
    environ |= {"SWARMD_SWARM": "b", "SWARMD_MODEL": "b"}
    found = config.load(flags | {"swarm": "c", "listen": None}, environ)
    assert (found.swarm, found.model, found.device, found.backend) == ("c", "b", "cpu", "local")
    assert [found.sources[key] for key in ("swarm", "model", "device", "backend")] == [
        "flag --swarm",
        "env SWARMD_MODEL",
        f"file {flags['config']}",
        "default",
    ]


def test_every_key_can_be_set_in_every_place(tmp_path: Path, environ: dict[str, str]) -> None:
    text: dict[str, str] = {
        "data_dir": "/d",
        "socket": "/s",
        "passphrase_file": "/p",
        "listen": "/ip6/::/tcp/1",
        "bootstrap": f"/dns4/seed.example/tcp/4747/p2p/{PEER}",
        "swarm": "s-1",
        "swarm_key": "/k",
        "relay": "on",
        "public": "true",
        "announce": "/ip4/203.0.113.7/tcp/4747",
        "lan": "off",
        "mdns": "false",
        "upnp": "0",
        "dht": "1",
        "relaying": "on",
        "stamp": "off",
        "label": "the box in the cellar",
        "model": "/models/m",
        "backend": "scripted",
        "device": "cpu",
        "threads": "2",
        "timeout_s": "1.5",
        "min_answers": "3",
        "calibration_rate": "0.2",
        "calibration_per_hour": "6",
        "calibration_file": "/q.jsonl",
        "trust": PEER,
        "solo_guard": "off",
        "own_weight": "0.25",
        "energy_per_token": "0.5",
        "stop_at": "0.95",
        "stages": "3,5",
        "log_level": "debug",
    }
    assert set(text) == {key.name for key in config.KEYS}
    by_env = config.load({}, environ | {f"SWARMD_{k.upper()}": v for k, v in text.items()})
    parser = argparse.ArgumentParser()
    config.add_flags(parser)
    switches = {key.name: key for key in config.KEYS if key.kind == "switch"}
    on = {name: text[name] in ("on", "true", "1") for name in switches}
    words = [w for k, v in text.items() if k not in on for w in ("--" + k.replace("_", "-"), v)]
    words += [f"--{'' if turned else 'no-'}{name}" for name, turned in on.items()]
    by_flag = config.load(vars(parser.parse_args(words)), environ)
    lists = [key.name for key in config.KEYS if key.kind == "list"]
    numbers = [key.name for key in config.KEYS if key.kind in ("integer", "number")]
    toml = "\n".join(
        f"{k} = [{v!r}]"
        if k in lists
        else f"{k} = {v}"
        if k in numbers
        else f"{k} = {str(on[k]).lower()}"
        if k in on
        else f"{k} = {v!r}"
        for k, v in text.items()
    )
    by_file = config.load(write(tmp_path, toml), environ)
    assert [row[:2] for row in by_env.rows()] == [row[:2] for row in by_flag.rows()]
    assert [row[:2] for row in by_env.rows()] == [row[:2] for row in by_file.rows()]
    assert {name: getattr(by_env, name) for name in on} == on
    assert by_env.swarm_key == Path("/k")
    assert (by_env.threads, by_env.timeout_s, by_env.listen) == (2, 1.5, ("/ip6/::/tcp/1",))
    assert (by_env.calibration_rate, by_env.calibration_per_hour) == (0.2, 6.0)
    assert (by_env.calibration_file, by_env.trust) == (Path("/q.jsonl"), (PEER,))
    assert (by_env.solo_guard, by_env.own_weight, by_env.energy_per_token) == ("off", 0.25, 0.5)
    assert all(source.startswith("flag --") for source in by_flag.sources.values())


def test_lists_repeat_as_flags_and_are_comma_separated_in_the_environment(
    environ: dict[str, str],
) -> None:
    parser = argparse.ArgumentParser()
    config.add_flags(parser, "listen")
    both = ("/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/2")
    flags = vars(parser.parse_args(["--listen", both[0], "--listen", both[1]]))
    assert config.load(flags, environ).listen == both
    environ["SWARMD_LISTEN"] = f"{both[0]}, {both[1]},"
    assert config.load({}, environ).listen == both
    environ["SWARMD_LISTEN"] = ""
    assert config.load({}, environ).listen == ()


def test_verifiers_are_trusted_by_name(environ: dict[str, str]) -> None:
    other = "12D3KooWAhHpTXXpM8VvBX4jFsnuXvVsmzphsNTi57fSHRqVTzGp"
    parser = argparse.ArgumentParser()
    config.add_flags(parser, "trust")
    flags = vars(parser.parse_args(["--trust", PEER, "--trust", other]))
    assert config.load(flags, environ).trust == (PEER, other)
    assert config.load({}, environ | {"SWARMD_TRUST": f"{PEER}, {other},"}).trust == (PEER, other)
    assert config.load({}, environ | {"SWARMD_TRUST": ""}).trust == ()


def test_a_questions_file_is_relative_to_where_it_is_said(
    tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = write(tmp_path, 'calibration_file = "own/questions.jsonl"\n')
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert config.load(flags, environ).calibration_file == tmp_path / "own/questions.jsonl"
    by_flag = config.load({"calibration_file": "q.jsonl"}, environ)
    assert by_flag.calibration_file == elsewhere / "q.jsonl"
    assert dict(row[:2] for row in by_flag.rows())["calibration_file"] == str(elsewhere / "q.jsonl")


def test_paths_are_relative_to_where_they_are_said(
    tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = write(tmp_path, 'data_dir = "data"\nsocket = "~/run/s.sock"\n')
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    found = config.load(flags, environ)
    assert (found.data_dir, found.socket) == (tmp_path / "data", tmp_path / "run/s.sock")
    assert config.load({"data_dir": "../x"}, environ).data_dir == tmp_path / "x"
    assert config.load({"data_dir": "x"}, environ).socket == elsewhere / "x" / "swarmd.sock"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("lisen = []", "Do you mean 'listen'"),
        ("zzz = 1", "There are data_dir"),
        ("[swarm]\nname = 'x'", "swarm must be text, not dict"),
        ("swarm = 1", "swarm must be text, not int"),
        ("swarm = 'a b'", "swarm must be 1 to 64 letters"),
        ("threads = true", "threads must be an integer, not bool"),
        ("threads = 1.5", "threads must be an integer, not float"),
        ("threads = -1", "threads must be from 0 to 1024"),
        ("timeout_s = 'x'", "timeout_s must be a number, not str"),
        ("timeout_s = nan", "timeout_s must be from"),
        ("timeout_s = inf", "timeout_s must be from"),
        (f"timeout_s = {10**400}", "timeout_s must be from"),
        ("min_answers = 0", "min_answers must be from 1"),
        ("listen = '/ip4/0.0.0.0/tcp/1'", "listen must be a list of texts, not str"),
        ("listen = [1]", "listen must be a list of texts"),
        ("listen = ['0.0.0.0:80']", "multiaddrs such as"),
        ("listen = ['/ip4/999.0.0.1/tcp/1']", "multiaddrs such as"),
        ("listen = ['/ip4/127.0.0.1/tcp/70000']", "multiaddrs such as"),
        ("listen = ['/dns/host/tcp/1']", "/ip4 or /ip6 addresses"),
        ("bootstrap = ['/ip4/127.0.0.1/tcp/1']", "/p2p/PEER-ID"),
        ("bootstrap = ['/ip4/127.0.0.1/tcp/1/p2p/12D3']", "multiaddrs such as"),
        ("backend = 'magic'", "backend must be one of local, scripted"),
        ("log_level = 'loud'", "log_level must be one of"),
        ("model = ''", "model must be given"),
        ("data_dir = ''", "data_dir must be a path"),
        ("calibration_rate = 0.51", "calibration_rate must be from 0 to 0.5"),
        ("calibration_rate = -0.1", "calibration_rate must be from 0 to 0.5"),
        ("calibration_rate = nan", "calibration_rate must be from"),
        ("calibration_rate = 'often'", "calibration_rate must be a number, not str"),
        ("calibration_rate = true", "calibration_rate must be a number, not bool"),
        ("calibration_per_hour = 3601", "calibration_per_hour must be from 0 to 3600"),
        ("calibration_per_hour = -1", "calibration_per_hour must be from"),
        ("calibration_per_hour = inf", "calibration_per_hour must be from"),
        ("calibration_file = ''", "calibration_file must be a path"),
        ('calibration_file = "a\\u0000b"', "calibration_file must be a path, which holds no NUL"),
        ("trust = '12D3'", "trust must be a list of texts, not str"),
        ("trust = ['12D3']", "trust must be peer ids, and '12D3' is none"),
        (f"trust = ['{PEER}', 'x']", "and 'x' is none"),
        (f"trust = {[PEER] * 65}", "trust must be at most 64 peer ids"),
        ("solo_guard = true", "solo_guard must be text, not bool"),
        ("solo_guard = 'yes'", "solo_guard must be one of on, off"),
        ("own_weight = 1.01", "own_weight must be from 0 to 1"),
        ("own_weight = -0.01", "own_weight must be from 0 to 1"),
        ("energy_per_token = -1", "energy_per_token must be from 0"),
        ("energy_per_token = 1e7", "energy_per_token must be from 0"),
        ('socket = "a\\u0000b"', "no NUL"),
        ("data_dir = 3", "data_dir must be a path, not int"),
        ("= 1", "is not TOML"),
        ("a = " + "[" * 5000, "is not TOML"),
    ],
)
def test_a_mistake_in_the_file_names_file_and_key(
    tmp_path: Path, environ: dict[str, str], text: str, says: str
) -> None:
    flags = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        config.load(flags, environ)
    assert says in str(caught.value)
    assert str(flags["config"]) in str(caught.value)
    assert caught.value.exit_code == EXIT_USAGE


@pytest.mark.parametrize(
    ("flags", "extra", "says"),
    [
        ({"threads": "two"}, {}, "flag --threads: threads must be an integer, not 'two'"),
        ({}, {"SWARMD_TIMEOUT_S": "soon"}, "env SWARMD_TIMEOUT_S: timeout_s must be a number"),
        ({}, {"SWARMD_SOCKET": ""}, "env SWARMD_SOCKET: socket must be a path"),
        ({"listen": ["x"]}, {}, "flag --listen: listen must be multiaddrs"),
        ({"trust": ["x"]}, {}, "flag --trust: trust must be peer ids, and 'x' is none"),
        ({"own_weight": "half"}, {}, "flag --own-weight: own_weight must be a number, not 'half'"),
        ({}, {"SWARMD_TRUST": f"{PEER},x"}, "env SWARMD_TRUST: trust must be peer ids"),
        ({}, {"SWARMD_SOLO_GUARD": "maybe"}, "env SWARMD_SOLO_GUARD: solo_guard must be one of"),
        ({}, {"SWARMD_CALIBRATION_FILE": ""}, "calibration_file must be a path, and it is empty"),
    ],
)
def test_a_mistake_elsewhere_names_its_source(
    environ: dict[str, str], flags: dict[str, object], extra: dict[str, str], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        config.load(flags, environ | extra)


def test_a_file_that_is_named_must_be_there(tmp_path: Path, environ: dict[str, str]) -> None:
    for flags, extra in (
        ({"config": str(tmp_path / "no.toml")}, {}),
        ({}, {"SWARMD_CONFIG": str(tmp_path / "no.toml")}),
        ({"config": str(tmp_path)}, {}),
    ):
        with pytest.raises(ConfigError, match=r"cannot be read"):
            config.load(flags, environ | extra)


def test_a_file_that_is_no_text_or_too_large_is_refused(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    file = tmp_path / "c.toml"
    file.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not TOML"):
        config.load({"config": str(file)}, environ)
    file.write_bytes(b"#" * (2 << 20))
    with pytest.raises(ConfigError, match="larger"):
        config.load({"config": str(file)}, environ)


def test_unknown_variables_are_left_alone(environ: dict[str, str]) -> None:
    environ["SWARMD_PORT"] = "tcp://10.0.0.1:4747"
    config.load({}, environ)


@given(st.text())
def test_any_text_as_toml_is_a_configuration_or_a_typed_error(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzz.toml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        config.load({"config": str(file)}, {"HOME": "/home/x"})
    except ConfigError as error:
        refusal = str(error)
    else:
        return
    assert str(file) in refusal


@given(st.sampled_from(config.KEYS), st.text(max_size=40))
def test_any_text_in_the_environment_is_a_value_or_a_typed_error(
    key: config.Key, text: str
) -> None:
    try:
        said = config.load({}, {"HOME": "/nowhere", key.variable: text}).sources[key.name]
    except ConfigError as error:
        said = str(error)
    assert f"env {key.variable}" in said


def test_the_data_directory_is_made_private(tmp_path: Path) -> None:
    data_dir = tmp_path / "a" / "b"
    config.prepare_data_dir(data_dir)
    assert data_dir.stat().st_mode & 0o777 == 0o700
    assert list(data_dir.iterdir()) == []
    config.prepare_data_dir(data_dir)


def test_a_data_directory_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataDirError, match="--data-dir"):
        config.prepare_data_dir(tmp_path / "file")
    with pytest.raises(DataDirError, match="--data-dir"):
        config.prepare_data_dir(tmp_path / "file" / "below")


def test_an_unwritable_data_directory_is_told_with_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*arguments: object) -> int:
        raise OSError(30, "Read-only file system")

    # Not by its mode: tests may run as root, whom no mode stops.
    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(DataDirError, match=r"Read-only.*mkdir -p .*--data-dir"):
        config.prepare_data_dir(tmp_path)


def test_a_socket_path_that_is_too_long_names_length_and_limit() -> None:
    config.check_socket_path(Path("/" + "x" * 106))
    with pytest.raises(SocketPathError, match=r"108 bytes.* 107\..*--socket"):
        config.check_socket_path(Path("/" + "x" * 107))
    with pytest.raises(SocketPathError, match="109 bytes"):
        config.check_socket_path(Path("/" + "é" * 54))


def test_the_configuration_loads_without_the_daemon_s_libraries() -> None:
    script = (
        "import sys, node.config; node.config.load({}, {'HOME': '/x'})\n"
        "print({'trio', 'libp2p', 'torch', 'msgspec', 'nacl'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout == b"set()\n"


@pytest.mark.parametrize("device", ["tpu", "cuda:", "cuda:x", "CPU"])
def test_a_device_that_is_none(device: str) -> None:
    with pytest.raises(ConfigError, match="device"):
        config.load({"device": device}, {"HOME": "/"})
