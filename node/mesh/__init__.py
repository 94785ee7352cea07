"""The way to other peers. The only package that imports libp2p."""

from __future__ import annotations

import importlib.metadata
from typing import Final

LIBP2P_VERSION: Final = "0.8.1"


def require(installed: str) -> None:
    """Refuse any version of the library but the one that our repairs were written for.

    Raises:
        ImportError: another one is installed.
    """
    if installed != LIBP2P_VERSION:
        raise ImportError(
            f"swarmd repairs libp2p {LIBP2P_VERSION} and no other version, but {installed} is "
            f"installed: pip install libp2p=={LIBP2P_VERSION}"
        )


# Here, so that it comes before any import of a name that another version may lack.
require(importlib.metadata.version("libp2p"))
