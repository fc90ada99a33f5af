"""What the small tools read from and write to: -i and -o, or standard input and output."""

from __future__ import annotations

import os
import stat
import sys

from lgi.tools.options import Given, Option, Tool

INPUT = Option("-i", "read from this file. default is standard input.", "file")
OUTPUT = Option("-o", "write to this file. default is standard output.", "file")
PIECE = 1 << 20  # bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO


def converted(tool: Tool, given: Given, work: Callable[[BinaryIO, BinaryIO], int]) -> int:
    """The exit status of `work(source, target)`, 1 where it raises ValueError or a file cannot be used.

    A file named by -o has the new content whole, or is as it was before: the work may read the same file.
    """
    try:
        with _source(given) as source:
            name = given.value("-o")
            if name:
                return _into(name, source, work)
            status = work(source, sys.stdout.buffer)
            sys.stdout.buffer.flush()
            return status
    except BrokenPipeError:
        # Who read this has seen enough. What is still to be flushed at the end goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as problem:
        where = f"{problem.filename}: " if problem.filename else ""
        tool.complain(f"{where}{problem.strerror or problem}")
    except ValueError as problem:
        tool.complain(str(problem))
    return 1


def _source(given: Given) -> BinaryIO:
    name = given.value("-i")
    # A descriptor of our own, so that leaving it closes nothing that is not ours.
    return open(name if name else os.dup(sys.stdin.fileno()), "rb")  # noqa: PTH123


def _into(name: str, source: BinaryIO, work: Callable[[BinaryIO, BinaryIO], int]) -> int:
    path = os.path.realpath(name)
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
    except FileNotFoundError:
        mode = 0
    if mode and not stat.S_ISREG(mode):
        with open(path, "wb") as target:  # noqa: PTH123
            return work(source, target)
    folder, base = os.path.split(path)
    part = os.path.join(folder, f".{base[:200]}.{os.getpid()}.part")  # noqa: PTH118
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with open(descriptor, "wb") as target:  # noqa: PTH123
            status = work(source, target)
        if mode:
            os.chmod(part, stat.S_IMODE(mode))  # noqa: PTH101
        os.replace(part, path)  # noqa: PTH105
    except BaseException:
        os.unlink(part)  # noqa: PTH108
        raise
    return status
