"""The configuration: defaults < TOML file < environment < flags, each value with its source.

One table, :data:`KEYS`, names every key. The key ``data_dir`` is ``data_dir`` in the file,
``SWARMD_DATA_DIR`` in the environment and ``--data-dir`` on the command line. Imports the
standard library only, for the command line starts fast.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from protocol import limits
from protocol.errors import ConfigError, DataDirError, MalformedIdError, SocketPathError
from protocol.ids import parse_peer

if TYPE_CHECKING:
    import argparse

Value = str | int | float | bool | tuple[str, ...]
Kind = Literal["text", "path", "integer", "number", "list", "switch"]

CONFIG_VARIABLE: Final = "SWARMD_CONFIG"
SOCKET_PATH_BYTES: Final = 107
"""What ``sun_path`` of ``struct sockaddr_un`` holds on Linux, less the final zero (unix(7))."""
_FILE_BYTES: Final = 1 << 20
_EXPECTED: Final[Mapping[Kind, str]] = {
    "text": "text",
    "path": "a path",
    "integer": "an integer",
    "number": "a number",
    "list": "a list of texts",
    "switch": "true or false",
}
_SWITCHES: Final = {"true": True, "1": True, "on": True, "false": False, "0": False, "off": False}


class _Invalid(Exception):
    """What is wrong with a value, worded to follow "must be"."""


@dataclass(frozen=True, slots=True)
class Key:
    """One configuration key.

    Attributes:
        name: in the file; the environment and flags derive theirs.
        kind: the type of its value.
        default: a value of that kind; of a path, relative to the data directory.
        help: one line for ``--help``.
        check: raises :class:`_Invalid` where a value of the right kind is not acceptable.
    """

    name: str
    kind: Kind
    default: Value
    help: str
    check: Callable[[Any], None] = lambda value: None

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return f"SWARMD_{self.name.upper()}"

    @property
    def flag(self) -> str:
        """Its command-line flag."""
        return "--" + self.name.replace("_", "-")


def _one_of(*allowed: str) -> Callable[[str], None]:
    def check(value: str) -> None:
        if value not in allowed:
            raise _Invalid(f"one of {', '.join(allowed)}")

    return check


def _within(low: float, high: float) -> Callable[[float], None]:
    def check(value: float) -> None:
        if not low <= value <= high:  # also refuses NaN
            raise _Invalid(f"from {low:g} to {high:g}")

    return check


def _name(value: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", value):
        raise _Invalid("1 to 64 letters, digits, dots, dashes or underscores")


def _label(value: str) -> None:
    if len(value) > limits.LABEL_CHARS or not value.isprintable():
        raise _Invalid(f"up to {limits.LABEL_CHARS} printable characters")


def _not_empty(value: str) -> None:
    if not value.strip():
        raise _Invalid("given")


def _path(value: str) -> None:
    if "\0" in value:
        raise _Invalid("a path, which holds no NUL character")


_ADDRESS: Final = re.compile(
    r"/(ip4/(?P<ip4>[0-9.]+)|ip6/(?P<ip6>[0-9A-Fa-f:.]+)|dns[46]?/[A-Za-z0-9._-]{1,253})"
    r"/tcp/(?P<port>[0-9]{1,5})(/p2p/(?P<peer>[A-Za-z0-9]+))?"
)


def _device(value: str) -> None:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", value):
        raise _Invalid("auto, cpu, mps, cuda or cuda:N")


def _addresses(values: tuple[str, ...]) -> None:
    import ipaddress

    for value in values:
        found = _ADDRESS.fullmatch(value)
        try:
            if found is None or int(found["port"]) > 0xFFFF:
                raise ValueError
            if found["ip4"]:
                ipaddress.IPv4Address(found["ip4"])
            if found["ip6"]:
                ipaddress.IPv6Address(found["ip6"])
            if found["peer"]:
                parse_peer(found["peer"])
        except (ValueError, MalformedIdError) as error:
            raise _Invalid(
                f"multiaddrs such as /ip4/192.0.2.7/tcp/4747, and {value!r} is not one"
            ) from error


def _listen(values: tuple[str, ...]) -> None:
    _addresses(values)
    for value in values:
        if "/p2p/" in value or value.startswith("/dns"):
            raise _Invalid(f"/ip4 or /ip6 addresses without /p2p, and {value!r} is not one")


def _announce(values: tuple[str, ...]) -> None:
    _addresses(values)
    for value in values:
        if value.endswith("/tcp/0"):
            raise _Invalid(f"multiaddrs with a port, and {value!r} has none")
        if "/p2p/" in value:
            raise _Invalid(f"multiaddrs without /p2p, and {value!r} has one")


def _bootstrap(values: tuple[str, ...]) -> None:
    _addresses(values)
    for value in values:
        if "/p2p/" not in value:
            raise _Invalid(
                f"multiaddrs that end in /p2p/PEER-ID, and {value!r} does not (the peer's "
                "`swarm status` prints its addresses)"
            )


def _sizes(value: str) -> None:
    parts = value.split(",") if value else []
    if len(parts) >= limits.STAGES or not all(re.fullmatch(r"[1-9][0-9]?", one) for one in parts):
        raise _Invalid(f"up to {limits.STAGES - 1} numbers below 100 between commas")


def _peers(values: tuple[str, ...]) -> None:
    if len(values) > limits.VERIFIERS:
        raise _Invalid(f"at most {limits.VERIFIERS} peer ids")
    for value in values:
        try:
            parse_peer(value)
        except MalformedIdError as error:
            raise _Invalid(f"peer ids, and {value!r} is none") from error


KEYS: Final[tuple[Key, ...]] = (
    Key("data_dir", "path", "", "directory of the key, the database and the receipts", _path),
    Key("socket", "path", "swarmd.sock", "control socket, by default in the data directory", _path),
    Key("passphrase_file", "path", "", "file whose first line opens the key", _path),
    Key("listen", "list", ("/ip4/0.0.0.0/tcp/4747",), "multiaddr to listen on", _listen),
    Key("bootstrap", "list", (), "multiaddr of a peer to connect to first", _bootstrap),
    Key("swarm", "text", "public", "name of the swarm; peers of another are refused", _name),
    Key("swarm_key", "path", "", "file with the key of a private swarm (64 hex digits)", _path),
    Key("relay", "switch", False, "public node for others: relays, finds, runs no model"),
    Key("public", "switch", False, "others can connect to this node; taken on trust"),
    Key("announce", "list", (), "multiaddr at which others reach this node", _announce),
    Key("lan", "switch", False, "this network only: peers by mDNS, nothing outside is asked"),
    Key("mdns", "switch", True, "look for peers on this network"),
    Key("upnp", "switch", True, "ask the router to let others in"),
    Key("dht", "switch", True, "look for peers in the distributed hash table"),
    Key("relaying", "switch", True, "relay for others when this node is public"),
    Key("stamp", "switch", True, "work for a stamp, so that all of a public swarm know this node"),
    Key("label", "text", "", "what others see this node called", _label),
    Key("model", "text", "bundled:general", "bundled name, directory or hub name", _not_empty),
    Key("backend", "text", "local", "what runs the model", _one_of("local", "scripted")),
    Key("device", "text", "auto", "auto, cpu, mps, cuda or cuda:N", _device),
    Key(
        "threads",
        "integer",
        0,
        "CPU threads of the model; 0: one if bundled, else all",
        _within(0, 1024),
    ),
    Key(
        "timeout_s",
        "number",
        60.0,
        "seconds a question may take",
        _within(0.1, limits.PHASE_MS / 1000),
    ),
    Key("min_answers", "integer", 2, "fewest answers to go on with", _within(1, limits.COMMITTEE)),
    Key(
        "calibration_rate",
        "number",
        0.1,
        "share of this node's rounds that are hidden tests",
        _within(0.0, 0.5),
    ),
    Key(
        "calibration_per_hour",
        "number",
        240.0,
        "tests an hour while idle, until peers are known",
        _within(0.0, 3600.0),
    ),
    Key("calibration_file", "path", "", "own questions with known answers (JSON lines)", _path),
    Key("trust", "list", (), "peer id of a verifier whose calibration counts as one's own", _peers),
    Key(
        "solo_guard",
        "text",
        "on",
        "on: ask one peer alone on topics where it beats the swarm",
        _one_of("on", "off"),
    ),
    Key(
        "own_weight",
        "number",
        1.0,
        "weight of verdicts on a judge's own answer, beside others",
        _within(0.0, 1.0),
    ),
    Key(
        "stop_at",
        "number",
        0.0,
        "confidence at which judging stops; 0: when all is judged",
        _within(0.0, 0.999999),
    ),
    Key(
        "stages", "text", "", "peers asked first, then up to, as 3,5 (trusted swarms only)", _sizes
    ),
    Key(
        "energy_per_token",
        "number",
        0.0,
        "joules a generated token takes, told to askers; 0: not told",
        _within(0.0, 1e6),
    ),
    Key(
        "log_level",
        "text",
        "info",
        "how much is logged",
        _one_of("debug", "info", "warning", "error"),
    ),
)
_BY_NAME: Final[Mapping[str, Key]] = {key.name: key for key in KEYS}


@dataclass(frozen=True, slots=True)
class Config:
    """A valid configuration. Paths are absolute; the fields are the keys of :data:`KEYS`.

    ``passphrase_file``, ``swarm_key`` and ``calibration_file`` are None where there is none.

    Attributes:
        sources: for every key ``default``, ``file PATH``, ``env NAME`` or ``flag --name``.
    """

    data_dir: Path
    socket: Path
    passphrase_file: Path | None
    listen: tuple[str, ...]
    bootstrap: tuple[str, ...]
    swarm: str
    swarm_key: Path | None
    relay: bool
    public: bool
    announce: tuple[str, ...]
    lan: bool
    mdns: bool
    upnp: bool
    dht: bool
    relaying: bool
    stamp: bool
    label: str
    model: str
    backend: str
    device: str
    threads: int
    timeout_s: float
    min_answers: int
    calibration_rate: float
    calibration_per_hour: float
    calibration_file: Path | None
    trust: tuple[str, ...]
    solo_guard: str
    own_weight: float
    stop_at: float
    stages: str
    energy_per_token: float
    log_level: str
    sources: Mapping[str, str]

    def rows(self) -> tuple[tuple[str, Value, str], ...]:
        """(key, value, source) of every key in the order of :data:`KEYS`; paths as text."""
        values = ((key.name, getattr(self, key.name)) for key in KEYS)
        return tuple((name, _plain(value), self.sources[name]) for name, value in values)


def load(
    flags: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None
) -> Config:
    """The configuration in force.

    Args:
        flags: parsed flags by key name (``vars()`` of an argparse namespace will do): text, or
            a list of texts for list keys; None where not given. ``config`` names the file; names
            that are no keys are left alone.
        environ: ``os.environ`` where None. Unknown ``SWARMD_…`` variables are left alone, for
            container platforms inject some.

    Raises:
        ConfigError: names the source, the key, what was expected and the nearest known key.
    """
    flags = flags or {}
    environ = os.environ if environ is None else environ
    values: dict[str, Value] = {key.name: key.default for key in KEYS}
    values["data_dir"] = str(_home_of("XDG_DATA_HOME", ".local/share", environ) / "swarmd")
    sources = dict.fromkeys(values, "default")

    def put(key: Key, value: Value, source: str) -> None:
        try:
            key.check(value)
        except _Invalid as problem:
            raise ConfigError(f"{source}: {key.name} must be {problem}.") from problem
        values[key.name], sources[key.name] = value, source

    file = _config_file(flags, environ)
    if file is not None:
        for name, raw in _read(file).items():
            put(*_from_file(file, name, raw))
    for key in KEYS:
        text = environ.get(key.variable)
        if text is not None:
            source = f"env {key.variable}"
            put(key, _from_text(key, text, source), source)
    for key in KEYS:
        given = flags.get(key.name)
        if given is not None:
            source = f"flag {key.flag}" if given is not False else f"flag --no-{key.flag[2:]}"
            put(key, _from_flag(key, given, source), source)

    here = Path.cwd()
    data_dir = _absolute(str(values["data_dir"]), environ, here)
    base = data_dir if sources["socket"] == "default" else here

    def optional(name: str) -> Path | None:
        return _absolute(str(values[name]), environ, here) if values[name] else None

    fields: dict[str, Any] = {
        **values,
        "data_dir": data_dir,
        "socket": _absolute(str(values["socket"]), environ, base),
        "passphrase_file": optional("passphrase_file"),
        "calibration_file": optional("calibration_file"),
        "swarm_key": optional("swarm_key"),
    }
    return Config(**fields, sources=sources)


def add_flags(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add ``--config`` and the flags of the keys ``names`` (all of them where none is named)."""
    parser.add_argument("--config", metavar="FILE", help="configuration file (TOML)")
    for key in KEYS:
        if names and key.name not in names:
            continue
        shown = ", ".join(key.default) if isinstance(key.default, tuple) else key.default
        default = f" (default: {shown})" if shown != "" and key.kind != "path" else ""
        if key.kind == "switch":
            import argparse

            parser.add_argument(
                key.flag,
                dest=key.name,
                action=argparse.BooleanOptionalAction,
                default=None,
                help=f"{key.help} (default: {'on' if key.default else 'off'})",
            )
        elif key.kind == "list":
            parser.add_argument(
                key.flag,
                dest=key.name,
                action="append",
                metavar="PEER" if key.check is _peers else "MULTIADDR",
                help=f"{key.help}; may be repeated{default}",
            )
        else:
            parser.add_argument(
                key.flag, dest=key.name, metavar=key.kind.upper(), help=key.help + default
            )


