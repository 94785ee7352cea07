"""Families about letters: count, reverse, alphabetise, remove the vowels."""

from __future__ import annotations

from swarm.calibration.task import Family, Key, swap
from swarm.seeded import Stream

VOWELS = "aeiou"
CONSONANTS = "bcdfghklmnprstvwz"
_COUNTED = "abcdefgimnoprstu"


def made_up_word(stream: Stream, shortest: int = 4, longest: int = 7) -> str:
    """Letters that mostly alternate between vowels and consonants."""
    length = stream.between(shortest, longest)
    letters = ""
    vowel = stream.below(20) < 7
    while len(letters) < length:
        letters += stream.choice(VOWELS if vowel else CONSONANTS)
        if stream.below(20) < 17:
            vowel = not vowel
    return letters


def misspelt(stream: Stream, word: str) -> str:
    """``word`` with one slip: two neighbours swapped, a letter changed, lost or doubled."""
    letters = list(word)
    if not letters:
        return stream.choice(CONSONANTS)
    at = stream.below(len(letters))
    kind = stream.below(20)
    if kind < 9:
        swap(stream, letters)
    elif kind < 13:
        letters[at] = stream.choice(letters)
    elif kind < 17:
        del letters[at]
    else:
        letters.insert(at, stream.choice(letters))
    return "".join(letters)


class Count(Family):
    """How often a letter stands in a word; the operands are the letter and the word."""

    name = "count"
    wordings = (
        'How many times does "{}" appear in "{}"?',
        'Count the letter "{}" in "{}".',
        'How many letters "{}" are in "{}"?',
    )

    def draw(self, stream: Stream) -> Key:
        letter = stream.choice(_COUNTED)
        letters = [other for other in made_up_word(stream) if other != letter]
        for _ in range(stream.choice((0, 1, 1, 2, 2, 3, 4))):
            letters.insert(stream.between(0, len(letters)), letter)
        return letter, "".join(letters) or letter

    def solve(self, key: Key) -> str:
        letter, word = map(str, key)
        return str(word.count(letter))

    def steps(self, key: Key) -> str:
        letter, word = map(str, key)
        return "".join(f"{at}{word[: place + 1].count(letter)}" for place, at in enumerate(word))

    def slip(self, stream: Stream, key: Key) -> str:
        return str(max(0, int(self.solve(key)) + stream.choice((-1, -1, 1, 1, 2))))


class Reverse(Family):
    """A word written backwards."""

    name = "reverse"
    wordings = (
        'Reverse the word "{}".',
        'Write "{}" backwards.',
        'Spell the word "{}" backwards.',
    )

    def draw(self, stream: Stream) -> Key:
        return (made_up_word(stream),)

    def solve(self, key: Key) -> str:
        return str(key[0])[::-1]

    def slip(self, stream: Stream, key: Key) -> str:
        if stream.below(10) == 0:
            return str(key[0])
        return misspelt(stream, self.solve(key))


class Alphabetise(Family):
    """The letters of a word in alphabetical order."""

    name = "alphabetise"
    wordings = (
        'Put the letters of "{}" in alphabetical order.',
        'Sort the letters in "{}".',
    )

    def draw(self, stream: Stream) -> Key:
        return (made_up_word(stream),)

    def solve(self, key: Key) -> str:
        return "".join(sorted(str(key[0])))

    def slip(self, stream: Stream, key: Key) -> str:
        if stream.below(10) == 0:
            return str(key[0])
        return misspelt(stream, self.solve(key))


class Vowels(Family):
    """A word without its vowels; it has at least one consonant."""

    name = "vowels"
    wordings = ('Remove the vowels from "{}".', 'Write "{}" without vowels.')

    def draw(self, stream: Stream) -> Key:
        while True:
            word = made_up_word(stream, 5, 9)
            if self.solve((word,)):
                return (word,)

    def solve(self, key: Key) -> str:
        return "".join(letter for letter in str(key[0]) if letter not in VOWELS)

    def slip(self, stream: Stream, key: Key) -> str:
        kind = stream.below(20)
        if kind < 4:
            kept = stream.choice(("aei", "aou", "eiu"))
            return "".join(letter for letter in str(key[0]) if letter not in kept)
        if kind < 6:
            return str(key[0])
        return misspelt(stream, self.solve(key))
