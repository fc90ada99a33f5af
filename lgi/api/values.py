"""What the interfaces give: who one is, and a job as it was seen last."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path

import attrs

from lgi.api.errors import JobFailed
from lgi.client.answers import JobAnswer
from lgi.lists import decode_list
from lgi.model import Job
from lgi.states import TERMINAL, JobState
from lgi.wire.dialect import MalformedXML
from lgi.wire.specifics import EXIT_STATUS, REPOSITORY_URL, read_tag

Progress = Callable[[str, int, int], object]
"""Called with the name of a file, the bytes of it that have been moved, and its size (0: not known).

For a submission it is the name of the application, and all its files together.
"""

Files = str | Path | Iterable[str | Path] | Mapping[str, str | Path]
"""Files to send: paths, each sent under its own name, or a mapping from names in the repository to paths."""


@attrs.frozen(kw_only=True)
class Me:
    """In whose name calls are made, and where to; `expires` is the end of the certificate."""

    user: str
    groups: tuple[str, ...]
    project: str
    server: str
    expires: datetime


@attrs.frozen(kw_only=True)
class Place:
    """Where a job is: the address of the server that has it, and its number there."""

    server: str
    job_id: int


@attrs.frozen(kw_only=True)
class Found:
    """A job, where it is, and what it goes by."""

    place: Place
    reference: str
    answer: JobAnswer


def as_names(names: str | Iterable[str]) -> tuple[str, ...]:
    """Names given as a list, or as text with commas."""
    return decode_list(names) if isinstance(names, str) else tuple(names)


def as_files(files: Files) -> tuple[tuple[str, Path], ...]:
    """Each file with its name in the repository."""
    if isinstance(files, Mapping):
        return tuple((name, Path(path)) for name, path in files.items())
    return tuple(named([files] if isinstance(files, str | Path) else files, ""))


def named(paths: Iterable[str | Path], into: str) -> list[tuple[str, Path]]:
    """Files with the names that they get in a repository's directory, at the top where that is empty."""
    prefix = f"{into.strip('/')}/" if into.strip("/") else ""
    return [(prefix + Path(path).name, Path(path)) for path in paths]


class Seen:
    """A job as it was seen last. Nothing here asks the server."""

    def __init__(self, found: Found) -> None:
        self.found = found
        self._gone = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.reference} {self.application} {self.state.value}>"

    @property
    def _job(self) -> Job:
        return self.found.answer.job

    @property
    def id(self) -> int:
        """Its number on its server."""
        return self._job.job_id

    @property
    def server(self) -> str:
        """The address of the server that has it."""
        return self.found.place.server

    @property
    def reference(self) -> str:
        """What it goes by: `12`, or `12@server` where the project has several."""
        return self.found.reference

    @property
    def state(self) -> JobState:
        """Its state; `deleted` where it is known to be gone."""
        return JobState.DELETED if self._gone else self._job.state

    @property
    def over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self._gone or self._job.state in TERMINAL

    @property
    def application(self) -> str:
        """Its application."""
        return self._job.application

    @property
    def targets(self) -> tuple[str, ...]:
        """The resources that may run it, or the one that does or did."""
        return self._job.target_resources

    @property
    def owners(self) -> tuple[str, ...]:
        """Its owners."""
        return self._job.owners

    @property
    def specifics(self) -> str:
        """Its job specifics, XML."""
        return self._job.job_specifics

    @property
    def since(self) -> int:
        """When it came into its state, in Unix seconds."""
        return self._job.state_time_stamp

    @property
    def exit_status(self) -> int | None:
        """The exit status of its run script; None where it is not known."""
        text = self._tag(EXIT_STATUS)
        return int(text) if text.removeprefix("-").isdigit() and text.isascii() else None

    @property
    def repository_url(self) -> str:
        """The address of its repository."""
        return self._tag(REPOSITORY_URL)

    def _tag(self, name: str) -> str:
        try:
            return read_tag(self._job.job_specifics, name)
        except MalformedXML:
            return ""

    @property
    def good(self) -> bool:
        """Whether it has finished, with exit status 0 where that is known."""
        return self.state is JobState.FINISHED and not self.exit_status

    def failure(self, reason: str = "") -> JobFailed:
        """What is to be raised where it has not done what it was for; the reason is how it has ended."""
        ended = f"has ended with exit status {self.exit_status}"
        known = ended if self.state is JobState.FINISHED else f"was {self.state.value}"
        return JobFailed(
            reason or known,
            job=self.reference,
            state=self.state,
            exit_status=self.exit_status,
            output=self._job.output or b"",
        )

    def settle(self, found: Found | None) -> None:
        """Know how it was found; None: it is gone."""
        if found is not None:
            self.found = found
        if found is None or found.answer.job.state is JobState.DELETED:
            self._gone = True


def moving(progress: Progress | None, name: str, total: int) -> Callable[[int], None]:
    """What a transfer calls with each number of bytes."""
    done = 0

    def moved(size: int) -> None:
        nonlocal done
        done += size
        if progress is not None:
            progress(name, min(done, total) if total else done, total)

    return moved
