"""Hypothesis strategies for any value of a wire type, read off the type itself."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

from protocol.receipt import Standing


def arbitrary(kind: Any) -> st.SearchStrategy[Any]:
    """Any value that the type allows, kept small: long texts and tuples have their own tests."""
    return _of(inspect.type_info(kind))


@st.composite
def _standing(draw: st.DrawFn) -> Standing:
    values = draw(st.tuples(*(arbitrary(field.type) for field in msgspec.structs.fields(Standing))))
    peer, right, pairs, answered, asked, source = values
    return Standing(peer, min(right, pairs), pairs, min(answered, asked), asked, source)


def _of(info: inspect.Type) -> st.SearchStrategy[Any]:
    match info:
        case inspect.StructType(cls=cls) if cls is Standing:
            return _standing()
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
