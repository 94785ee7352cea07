"""A causal chat model in torch: generate, likelihoods of answers, letters of verdicts.

Synchronous, for one thread at a time; :mod:`node.backends.local` puts it on trio. Every method
takes ``alive``, which it calls between forward passes and which raises to stop the work.
"""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import DynamicCache

from node.backends import prompting
from node.backends.base import Verdict
from node.backends.watch import Alive, Watch
from protocol.errors import BackendError
from swarm import judging

_SUFFIXES = 64
"""Rows of one judging batch, at most."""
_CACHED_TOKENS = 1 << 16
"""Tokens of the shared prefix that a batch may hold in all: each row has its own copy."""
_LOGITS = 1 << 26
"""Logits of one scoring batch: 256 MiB in float32."""
_WORK_TOKENS = 96
"""The longest work a model does before it judges by likelihood."""
_WORKS = 64
"""Questions whose work is kept."""

_TOKEN_CHARACTERS = 32
"""A text with more characters than this for each token of the context is not worth tokenizing."""
_ENDLESS = 1 << 62


@dataclass(frozen=True, slots=True)
class Style:
    """How a model answers and judges; beside bundled models, in ``swarmd.json``.

    Attributes:
        judge: ``likelihood``: a candidate counts by the probability that the model would have
            given it, for models trained on the kind of question. ``letter``: the model reads
            both candidates and names one.
        answer_after: what precedes the final answer, ``""`` for nothing; None for a chat model
            that is asked for a line ``Answer:``.
    """

    judge: Literal["likelihood", "letter"] = "letter"
    answer_after: str | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """What a model wrote: the text, its length in tokens, and whether it came to its end."""

    text: str
    tokens: int
    finished: bool


