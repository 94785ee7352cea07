"""The fold of a log: what its author says that holds."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import limits
from protocol.codec import encode
from protocol.errors import UpdateError
from protocol.ids import ZERO_DIGEST, PeerId, RoundId
from protocol.ledger import (
    EPOCH_S,
    HINT_DAY_S,
    Calibration,
    Capability,
    Checkpoint,
    Evidence,
    Hints,
    Profile,
    Subject,
    Sum,
    read_entry,
)
from protocol.messages import Model, Proof, WaveClose, seal
from protocol.proofs import equivocation
from swarm.ledger import guard
from swarm.ledger.document import Document, client_of
from swarm.ledger.replica import Replica
from swarm.ledger.state import State, profile_of, read, reading, state, updates, values_of
from swarm.ledger.steps import finish
from tests.protocol.arbitrary import arbitrary
from tests.swarm.ledger.authors import EPOCH, NOW, SWARM, Author, FreeAdmission, replica, signer

PROFILE = Profile(Model("m", "f", "q"), 4_000_000_000, 32_768, True, 7, "mine")
DAY = EPOCH * 7

changed = msgspec.structs.replace


class Diary(Author):
    """An author whose document is the product's own."""

    def __init__(self, values: Mapping[str, bytes], epoch: int = EPOCH) -> None:
        super().__init__("ann", epoch=epoch)
        self.document, update = Document.rebased(values, client_of(self.peer, epoch))
        self.update = update

    def begin(self, hints: tuple[Hints, ...] = (), evidence: tuple[Proof, ...] = ()) -> None:
        self.say(Checkpoint(self.update, hints, evidence))

    def set(self, **changes: bytes | None) -> None:
        update = self.document.set(changes)
        if update is not None:
            self.say(Capability(update))

    def state(self) -> State:
        """By way of a replica."""
        chain = replica(self.run()).chain(self.peer, self.epoch)
        assert chain is not None
        return state(chain)


def hints(day: int, rounds: int = 1) -> Hints:
    one = Sum("sums", rounds, (0,) * 5, (0,) * 5, 0, 0)
    subject = Subject(PeerId(bytes(32)), "m", (one,))
    return Hints(day, (day + 1 + limits.HINT_DAYS) * HINT_DAY_S, (subject,))


def conviction(number: int) -> Proof:
    thief = signer("thief")
    one = WaveClose(RoundId(number.to_bytes(32, "big")), ZERO_DIGEST, 0, ZERO_DIGEST, False)
    return equivocation(seal(thief, one), seal(thief, changed(one, more=True)))


# --- the document ---------------------------------------------------------------------------------


def test_nothing_holds_of_an_empty_log() -> None:
    assert read(signer("ann").peer, EPOCH, []) == State({}, None, {}, (), 0, False)


def test_what_a_checkpoint_says_holds() -> None:
    diary = Diary(values_of(PROFILE))
    diary.begin((hints(DAY - 1), hints(DAY)), (conviction(1),))
    found = diary.state()
    assert found.profile == PROFILE
    assert found.values == values_of(PROFILE)
    assert found.hints == {DAY - 1: hints(DAY - 1), DAY: hints(DAY)}
    assert found.evidence == (conviction(1),)
    assert found.since == EPOCH * EPOCH_S
    assert not found.forked


def test_the_last_word_on_each_value_holds() -> None:
    diary = Diary(values_of(PROFILE))
    diary.begin()
    diary.set(label=encode("yours"), note=b"x")
    diary.set(energy=encode(8), note=None)
    found = diary.state()
    assert found.profile == changed(PROFILE, label="yours", energy=8)
    assert found.values == values_of(changed(PROFILE, label="yours", energy=8))
    assert found.since == EPOCH * EPOCH_S


@settings(max_examples=40)
@given(
    st.dictionaries(st.sampled_from("abc"), st.binary(max_size=4)),
    st.lists(
        st.dictionaries(
            st.sampled_from("abcd"), st.none() | st.binary(max_size=4), min_size=1, max_size=3
        ),
        max_size=6,
    ),
)
def test_the_state_is_the_fold_of_what_was_said(
    values: dict[str, bytes], days: list[dict[str, bytes | None]]
) -> None:
    """Whether the log comes at once or piece by piece, and after each piece."""
    diary = Diary(values)
    diary.begin()
    one = Replica(SWARM, FreeAdmission())
    meant = dict(values)
    for change in [{}, *days]:
        diary.set(**change)
        meant |= {key: value for key, value in change.items() if value is not None}
        meant = {key: value for key, value in meant.items() if change.get(key, b"") is not None}
        one.take(diary.run(), NOW)
        chain = one.chain(diary.peer, EPOCH)
        assert chain is not None
        assert state(chain).values == meant
    assert diary.state().values == meant == diary.document.values


def test_its_author_can_write_on_from_its_updates() -> None:
    diary = Diary(values_of(PROFILE))
    diary.begin((hints(DAY),))
    diary.set(label=encode("one"))
    diary.say(Calibration(hints(DAY + 1)))
    diary.set(label=encode("two"), note=b"x")
    found = list(updates(diary.bodies))
    assert len(found) == 3
    again = Document.resumed(found, client_of(diary.peer, EPOCH))
    assert again.values == diary.document.values == diary.state().values


