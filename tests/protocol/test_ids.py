"""A peer is its key; its text is the libp2p peer id of that key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.envelope import KeySigner
from protocol.errors import MalformedIdError
from protocol.ids import PeerId, is_named, parse_peer, peer_text, short, short_peer

keys = st.binary(min_size=32, max_size=32).map(PeerId)

VECTORS = [
    (bytes(32), "12D3KooW9pNAk8aiBuGVQtWRdbkLmo5qVL3e2h5UxbN2Nz9ttwiw"),
    (bytes(range(32)), "12D3KooW9pP4Seg3kZYhySpuVjn1RPdQBsUFZKiFxGMGQN5MeL6A"),
    (b"\xff" * 32, "12D3KooWT3gYEvLJyx1FyyHqrmvdy1tMjpgxmu9aSeKMEuafQtyC"),
]


def test_the_text_is_libp2p_s_own() -> None:
    from libp2p.crypto.ed25519 import Ed25519PublicKey
    from libp2p.peer.id import ID

    for seed in range(20):
        peer = KeySigner(bytes([seed]) * 32).peer
        theirs = ID.from_pubkey(Ed25519PublicKey.from_bytes(peer))
        assert peer_text(peer) == str(theirs)
        assert parse_peer(str(theirs)) == peer


@pytest.mark.parametrize(("key", "text"), VECTORS)
def test_vectors(key: bytes, text: str) -> None:
    assert peer_text(PeerId(key)) == text
    assert parse_peer(text) == key


@given(keys)
def test_text_and_back(peer: PeerId) -> None:
    text = peer_text(peer)
    assert text.startswith("12D3KooW")
    assert parse_peer(text) == peer


@given(st.text(max_size=80))
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(MalformedIdError):
        parse_peer(text)


@given(keys, st.data())
def test_a_changed_text_is_another_peer_or_none(peer: PeerId, data: st.DataObject) -> None:
    text = peer_text(peer)
    at = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(at, min(len(text), at + 2)))
    changed = text[:at] + data.draw(st.text("123ABCabcz0OIl", max_size=2)) + text[end:]
    try:
        other = parse_peer(changed)
    except MalformedIdError:
        return
    assert (other == peer) == (changed == text)
    assert peer_text(other) == changed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "12D3KooW",
        " " + VECTORS[0][1],
        VECTORS[0][1] + " ",
        VECTORS[0][1] + "1",
        "1" + VECTORS[0][1],
        VECTORS[0][1][1:],
        VECTORS[0][1][:-1] + "0",
        VECTORS[0][1].lower(),
        "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
        "z" * 52,
        "1" * 64,
        "1" * 65,
    ],
)
def test_what_is_no_peer_id_is_refused(text: str) -> None:
    with pytest.raises(MalformedIdError):
        parse_peer(text)


def test_a_long_text_is_refused_by_its_length() -> None:
    """Base conversion of a long text is quadratic: it must not begin."""
    with pytest.raises(MalformedIdError, match="at most 64 characters, got 10000000"):
        parse_peer("z" * 10_000_000)


def test_short_forms() -> None:
    peer = PeerId(VECTORS[0][0])
    assert short_peer(peer) == VECTORS[0][1][-8:]
    assert short(b"\x01\xab\xcd\xef\x99") == "01abcdef"


def test_a_person_names_a_peer_by_either_end() -> None:
    _, text = VECTORS[1]
    for part in (text, text[:12], text[-4:], ""):
        assert is_named(part, text)
    for part in (text[1:-1], text[3:9], text + "A", "nobody"):
        assert not is_named(part, text)
