"""Families about the Gregorian calendar: the day of the week, the date some days away.

Day numbers count from 1 March of the year 0, so that the leap day is the last of its year; the
arithmetic is the usual one with eras of 400 years (146,097 days).
"""

from __future__ import annotations

from swarm.calibration.arithmetic import numbers
from swarm.calibration.phrasing import DAYS
from swarm.calibration.task import Family, Key
from swarm.seeded import Stream

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip
_ERA = 146_097
_MODERN = 1920
"""Before this year the question names the calendar: some countries still used another."""


def day_number(year: int, month: int, day: int) -> int:
    """Days from 1 March 0 to a date of the (proleptic) Gregorian calendar."""
    year -= month <= 2
    era, year_of_era = divmod(year, 400)
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return era * _ERA + 365 * year_of_era + year_of_era // 4 - year_of_era // 100 + day_of_year


def date_of(number: int) -> tuple[int, int, int]:
    """Year, month and day of a day number: the inverse of :func:`day_number`."""
    era, day_of_era = divmod(number, _ERA)
    leaps = day_of_era // 1_460 - day_of_era // 36_524 + day_of_era // 146_096
    year_of_era = (day_of_era - leaps) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month + 2) // 5 + 1
    month = month + 3 if month < 10 else month - 9
    return era * 400 + year_of_era + (month <= 2), month, day


def weekday(number: int) -> int:
    """The day of the week of a day number: 0 for Monday."""
    return (number + 2) % 7


def iso(number: int) -> str:
    """A day number as ``YYYY-MM-DD``."""
    year, month, day = date_of(number)
    return f"{year:04}-{month:02}-{day:02}"


def _written(stream: Stream, number: int) -> str:
    year, month, day = date_of(number)
    name = MONTHS[month - 1]
    text = stream.choice((f"{day} {name} {year}", f"{name} {day}, {year}", iso(number)))
    return text if year >= _MODERN else f"{text} (Gregorian calendar)"


def _away(days: int) -> str:
    plural = "day" if abs(days) == 1 else "days"
    return f"{abs(days)} {plural} {'after' if days > 0 else 'before'}"