def test_a_log_that_grows_while_it_is_read_is_read_as_it_was() -> None:
    diary = Diary(values_of(PROFILE))
    diary.begin()
    one = replica(diary.run())
    chain = one.chain(diary.peer, EPOCH)
    assert chain is not None
    before, steps = state(chain), reading(chain)
    next(steps)
    diary.set(label=encode("yours"))
    one.take(diary.run(), NOW)
    assert finish(steps) == before
    assert finish(reading(chain)) == state(chain) != before


def test_a_log_without_its_beginning_is_not_read() -> None:
    diary = Diary(values_of(PROFILE))
    diary.begin()
    diary.set(label=encode("yours"))
    with pytest.raises(UpdateError):
        read(diary.peer, EPOCH, diary.bodies[1:])


def test_a_log_is_read_under_the_name_of_its_author_and_epoch() -> None:
    diary = Diary(values_of(PROFILE))
    diary.begin()
    for author, epoch in ((signer("bob").peer, EPOCH), (diary.peer, EPOCH + 1)):
        with pytest.raises(UpdateError):
            read(author, epoch, diary.bodies)


# --- hints and evidence ---------------------------------------------------------------------------


def test_the_last_word_on_each_day_holds() -> None:
    diary = Diary({})
    diary.begin((hints(DAY - 1), hints(DAY)))
    for one in (hints(DAY, 5), hints(DAY + 1), hints(DAY, 3)):
        diary.say(Calibration(one))
    assert diary.state().hints == {
        DAY - 1: hints(DAY - 1),
        DAY: hints(DAY, 3),
        DAY + 1: hints(DAY + 1),
    }


def test_evidence_stands_in_the_order_of_the_log() -> None:
    diary = Diary({})
    diary.begin((), (conviction(3), conviction(1)))
    diary.say(Evidence(conviction(2)))
    diary.say(Evidence(conviction(0)))
    assert diary.state().evidence == tuple(map(conviction, (3, 1, 2, 0)))


# --- forks ----------------------------------------------------------------------------------------


def test_what_was_said_before_a_fork_holds_and_shows_it() -> None:
    diary = Diary(values_of(PROFILE))
    diary.begin()
    diary.set(label=encode("one"))
    one = replica(diary.run())
    twin = Diary(values_of(PROFILE))
    twin.begin()
    twin.set(label=encode("other"))
    one.take(twin.run(), NOW)
    chain = one.chain(diary.peer, EPOCH)
    assert chain is not None
    assert state(chain) == changed_state(Diary(values_of(PROFILE)), forked=True)


def changed_state(diary: Diary, forked: bool) -> State:
    diary.begin()
    return read(diary.peer, EPOCH, diary.bodies, forked)


def test_of_an_author_that_forked_at_once_nothing_holds() -> None:
    ann = Author("ann", 1)
    one = replica(ann.fork(ann.other(0), 0))
    chain = one.chain(ann.peer, EPOCH)
    assert chain is not None
    assert state(chain) == State({}, None, {}, (), 0, True)


# --- profiles -------------------------------------------------------------------------------------


@given(arbitrary(Profile))
def test_a_profile_is_what_its_values_say(profile: Profile) -> None:
    assert profile_of(values_of(profile)) == profile
    assert all(type(value) is bytes for value in values_of(profile).values())


def test_what_is_not_required_may_be_left_out() -> None:
    values = values_of(PROFILE)
    del values["energy"], values["label"]
    assert profile_of(values) == changed(PROFILE, energy=0, label="")


@pytest.mark.parametrize("name", ["model", "parameters", "context_tokens", "serves"])
def test_who_says_too_little_has_no_profile(name: str) -> None:
    values = values_of(PROFILE)
    del values[name]
    assert profile_of(values) is None


def test_what_this_version_does_not_know_is_passed_over() -> None:
    assert profile_of(values_of(PROFILE) | {"battery": encode("full"), "": b"\xc1"}) == PROFILE


@pytest.mark.parametrize("name", list(values_of(PROFILE)))
@pytest.mark.parametrize("nonsense", [b"", b"\xc1", encode(-1), encode(2**63), encode("x" * 99)])
def test_who_says_nonsense_has_no_profile(name: str, nonsense: bytes) -> None:
    assert profile_of(values_of(PROFILE) | {name: nonsense}) is None


@given(st.sampled_from(list(values_of(PROFILE))), st.binary(max_size=40))
def test_any_value_gives_a_profile_or_none(name: str, value: bytes) -> None:
    found = profile_of(values_of(PROFILE) | {name: value})
    assert found is None or values_of(found)[name] == value


def test_a_profile_fits_into_a_document() -> None:
    longest = "\U0001f41d" * limits.TEXT_CHARS
    largest = Profile(Model(longest, longest, longest), 2**48, 2**48, True, 2**48, longest[:64])
    _, update = Document.rebased(values_of(largest), client_of(signer("ann").peer, EPOCH))
    assert guard.check(update, client_of(signer("ann").peer, EPOCH), 0) == len(values_of(largest))
    assert len(update) < limits.UPDATE_BYTES // 2


def test_since_is_the_first_entry_s_time() -> None:
    ann = Author("ann", 3)
    assert read(ann.peer, EPOCH, ann.bodies).since == read_entry(ann.bodies[0]).at
