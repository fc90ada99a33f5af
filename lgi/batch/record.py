"""The record of a submission: a file that says what was submitted and, in its first line, which job it became.

It is written before the job is submitted, with the key that the job is marked with, and again with the job's number.
Whatever happens in between, the next attempt finds the job by its key and submits no second one.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from lgi.batch.system import KEY, NAMES
from lgi.batch.values import ArrayRange, BatchError
from lgi.batch.wrapper import beside
from lgi.durable import read_regular, write_atomically

_LARGEST = 65536
_NAMES = ("system", "key", "script", "array", "cancelled", "refused")


@attrs.frozen(kw_only=True)
class Record:
    """A submission; `job` is empty until the batch system has given a number.

    `cancelled` says that the batch system has taken a request to end the job; `refused` is why it took none.
    """

    path: Path
    system: str
    key: str
    script: Path
    array: ArrayRange | None = None
    job: str = ""
    cancelled: bool = False
    refused: str = ""

    @property
    def tasks(self) -> list[int | None]:
        """The numbers of the tasks; one None for a job that is no array."""
        return [None] if self.array is None else list(self.array.tasks)

    def write(self) -> None:
        """Have it on disk; raises BatchError."""
        lines = [self.job, f"system {self.system}", f"key {self.key}", f"script {self.script}"]
        lines += [f"array {self.array}"] if self.array else []
        lines += ["cancelled yes"] if self.cancelled else []
        lines += [f"refused {' '.join(self.refused.split())}"] if self.refused else []
        try:
            write_atomically(self.path, "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))
        except OSError as problem:
            raise BatchError(f"the record {self.path} cannot be written: {problem.strerror}") from None


def read_record(path: Path) -> Record | None:
    """The record in a file, None where there is no file; raises BatchError."""
    try:
        text = read_regular(path, _LARGEST).decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise BatchError(f"the record {path} cannot be read: {problem.strerror or problem}") from None
    first, *lines = text.split("\n")
    values: dict[str, str] = {}
    for number, line in enumerate(lines[:-1], start=2):
        name, _, value = line.partition(" ")
        if name not in _NAMES or not value or name in values:
            raise BatchError(f"{path} is no record of a submission: line {number} is {line!r}")
        values[name] = value
    if not {"system", "key", "script"} <= set(values) or lines[-1:] != [""]:
        raise BatchError(f"{path} is no record of a submission: it needs a job number, system, key and script")
    if values["system"] not in NAMES or not KEY.fullmatch(values["key"]):
        raise BatchError(f"{path} is no record of a submission: system {values['system']!r}, key {values['key']!r}")
    return Record(
        path=path,
        system=values["system"],
        key=values["key"],
        script=Path(values["script"]),
        array=ArrayRange.parse(values["array"]) if "array" in values else None,
        job=first,
        cancelled=values.get("cancelled") == "yes",
        refused=values.get("refused", ""),
    )


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """Hold the lock of a record, and give its descriptor; raises BatchError when somebody else holds it.

    The submit command inherits it: while one that outlived us may still be submitting, nobody else begins to.
    """
    file = beside(path, "lock")
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as problem:
        raise BatchError(f"{file} cannot be opened: {problem.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BatchError(f"another submission with the record {path} is under way") from None
        yield descriptor
        # It came to its end, so nothing that has inherited the lock submits any more: a local job may just be
        # starting with it.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)
