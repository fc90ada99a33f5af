"""Which files of a repository a name or a pattern means."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import translate
from functools import lru_cache

from lgi.model import RepositoryFile


class IsDirectory(ValueError):
    """The name is that of a directory, where a file was asked for."""


@lru_cache(maxsize=1024)
def _segment(pattern: str) -> re.Pattern[str]:
    return re.compile(translate(pattern))


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern means a name: `*`, `?` and `[…]` stay within a segment, `**` is any number of segments."""
    return _matches(name.split("/"), pattern.split("/"))


def _matches(segments: Sequence[str], patterns: Sequence[str]) -> bool:
    # One row of the table (how many patterns are used up) for each segment: no pattern takes long.
    row = _past_stars({0}, patterns)
    for segment in segments:
        after = set()
        for at in row:
            if at == len(patterns):
                continue
            if patterns[at] == "**":
                after.add(at)
            elif _segment(patterns[at]).match(segment):
                after.add(at + 1)
        row = _past_stars(after, patterns)
    return len(patterns) in row


def _past_stars(row: set[int], patterns: Sequence[str]) -> set[int]:
    for at in sorted(row):
        while at < len(patterns) and patterns[at] == "**":
            at += 1  # noqa: PLW2901, it also means no segments at all
            row.add(at)
    return row


def chosen(files: Iterable[RepositoryFile], name: str, *, recursive: bool) -> list[RepositoryFile]:
    """The files that `name` means: one of that name, else those in that directory, else those of that pattern.

    Raises IsDirectory for a directory where `recursive` does not say that its files are meant.
    """
    files = list(files)
    name = name.rstrip("/") if recursive else name
    exact = [file for file in files if file.name == name]
    if exact:
        return exact
    below = [file for file in files if file.name.startswith(f"{name}/")]
    if below:
        if not recursive:
            raise IsDirectory("it is a directory; -r takes all that is in it")
        return below
    if not recursive:
        return [file for file in files if matches(file.name, name)]
    # As in a shell: a pattern may name a directory, all of which is then meant.
    return [file for file in files if any(matches(way, name) for way in _ways(file.name))]


def _ways(name: str) -> list[str]:
    segments = name.split("/")
    return ["/".join(segments[:count]) for count in range(len(segments), 0, -1)]