class CausalModel:
    """A loaded model with its tokenizer.

    Args:
        model: a causal language model of transformers, in evaluation mode.
        tokenizer: its tokenizer, with a chat template.
        style: how it answers and judges.

    Raises:
        BackendError: if the tokenizer has no chat template or does not belong to the model.
    """

    def __init__(self, model: Any, tokenizer: Any, style: Style) -> None:
        if not tokenizer.chat_template:
            raise BackendError("it has no chat template; give an instruct (chat) model")
        if len(tokenizer) > model.get_input_embeddings().num_embeddings:
            raise BackendError("its tokenizer has more tokens than the model knows")
        self._model = model
        self._tokenizer = tokenizer
        self._style = style
        self._control = prompting.ControlTokens(
            tokenizer.all_special_tokens,
            (str(token) for token in tokenizer.added_tokens_decoder.values()),
        )
        self._works: OrderedDict[str, str] = OrderedDict()
        ends = model.generation_config.eos_token_id
        if ends is None:
            ends = tokenizer.eos_token_id
        self._ends: tuple[int, ...] = tuple(ends) if isinstance(ends, list | tuple) else (ends,)

    @property
    def context(self) -> int:
        """The longest input, in tokens."""
        return int(getattr(self._model.config, "max_position_embeddings", 0) or 1 << 16)

    # --- generating ---------------------------------------------------------------------------

    def answer_in(self, text: str) -> str:
        """The final answer in what the model wrote."""
        if self._style.answer_after is None:
            return prompting.final_answer(text)
        return prompting.after_mark(text, self._style.answer_after)

    @torch.inference_mode()
    def write(
        self,
        question: str,
        max_tokens: int,
        max_bytes: int,
        seed: int,
        alive: Alive,
        emit: Callable[[str], None],
    ) -> Written:
        """Answer ``question``, handing text to ``emit`` as it appears.

        Stops at ``max_tokens``; at ``max_bytes`` only where all that is written is the answer.

        Raises:
            BackendError: if the question leaves no room in the context.
        """
        clean = self._control.neutralise(question)
        asked = prompting.asking(clean) if self._style.answer_after is None else clean
        prompt = self._prompt(asked)
        room = min(max_tokens, self.context - len(prompt))
        if room < 1:
            raise BackendError(
                f"the question is {len(prompt)} tokens long and the model reads {self.context}; "
                "ask a shorter one"
            )
        bound = max_bytes if self._style.answer_after == "" else _ENDLESS
        watch = Watch(self._tokenizer, len(prompt), bound, alive, emit)
        ids = torch.tensor([prompt], device=self._model.device)
        # Seeding is global to torch; only one thread at a time works with the model.
        torch.manual_seed(seed % (1 << 63))
        output = self._model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=room,
            stopping_criteria=[watch],
            pad_token_id=self._tokenizer.pad_token_id or self._ends[0],
            **({"do_sample": False} if self._style.answer_after is not None else {}),
        )[0]
        watch.show(output, last=True)
        new = output[len(prompt) :]
        text = str(self._tokenizer.decode(new, skip_special_tokens=True))
        finished = len(new) > 0 and int(new[-1]) in self._ends
        if finished:
            self._keep_work(clean, text)
        return Written(text, len(new), finished)

    # --- judging by likelihood ----------------------------------------------------------------

    def likelihoods(self, question: str, answers: Sequence[str], alive: Alive) -> list[float]:
        """P(the model writes exactly this | question) for each answer, after its own work.

        A model that works first does so once per question; the probability of its work counts
        too, so that shaky work makes for a faint preference. Answers that do not fit the
        context have probability 0; if the question does not fit, all are NaN.
        """
        clean = self._control.neutralise(question)
        prompt = self._prompt(clean)
        if len(prompt) + 2 > self.context:
            return [math.nan] * len(answers)
        lead = self._work(clean, alive)
        rows = [
            [*prompt, *self._plain(lead + self._control.neutralise(answer)), self._ends[0]]
            for answer in answers
        ]
        fitting = [index for index, row in enumerate(rows) if len(row) <= self.context]
        found = self._log_likelihoods([rows[index] for index in fitting], len(prompt), alive)
        result = [0.0] * len(answers)
        for index, value in zip(fitting, found, strict=True):
            result[index] = math.exp(value) if not math.isnan(value) else math.nan
        return result

    def _work(self, clean: str, alive: Alive) -> str:
        """What the model writes before its answer to a question, mark included."""
        if not self._style.answer_after:
            return ""
        if clean not in self._works:
            written = self.write(clean, _WORK_TOKENS, _ENDLESS, 0, alive, lambda _: None)
            if not written.finished:
                self._keep_work(clean, "")
        return self._works[clean]

    def _keep_work(self, clean: str, text: str) -> None:
        """Note what precedes the answer in ``text``; without a mark, that is no work."""
        mark = self._style.answer_after
        if mark:
            self._works[clean] = text.rsplit(mark, 1)[0] + mark if mark in text else mark
            self._works.move_to_end(clean)
            while len(self._works) > _WORKS:
                self._works.popitem(last=False)

    @torch.inference_mode()
    def _log_likelihoods(
        self, rows: Sequence[Sequence[int]], start: int, alive: Alive
    ) -> list[float]:
        """Sum of log P(token | tokens before) from position ``start`` of each row to its end.

        Args:
            rows: token ids that agree before ``start`` (at least 1) and are longer than it.
        """
        if not rows:
            return []
        shared = min(shared_prefix(rows), min(map(len, rows)) - 1)
        cache, logits = self._read(rows[0][:shared], keep=shared - start + 1)
        first = logits[0].float().log_softmax(-1)
        common = float(sum(first[at, rows[0][start + at]] for at in range(shared - start)))
        totals = [common + float(first[-1, row[shared]]) for row in rows]
        longest = max(len(row) - shared - 1 for row in rows)
        if longest == 0:
            return totals
        size = max(1, min(_batch(shared), _LOGITS // (longest * first.shape[-1])))
        for begin in range(0, len(rows), size):
            alive()
            chunk = rows[begin : begin + size]
            logits = self._continue(cache, shared, [row[shared:-1] for row in chunk], longest)
            scores = logits.float().log_softmax(-1)
            for index, row in enumerate(chunk):
                told = row[shared + 1 :]
                totals[begin + index] += float(
                    sum(scores[index, at, token] for at, token in enumerate(told))
                )
        return totals

    # --- judging by letter --------------------------------------------------------------------

    @torch.inference_mode()
    def letters(
        self,
        question: str,
        answers: Sequence[str],
        pairs: Sequence[tuple[int, int]],
        nonce: str,
        alive: Alive,
    ) -> list[Verdict]:
        """P(the model replies A rather than B) for each pair; None where it cannot judge.

        All prompts share the question and the answers, which are read once. Answers too long
        to be read beside the others are left out, the longest first, and their pairs abstain.
        """
        kept, rows = self._judging_rows(question, answers, pairs, nonce)
        if not rows:
            return [None] * len(pairs)
        shared = min(shared_prefix(rows), min(map(len, rows)) - 1)
        alive()
        cache, _ = self._read(rows[0][:shared], keep=1)
        letter_a, letter_b = self._letter_tokens("A"), self._letter_tokens("B")
        found: list[Verdict] = []
        size = _batch(shared)
        for begin in range(0, len(rows), size):
            alive()
            suffixes = [row[shared:] for row in rows[begin : begin + size]]
            lasts = sorted({len(suffix) - 1 for suffix in suffixes})
            logits = self._continue(cache, shared, suffixes, max(map(len, suffixes)), lasts)
            for index, suffix in enumerate(suffixes):
                last = logits[index, lasts.index(len(suffix) - 1)].float()
                score = last[letter_a].logsumexp(0) - last[letter_b].logsumexp(0)
                share = float(torch.sigmoid(score))
                found.append(None if math.isnan(share) else share)
        judged = dict(zip(kept, found, strict=True))
        return [judged.get(place) for place in range(len(pairs))]

    def _judging_rows(
        self, question: str, answers: Sequence[str], pairs: Sequence[tuple[int, int]], nonce: str
    ) -> tuple[list[int], list[list[int]]]:
        """Places of the pairs that can be judged, and the tokens of their prompts."""
        clean_question = self._control.neutralise(question)
        clean = [self._control.neutralise(answer) for answer in answers]
        # Shortest first, so that one huge answer silences itself alone.
        readable = sorted(range(len(answers)), key=lambda index: (len(clean[index]), index))
        while len(readable) > 1:
            shown = sorted(readable)
            number = {index: place for place, index in enumerate(shown)}
            prefix = judging.prefix(clean_question, [clean[index] for index in shown], nonce)
            places = [
                place
                for place, (first, second) in enumerate(pairs)
                if first in number and second in number
            ]
            rows: list[list[int]] = []
            if len(prefix) <= _TOKEN_CHARACTERS * self.context:
                for place in places:
                    first, second = pairs[place]
                    rows.append(
                        self._prompt(prefix + judging.suffix(number[first], number[second]))
                    )
                    if len(rows[-1]) >= self.context:
                        break
                else:
                    return places, rows
            readable.pop()
        return [], []

    def _letter_tokens(self, letter: str) -> list[int]:
        """Tokens that a reply of this letter may start with."""
        spellings = (self._plain(text) for text in (letter, f" {letter}"))
        found = {ids[0] for ids in spellings if len(ids) == 1}
        return sorted(found) or [self._plain(letter)[0]]

    # --- tokens and forward passes ------------------------------------------------------------

    def _prompt(self, content: str) -> list[int]:
        """Tokens of a chat with one user message, up to where the reply begins."""
        ids = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            return_dict=False,
            enable_thinking=False,
        )
        return [int(token) for token in ids]

    def _plain(self, text: str) -> list[int]:
        return [int(token) for token in self._tokenizer.encode(text, add_special_tokens=False)]

    def _read(self, ids: Sequence[int], keep: int) -> tuple[DynamicCache, torch.Tensor]:
        """Run a prefix; its cache, and the logits of its last ``keep`` positions."""
        cache = DynamicCache(config=self._model.config)
        output = self._model(
            input_ids=torch.tensor([list(ids)], device=self._model.device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=keep,
        )
        return cache, output.logits

    def _continue(
        self,
        cache: DynamicCache,
        past: int,
        suffixes: Sequence[Sequence[int]],
        width: int,
        positions: Sequence[int] | None = None,
    ) -> torch.Tensor:
        """Logits of ``suffixes`` after a prefix of ``past`` tokens, which is not run again.

        Returns:
            (rows, ``width``, vocabulary), or (rows, ``positions``, vocabulary); what stands
            beyond the end of a shorter row is meaningless.
        """
        device = self._model.device
        ids = torch.zeros(len(suffixes), width, dtype=torch.long)
        mask = torch.zeros(len(suffixes), past + width, dtype=torch.long)
        mask[:, :past] = 1
        for index, suffix in enumerate(suffixes):
            ids[index, : len(suffix)] = torch.tensor(suffix, dtype=torch.long)
            mask[index, past : past + len(suffix)] = 1
        expanded = copy.deepcopy(cache)
        expanded.batch_repeat_interleave(len(suffixes))
        output = self._model(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            past_key_values=expanded,
            use_cache=True,
            logits_to_keep=0
            if positions is None
            else torch.tensor(positions, dtype=torch.long, device=device),
        )
        return torch.as_tensor(output.logits)


def _batch(past: int) -> int:
    """Rows of one batch that continue a prefix of ``past`` tokens."""
    return max(1, min(_SUFFIXES, _CACHED_TOKENS // max(1, past)))


def shared_prefix(rows: Sequence[Sequence[int]]) -> int:
    """How many leading tokens all ``rows`` have in common."""
    low, high = min(map(tuple, rows)), max(map(tuple, rows))
    for place, (first, second) in enumerate(zip(low, high, strict=False)):
        if first != second:
            return place
    return min(len(low), len(high))
