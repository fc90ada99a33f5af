"""What can go wrong for a program that uses the grid, beside what the far side's library raises."""

from __future__ import annotations

from lgi.states import JobState

TAIL = 2000  # bytes of a job's output that go into a message


class JobFailed(Exception):
    """A job is over and has not done what it was for.

    `job` is its reference, `state` its last state (`deleted` for one that is gone), `exit_status` that of its run
    script where it is known, `output` all the output that it left.
    """

    def __init__(
        self, reason: str, *, job: str, state: JobState, exit_status: int | None = None, output: bytes = b""
    ) -> None:
        self.reason = reason
        self.job = job
        self.state = state
        self.exit_status = exit_status
        self.output = output
        end = output[-TAIL:].decode("utf-8", "replace").strip()
        super().__init__(f"job {job} {reason}" + (f"; the end of its output:\n{end}" if end else ""))


class ClientClosed(RuntimeError):
    """The client was closed, before this call or while it went on."""


class NoReactor(RuntimeError):
    """Nothing can be awaited or waited for here; the message says why and what to do."""
