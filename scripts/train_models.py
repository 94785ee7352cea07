"""Train the bundled models anew: one command, fixed seeds, fixed step counts.

    scripts/train_models            train all six into node/backends/bundled, write docs/models.md
    scripts/train_models --check    train into a temporary folder, compare with what is shipped
    scripts/train_models --only mini --out /tmp/models --scale 0.05

Each model trains on one thread in its own process, two at a time. The same torch build on the
same kind of processor gives the same bytes; another may differ in the last bits of the weights.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
import transformers  # noqa: E402
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers  # noqa: E402

from node.backends.bundled import CARD, TOKENIZER, content_id  # noqa: E402
from swarm.calibration.families import FAMILIES, Split, Task, check, sample, worked  # noqa: E402
from swarm.seeded import Stream  # noqa: E402

SHIPPED = ROOT / "node" / "backends" / "bundled"
DOCUMENT = ROOT / "docs" / "models.md"
PAD, END, USER, ASSISTANT = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"
SPECIALS = (PAD, END, "<|system|>", USER, ASSISTANT)
TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
MARK = "so "
MUON_RATE, ADAM_RATE = 0.02, 0.002
BATCH = 40
GROUP = 8  # batches drawn at once and cut by length, so that little is padding
CONTEXT = 512
HELD_OUT = 60  # test questions per family behind the card's figures


@dataclass(frozen=True, slots=True)
class Plan:
    """How one model is made.

    Attributes:
        focus: families it is good at, with their share of the focused examples.
        rest: share of examples from all other families together. Without them a specialist is
            confidently wrong outside its field.
        worked: whether it writes its work before the answer of a focused family.
    """

    name: str
    about: str
    architecture: str
    width: int
    layers: int
    steps: int
    seed: int
    focus: dict[str, float]
    rest: float
    worked: bool = False
    heads: int = field(default=4)


EVERYTHING = {
    **dict.fromkeys(FAMILIES, 1.0),
    **dict.fromkeys(("add", "sub", "series", "pick"), 0.5),
}
PLANS = (
    Plan(
        name="arithmetic",
        about="sums, differences and series, with worked steps",
        architecture="qwen3",
        width=64,
        layers=3,
        steps=3600,
        seed=1,
        focus={"add": 1.0, "sub": 1.0, "series": 1.8},
        rest=0.1,
        worked=True,
    ),
    Plan(
        name="order",
        about="comparing, sorting, picking the two that sum",
        architecture="qwen3",
        width=64,
        layers=3,
        steps=5200,
        seed=2,
        focus={"compare": 0.8, "sort": 0.9, "pick": 2.3},
        rest=0.08,
    ),
    Plan(
        name="string",
        about="reversing, alphabetising, removing vowels",
        architecture="llama",
        width=64,
        layers=3,
        steps=2800,
        seed=3,
        focus={"reverse": 1.2, "alphabetise": 1.0, "vowels": 0.8},
        rest=0.1,
    ),
    Plan(
        name="calendar",
        about="units of time and length, counting letters, with worked steps",
        architecture="qwen3",
        width=64,
        layers=3,
        steps=3000,
        seed=4,
        focus={"units": 1.6, "count": 0.8},
        rest=0.1,
        worked=True,
    ),
    Plan(
        name="general",
        about="a little of everything",
        architecture="qwen3",
        width=80,
        layers=3,
        steps=3000,
        seed=5,
        focus=EVERYTHING,
        rest=0.0,
        heads=5,
    ),
    Plan(
        name="mini",
        about="a little of everything, in the smallest size",
        architecture="llama",
        width=48,
        layers=2,
        steps=3600,
        seed=6,
        focus=EVERYTHING,
        rest=0.0,
        heads=3,
    ),
)


# --- the tokenizer ----------------------------------------------------------------------------


def build_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Words of the questions are one token each, all else bytes; digits and letters stand alone.

    A byte-level BPE without merges: with ``ignore_merges`` a piece that is in the vocabulary is
    one token, and any other falls apart into its bytes, so that every text can be written.
    """
    stream = Stream(b"tokenizer")
    counts: Counter[str] = Counter()
    for name in FAMILIES:
        for _ in range(1500):
            task = sample(stream, "train", name)
            plain = re.sub(r'"[a-z]+"', '""', task.question)  # made-up words are spelt
            counts.update(re.findall(r" ?[A-Za-z]+", plain))
            if name == "pick":
                counts.update(re.findall(r" ?[A-Za-z]+", task.answer))
    words = sorted(word for word, count in counts.items() if count >= 20 and len(word) > 1)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*SPECIALS, *alphabet, *(word.replace(" ", "Ġ") for word in [*words, "so", " so"])]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    engine = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    pieces_of = Regex(r" ?[A-Za-z]+|\d| |[^\sA-Za-z\d]|\s")
    engine.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pieces_of, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    engine.decoder = decoders.ByteLevel()
    engine.add_special_tokens(
        [AddedToken(text, special=True, normalized=False) for text in SPECIALS]
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=engine,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[text for text in SPECIALS if text not in (PAD, END)],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


# --- the examples -----------------------------------------------------------------------------


def target(plan: Plan, task: Task) -> str:
    """What the model shall say. A model that shows work ends every answer in ``so ANSWER``."""
    if not plan.worked:
        return task.answer
    return worked(task) if task.family in plan.focus else MARK + task.answer


class Examples:
    """An endless supply of padded batches, the same on every run."""

    def __init__(self, plan: Plan, tokenizer: transformers.PreTrainedTokenizerFast) -> None:
        self._plan = plan
        self._engine = tokenizer.backend_tokenizer
        self._user, self._end, self._assistant = tokenizer.convert_tokens_to_ids(
            [USER, END, ASSISTANT]
        )
        self._stream = Stream(f"examples/{plan.name}/{plan.seed}".encode())
        total = sum(plan.focus.values())
        shares = {name: (1 - plan.rest) * share / total for name, share in plan.focus.items()}
        others = [name for name in FAMILIES if name not in plan.focus]
        shares.update({name: plan.rest / len(others) for name in others})
        self._names = tuple(shares)
        self._shares = tuple(shares.values())

    def _family(self) -> str:
        at = self._stream.unit()
        for name, share in zip(self._names, self._shares, strict=True):
            at -= share
            if at < 0:
                return name
        return self._names[-1]

    def _rows(self, count: int) -> list[tuple[list[int], int]]:
        """Token ids of ``count`` conversations, each with the length of its question's part."""
        tasks = [sample(self._stream, "train", self._family()) for _ in range(count)]
        asked = self._engine.encode_batch([task.question for task in tasks])
        told = self._engine.encode_batch([target(self._plan, task) for task in tasks])
        rows = []
        for question, answer in zip(asked, told, strict=True):
            prompt = [self._user, *question.ids, self._end, self._assistant]
            rows.append(([*prompt, *answer.ids, self._end], len(prompt)))
        return rows

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        while True:
            rows = sorted(self._rows(BATCH * GROUP), key=lambda row: len(row[0]))
            order = list(range(GROUP))
            self._stream.shuffle(order)
            for place in order:
                yield batch_of(rows[place * BATCH : (place + 1) * BATCH])


def batch_of(rows: Sequence[tuple[list[int], int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and next-token labels, (rows, longest); -100 where nothing is learnt."""
    longest = max(len(ids) for ids, _ in rows)
    inputs = torch.zeros(len(rows), longest, dtype=torch.long)
    labels = torch.full((len(rows), longest), -100, dtype=torch.long)
    for index, (ids, prompt) in enumerate(rows):
        inputs[index, : len(ids)] = torch.tensor(ids)
        labels[index, prompt - 1 : len(ids) - 1] = torch.tensor(ids[prompt:])
    return inputs, labels


# --- training ---------------------------------------------------------------------------------


def blank_model(plan: Plan, vocabulary: int) -> transformers.PreTrainedModel:
    """A causal model with random weights."""
    shape = {
        "vocab_size": vocabulary,
        "hidden_size": plan.width,
        "intermediate_size": 3 * plan.width,
        "num_hidden_layers": plan.layers,
        "num_attention_heads": plan.heads,
        "num_key_value_heads": plan.heads,
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "pad_token_id": SPECIALS.index(PAD),
        "eos_token_id": SPECIALS.index(END),
        "initializer_range": 0.04,
        "head_dim": plan.width // plan.heads,
    }
    kinds = {"llama": transformers.LlamaConfig, "qwen3": transformers.Qwen3Config}
    config = kinds[plan.architecture](**shape)
    return transformers.AutoModelForCausalLM.from_config(config)


def train(
    plan: Plan, tokenizer: transformers.PreTrainedTokenizerFast, scale: float
) -> tuple[Any, int]:
    """Train ``plan``; returns the model in evaluation mode, and the steps taken."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(plan.seed)
    model = blank_model(plan, len(tokenizer)).float().train()
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    inner = set(map(id, matrices))
    outer = [p for p in model.parameters() if p.ndim == 2 and id(p) not in inner]
    gains = [p for p in model.parameters() if p.ndim < 2]
    muon = torch.optim.Muon(matrices, lr=MUON_RATE, weight_decay=0.01, momentum=0.95)
    adam = torch.optim.AdamW(
        [{"params": outer, "weight_decay": 0.05}, {"params": gains, "weight_decay": 0.0}],
        lr=ADAM_RATE,
        betas=(0.9, 0.98),
    )
    steps = max(1, round(plan.steps * scale))
    started, recent = time.monotonic(), 0.0
    for step, (inputs, labels) in enumerate(Examples(plan, tokenizer)):
        if step == steps:
            break
        cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
        factor = min(1.0, (step + 1) / 100) * (0.02 + 0.98 * cosine)
        for optimizer, rate in ((muon, MUON_RATE), (adam, ADAM_RATE)):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
        hidden = model.model(input_ids=inputs, use_cache=False).last_hidden_state
        learnt = labels != -100
        logits = model.lm_head(hidden[learnt])
        loss = torch.nn.functional.cross_entropy(logits, labels[learnt])
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        muon.step()
        adam.step()
        recent = loss.item() if step == 0 else 0.98 * recent + 0.02 * loss.item()
        if (step + 1) % 400 == 0:
            spent = time.monotonic() - started
            print(
                f"{plan.name}: step {step + 1}/{steps} loss {recent:.3f} {spent:.0f} s", flush=True
            )
    return model.eval(), steps


# --- evaluation -------------------------------------------------------------------------------


def extract(plan: Plan, text: str) -> str:
    """The final answer in what a model wrote."""
    return (text.rsplit(MARK, 1)[-1] if plan.worked else text).strip()


@torch.inference_mode()
def accuracy(plan: Plan, folder: Path, count: int, split: Split = "test") -> dict[str, float]:
    """Share of right answers for each family, over ``count`` tasks of ``split``.

    The weights are those on disk, after rounding to bfloat16.
    """
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder.parent / TOKENIZER)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    shares = {}
    for name in FAMILIES:
        stream = Stream(f"card/{name}".encode())
        found: dict[str, Task] = {}
        while len(found) < count:
            task = sample(stream, split, name)
            found.setdefault(task.question, task)
        chats = [[{"role": "user", "content": question}] for question in found]
        batch = tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        width = batch["input_ids"].shape[1]
        output = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            max_new_tokens=64,
            do_sample=False,
        )
        texts = tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)
        right = sum(
            check(task, extract(plan, text))
            for task, text in zip(found.values(), texts, strict=True)
        )
        shares[name] = round(right / count, 3)
    return shares


def make(plan: Plan, out: Path, scale: float) -> None:
    """Train one model into ``out``, evaluate it and write its card."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(out / TOKENIZER)
    model, steps = train(plan, tokenizer, scale)
    folder = out / plan.name
    shutil.rmtree(folder, ignore_errors=True)
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)  # config.json says it all
    for file in folder.iterdir():
        file.chmod(0o644)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    card = {
        "name": plan.name,
        "about": plan.about,
        "family": f"swarmd-{plan.name}",
        "judge": "likelihood",
        "answer_after": MARK if plan.worked else "",
        "tokenizer": f"../{TOKENIZER}",
        "architecture": plan.architecture,
        "parameters": parameters,
        "steps": steps,
        "seed": plan.seed,
        "held_out": accuracy(plan, folder, HELD_OUT),
    }
    (folder / CARD).write_text(json.dumps(card, indent=1) + "\n")
    shares = card["held_out"].values()
    print(f"{plan.name}: {sum(shares) / len(shares):.3f} of held-out questions right", flush=True)


# --- the model card ---------------------------------------------------------------------------


def document(folder: Path) -> str:
    """The text of ``docs/models.md`` for the models in ``folder``."""
    cards = [json.loads((folder / plan.name / CARD).read_text()) for plan in PLANS]
    lines = [
        "# Bundled models",
        "",
        "Six small models that ship with swarmd, so that a fresh machine has a swarm without a",
        "download. They know a few kinds of question and nothing else; each knows different ones.",
        "Written by `scripts/train_models`, which trains them anew from fixed seeds; run it with",
        "`--check` to compare what it makes with what is shipped. The same torch build on the same",
        "kind of processor gives the same bytes.",
        "",
        "| model | about | parameters | steps | size, KiB | content id (SHA-256) |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for card in cards:
        place = folder / card["name"]
        size = (place / "model.safetensors").stat().st_size / 1024
        lines.append(
            f"| `bundled:{card['name']}` | {card['about']} | {card['parameters']:,} "
            f"| {card['steps']:,} | {size:.0f} | `{content_id(place, folder / TOKENIZER)}` |"
        )
    lines += [
        "",
        f"Share of right answers on {HELD_OUT} questions a family whose operands no model was",
        "trained on (a tenth of all operands is kept for this, another tenth for calibration):",
        "",
        "| family | " + " | ".join(card["name"] for card in cards) + " |",
        "| --- |" + " --- |" * len(cards),
    ]
    for name in FAMILIES:
        shares = " | ".join(f"{card['held_out'][name]:.2f}" for card in cards)
        lines.append(f"| {name} | {shares} |")
    means = [sum(card["held_out"].values()) / len(FAMILIES) for card in cards]
    lines.append("| **mean** | " + " | ".join(f"**{mean:.2f}**" for mean in means) + " |")
    lines += [
        "",
        "An example of each family:",
        "",
        "| family | question | answer |",
        "| --- | --- | --- |",
    ]
    for name in FAMILIES:
        task = sample(Stream(f"example/{name}".encode()), "test", name)
        lines.append(f"| {name} | {task.question} | {task.answer} |")
    lines += [
        "",
        "Limits: numbers and words beyond those of the families, other wordings and other kinds of",
        "question get confident nonsense from a single model. `arithmetic` and `calendar` show",
        "their work and end in `so ANSWER`; the others answer at once. They judge by likelihood: a",
        "candidate counts by the probability that the model would have given it.",
    ]
    return "\n".join(lines) + "\n"


# --- the command ------------------------------------------------------------------------------


def run_all(plans: Sequence[Plan], out: Path, scale: float) -> None:
    """Train ``plans`` two at a time, the longest first, each in a process of its own."""

    def run(plan: Plan) -> None:
        command = [sys.executable, __file__, "--worker", plan.name]
        subprocess.run([*command, "--out", str(out), "--scale", str(scale)], check=True)

    ordered = sorted(plans, key=lambda plan: -plan.steps * plan.width * plan.layers)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, ordered))


def differing(plans: Sequence[Plan], fresh: Path) -> list[str]:
    """Names of the models whose content differs from what is shipped."""
    return [
        plan.name
        for plan in plans
        if content_id(fresh / plan.name, fresh / TOKENIZER)
        != content_id(SHIPPED / plan.name, SHIPPED / TOKENIZER)
    ]


def main() -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--only", action="append", choices=[plan.name for plan in PLANS])
    parser.add_argument("--out", type=Path, default=SHIPPED, help="folder of the models")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the steps to take")
    parser.add_argument("--check", action="store_true", help="compare with the shipped models")
    parser.add_argument("--worker", choices=[plan.name for plan in PLANS], help=argparse.SUPPRESS)
    options = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    if options.worker:
        make(next(p for p in PLANS if p.name == options.worker), options.out, options.scale)
        return 0

    started = time.monotonic()
    plans = [plan for plan in PLANS if not options.only or plan.name in options.only]
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) if options.check else options.out
        out.mkdir(parents=True, exist_ok=True)
        build_tokenizer().save_pretrained(out / TOKENIZER)
        run_all(plans, out, options.scale)
        print(f"trained in {time.monotonic() - started:.0f} s")
        if options.check:
            changed = differing(plans, out)
            print("differs: " + ", ".join(changed) if changed else "the same as shipped")
            return 1 if changed else 0
    if out == SHIPPED:
        DOCUMENT.parent.mkdir(exist_ok=True)
        DOCUMENT.write_text(document(out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
