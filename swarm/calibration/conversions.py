"""Chains of conversions: goods that trade for one another at rates given in the question."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from math import lcm

from swarm.calibration.task import Family, Key, near
from swarm.seeded import Stream

GOODS = (
    "melon", "pear", "plum", "fig", "nut", "loaf", "egg", "cheese", "fish", "crab", "shell",
    "bead", "ring", "coin", "blanket", "basket", "rope", "axe", "lamp", "pot", "drum", "goat",
    "hen", "duck", "candle", "brick", "jug", "spoon",
)  # fmt: skip
_PLURALS = {"loaf": "loaves", "fish": "fish", "axe": "axes"}
Rate = tuple[int, str, int, str]


def amount(count: int, good: str) -> str:
    """``1 pear``, ``3 pears``."""
    return f"{count} {good if count == 1 else plural(good)}"


def plural(good: str) -> str:
    """``pears``, ``loaves``."""
    return _PLURALS.get(good, good + "s")


def rates_of(key: Key) -> list[Rate]:
    """The rates among the operands: so many of one good for so many of another."""
    rates = []
    for fact in key[3:]:
        left, first, right, second = str(fact).split()
        rates.append((int(left), first, int(right), second))
    return rates


class Chain(Family):
    """How many of one good some of another are worth, through several trades.

    The operands are an amount, its good, the good asked for, and the rates, each as
    ``"2 pear 3 plum"``. The answer is whole.
    """

    name = "chain"
    levels = 6
    wordings = (
        "{rates} How many {target} are {amount} worth?",
        "{rates} How many {target} do you get for {amount}?",
    )
    asks = (
        "{rates} How many {target} [are {amount} worth|is the worth of {amount}]?",
        "{rates} How many {target} [do you get|can I get|would one get] for {amount}?",
        "[At the market|On the island|In the game]: {rates} [<name> brings|I bring] {amount}. How "
        "many {target} [is that worth|are they worth]?",
        "How many {target} [are|is] {amount} [worth|good for], [if|given that] these rates hold? "
        "{rates}",
        "[Exchange|Trade|Swap] rates: {rates} <name> [swaps|trades] {amount} [all the way|step by "
        "step] for {target}. How many does <he> end up with?",
        "{rates} [At these rates|With that], {amount} [make|come to] how many {target}?",
        "[In a board game|In an old village|In my <kin>'s game] people trade like this. {rates} "
        "What is {amount} in {target}?",
        "{rates} Convert {amount} to {target}.",
        "<name> wants {target} and has {amount}. {rates} How many {target} can <he> [get|have]?",
    )
    hint = "[Just|Only] the number[, please|]."
    _SHAPES = ((2, 0, 1), (3, 0, 1), (4, 1, 1), (4, 1, 4), (6, 2, 5), (8, 3, 7))
    """Trades in the chain, trades that do not matter, and the largest number on the first side of
    a rate, at each level."""

    def draw(self, stream: Stream, level: int = 1) -> Key:
        hops, spare, most = self._SHAPES[level - 1]
        goods = stream.sample(GOODS, hops + spare + 1)
        rates: list[Rate] = []
        worth, scale = Fraction(1), 1
        for first, second in pairwise(goods[: hops + 1]):
            left = stream.between(1, most)
            right = stream.between(left + 1, left + 7)
            if most > 1 and stream.below(3) == 0:
                left, right = right, left
            worth *= Fraction(right, left)
            scale = lcm(scale, worth.denominator)
            told = stream.below(2) and most > 1
            rates.append((right, second, left, first) if told else (left, first, right, second))
        for unused in goods[hops + 1 :]:
            other = stream.choice(goods[: hops + 1])
            rates.append((1, other, stream.between(2, 9), unused))
        if level > 1:
            stream.shuffle(rates)
        facts = tuple(f"{a} {first} {b} {second}" for a, first, b, second in rates)
        return stream.between(2, 9) * scale, goods[0], goods[hops], *facts

    def phrase(self, stream: Stream, key: Key, wording: str) -> str:
        verbs = ("trade for", "are worth", "buy", "can be swapped for")
        verb = stream.choice(verbs)
        single = {"trade": "trades", "are": "is", "buy": "buys", "can": "can"}
        sentences = []
        for left, first, right, second in rates_of(key):
            head, _, tail = verb.partition(" ")
            word = single[head] if left == 1 else head
            said = f"{word} {tail}" if tail else word
            sentences.append(f"{amount(left, first)} {said} {amount(right, second)}.")
        return wording.format(
            rates=" ".join(sentences),
            amount=amount(int(key[0]), str(key[1])),
            target=plural(str(key[2])),
        )

    def solve(self, key: Key) -> str:
        """Spread the worth of one of the first good along the rates, whatever their order."""
        worth = {str(key[1]): Fraction(1)}
        rates = rates_of(key)
        while key[2] not in worth:
            for left, first, right, second in rates:
                if first in worth:
                    worth.setdefault(second, worth[first] * right / left)
                elif second in worth:
                    worth.setdefault(first, worth[second] * left / right)
        return str(int(key[0]) * worth[str(key[2])])

    def slip(self, stream: Stream, key: Key) -> str:
        right = int(self.solve(key))
        rate = stream.choice(rates_of(key))
        kind = stream.below(10)
        if kind < 3:  # one trade left out, or taken the wrong way round
            return str(max(1, right * rate[0] // rate[2]))
        if kind < 5:
            return str(max(1, right * rate[2] // rate[0]))
        return str(near(stream, right))
