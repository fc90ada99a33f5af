"""The run directory: one daemon to it, at a time (LGI 1.41, Resource daemon)."""

from __future__ import annotations

from pathlib import Path

from lgi import lockfile

LOCK_FILE = ".lgi-daemon.lock"
"""Locked by the daemon as long as it lives, with its process number in it, for `kill`."""


def lock_run_directory(path: Path) -> int:
    """Make the run directory if need be, and lock it for as long as the descriptor is open.

    Raises BlockingIOError when another daemon has it, or another OSError.
    """
    return lockfile.lock(path / LOCK_FILE)


def in_use(path: Path) -> bool:
    """Whether a daemon works in the run directory; changes nothing. Raises OSError where that cannot be seen."""
    return lockfile.is_locked(path / LOCK_FILE)


def process_of(path: Path) -> int | None:
    """The process number that the run directory's daemon has left; None where there is none to be read."""
    return lockfile.process_of(path / LOCK_FILE)