def prepare_data_dir(data_dir: Path) -> None:
    """Make ``data_dir`` (mode 0700) where it is missing, and see that files can be written there.

    Raises:
        DataDirError: with the reason and the next step.
    """
    probe = data_dir / f".probe-{os.getpid()}"
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        probe.unlink()
    except FileExistsError as error:
        raise DataDirError(f"{data_dir} is a file. Choose a directory with --data-dir.") from error
    except OSError as error:
        raise DataDirError(
            f"{data_dir} cannot be written: {error.strerror}. Run: mkdir -p {data_dir} && chmod "
            f"u+rwx {data_dir} — or choose another with --data-dir."
        ) from error


def read_swarm_key(path: Path | None) -> bytes | None:
    """The 32 bytes of a private swarm's key, None where there is no file.

    The file holds 64 hex digits, or is one of the kind that other libp2p programs write
    (``/key/swarm/psk/1.0.0/``, ``/base16/``, and the digits, each on a line).

    Raises:
        ConfigError: the file cannot be read, is open to other users, or holds no such key.
    """
    if path is None:
        return None
    try:
        with path.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            text = stream.read(1024).decode()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise ConfigError(f"swarm_key {path}: {why}.") from error
    if mode & 0o077:
        raise ConfigError(f"swarm_key {path} is open to others. Run: chmod 600 {path}")
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if lines[:2] == ["/key/swarm/psk/1.0.0/", "/base16/"]:
        lines = lines[2:]
    if len(lines) != 1 or not re.fullmatch("[0-9A-Fa-f]{64}", lines[0]):
        raise ConfigError(
            f"swarm_key {path} holds no key: 64 hex digits. Make one: openssl rand -hex 32"
        )
    return bytes.fromhex(lines[0])


