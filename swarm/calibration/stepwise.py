"""Families about following a rule step by step: recurrences, changes to a word."""

from __future__ import annotations

from swarm.calibration.strings import VOWELS, made_up_word, misspelt
from swarm.calibration.task import Family, Key, near
from swarm.seeded import Stream


class Recurrence(Family):
    """A term of a sequence given by its first terms and a rule.

    The operands are which term is asked, a modulus (0 for none), a constant, the factors of the
    terms before (the latest first) and as many first terms.
    """

    name = "recurrence"
    levels = 6
    wordings = (
        "{rule} What is term number {n}?",
        "{rule} Find term number {n}.",
    )
    asks = (
        "{rule} What is [term number {n}|the term in place {n}|number {n} in the sequence]?",
        "{rule} [Find|Give me|Compute|Work out] term number {n}.",
        "[Consider this sequence.|Here is a sequence.|Take this sequence.] {rule} [What is|Which "
        "number is] term number {n}?",
        "<name> writes numbers in a row. {rule} [What|Which number] does <he> write in place {n}?",
        "[A pattern on a wall|The counter of a game|A puzzle] goes like this. {rule} What [stands|"
        "comes] in place {n}?",
        "{rule} [Continue|Carry on] until place {n}: which number [is|stands] there?",
        "What is term number {n} of the following sequence? {rule}",
        "{rule} So what's number {n} in the row?",
    )
    hint = "[Just|Only] the number[, please|]."
    _SHAPES = (
        (1, 3, 5, 3, 0), (1, 6, 9, 5, 0), (2, 7, 12, 1, 0), (2, 8, 11, 4, 0),
        (2, 15, 25, 9, 997), (3, 30, 50, 12, 9_999),
    )  # fmt: skip
    """Terms before that count, first and last place asked, the largest factor and the largest
    modulus, at each level."""

    def draw(self, stream: Stream, level: int = 1) -> Key:
        order, first, last, most, top = self._SHAPES[level - 1]
        modulus = stream.between(top // 5, top) if top else 0
        factors = [stream.between(1 + (order == 1), max(most, 1)) for _ in range(order)]
        constant = stream.between(1, 9) if order == 1 else stream.below(2) * stream.between(1, 9)
        terms = [stream.between(1, 12) for _ in range(order)]
        return stream.between(first, last), modulus, constant, *factors, *terms

    def phrase(self, stream: Stream, key: Key, wording: str) -> str:
        place, modulus, constant, factors, terms = _recurrence(key)
        befores = ("the term before it", "the one before that", "the one before that one")
        start = "The first term is" if len(terms) == 1 else "The first terms are"
        parts = [
            before if factor == 1 else f"{factor} times {before}"
            for factor, before in zip(factors, befores, strict=False)
        ]
        if constant:
            parts.append(str(constant))
        rule = (
            parts[0] if len(parts) == 1 else f"the sum of {', '.join(parts[:-1])} and {parts[-1]}"
        )
        if modulus:
            rule = f"{rule}, but of that only the remainder when divided by {modulus}"
        listed = " and ".join(map(str, terms)) if len(terms) < 3 else ", ".join(map(str, terms))
        said = f"{start} {listed}. Every later term is {rule}."
        return wording.format(rule=said, n=place)

    def solve(self, key: Key) -> str:
        place, modulus, constant, factors, terms = _recurrence(key)
        while len(terms) < place:
            latest = terms[: -len(factors) - 1 : -1]
            following = constant + sum(a * b for a, b in zip(factors, latest, strict=True))
            terms.append(following % modulus if modulus else following)
        return str(terms[place - 1])

    def slip(self, stream: Stream, key: Key) -> str:
        kind = stream.below(10)
        if kind < 5:  # lost count of the places
            return self.solve((int(key[0]) + stream.choice((-1, 1)), *key[1:]))
        if kind < 7:
            return self.solve((*key[:2], int(key[2]) + stream.choice((-1, 1)), *key[3:]))
        return str(near(stream, int(self.solve(key))))


def _recurrence(key: Key) -> tuple[int, int, int, list[int], list[int]]:
    place, modulus, constant, *rest = map(int, key)
    half = len(rest) // 2
    return place, modulus, constant, rest[:half], rest[half:]


class Rewrite(Family):
    """A word after some changes to it; the operands are the word and the changes.

    A change is a word: ``reverse``, ``sort``, ``ends`` (swap the first and the last letter),
    ``front:3`` (move the first three to the end), ``back:3`` (the last three to the front),
    ``drop:x`` (every x), ``put:x:y`` (y for every x), ``after:x:y`` (y after every x), ``double``
    (every vowel).
    """

    name = "rewrite"
    levels = 6
    wordings = (
        'Start with the word "{word}". {changes} What is the result?',
        'Take "{word}" and make these changes in order. {changes} What do you end up with?',
    )
    asks = (
        'Start with [the word |]"{word}". {changes} What [is the result|do you get|comes out]?',
        'Take "{word}" and [do this|make these changes in order|go step by step]. {changes} What '
        "[do you end up with|is left|do I get]?",
        'What [becomes of|happens to] "{word}" if I do this? {changes}',
        '<name> writes "{word}" on [a card|the board|a strip of paper]. {changes} What does it '
        "[say|read] now?",
        "I [apply|have] some rules for [a name|a code|passwords], in this order. {changes} What "
        '[is|do they make of] "{word}" after that?',
        'My [editor|script] changes "{word}" like this. {changes} [Which word|What] is left?',
        '[Word game|Puzzle|Cipher] with "{word}": {changes} What is the [final|last] word?',
        '[Follow|Carry out] the steps on "{word}". {changes} Give the final word.',
    )
    hint = "[Just|Only] the [word|result|letters][, please|]."
    _SHAPES = ((2, 4, 5), (3, 5, 7), (4, 6, 9), (6, 8, 12), (9, 12, 16), (14, 16, 24))
    """How many changes, and the shortest and longest word, at each level."""

    def draw(self, stream: Stream, level: int = 1) -> Key:
        count, shortest, longest = self._SHAPES[level - 1]
        while True:
            word = made_up_word(stream, shortest, longest)
            now, changes = word, list[str]()
            while len(changes) < count:
                change = _change(stream, now, level)
                after = changed(now, change)
                # Every step counts, and the word stays a word of about that length.
                if after != now and shortest <= len(after) <= longest + 4:
                    changes.append(change)
                    now = after
                elif stream.below(40) == 0:
                    break  # no way on from here
            if len(changes) == count and now != word:
                return word, *changes

    def phrase(self, stream: Stream, key: Key, wording: str) -> str:
        said = [_said(str(change)) for change in key[1:]]
        if stream.below(2):
            text = " ".join(f"{place}. {step}." for place, step in enumerate(said, 1))
        else:
            links = ("Then ", "Next, ", "After that, ")
            text = f"{said[0]}."
            for step in said[1:]:
                text += f" {stream.choice(links)}{step[0].lower()}{step[1:]}."
        return wording.format(word=key[0], changes=text)

    def solve(self, key: Key) -> str:
        word, *changes = map(str, key)
        for change in changes:
            word = changed(word, change)
        return word

    def slip(self, stream: Stream, key: Key) -> str:
        kind = stream.below(10)
        if kind < 3:  # one step left out
            dropped = stream.between(1, len(key) - 1)
            return self.solve((*key[:dropped], *key[dropped + 1 :]))
        return misspelt(stream, self.solve(key))


def _change(stream: Stream, word: str, level: int) -> str:
    kinds = ("reverse", "ends", "front", "back", "drop", "put", "after", "double", "sort")
    kind = stream.choice(kinds[: 6 + min(level, 3)])
    letter = stream.choice(word)
    if kind in ("front", "back"):
        return f"{kind}:{stream.between(1, min(4, len(word) - 1))}"
    if kind == "drop":
        return f"drop:{letter}"
    if kind in ("put", "after"):
        return f"{kind}:{letter}:{stream.choice('abdeiklmnoprstu')}"
    return kind


def changed(word: str, change: str) -> str:
    """``word`` after one change."""
    kind, *details = change.split(":")
    if kind == "reverse":
        return word[::-1]
    if kind == "sort":
        return "".join(sorted(word))
    if kind == "ends":
        return word[-1] + word[1:-1] + word[0]
    if kind == "front":
        count = int(details[0])
        return word[count:] + word[:count]
    if kind == "back":
        count = int(details[0])
        return word[-count:] + word[:-count]
    if kind == "drop":
        return word.replace(details[0], "")
    if kind == "put":
        return word.replace(details[0], details[1])
    if kind == "after":
        return word.replace(details[0], "".join(details))
    if kind == "double":
        return "".join(letter * 2 if letter in VOWELS else letter for letter in word)
    raise ValueError(f"not a change: {change!r}")


def _said(change: str) -> str:
    kind, *details = change.split(":")
    if kind in ("front", "back"):
        one = details[0] == "1"
        which = "first" if kind == "front" else "last"
        letters = f"the {which} letter" if one else f"the {which} {details[0]} letters"
        return f"Move {letters} to the {'end' if kind == 'front' else 'front'}"
    if kind == "drop":
        return f'Remove every "{details[0]}"'
    if kind == "put":
        return f'Replace every "{details[0]}" with "{details[1]}"'
    if kind == "after":
        return f'Insert "{details[1]}" after every "{details[0]}"'
    return {
        "reverse": "Reverse it",
        "sort": "Put its letters in alphabetical order",
        "ends": "Swap the first and the last letter",
        "double": "Double every vowel (a, e, i, o, u)",
    }[kind]
