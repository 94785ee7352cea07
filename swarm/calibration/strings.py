"""Families about letters: count, reverse, alphabetise, remove the vowels."""

from __future__ import annotations

from swarm.calibration.task import Family, Key, swap
from swarm.seeded import Stream

VOWELS = "aeiou"
CONSONANTS = "bcdfghklmnprstvwz"
_COUNTED = "abcdefgimnoprstu"


_LENGTHS = ((4, 7), (8, 11), (12, 18), (20, 30), (40, 60))
"""Shortest and longest word at each level."""


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
    levels = len(_LENGTHS)
    asks = (
        'How [many times|often] does [the letter |]"{0}" [appear|occur|come up|stand] in "{1}"?',
        'Count the [letter "{0}"|"{0}"s] in "{1}"[.|, please.]',
        'How many [letters "{0}"|"{0}"s|times the letter "{0}"] are [there |]in "{1}"?',
        'In [the word |]"{1}", how [many times|often] do you [see|find] "{0}"?',
        'What is the number of "{0}"s in "{1}"?',
        '<name> wrote "{1}". How many times did <he> write "{0}"?',
        'The [password|label|code word|user name] is "{1}". How many "{0}" does it [have|contain]?',
        'If I [cross out|underline|remove] every "{0}" in "{1}", how many letters is that?',
    )
    hint = "[Just|Only] the number[, please|]."

    def draw(self, stream: Stream, level: int = 1) -> Key:
        letter = stream.choice(_COUNTED)
        word = made_up_word(stream, *_LENGTHS[level - 1])
        letters = [other for other in word if other != letter]
        for _ in range(level * stream.choice((0, 1, 1, 2, 2, 3, 4))):
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
    levels = len(_LENGTHS)
    asks = (
        '[Reverse|Turn round] the [word|string|letters of|text] "{0}".',
        '[Write|Spell|Read|Type] "{0}" backwards[.|, please.]',
        '[What is|How do you write|How do you spell] "{0}" backwards?',
        'What [do I get|comes out] if I [reverse|flip|turn round] "{0}"?',
        'What does "{0}" [say|read|spell] from right to left?',
        '<name> reads [the word |]"{0}" from the last letter to the first. What does <he> read?',
        'Give [me |]"{0}" [with its letters in reverse order|from back to front].',
        'The [sign|label|password] says "{0}" [but it is back to front|in reverse]. What is it '
        "[really|the right way round]?",
    )
    hint = "[Just|Only] the [word|result][, please|]."

    def draw(self, stream: Stream, level: int = 1) -> Key:
        return (made_up_word(stream, *_LENGTHS[level - 1]),)

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
    levels = len(_LENGTHS)
    asks = (
        '[Put|Write|Arrange] the letters of "{0}" in alphabetical order.',
        'Sort the letters [in|of] "{0}"[.| alphabetically.| from a to z.]',
        'What [is|do you get for] "{0}" with its letters in alphabetical order?',
        '[In alphabetical order|From a to z], what are the letters of "{0}"[, as one word|]?',
        'What [do I get|comes out] if I [sort|order] the letters of "{0}" alphabetically?',
        '<name> puts the [tiles|cards|letters] of "{0}" in alphabetical order. What does it '
        "[say|spell] now?",
        '[Alphabetise|Alphabetize|Order] [the word |]"{0}" letter by letter.',
        'I need the letters of "{0}" [sorted|in ABC order|alphabetically][, all of them|].',
    )
    hint = "[Just|Only] the letters, [without spaces|as one word]."

    def draw(self, stream: Stream, level: int = 1) -> Key:
        return (made_up_word(stream, *_LENGTHS[level - 1]),)

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
    levels = len(_LENGTHS)
    asks = (
        '[Remove|Delete|Drop|Strip] [the|all|all the] vowels [from|in] "{0}".',
        '[Write|Spell|Type] "{0}" without [vowels|the vowels|its vowels].',
        'What [is left|remains] of "{0}" [without its vowels|if I remove the vowels]?',
        'What [does|would] "{0}" [look like|be] with no vowels?',
        '[Keep|Copy] only the consonants of "{0}", in order.',
        '<name> leaves out [every vowel|all vowels] when <he> writes "{0}". What does <he> write?',
        'The [label|sign|plate] has no room for vowels. What becomes of "{0}"?',
        'Take [the word |]"{0}" and [cross out|drop|take out] a, e, i, o and u. What is left?',
    )
    hint = "[Just|Only] the [letters that are left|result][, please|]."
    _LENGTHS = ((5, 9), (10, 16), (18, 26), (30, 40), (60, 80))

    def draw(self, stream: Stream, level: int = 1) -> Key:
        while True:
            word = made_up_word(stream, *self._LENGTHS[level - 1])
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
