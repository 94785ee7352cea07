"""Hypothesis strategies for any value of a wire type, read off the type itself."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

from protocol.envelope import Envelope, Signer
from protocol.errors import ProtocolError
from protocol.messages import opened, seal
from protocol.receipt import Tally


def arbitrary(kind: Any) -> st.SearchStrategy[Any]:
    """Any value that the type allows, kept small: long texts and tuples have their own tests."""
    return _of(inspect.type_info(kind))


@st.composite
def _tally(draw: st.DrawFn) -> Tally:
    fields = msgspec.structs.fields(Tally)
    right, total = sorted(draw(st.tuples(*(arbitrary(field.type) for field in fields))))
    return Tally(right, total)


def _of(info: inspect.Type) -> st.SearchStrategy[Any]:
    match info:
        case inspect.StructType(cls=cls) if cls is Tally:
            return _tally()
        case inspect.StructType(cls=cls, fields=fields):
            return st.builds(cls, **{field.name: _of(field.type) for field in fields})
        case inspect.UnionType(types=types):
            return st.one_of([_of(one) for one in types])
        case inspect.LiteralType(values=values):
            return st.sampled_from(values)
        case inspect.IntType(gt=None, ge=low, lt=lt, le=le):
            return st.integers(low, le if lt is None else lt - 1)
        case inspect.StrType(min_length=low, max_length=high):
            return st.text(min_size=low or 0, max_size=_small(low, high))
        case inspect.BytesType(min_length=low, max_length=high):
            return st.binary(min_size=low or 0, max_size=_small(low, high))
        case inspect.VarTupleType(item_type=item, min_length=low, max_length=high):
            return st.lists(_of(item), min_size=low or 0, max_size=_small(low, high, 3)).map(tuple)
        case inspect.TupleType(item_types=items):
            return st.tuples(*(_of(item) for item in items))
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
    raise TypeError(f"no strategy for {info}")


def _small(low: int | None, high: int | None, most: int = 24) -> int:
    return max(low or 0, most if high is None else min(high, most))


@st.composite
def altered(draw: st.DrawFn, value: Any, kind: Any, signers: dict[bytes, Signer]) -> Any:
    """``value`` with one thing in it changed, at any depth, to something its type allows.

    Messages in envelopes are changed as well, and signed again by whoever of ``signers`` signed
    them: what an attacker with these keys could write.
    """
    return draw(_altered(value, inspect.type_info(kind), signers))


def _altered(
    value: Any, info: inspect.Type, signers: dict[bytes, Signer]
) -> st.SearchStrategy[Any]:
    match info:
        case inspect.StructType(cls=cls) if cls is Envelope and value.signer in signers:
            return _resealed(value, signers)
        case inspect.StructType(fields=fields):
            return st.sampled_from(fields).flatmap(
                lambda field: _altered(getattr(value, field.name), field.type, signers).map(
                    lambda new: _replaced(value, field.name, new)
                )
            )
        case inspect.UnionType(types=types):
            inner = [
                one
                for one in types
                if isinstance(one, inspect.StructType) and isinstance(value, one.cls)
            ]
            return st.one_of([_of(info), *(_altered(value, one, signers) for one in inner)])
        case inspect.VarTupleType(item_type=item) if value:
            at = st.integers(0, len(value) - 1)
            return st.one_of(
                _of(info),
                at.map(lambda i: value[:i] + value[i + 1 :]),
                at.map(lambda i: (*value[:i], value[i], *value[i:])),
                at.map(lambda i: (value[i], *value[:i], *value[i + 1 :])),
                at.flatmap(
                    lambda i: _altered(value[i], item, signers).map(
                        lambda new: (*value[:i], new, *value[i + 1 :])
                    )
                ),
            )
        case inspect.TupleType(item_types=items):
            return st.integers(0, len(items) - 1).flatmap(
                lambda i: _altered(value[i], items[i], signers).map(
                    lambda new: (*value[:i], new, *value[i + 1 :])
                )
            )
    return _of(info)


def _resealed(envelope: Envelope, signers: dict[bytes, Signer]) -> st.SearchStrategy[Envelope]:
    try:
        message = opened(envelope).message
    except ProtocolError:
        return _of(inspect.type_info(Envelope))
    changed = _altered(message, inspect.type_info(type(message)), signers)
    return st.one_of(
        changed.map(lambda new: seal(signers[envelope.signer], new)),
        st.sampled_from(sorted(signers)).map(lambda who: seal(signers[who], message)),
        st.just(msgspec.structs.replace(envelope, signature=bytes(64))),
    )


def _replaced(value: Any, name: str, new: Any) -> Any:
    try:
        return msgspec.structs.replace(value, **{name: new})
    except ValueError:
        return value