def check_socket_path(path: Path) -> None:
    """See that the kernel takes ``path`` as the address of a socket.

    Raises:
        SocketPathError: it is too long.
    """
    size = len(os.fsencode(path))
    if size > SOCKET_PATH_BYTES:
        raise SocketPathError(
            f"{path} has {size} bytes, and the kernel takes at most {SOCKET_PATH_BYTES}. Choose a "
            "shorter one with --socket, for instance /tmp/swarmd-$USER/swarmd.sock."
        )


def _plain(value: Value | Path | None) -> Value:
    return str(value) if isinstance(value, Path) else "" if value is None else value


# --- sources ----------------------------------------------------------------------------------


def _home_of(variable: str, fallback: str, environ: Mapping[str, str]) -> Path:
    """An XDG base directory; the specification has relative values ignored."""
    given = environ.get(variable, "")
    return Path(given) if given.startswith("/") else _home(environ) / fallback


def _home(environ: Mapping[str, str]) -> Path:
    given = environ.get("HOME", "")
    if given.startswith("/"):
        return Path(given)
    try:
        return Path.home()
    except RuntimeError as error:
        raise ConfigError("There is no home directory. Set HOME, or give --data-dir.") from error


def _absolute(text: str, environ: Mapping[str, str], base: Path) -> Path:
    if text == "~" or text.startswith("~/"):
        text = str(_home(environ)) + text[1:]
    return Path(os.path.normpath(base / text))


