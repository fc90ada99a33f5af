"""How `lgi batch status` answers: a question by its exit status, a job by a word, several by a table."""

from __future__ import annotations

from pathlib import Path

import attrs

from lgi.batch.values import State, Status
from lgi.cli.batch_bench import NO
from lgi.cli.screen import Screen

CANNOT_SAY = 126  # what the resource daemon takes for neither yes nor no
UNSUBMITTED = "unsubmitted"
_NO_CODE = 255
_SIGNALLED = 128


def answer(screen: Screen, question: str, status: Status | None) -> int:
    """Answer a question about one job, None when it was not submitted; returns the exit status."""
    if question == "reason":
        told = f"{status.state}: {status.reason}".removesuffix(": ") if status else UNSUBMITTED
        screen.line(told)
        screen.result(told)
        return 0
    if status is not None and status.state is State.UNKNOWN:
        screen.note(f"unknown: {status.reason}")
        return CANNOT_SAY
    if question == "running":
        return 0 if status is not None and status.state.active else NO
    if status is None or not status.state.over:
        return NO
    if question == "code":
        screen.line(str(exit_code(status)))
        screen.result(exit_code(status))
    return 0


def exit_code(status: Status) -> int:
    """One number for how a job ended, as shells have it: 0 only for one that is finished."""
    if status.state is State.FINISHED:
        return 0
    return status.exit_code or (_SIGNALLED + status.signal if status.signal else _NO_CODE)


def show(screen: Screen, rows: list[tuple[str, Path | None, Status | None]]) -> None:
    """Show jobs, each with its number, its record and its status as far as it has them."""
    screen.result(
        [
            {
                "job": number,
                "record": None if path is None else str(path),
                **(attrs.asdict(one) if one else {"state": UNSUBMITTED}),
            }
            for number, path, one in rows
        ]
    )
    if len(rows) == 1:
        screen.line(rows[0][2].state if rows[0][2] else UNSUBMITTED)
        return
    screen.table(
        ["job", "state", "exit", "queue", "reason"],
        [
            [
                number or str(path),
                one.state if one else UNSUBMITTED,
                str(exit_code(one)) if one and one.state.over else "",
                one.queue if one else "",
                one.reason if one else "",
            ]
            for number, path, one in rows
        ],
    )
