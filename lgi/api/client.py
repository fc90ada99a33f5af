"""The grid for programs that wait for what they ask: `lgi.Client`."""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from lgi.api.core import Core, settings_of
from lgi.api.reactor import block, release
from lgi.api.results import Results
from lgi.api.streams import RemoteFile
from lgi.api.values import Files, Found, Me, Progress, Seen, as_files, as_names, named
from lgi.client.answers import ResourceRow
from lgi.model import RepositoryFile
from lgi.states import JobState

Source = bytes | BinaryIO | Iterable[bytes]


class Job(Seen):
    """A job on the grid. What it is, is as it was seen last: by the call that gave it, by `refresh()` or `wait()`."""

    def __init__(self, core: Core, found: Found) -> None:
        super().__init__(found)
        self._core = core

    def refresh(self) -> Job:
        """Look at it now; raises ServerRefused with number 15 where there is no such job any more."""
        self.settle(block(self._core.look, self.found.place))
        return self

    def wait(self, timeout: float | None = None, *, check: bool = False) -> Job:
        """Wait until it is over; raises TimeoutError after `timeout` seconds.

        With `check` it raises JobFailed unless the job has finished, with exit status 0 where that is known.
        """
        if not self.over:
            self.settle(block(self._core.over, self.found, timeout))
        if check and not self.good:
            raise self.failure()
        return self

    @property
    def input(self) -> bytes:
        """Its input; asks for it where it has not been seen."""
        if self._job.input is None:
            self.refresh()
        return self._job.input or b""

    @property
    def output(self) -> bytes:
        """Its output, so far where it is not over yet; asks for it unless it is over and has been seen."""
        if self._job.output is None or not self.over:
            self.refresh()
        return self._job.output or b""

    def files(self) -> tuple[RepositoryFile, ...]:
        """The files in its repository, by name."""
        return block(self._core.files, self.found)

    def download(self, *names: str, to: str | Path = ".", progress: Progress | None = None) -> list[Path]:
        """Download files by name or pattern (`"out/*.csv"`), all of them without one; returns where they are now.

        Directories in names become directories below `to`. Each file appears whole or not at all. Raises
        FileNotFoundError for a name that means none, before anything is fetched.
        """
        return block(self._core.download, self.found, names, Path(to), progress)

    def upload(self, *paths: str | Path, into: str = "", progress: Progress | None = None) -> list[str]:
        """Upload files under their own names, in the repository's directory `into`; returns these names."""
        return block(self._core.upload, self.found, named(paths, into), progress)

    def remove(self, *names: str) -> None:
        """Remove files from the repository."""
        block(self._core.remove, self.found, names)

    def open(self, name: str) -> io.BufferedReader:
        """A file of the repository as a binary file to read; what is not read is not fetched. Close it."""
        download, first = block(self._core.open, self.found, name)
        return io.BufferedReader(RemoteFile(download, name, first), 1 << 16)

    def stream(self, name: str) -> Iterator[bytes]:
        """A file of the repository in pieces of any size."""
        download, piece = block(self._core.open, self.found, name)
        try:
            while piece:
                yield piece
                piece = block(download.read)
        finally:
            release(download.close)

    def write(self, name: str, source: Source, progress: Progress | None = None) -> None:
        """Make a file of the repository from bytes, a binary file or an iterator of bytes.

        It is gathered in a temporary file first, never in memory, so that the upload can go on after an interruption.
        """
        with spooled(source) as path:
            block(self._core.upload, self.found, [(name, path)], progress)

    def cancel(self) -> JobState:
        """End it, and keep it with its files; one that is over stays as it is. Returns `aborted`, `aborting`, …"""
        self.settle(block(self._core.delete, self.found.place, cancel=True))
        return self.state

    def delete(self) -> JobState:
        """Delete it, its output and its files; one that runs is aborted, and can be deleted then.

        Returns `deleted`, or `aborting`.
        """
        self.settle(block(self._core.delete, self.found.place))
        return self.state


class Client:
    """A project, as its user sees it, for scripts and notebooks. May be used in several threads.

    `config` is the configuration directory (~/.LGI, or what LGI_CONFIG says); `server` and `project` go before what
    stands there. With `alone` no other server of the project is used. Raises SettingsError.
    """

    def __init__(
        self, config: str | Path | None = None, *, server: str = "", project: str = "", alone: bool = False
    ) -> None:
        self._core = Core(settings_of(config, server, project), alone=alone)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of all connections. Jobs are not touched."""
        block(self._core.close)

    def submit(
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
    ) -> Job:
        """Submit a job with its files; what is left out is as in the configuration.

        A submission goes by a `key`: given twice, it is one job (on servers that know of keys). Raises ServerRefused,
        ServerUnreachable where nothing has been submitted, and SubmissionUnknown where that cannot be told.
        """
        found = block(
            self._core.submit,
            application,
            files=as_files(files),
            input=input.encode() if isinstance(input, str) else input,
            targets=as_names(targets),
            specifics=specifics,
            read_access=as_names(read_access),
            write_access=as_names(write_access),
            key=key,
            progress=progress,
        )
        return Job(self._core, found)

    def job(self, reference: str | int) -> Job:
        """The job `12`, or `"12@server"`."""
        return Job(self._core, block(self._core.job, str(reference)))

    def jobs(self, *, state: str = "", application: str = "", limit: int | None = None) -> list[Job]:
        """The jobs that one may read, oldest first; filters may begin with `!` for all others."""
        return [Job(self._core, found) for found in block(self._core.jobs, state, application, limit)]

    def as_completed(self, jobs: Iterable[Job], *, timeout: float | None = None) -> Iterator[Job]:
        """Each of the jobs as soon as it is over; raises TimeoutError after `timeout` seconds for all of them."""
        waiting = list(dict.fromkeys(jobs))
        followed = [job for job in waiting if not job.over]
        yield from [job for job in waiting if job.over]
        results = Results(self._core, followed, timeout)
        try:
            for _ in followed:
                yield block(results.next)
        finally:
            release(results.close)

    def resources(self) -> tuple[ResourceRow, ...]:
        """The project's resources and their applications."""
        return block(self._core.resources)

    def servers(self) -> tuple[str, ...]:
        """The addresses of the project's servers."""
        return block(self._core.servers)

    def whoami(self) -> Me:
        """In whose name calls are made; asks nobody."""
        return self._core.me()


class spooled:
    """The content of a source in a temporary file, for as long as it is being sent."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._directory = tempfile.mkdtemp(prefix="lgi-")

    def __enter__(self) -> Path:
        path = Path(self._directory) / "content"
        try:
            with path.open("wb") as stream:
                for piece in pieces(self._source):
                    stream.write(piece)
        except BaseException:
            self._remove()
            raise
        return path

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _remove(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)


def pieces(source: Source) -> Iterator[bytes]:
    """The bytes of a source; raises TypeError for what is none."""
    if isinstance(source, bytes | bytearray | memoryview):
        yield bytes(source)
    elif hasattr(source, "read"):
        while piece := source.read(1 << 18):
            if not isinstance(piece, bytes):
                raise TypeError("the file is open as text; open it with 'rb'")
            yield piece
    elif isinstance(source, str):
        raise TypeError("text has to be encoded, or named as a path with upload()")
    else:
        for piece in source:
            if not isinstance(piece, bytes | bytearray | memoryview):
                raise TypeError(f"an iterator of bytes is needed, this one has {type(piece).__name__}")
            yield bytes(piece)
