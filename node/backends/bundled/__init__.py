"""The models that ship with swarmd: weights, one shared tokenizer, a card for each.

``scripts/train_models`` makes them; ``docs/models.md`` says what they can do. Nothing here
imports torch, so that naming a bundled model costs nothing.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

CARD = "swarmd.json"
"""File beside a model's weights that says how it answers and judges."""

TOKENIZER = "tokenizer"
"""Folder of the tokenizer that all bundled models share."""

PREFIX = "bundled:"
_NAMES = ("arithmetic", "order", "string", "calendar", "general", "mini")
_HASHED = (".safetensors", ".bin", ".jinja")
_HASHED_NAMES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")


def bundled_names() -> tuple[str, ...]:
    """Names of the bundled models, in the order in which a demo takes them."""
    return _NAMES


def bundled_path(name: str) -> Path:
    """The folder of a bundled model.

    Raises:
        KeyError: if there is no such model.
    """
    if name not in _NAMES:
        raise KeyError(name)
    return Path(__file__).parent / name


def content_id(weights: Path, tokenizer: Path) -> str:
    """Hex SHA-256 over the weights and tokenizer files of two folders, which may be the same.

    Hashed are name, size and bytes of each file, by name; so equal ids mean equal models.
    """
    files = {
        path.name: path
        for folder in (tokenizer, weights)
        for path in folder.iterdir()
        if path.suffix in _HASHED or path.name in _HASHED_NAMES
    }
    digest = sha256(b"swarmd/model\x00")
    for name in sorted(files):
        digest.update(f"{name}\x00{files[name].stat().st_size}\x00".encode())
        with files[name].open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
