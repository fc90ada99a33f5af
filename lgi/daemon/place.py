"""The run directory: one daemon to it, at a time (LGI 1.41, Resource daemon)."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

LOCK_FILE = ".lgi-daemon.lock"
"""Locked by the daemon as long as it lives, with its process number in it, for `kill`."""


def lock_run_directory(path: Path) -> int:
    """Make the run directory if need be, and lock it for as long as the descriptor is open.

    Raises BlockingIOError when another daemon has it, or another OSError.
    """
    path.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    with contextlib.suppress(OSError):  # a full disk is no reason not to look after the jobs
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def in_use(path: Path) -> bool:
    """Whether a daemon works in the run directory; changes nothing. Raises OSError where that cannot be seen."""
    try:
        descriptor = os.open(path / LOCK_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def process_of(path: Path) -> int | None:
    """The process number that the run directory's daemon has left; None where there is none to be read."""
    try:
        text = (path / LOCK_FILE).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return int(text) if text.isdigit() else None
