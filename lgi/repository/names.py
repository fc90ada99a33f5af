"""Names in repositories: data from clients that must never act as paths."""

from __future__ import annotations

import re
import secrets

_REPOSITORY = re.compile(r"JOB_[0-9a-f]{32}")
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


def checked_file(name: str) -> str:
    """`name` if it can be a file's name in a repository; raises NameRefused."""
    if not name or name in (".", ".."):
        raise NameRefused("a file needs a name")
    if name.startswith("."):
        raise NameRefused("names that start with a dot are the server's own")
    if name == LISTING:
        raise NameRefused("that is the name of the listing")
    if "/" in name or "\\" in name or not name.isprintable():
        raise NameRefused("a file's name has no slashes and no control characters")
    if len(name.encode("utf-8", "surrogatepass")) > MAX_FILE_NAME:
        raise NameRefused(f"a file's name has at most {MAX_FILE_NAME} bytes")
    return name