def _config_file(flags: Mapping[str, object], environ: Mapping[str, str]) -> Path | None:
    named = flags.get("config") or environ.get(CONFIG_VARIABLE)
    if named:
        return _absolute(str(named), environ, Path.cwd())
    usual = _home_of("XDG_CONFIG_HOME", ".config", environ) / "swarmd" / "config.toml"
    return usual if os.path.exists(usual) else None


def _read(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            data = stream.read(_FILE_BYTES + 1)
        if len(data) > _FILE_BYTES:
            raise ConfigError(f"{file} is larger than {_FILE_BYTES} bytes.")
        return tomllib.loads(data.decode())
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file} is not TOML: {error}.") from error


def _from_file(file: Path, name: str, raw: object) -> tuple[Key, Value, str]:
    source = f"file {file}"
    key = _BY_NAME.get(name)
    if key is None:
        import difflib

        near = difflib.get_close_matches(name, _BY_NAME, n=1, cutoff=0.5)
        hint = f"Do you mean {near[0]!r}?" if near else f"There are {', '.join(_BY_NAME)}."
        raise ConfigError(f"{source}: there is no key {name!r}. {hint}")
    value: Value
    match key.kind, raw:
        case "text", str():
            value = raw
        case "path", str() if raw:
            # Relative to the file that says it, wherever the daemon is started.
            value = raw if raw.startswith("~") else str(file.parent / raw)
        case (("integer" | "number"), int()) if not isinstance(raw, bool):
            value = raw if key.kind == "integer" else float(min(raw, 1 << 62))
        case "number", float():
            value = raw
        case "switch", bool():
            value = raw
        case "list", list() if all(isinstance(item, str) for item in raw):
            value = tuple(raw)
        case _:
            raise ConfigError(
                f"{source}: {name} must be {_EXPECTED[key.kind]}, not {type(raw).__name__}."
            )
    return key, value, source


def _from_text(key: Key, text: str, source: str) -> Value:
    try:
        match key.kind:
            case "integer":
                return int(text)
            case "number":
                return float(text)
            case "list":
                return tuple(item.strip() for item in text.split(",") if item.strip())
            case "switch":
                if text.lower() not in _SWITCHES:
                    raise ValueError
                return _SWITCHES[text.lower()]
    except ValueError as error:
        raise ConfigError(
            f"{source}: {key.name} must be {_EXPECTED[key.kind]}, not {text!r}."
        ) from error
    if key.kind == "path" and not text:
        raise ConfigError(f"{source}: {key.name} must be a path, and it is empty.")
    return text


def _from_flag(key: Key, given: object, source: str) -> Value:
    if isinstance(given, list):
        return tuple(str(item) for item in given)
    if isinstance(given, bool):
        return given
    return _from_text(key, str(given), source)
