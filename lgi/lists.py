"""Comma-separated lists as fields, access lists and certificate names hold them.

Spaces around items and empty items do not count; order is kept, doubles are dropped.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

ANY = "any"


# The same few lists come again and again: each user's, each resource's.
@lru_cache(maxsize=4096)
def decode_list(text: str) -> tuple[str, ...]:
    """Split `text` at commas into its distinct, stripped, non-empty items."""
    return tuple(dict.fromkeys(item for item in map(str.strip, text.split(",")) if item))


def encode_list(items: Iterable[str]) -> str:
    """Join distinct items the way deployed servers write them: comma and one space."""
    return ", ".join(dict.fromkeys(items))
