"""The local backend: any causal chat model of transformers, on this machine.

All torch work runs on one worker thread at a time, behind a bounded queue. Cancelling a task
stops its work at the next token or batch.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
import transformers
import trio
from transformers.utils import logging as transformers_logging

from node.backends import bundled
from node.backends.base import (
    Emit,
    GenerateRequest,
    Generation,
    JudgeRequest,
    ModelInfo,
    Verdict,
)
from node.backends.causal import CausalModel, Style
from protocol.errors import BackendBusyError, BackendError, ModelNotFoundError

T = TypeVar("T")

_WAITING = 32
_SMALL = 200_000_000
"""Below this many parameters a processor computes in float32, whatever the checkpoint holds."""


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a model comes from, and what its card says.

    Attributes:
        name: what the operator called it.
        place: a directory, or a name on the hub.
        tokenizer: likewise.
        folder: the directory, or None for a name on the hub.
        family: from the card, ``""`` without one.
        threads: how many are wise, or None for torch's own choice.
    """

    name: str
    place: str
    tokenizer: str
    folder: Path | None
    family: str
    style: Style
    threads: int | None


class LocalBackend:
    """A model on this machine. Make one with :meth:`load`."""

    def __init__(self, model: CausalModel, info: ModelInfo, style: Style, threads: int) -> None:
        self._model: CausalModel | None = model
        self._info = info
        self._style = style
        self._threads = threads
        self._limiter = trio.CapacityLimiter(1)

    @classmethod
    async def load(
        cls, name: str, device: str = "auto", threads: int | None = None
    ) -> LocalBackend:
        """Load a model.

        Args:
            name: ``bundled:NAME``, a directory that holds ``config.json``, or a name on the hub.
            device: ``cpu``, ``cuda``, ``cuda:N``, ``mps``, or ``auto``: an accelerator where
                there is one, but the processor for bundled models.
            threads: processor threads for torch in this process. None or 0: one for bundled
                models, since several daemons may share a machine, else torch's own choice.

        Raises:
            ModelNotFoundError: if there is no such model.
            BackendError: if it cannot be used: no chat template, no memory, no such device.
        """
        return await trio.to_thread.run_sync(_load, cls, name, device, threads)

    def describe(self) -> ModelInfo:
        """What this backend runs."""
        return self._info

    async def generate(self, request: GenerateRequest, emit: Emit) -> Generation:
        """Answer a question, handing text to ``emit`` as it appears.

        An answer that is not finished within ``max_tokens``, is larger than ``max_bytes`` or is
        empty raises :class:`BackendError`: a cut answer is another answer.
        """
        model = self._loaded()

        def work() -> Generation:
            written = model.write(
                request.question,
                request.max_tokens,
                request.max_bytes,
                request.seed,
                trio.from_thread.check_cancelled,
                lambda text: trio.from_thread.run_sync(emit, text),
            )
            answer = model.answer_in(written.text)
            if len(answer.encode()) > request.max_bytes:
                raise BackendError(f"its answer is larger than {request.max_bytes} bytes")
            if not written.finished:
                raise BackendError(f"its answer was not finished after {written.tokens} tokens")
            if not answer:
                raise BackendError("its answer was empty")
            return Generation(answer, written.text, written.tokens)

        return await self._run(work)

    async def judge(self, request: JudgeRequest) -> tuple[Verdict, ...]:
        """One verdict for each of ``request.pairs``, in their order."""
        model = self._loaded()
        if not request.pairs:
            return ()

        def by_letter() -> list[Verdict]:
            return model.letters(
                request.question,
                request.answers,
                request.pairs,
                request.nonce,
                trio.from_thread.check_cancelled,
            )

        def by_likelihood() -> list[Verdict]:
            chances = model.likelihoods(
                request.question, request.answers, trio.from_thread.check_cancelled
            )
            return [preference(chances[first], chances[second]) for first, second in request.pairs]

        by = by_likelihood if self._style.judge == "likelihood" else by_letter
        return tuple(await self._run(by))

    async def aclose(self) -> None:
        """Free the model once the work under way is done."""
        async with self._limiter:
            self._model = None
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _loaded(self) -> CausalModel:
        if self._model is None:
            raise BackendError(f"{self._info.name} is closed")
        return self._model

    async def _run(self, work: Callable[[], T]) -> T:
        """Run ``work`` on the worker thread when its turn comes."""
        waiting = self._limiter.statistics().tasks_waiting
        if waiting >= _WAITING:
            raise BackendBusyError(f"{waiting} requests wait for {self._info.name}; try later")

        def guarded() -> T:
            torch.set_num_threads(self._threads)
            try:
                return work()
            except BackendError as error:
                raise type(error)(f"{self._info.name}: {error}") from None
            except (RuntimeError, ValueError, IndexError, TypeError) as error:
                raise BackendError(f"{self._info.name}: {_first_line(error)}") from error

        return await trio.to_thread.run_sync(guarded, limiter=self._limiter)


