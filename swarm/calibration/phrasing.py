"""Questions put the way people ask them: a small seeded grammar around a family's wordings.

A template is expanded in three steps. ``[a|b|c]`` becomes one of its options, innermost first.
``<name>``, ``<he>``, ``<his>``, ``<things>`` and the like become members of one cast, the same
throughout a question. What is left, ``{0}`` or ``{items}``, are the operands, which the family
fills in last, so that nothing here can touch them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from swarm.seeded import Stream

_OPTIONS = re.compile(r"\[([^\[\]]*)\]")
_ROLE = re.compile(r"<(\w+)>")

SHE = (
    "Anna", "Mia", "Sara", "Lena", "Olivia", "Emma", "Ruth", "Clara", "Nadia", "Ines", "Priya",
    "Mei", "Fatima", "Julia", "Greta", "Hanna", "Rosa", "Wanda", "Zoe", "Paula", "Joan", "Kate",
    "Lucia", "Amira", "Tessa", "Ivy", "Nora", "Elif", "Yuki", "Vera",
)  # fmt: skip
HE = (
    "Tom", "Ben", "Leo", "Omar", "Jack", "Liam", "Noah", "Paul", "Ivan", "Raj", "Chen", "Ali",
    "Carlos", "Felix", "Otto", "Marco", "Henry", "Kofi", "Sam", "Victor", "Erik", "Hugo", "Dan",
    "Pablo", "Theo", "Amir", "Jonas", "Luca", "Kenji", "Walter",
)  # fmt: skip
THINGS = (
    "apples", "books", "coins", "cards", "shells", "pens", "eggs", "stamps", "marbles",
    "stickers", "cookies", "pencils", "tickets", "balloons", "seeds", "bricks", "candles",
    "buttons", "photos", "lemons", "cups", "bottles", "plates", "boxes", "flowers", "stones",
    "badges", "magnets", "ribbons", "crayons",
)  # fmt: skip
_PLACES = (
    "market", "school", "library", "park", "fair", "shop", "club", "office", "farm", "museum",
    "station", "garden", "beach", "workshop", "camp",
)  # fmt: skip
_KIN = (
    "sister", "brother", "daughter", "son", "cousin", "friend", "neighbour", "teacher",
    "flatmate", "colleague", "boss", "nephew", "niece", "grandfather", "aunt",
)  # fmt: skip
DAYS = (
    "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday",
)  # fmt: skip

ROLES = {
    "<name>": (*SHE, *HE),
    "<things>": THINGS,
    "<place>": _PLACES,
    "<kin>": _KIN,
    "<day>": DAYS,
}
"""Words of which one is as good as another."""

_OPENERS = (
    "[Hi|Hello|Hey|Good morning|Good evening][,|!| there,| all,|.]",
    "[Quick|Short|Small|Silly|One more|Another] [question|one][:|.| -]",
    "[Please help|Help me out|Help][:|.|, please.]",
    "[I have a question|Question|I need help with this|I need a hand|Got one for you|Try this]"
    "[:|.]",
    "[Can|Could] you [help me|solve this|work this out|check this][ for me|, please|]?",
    "[I'm|I am] [stuck|stuck on this|not sure about this|a bit lost here|puzzled].",
    "[Let's see|OK|Okay|Right|So|Well|Alright],",
    "[Not sure who else to ask|Bear with me|Sorry to bother you|I go round in circles][:|.]",
    "[Thinking|Wondering] about [this|something].",
    "[Here is|Here's] [a puzzle|one|a little problem|something] [for you|I could not solve"
    "|I came across].",
)
_CONTEXTS = (
    "My <kin> [asked me|wants to know|brought home|sent me|came up with] this"
    "[| yesterday| today| last night| on <day>| this morning| over dinner].",
    "[I'm|I am|We are|We're] [preparing|practising|revising|getting ready] for [a quiz|a test"
    "|an exam|an interview|the <place> quiz] [on <day>|next week|tomorrow|soon].",
    "[This|It] [is|was] [on|in] [a worksheet|a puzzle book|an old textbook|a flyer|last week's quiz"
    "|the <place> newsletter|an exam I found].",
    "[I'm|I am] [writing|making|putting together] [a quiz|a game|a worksheet|a small program"
    "|some notes] for [the <place>|my <kin>|my class|work].",
    "[My <kin> and I|We] [disagree|got different results|had a bet|argued] about this"
    "[| on <day>| at the <place>| all evening].",
    "[It's|It is] for [the <place>|my <kin>|my homework|a spreadsheet|a crossword|a form|work].",
    "[I did this in my head|I tried it by hand|I did it on paper] and [want to check|am not sure"
    "|got something odd|would like to compare].",
    "[I was|We were] at the <place> [on <day>|yesterday|this morning|just now] and [this came up"
    "|somebody asked this|saw this on a sign].",
)
_CLOSERS = (
    "[Thanks|Thank you|Cheers|Many thanks|Thx][!|.| in advance.| in advance!| a lot.]",
    "[I keep getting different results|I got two different answers|My <kin> got something else"
    "|I lost count].",
    "[No rush|It's urgent|Take your time|I have to hand it in soon|It has been bugging me].",
    "[My <kin>|<name>] [says|thinks|claims] it is [easy|a trick question|hard|obvious].",
    "[No need to explain|You need not show the steps|Skip the explanation|I only need the result].",
    "[Please|Pls] [double-check|be careful|check it twice|take care].",
    "[Any idea|Can you tell me|Do you know]?",
)

Phrase = Callable[[str], str]


def expand(stream: Stream, template: str) -> str:
    """``template`` with one option of every ``[a|b]`` and one cast in its ``<roles>``."""
    while match := _OPTIONS.search(template):
        chosen = stream.choice(match[1].split("|"))
        template = template[: match.start()] + chosen + template[match.end() :]
    cast = _cast(stream)
    return _ROLE.sub(lambda role: cast[role[1]], template)


def _cast(stream: Stream) -> dict[str, str]:
    roles: dict[str, str] = {}
    for prefix in ("", "other_"):
        female = stream.below(2) == 0
        he, his, him = ("she", "her", "her") if female else ("he", "his", "him")
        roles |= {prefix + "name": stream.choice(SHE if female else HE)}
        roles |= {prefix + "he": he, prefix + "his": his, prefix + "him": him}
        roles |= {prefix + "He": he.capitalize(), prefix + "His": his.capitalize()}
    while roles["other_name"] == roles["name"]:
        roles["other_name"] = stream.choice(SHE if roles["other_he"] == "she" else HE)
    roles["things"], roles["others"] = stream.sample(THINGS, 2)
    roles["place"], roles["kin"] = stream.choice(_PLACES), stream.choice(_KIN)
    roles["day"] = stream.choice(DAYS)
    return roles


def ask(stream: Stream, wordings: Sequence[str], hint: str, fill: Phrase) -> str:
    """A question in free form.

    Args:
        wordings: templates of the family.
        hint: template of a sentence on the form of the answer, or ``""`` where none is needed.
        fill: puts the operands into an expanded template.
    """
    question = fill(_typed(stream, expand(stream, stream.choice(wordings))))
    before = [
        kind for kind, share in ((_OPENERS, 16), (_CONTEXTS, 14)) if stream.below(100) < share
    ]
    after = [_CLOSERS] if stream.below(100) < 14 else []
    parts = [expand(stream, stream.choice(kind)) for kind in before]
    parts.append(question)
    if hint and stream.below(100) < 30:
        parts.append(expand(stream, hint))
    parts += [expand(stream, stream.choice(kind)) for kind in after]
    text = ("\n\n" if "\n" in question else " ").join(parts)
    # The mark that ends a question is easily forgotten, but only at the very end.
    return text[:-1] if text[-1] in "?." and stream.below(100) < 7 else text


def aside(stream: Stream, hints: Sequence[str]) -> str:
    """A sentence that may stand around a question of any family."""
    return expand(stream, stream.choice(stream.choice((_OPENERS, _CONTEXTS, _CLOSERS, hints))))


def _typed(stream: Stream, template: str) -> str:
    """The spelling habits of people in a hurry: case, contractions, repeated question marks."""
    habit = stream.below(100)
    if habit < 5:
        template = _lowered(template)
    elif habit < 11:
        template = template[0].lower() + template[1:] if template[0] != "I" else template
    if stream.below(4) == 0:
        template = template.replace("What is ", "What's ").replace("what is ", "what's ")
    return template.replace("?", "??") if stream.below(100) < 2 else template


def _lowered(template: str) -> str:
    """Lower case, save inside the ``{fields}`` that name operands."""
    return re.sub(r"[^{}]+(?![^{}]*\})", lambda plain: plain[0].lower(), template)
