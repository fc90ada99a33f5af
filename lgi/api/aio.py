"""The grid for programs that await what they ask, in asyncio or in Twisted: `lgi.AsyncClient`.

Each method begins at once and returns what is awaited where it is called: an asyncio future in a task of asyncio, a
Deferred in a Twisted coroutine.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Iterable
from pathlib import Path
from types import TracebackType

from lgi.api.client import Source, pieces, spooled
from lgi.api.core import Core, settings_of
from lgi.api.reactor import begin, release
from lgi.api.results import Results
from lgi.api.values import Files, Found, Me, Progress, Seen, as_files, as_names, named
from lgi.client.answers import ResourceRow
from lgi.model import RepositoryFile
from lgi.states import JobState


def _here(progress: Progress | None) -> Progress | None:
    """Progress that is told in the loop of asyncio in which this is called."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return progress
    if progress is None:
        return None
    tell = progress
    return lambda name, done, total: loop.call_soon_threadsafe(tell, name, done, total)


class AsyncJob(Seen):
    """A job on the grid. What it is, is as it was seen last: by the call that gave it, by `refresh()` or `wait()`."""

    def __init__(self, core: Core, found: Found) -> None:
        super().__init__(found)
        self._core = core

    @property
    def input(self) -> bytes | None:
        """Its input; None where it has not been seen, as in a list: `refresh()` sees it."""
        return self._job.input

    @property
    def output(self) -> bytes | None:
        """Its output as it was seen last; None where it has not been seen."""
        return self._job.output

    async def refresh(self) -> AsyncJob:
        """Look at it now; raises ServerRefused with number 15 where there is no such job any more."""
        self.settle(await begin(self._core.look, self.found.place))
        return self

    async def wait(self, timeout: float | None = None, *, check: bool = False) -> AsyncJob:
        """Return when it is over; raises TimeoutError, and with `check` JobFailed, as `lgi.Client` has it."""
        if not self.over:
            self.settle(await begin(self._core.over, self.found, timeout))
        if check and not self.good:
            raise self.failure()
        return self

    def files(self) -> Awaitable[tuple[RepositoryFile, ...]]:
        """The files in its repository, by name."""
        return begin(self._core.files, self.found)

    def download(self, *names: str, to: str | Path = ".", progress: Progress | None = None) -> Awaitable[list[Path]]:
        """Download files by name or pattern, all of them without one; returns where they are."""
        return begin(self._core.download, self.found, names, Path(to), _here(progress))

    def upload(self, *paths: str | Path, into: str = "", progress: Progress | None = None) -> Awaitable[list[str]]:
        """Upload files under their own names, in the repository's directory `into`; returns these names."""
        return begin(self._core.upload, self.found, named(paths, into), _here(progress))

    def remove(self, *names: str) -> Awaitable[None]:
        """Remove files from the repository."""
        return begin(self._core.remove, self.found, names)

    async def stream(self, name: str) -> AsyncIterator[bytes]:
        """A file of the repository in pieces of any size; what is not taken is not fetched."""
        download, piece = await begin(self._core.open, self.found, name)
        try:
            while piece:
                yield piece
                piece = await begin(download.read)
        finally:
            release(download.close)

    async def write(self, name: str, source: Source | AsyncIterable[bytes], progress: Progress | None = None) -> None:
        """Make a file of the repository from bytes, a binary file, or an iterator of bytes, also an asynchronous one.

        It is gathered in a temporary file first, never in memory.
        """
        if isinstance(source, AsyncIterable):
            with spooled(b"") as path:
                with path.open("wb") as stream:
                    async for piece in source:
                        for part in pieces([piece]):
                            stream.write(part)
                await begin(self._core.upload, self.found, [(name, path)], _here(progress))
        else:
            with spooled(source) as path:
                await begin(self._core.upload, self.found, [(name, path)], _here(progress))

    async def cancel(self) -> JobState:
        """End it, and keep it with its files; one that is over stays as it is. Returns `aborted`, `aborting`, …"""
        self.settle(await begin(self._core.delete, self.found.place, cancel=True))
        return self.state

    async def delete(self) -> JobState:
        """Delete it, its output and its files; one that runs is aborted. Returns `deleted`, or `aborting`."""
        self.settle(await begin(self._core.delete, self.found.place))
        return self.state


class AsyncClient:
    """A project, as its user sees it, for programs that await. Arguments as of `lgi.Client`; raises SettingsError."""

    def __init__(
        self, config: str | Path | None = None, *, server: str = "", project: str = "", alone: bool = False
    ) -> None:
        self._core = Core(settings_of(config, server, project), alone=alone)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def close(self) -> Awaitable[None]:
        """Let go of all connections. Jobs are not touched."""
        return begin(self._core.close)

    async def submit(
        self,
        application: str = "",
        *,
        files: Files = (),
        input: bytes | str = b"",
        targets: str | Iterable[str] = (),
        specifics: str = "",
        read_access: str | Iterable[str] = (),
        write_access: str | Iterable[str] = (),
        key: str = "",
        progress: Progress | None = None,
    ) -> AsyncJob:
        """Submit a job with its files; as `lgi.Client.submit`."""
        found = await begin(
            self._core.submit,
            application,
            files=as_files(files),
            input=input.encode() if isinstance(input, str) else input,
            targets=as_names(targets),
            specifics=specifics,
            read_access=as_names(read_access),
            write_access=as_names(write_access),
            key=key,
            progress=_here(progress),
        )
        return AsyncJob(self._core, found)

    async def job(self, reference: str | int) -> AsyncJob:
        """The job `12`, or `"12@server"`."""
        return AsyncJob(self._core, await begin(self._core.job, str(reference)))

    async def jobs(self, *, state: str = "", application: str = "", limit: int | None = None) -> list[AsyncJob]:
        """The jobs that one may read, oldest first; filters may begin with `!` for all others."""
        return [AsyncJob(self._core, found) for found in await begin(self._core.jobs, state, application, limit)]

    async def as_completed(
        self, jobs: Iterable[AsyncJob], *, timeout: float | None = None
    ) -> AsyncIterator[AsyncJob]:
        """Each of the jobs as soon as it is over; raises TimeoutError after `timeout` seconds for all of them."""
        waiting = list(dict.fromkeys(jobs))
        followed = [job for job in waiting if not job.over]
        for job in [job for job in waiting if job.over]:
            yield job
        results = Results(self._core, followed, timeout)
        try:
            for _ in followed:
                yield await begin(results.next)
        finally:
            release(results.close)

    def resources(self) -> Awaitable[tuple[ResourceRow, ...]]:
        """The project's resources and their applications."""
        return begin(self._core.resources)

    def servers(self) -> Awaitable[tuple[str, ...]]:
        """The addresses of the project's servers."""
        return begin(self._core.servers)

    def whoami(self) -> Me:
        """In whose name calls are made; asks nobody."""
        return self._core.me()
