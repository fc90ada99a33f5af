"""What is really submitted: a script around the user's, which leaves the exit status in a file beside the record.

The exit file is the first witness of a job's end, since it needs neither the queue's memory nor any accounting. It is
put in its place whole or not at all; a job that the batch system starts anew removes it first.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import attrs

from lgi.batch.system import System
from lgi.batch.values import BatchError, Request
from lgi.durable import read_regular

_TEXT = """\
#!/bin/sh
# Made by "lgi batch submit": runs the script below, and leaves its exit status beside the record of the submission.
record={record}
script={script}
job={job}
task={task}
restarts={restarts}
end=$record.exit${{task:+.$task}}

keep() {{ # FILE LINE: the file is whole and on disk, or not there
    printf '%s\\n' "$2" >"$1.new" && {{ sync "$1.new" 2>/dev/null || :; }} && mv -f "$1.new" "$1"
}}

rm -f "$end"
keep "$record.started${{task:+.$task}}" "$job" || exit 125
# The batch system signals all processes of a job: what ends the script must leave this one to write it down.
caught=
for signal in TERM INT HUP XCPU; do trap "caught=$signal" "$signal"; done
trap : USR1 USR2
cd {directory} && "$script"
status=$?
trap '' TERM INT HUP XCPU USR1 USR2
keep "$end" "$status ${{restarts:--}} ${{caught:--}}" || exit 125
exit "$status"
"""
_EXIT = re.compile(rb"(\d{1,3}) (\d{1,9}|-) ([A-Z0-9]{1,9}|-)\n")
_MOST = 64
_LONGEST_ID = 300
_LAST_SIGNAL = 64
_SIGNALLED = 128


@attrs.frozen(kw_only=True)
class Exit:
    """How the script ended: `restarts` of that run, if known; `caught` is a signal that came with it."""

    code: int
    restarts: int | None = None
    caught: str = ""

    @property
    def signal(self) -> int:
        """The signal that ended the script, as shells tell it in the exit status; 0 if none did."""
        number = self.code - _SIGNALLED
        return number if 0 < number <= _LAST_SIGNAL else 0


def wrapper_text(system: System, request: Request, record: Path) -> str:
    """The script to be submitted for a request."""
    return _TEXT.format(
        record=shlex.quote(str(record)),
        script=shlex.quote(str(request.script)),
        directory=shlex.quote(str(request.directory)),
        job=system.shell_job,
        task=system.shell_task,
        restarts=system.shell_restarts,
    )


def beside(record: Path, kind: str, task: int | None = None) -> Path:
    """The file of a kind (`wrapper`, `started`, `exit`, `lock`) beside a record, of a task where it is one's."""
    return record.with_name(f"{record.name}.{kind}" if task is None else f"{record.name}.{kind}.{task}")


def read_exit(record: Path, task: int | None = None) -> Exit | None:
    """The exit file of a job or task, None while there is none; raises BatchError for one that is none."""
    path = beside(record, "exit", task)
    text = _read(path, _MOST)
    if text is None:
        return None
    found = _EXIT.fullmatch(text)
    if found is None:
        raise BatchError(f"{path} is no exit file: {text!r}")
    code, restarts, caught = (part.decode() for part in found.groups())
    return Exit(
        code=int(code),
        restarts=None if restarts == "-" else int(restarts),
        caught="" if caught == "-" else caught,
    )


def read_started(record: Path, system: System) -> str | None:
    """The number of the job that was started for a record, None while none was."""
    for path in sorted(record.parent.glob(f"{_escaped(record.name)}.started*")):
        text = _read(path, _LONGEST_ID)
        job = (text or b"").decode("ascii", "replace").strip()
        if path.suffix != ".new" and system.job_pattern.fullmatch(job):
            return job
    return None


def _escaped(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)


def _read(path: Path, most: int) -> bytes | None:
    try:
        return read_regular(path, most)
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise BatchError(f"{path} cannot be read: {problem.strerror or problem}") from None