def preference(first: float, second: float) -> Verdict:
    """P(first is the correct one) from the probabilities of both: half plus half the gap.

    Off its topic a model gives no candidate much probability, and so prefers none.
    """
    if math.isnan(first) or math.isnan(second):
        return None
    return min(1.0, max(0.0, 0.5 + (first - second) / 2))


# --- loading ----------------------------------------------------------------------------------


def _load(kind: type[LocalBackend], name: str, device: str, threads: int | None) -> LocalBackend:
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    source = _find(name)
    wished = threads or source.threads
    count = wished if wished is not None else torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        where = _device(device, source)
        offline = source.folder is not None
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            source.tokenizer, local_files_only=offline
        )
        # Pickled weights can run code when loaded; safetensors cannot.
        model = transformers.AutoModelForCausalLM.from_pretrained(
            source.place, dtype=_dtype(where), use_safetensors=True, local_files_only=offline
        )
        if where == "cpu" and model.num_parameters() < _SMALL:
            model = model.float()
        model = model.to(where).eval()
        causal = CausalModel(model, tokenizer, source.style)
        content_id = _content_id(source)
    except BackendError as error:
        raise type(error)(f"{name}: {error}") from None
    except OSError as error:
        raise _unavailable(source, error) from None
    except (RuntimeError, ValueError, ImportError, KeyError, AssertionError) as error:
        raise BackendError(f"{name} cannot be loaded: {_first_line(error)}") from error
    info = ModelInfo(
        name=name,
        family=source.family or str(model.config.model_type),
        content_id=content_id,
        parameters=int(model.num_parameters()),
        context_tokens=causal.context,
        device=f"{model.device} {str(model.dtype).removeprefix('torch.')}",
    )
    return kind(causal, info, source.style, count)


def _find(name: str) -> _Source:
    """Make out what ``name`` means.

    Raises:
        ModelNotFoundError: if it means no bundled model and no directory of a model.
    """
    if name.startswith(bundled.PREFIX):
        short = name.removeprefix(bundled.PREFIX)
        if short not in bundled.bundled_names():
            known = ", ".join(bundled.PREFIX + each for each in bundled.bundled_names())
            raise ModelNotFoundError(f"{name!r} is not bundled; there are {known}")
        return _in_folder(name, bundled.bundled_path(short), threads=1)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _in_folder(name, folder, threads=None)
    # A hub name is one or two plain words; all else can only have meant a path.
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise ModelNotFoundError(f"There is no directory {folder}.")
    return _Source(name, name, name, None, "", Style(), None)


def _in_folder(name: str, folder: Path, threads: int | None) -> _Source:
    if not (folder / "config.json").is_file():
        raise ModelNotFoundError(f"{folder} holds no config.json.")
    card: dict[str, Any] = {}
    path = folder / bundled.CARD
    if path.is_file():
        try:
            card = json.loads(path.read_text())
            style = Style(card["judge"], card["answer_after"])
        except (ValueError, KeyError, TypeError) as error:
            raise BackendError(f"{path} cannot be read: {_first_line(error)}") from None
    else:
        style = Style()
    tokenizer = folder / card.get("tokenizer", ".")
    return _Source(
        name, str(folder), str(tokenizer), folder, card.get("family", ""), style, threads
    )


def _device(wished: str, source: _Source) -> str:
    if wished != "auto":
        return wished
    if source.name.startswith(bundled.PREFIX):
        return "cpu"  # too small to gain anything from an accelerator
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _dtype(where: str) -> torch.dtype | str:
    """What weights are loaded as: the checkpoint's own on a processor, a half on an accelerator."""
    if where.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.float16 if where == "mps" else "auto"


def _content_id(source: _Source) -> str:
    folder = source.folder
    if folder is None:
        found = transformers.utils.cached_file(source.place, "config.json")
        folder = Path(found).parent
        return bundled.content_id(folder, folder)
    return bundled.content_id(folder, Path(source.tokenizer))


def _unavailable(source: _Source, error: OSError) -> ModelNotFoundError:
    if source.folder is not None:
        return ModelNotFoundError(f"{source.folder} is not complete: {_first_line(error)}")
    return ModelNotFoundError(
        f"{source.name!r} is no directory here, and the hub does not give it: "
        f"{_first_line(error)} Check the name and the network, or download it to a directory."
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
