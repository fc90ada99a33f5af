"""Names in repositories: data from clients that must never act as paths."""

from __future__ import annotations

import re
import secrets

_REPOSITORY = re.compile(r"JOB_[0-9a-f]{32}")
# Of a name with its directories: parts, and bytes; and the bytes of one part, which no file system has longer.
MAX_SEGMENTS = 32
MAX_NAME = 1024
MAX_FILE_NAME = 255
LISTING = "repository_content.php"


class NameRefused(ValueError):
    """A name that no repository or file can have; the message says why."""


def new_repository_name() -> str:
    """A name that nobody can guess: knowing it is the right to read."""
    return f"JOB_{secrets.token_hex(16)}"


def checked_repository(name: str) -> str:
    """`name` if it has the form of a repository's name; raises NameRefused."""
    if _REPOSITORY.fullmatch(name) is None:
        raise NameRefused("there is no such repository")
    return name


def fan_out(repository: str) -> str:
    """The directory that a repository is in: its last three digits, so that none holds too many."""
    return repository[-3:]


def segments_of(name: str) -> tuple[str, ...]:
    """The directories of a file's name and its last part; raises NameRefused for what is no file's name.

    Each of them is a plain name, so that a walk along them never leaves the directory in which it begins.
    """
    segments = tuple(name.split("/"))
    if len(segments) > MAX_SEGMENTS:
        raise NameRefused(f"a file's name has at most {MAX_SEGMENTS} parts")
    for segment in segments:
        _check(segment)
    if len(name.encode("utf-8")) > MAX_NAME:
        raise NameRefused(f"a file's name has at most {MAX_NAME} bytes in all")
    return segments


def checked_file(name: str) -> str:
    """`name` if it can be a file's name in a repository, with directories or without; raises NameRefused."""
    segments_of(name)
    return name


def _check(segment: str) -> None:
    if not segment or segment in (".", ".."):
        raise NameRefused("a file needs a name, and so does each directory in it")
    if segment.startswith("."):
        raise NameRefused("names that start with a dot are the server's own")
    if segment == LISTING:
        raise NameRefused("that is the name of the listing")
    if "\\" in segment or not segment.isprintable():
        raise NameRefused("a file's name has no backslashes and no control characters")
    if len(segment.encode("utf-8")) > MAX_FILE_NAME:
        raise NameRefused(f"each part of a file's name has at most {MAX_FILE_NAME} bytes")
