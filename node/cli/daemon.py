"""Which daemon a command talks to, and how a wrong argument is told."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

from node import config
from node.client import Client
from protocol.errors import UsageError

T = TypeVar("T")

_FLAGS: Final = ("socket", "data_dir", "config", "swarm", "swarm_key")
"""Keys of which some command has a flag."""


def configuration(args: argparse.Namespace) -> config.Config:
    """The configuration as the daemon flags of this command have it."""
    return config.load({name: getattr(args, name, None) for name in _FLAGS})


def client(args: argparse.Namespace) -> Client:
    """A client of the daemon that the flags, the environment or the configuration name."""
    return Client(configuration(args).socket)


def params(kind: type[T], values: Mapping[str, object]) -> T:
    """``values`` as the params struct ``kind``.

    Raises:
        UsageError: a value is out of bounds.
    """
    try:
        made: T = msgspec.convert(values, kind)
    except (msgspec.ValidationError, UnicodeError) as error:
        raise UsageError(f"{error}.") from error
    return made
