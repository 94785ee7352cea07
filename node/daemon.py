"""`swarmd`: puts the node together, and runs it until it is told to stop."""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import json
import logging
import os
import random
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

import trio

from node import config as configuration
from node.backends.base import Backend, ModelInfo
from node.config import Config
from node.identity import KEY_FILE, DataDirLock, Identity, load_or_create, read_passphrase
from protocol.envelope import KeySigner
from protocol.errors import EXIT_ANSWER, EXIT_CANCELLED, ConfigError, SwarmError
from protocol.ids import parse_peer, peer_text
from protocol.ledger import Profile
from protocol.messages import Model
from swarm.calibration import items

if TYPE_CHECKING:
    from node.mesh.base import Mesh

_log = logging.getLogger("swarmd")

VERSION: Final = importlib.metadata.version("swarmd")
AGENT: Final = f"swarmd/{VERSION}"

MakeMesh = Callable[[Config, Identity], "Mesh"]
Load = Callable[[Config], Awaitable[Backend]]


def libp2p_mesh(settings: Config, identity: Identity) -> Mesh:
    """The mesh over py-libp2p. Imported here: it takes a second that ``--check`` need not wait."""
    from node.mesh.host import Libp2pMesh
    from node.mesh.peering import Settings

    return Libp2pMesh(
        identity.seed,
        Settings(
            listen=settings.listen,
            bootstraps=settings.bootstrap,
            swarm=settings.swarm,
            agent=AGENT,
            swarm_key=configuration.read_swarm_key(settings.swarm_key),
            announce=settings.announce,
            public=settings.public or settings.relay,
            relays=settings.relaying,
            lan_only=settings.lan,
            mdns=settings.mdns or settings.lan,
            upnp=settings.upnp and not settings.lan,
            dht=settings.dht and not settings.lan,
            cache=settings.data_dir / "peers.cache",
        ),
    )


async def load_backend(settings: Config) -> Backend:
    """The configured backend, its model loaded.

    Raises:
        ModelNotFoundError, BackendError: it cannot be.
    """
    if settings.relay:
        from node.backends.nothing import NoModel

        return NoModel()
    if settings.backend == "scripted":
        from node.backends.scripted import ScriptedBackend

        return ScriptedBackend.load(Path(settings.model))
    try:
        from node.backends.local import LocalBackend
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"This installation has no {error.name}. A relay needs --relay; for a model: "
            "pip install 'swarmd[local]', as scripts/setup does."
        ) from error

    return await LocalBackend.load(settings.model, device=settings.device, threads=settings.threads)


async def run(
    settings: Config,
    ready: TextIO,
    make_mesh: MakeMesh = libp2p_mesh,
    load: Load = load_backend,
) -> None:
    """Run a node until SIGINT, SIGTERM or ``shutdown``.

    Args:
        ready: gets one line of JSON once the node serves: its peer id, addresses and socket.
        make_mesh: the way to other peers.
        load: the model.

    Raises:
        SwarmError: it cannot start; says why and what to do.
    """
    configuration.prepare_data_dir(settings.data_dir)
    configuration.check_socket_path(settings.socket)
    with DataDirLock.acquire(settings.data_dir) as lock:
        passphrase = read_passphrase(settings.passphrase_file, os.environ)
        identity = load_or_create(settings.data_dir / KEY_FILE, passphrase)
        backend = await load(settings)
        try:
            await _serve(settings, lock, identity, backend, make_mesh(settings, identity), ready)
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(5):
                await backend.aclose()