class Weekday(Family):
    """A day of the week. The operands are a day of the week and how many days later, or a day
    number, how many days later (0 for that very day) and a mark that tells the two apart.

    Attributes:
        dated: free templates that only suit a plain date.
    """

    name = "weekday"
    levels = 6
    wordings = ("What day of the week is {when}?", "Which weekday is {when}?")
    asks = (
        "[What|Which] day of the week is {when}?",
        "[What|Which] weekday [is|falls on|do we get for] {when}?",
        "On [what|which] day of the week [is|falls|do I land with] {when}?",
        "[Tell me|Find|Work out] the day of the week of {when}.",
        "{when} - [which|what] day of the week is that?",
        "Without looking it up, [what|which] weekday is {when}?",
        "I need to know [what|which] day of the week {when} is.",
        "[Calendar|Diary] question: [what|which] day of the week is {when}?",
    )
    dated = (
        "My <kin> [was born|got married|starts work|moves] on {when}. [What|Which] day of the week "
        "is that?",
        "The <place> [opens|closes|has a party] on {when}. [Is that a Monday, a Tuesday or what "
        "other day|What day of the week is that]?",
        "<name> [has an appointment|pays the rent|is due] on {when}. Which day of the week [is it|"
        "must <he> keep free]?",
        "I have to [fill in|write down] the weekday for {when}. [Which is it|What is it]?",
    )
    hint = "[Just|Only] the [day|name of the day][, please|]."
    _AFTER = ((2, 60), (61, 9_999))
    _RANGES = ((2000, 2040, 0), (1800, 2299, 0), (1900, 2099, 3_000), (1600, 2399, 400_000))
    """First and last year, and how many days away at most, at levels 3 to 6."""

    def asks_for(self, key: Key) -> tuple[str, ...]:
        return self.asks if key[1] else self.asks + self.dated

    def draw(self, stream: Stream, level: int = 1) -> Key:
        if level <= len(self._AFTER):
            sign = stream.choice((-1, 1))
            return stream.below(7), sign * stream.between(*self._AFTER[level - 1])
        first, last, away = self._RANGES[level - 1 - len(self._AFTER)]
        number = stream.between(day_number(first, 1, 1), day_number(last, 12, 31))
        days = stream.between(away // 10, away) if away else 0
        return number, days, "date"

    def phrase(self, stream: Stream, key: Key, wording: str) -> str:
        start, days = numbers(key[:2])
        if len(key) == 2:
            return wording.format(when=f"{_away(days)} a {DAYS[start]}")
        when = _written(stream, start)
        return wording.format(when=f"{_away(days)} {when}" if days else when)

    def solve(self, key: Key) -> str:
        start, days = numbers(key[:2])
        return DAYS[(start + days) % 7 if len(key) == 2 else weekday(start + days)]

    def slip(self, stream: Stream, key: Key) -> str:
        right = DAYS.index(self.solve(key))
        # Off by one is the commonest slip, a direction or a leap year missed makes others.
        return DAYS[(right + stream.choice((-2, -1, -1, 1, 1, 2, 3))) % 7]


class Date(Family):
    """The date some days after or before another; the operands are a day number and the days."""

    name = "date"
    levels = 6
    wordings = (
        "What date is {away} {start}? Answer as YYYY-MM-DD.",
        "Which date comes {away} {start}? Write it as YYYY-MM-DD.",
    )
    asks = (
        "What [date is|is the date] {away} {start}? [Answer as YYYY-MM-DD.|YYYY-MM-DD, please.]",
        "[Which date|What date] [comes|falls] {away} {start}, [as|written as] YYYY-MM-DD?",
        "[Give|Tell] me the date {away} {start} as YYYY-MM-DD.",
        "A [deadline|parcel|payment|visa|subscription] is due {away} {start}. What date is that "
        "(YYYY-MM-DD)?",
        "<name> [leaves|returns|turns up|starts] {away} {start}. On [what|which] date, in the form "
        "YYYY-MM-DD?",
        "[Work out|Compute|Find] {away} {start} (format YYYY-MM-DD).",
        "What do I put in the date field (YYYY-MM-DD) for {away} {start}?",
        "The <place> [opens|closes|has its fair] {away} {start}. [Which date is that|When is "
        "that], as YYYY-MM-DD?",
        "{away} {start}, as YYYY-MM-DD: [which date is it|what is it]?",
    )
    hint = "[Just|Only] the date[, please|]."
    _AFTER = ((2000, 2039, 1, 9), (2000, 2039, 10, 45), (2000, 2039, 46, 400),
              (1900, 2099, 401, 9_999), (1700, 2299, 10_000, 99_999),
              (1600, 2399, 100_000, 400_000))  # fmt: skip
    """First and last year, and fewest and most days away, at each level."""

    def draw(self, stream: Stream, level: int = 1) -> Key:
        first, last, fewest, most = self._AFTER[level - 1]
        start = stream.between(day_number(first, 1, 1), day_number(last, 12, 31))
        days = stream.between(fewest, most)
        # Backwards only as far as the calendar goes.
        back = stream.below(3) == 0 and date_of(start - days)[0] > 1582
        return start, -days if back else days

    def phrase(self, stream: Stream, key: Key, wording: str) -> str:
        start, days = numbers(key)
        return wording.format(away=_away(days), start=_written(stream, start))

    def solve(self, key: Key) -> str:
        return iso(sum(numbers(key)))

    def slip(self, stream: Stream, key: Key) -> str:
        start, days = numbers(key)
        kind = stream.below(10)
        if kind < 6:
            return iso(start + days + stream.choice((-2, -1, -1, 1, 1, 2)))
        if kind < 8:
            return iso(start + days + stream.choice((-31, -30, 30, 31, -365, 365)))
        return iso(start - days)
