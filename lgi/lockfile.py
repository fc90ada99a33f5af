"""A file that a service keeps locked as long as it lives, with its process number in it for `kill`."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path


def lock(file: Path) -> int:
    """Lock a file, which is made if need be with the directory it is in, for as long as the descriptor is open.

    Raises BlockingIOError when another process has it locked, or another OSError.
    """
    file.parent.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    with contextlib.suppress(OSError):  # a full disk is no reason not to go on
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def is_locked(file: Path) -> bool:
    """Whether a process has it locked; changes nothing. Raises OSError where that cannot be seen."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def process_of(file: Path) -> int | None:
    """The process number in it; None where there is none to be read."""
    try:
        text = file.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return int(text) if text.isdigit() else None


def taken(file: Path, program: str) -> str:
    """What is said to a second one of a program, of the directory that the file is in."""
    process = process_of(file)
    who = f"another {program}" if process is None else f"another {program} (process {process})"
    return f"{file.parent.resolve()}: {who} works in this run directory"
