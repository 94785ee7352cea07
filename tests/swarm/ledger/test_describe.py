"""What is shown of logs."""

from __future__ import annotations

import msgspec

from protocol.codec import encode
from protocol.ids import peer_text
from protocol.ledger import EPOCH_S, Checkpoint
from swarm.ledger.chain import Chain
from swarm.ledger.describe import entries, summary
from swarm.ledger.document import Document, client_of
from tests.swarm.ledger.authors import EPOCH, PACE_S, Author, replica, signer
from tests.swarm.ledger.speaking import DAY, hints, speaker

BEGIN = EPOCH * EPOCH_S


def chain_of(author: Author) -> Chain:
    found = replica(author.run()).chain(author.peer, author.epoch)
    assert found is not None
    return found


def test_a_log_in_short() -> None:
    author = speaker("amy")
    assert summary(chain_of(author)) == {
        "peer": peer_text(author.peer),
        "epoch": EPOCH,
        "label": "upstairs",
        "model": "tiny-llama",
        "entries": 5,
        "bytes": sum(map(len, author.bodies)),
        "since": BEGIN,
        "until": BEGIN + 4 * PACE_S,
        "ticket": "unknown",
        "forked_at": None,
    }


def test_who_says_nothing_of_itself_has_no_model() -> None:
    found = summary(chain_of(Author("amy", 2)))
    assert (found["label"], found["model"], found["entries"]) == ("", "", 2)


def test_the_kind_of_a_ticket_shows_in_its_length() -> None:
    chain = chain_of(Author("amy", 1))
    for ticket, kind in ((b"", "none"), (bytes(8), "stamp"), (bytes(64), "certificate")):
        chain.ticket = ticket
        assert summary(chain)["ticket"] == kind


def test_a_fork_is_shown_with_what_came_before() -> None:
    author = speaker("amy")
    held = replica(author.run())
    held.take(author.other(2).run(), author.epoch * EPOCH_S + 86400)
    chain = held.chain(author.peer, EPOCH)
    assert chain is not None
    found = summary(chain)
    assert (found["entries"], found["forked_at"], found["label"]) == (2, 2, "upstairs")
    assert [one["seq"] for one in entries(chain)] == [0, 1]
    held.take(author.other(0).run(), author.epoch * EPOCH_S + 86400)
    found = summary(chain)
    assert (found["entries"], found["forked_at"]) == (0, 0)
    assert (found["since"], found["until"], found["model"]) == (None, None, "")
    assert list(entries(chain)) == []


def test_every_entry_says_what_is_new() -> None:
    author = speaker("amy")
    found = list(entries(chain_of(author)))
    assert [one["seq"] for one in found] == list(range(5))
    assert [one["at"] for one in found] == [BEGIN + at * PACE_S for at in range(5)]
    assert [one["bytes"] for one in found] == [len(body) for body in author.bodies]
    assert [one["kind"] for one in found] == [
        "checkpoint", "capability", "capability", "calibration", "evidence",
    ]  # fmt: skip
    liar = peer_text(signer("liar").peer)
    assert found[0]["changed"] == {
        "context_tokens": 8192,
        "energy": 1200,
        "label": "",
        "model": {"name": "tiny-llama", "family": "llama", "content_id": "c0ffee" * 10},
        "parameters": 4_000_000_000,
        "serves": True,
    }
    first = hints(DAY, signer("x").peer)
    assert found[0]["hints"] == [{"day": DAY, "bytes": len(encode(first)), "subjects": 1}]
    assert found[0]["evidence"] == [{"peer": liar, "offence": "equivocation"}]
    assert found[1]["changed"] == {"label": "upstairs"}
    assert found[2]["changed"] == {"energy": None, "shoe": "2a"}
    assert [(one["day"], one["subjects"]) for one in found[3]["hints"]] == [(DAY + 1, 2)]
    assert found[3]["changed"] == {}
    assert found[4]["evidence"] == [{"peer": liar, "offence": "equivocation"}]
    assert found[4]["hints"] == found[1]["hints"] == []


def test_a_value_that_is_not_of_its_type_is_shown_as_bytes() -> None:
    author = Author("amy")
    values = {"label": b"\x2a", "model": b"\xff", "serves": b"\xc3"}
    _, update = Document.rebased(values, client_of(author.peer, EPOCH))
    author.say(Checkpoint(update, (), ()))
    (only,) = entries(chain_of(author))
    assert only["changed"] == {"label": "2a", "model": "ff", "serves": True}


def test_all_of_it_is_json() -> None:
    chain = chain_of(speaker("amy"))
    shown = [summary(chain), *entries(chain)]
    assert msgspec.json.decode(msgspec.json.encode(shown)) == shown