async def _serve(
    settings: Config,
    lock: DataDirLock,
    identity: Identity,
    backend: Backend,
    mesh: Mesh,
    ready: TextIO,
) -> None:
    from node.calibrator import Calibrator
    from node.conduct import Conduct
    from node.control import Control
    from node.coordinator import Coordinator
    from node.herald import Herald
    from node.knowledge import Knowledge
    from node.peer_records import PeerRecords
    from node.planner import Planner, Terms
    from node.reader import Reader
    from node.replication.assembly import open_replication
    from node.router import Router
    from node.rpc_server import RpcServer
    from node.store import Store
    from node.trial_records import TrialRecords
    from node.worker import Worker
    from swarm.examiner import TRAFFIC
    from swarm.registry import Registry

    # What is loaded by now stays. To look through it for garbage, again and again, would keep
    # everything else waiting: for 60 ms without torch, and longer with it.
    gc.collect()
    gc.freeze()
    info = backend.describe()
    signer = KeySigner(identity.seed)
    model = _model(info)
    energy = round(1e6 * settings.energy_per_token)
    serves = not settings.relay
    profile = Profile(model, info.parameters, info.context_tokens, serves, energy, settings.label)
    registry = Registry(signer.peer, profile)
    stop = trio.Event()
    async with (
        Store.open(settings.data_dir) as store,
        open_replication(
            settings.data_dir,
            mesh,
            signer,
            settings.swarm,
            configuration.read_swarm_key(settings.swarm_key),
            settings.stamp,
            random.Random(os.urandom(32)),
        ) as replication,
        mesh.running(),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(_stop_on_signal, stop)
        records = PeerRecords(store)
        own = replication.own
        conduct = await Conduct.load(signer.peer, records, own.testify)
        nursery.start_soon(conduct.run)
        private = await _private_items(settings.calibration_file)
        trusted = [parse_peer(one) for one in settings.trust]
        questions = await store.questions(TRAFFIC)
        knowledge = await Knowledge.load(TrialRecords(store), private, trusted, questions)
        planner = Planner(
            registry,
            conduct,
            knowledge,
            settings.swarm,
            signer.peer,
            settings.solo_guard == "on",
            settings.own_weight,
        )
        terms = Terms(
            settings.timeout_s,
            settings.min_answers,
            stop_at=settings.stop_at or None,
            stages=tuple(map(int, settings.stages.split(","))) if settings.stages else (),
        )
        coordinator = Coordinator(
            mesh.send, store, signer, registry, planner, knowledge, conduct, terms
        )
        calibrator = Calibrator(
            coordinator,
            knowledge,
            registry,
            terms,
            settings.calibration_rate,
            settings.calibration_per_hour,
            os.urandom(32),
        )
        coordinator.on_question = calibrator.asked
        coordinator.on_answer = calibrator.answered
        worker = Worker(
            nursery,
            mesh.send,
            None if settings.relay else backend,
            model,
            signer,
            settings.swarm,
            records,
            conduct,
        )
        reader = Reader(signer.peer, registry, knowledge.hearsay, conduct, coordinator)
        replication.changed = reader.changed
        own.describe(profile)
        # Before the router, which tells it who is linked.
        await nursery.start(replication.run)
        router = Router(mesh, registry, worker, coordinator, replication)
        nursery.start_soon(router.run)
        herald = Herald(knowledge, own.tell)
        control = Control(
            VERSION,
            info.device,
            settings,
            mesh,
            registry,
            worker,
            coordinator,
            calibrator,
            knowledge,
            conduct,
            store,
            replication,
            stop,
        )
        await nursery.start(RpcServer(settings.socket, control.handlers(), lock).serve)
        nursery.start_soon(coordinator.resume)
        nursery.start_soon(calibrator.run)
        nursery.start_soon(calibrator.hide)
        nursery.start_soon(herald.run)
        _log.info("%s serves %s as %s", AGENT, info.name, peer_text(identity.peer_id))
        line = {
            "peer": peer_text(identity.peer_id),
            "addresses": mesh.addresses(),
            "socket": str(settings.socket),
        }
        print(json.dumps(line), file=ready, flush=True)
        await stop.wait()
        _log.info("stopping")
        nursery.cancel_scope.cancel()


async def _private_items(path: Path | None) -> tuple[items.Item, ...]:
    """The operator's own questions with known answers.

    Raises:
        ConfigError: the file cannot be read, or is no set of questions.
    """
    if path is None:
        return ()
    try:
        text = await trio.to_thread.run_sync(partial(path.read_text, encoding="utf-8"))
        return items.parse(text)
    except OSError as error:
        raise ConfigError(f"calibration_file {path}: {error.strerror}.") from error
    except (UnicodeDecodeError, items.QuestionSetError) as error:
        raise ConfigError(f"calibration_file {path}: {error}") from error


def _model(info: ModelInfo) -> Model:
    return Model(info.name[:256], info.family[:256], info.content_id)


async def _stop_on_signal(stop: trio.Event) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            if stop.is_set():
                # Asked twice: whoever asks does not want to wait for a clean end.
                raise KeyboardInterrupt
            stop.set()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="swarmd",
        description="A node of a swarm of language models. Reads TOML, SWARMD_* variables, flags.",
    )
    parser.add_argument("--version", action="version", version=AGENT)
    parser.add_argument(
        "--check", action="store_true", help="check the configuration, print it, and exit"
    )
    configuration.add_flags(parser)
    return parser


def _check(settings: Config) -> None:
    configuration.prepare_data_dir(settings.data_dir)
    configuration.check_socket_path(settings.socket)
    configuration.read_swarm_key(settings.swarm_key)
    for name, value, source in settings.rows():
        print(f"{name:20} {value!s:40} {source}")


def _start(settings: Config, make_mesh: MakeMesh, load: Load) -> None:
    logging.basicConfig(
        stream=sys.stderr,
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
    )
    trio.run(run, settings, sys.stdout, make_mesh, load)


def main(
    arguments: Sequence[str] | None = None,
    make_mesh: MakeMesh = libp2p_mesh,
    load: Load = load_backend,
) -> int:
    """The ``swarmd`` command. Returns its exit code; see ``protocol.errors``."""
    options = _parser().parse_args(arguments)
    code = EXIT_ANSWER
    try:
        settings = configuration.load(vars(options))
        if options.check:
            _check(settings)
        else:
            _start(settings, make_mesh, load)
    except* SwarmError as errors:
        error = _first(errors)
        print(f"swarmd: {error.user_text()}", file=sys.stderr)
        code = error.exit_code
    except* KeyboardInterrupt:
        code = EXIT_CANCELLED
    return code


def _first(errors: BaseExceptionGroup[SwarmError]) -> SwarmError:
    """The first of the errors that ended the node together."""
    found = errors.exceptions[0]
    return found if isinstance(found, SwarmError) else _first(found)


if __name__ == "__main__":
    sys.exit(main())
