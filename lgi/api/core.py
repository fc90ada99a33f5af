"""The calls themselves, as coroutines in the reactor: what is around them is `client`, `aio` and `executor`."""

from __future__ import annotations

import builtins
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred, TimeoutError

from lgi.api.errors import ClientClosed
from lgi.api.follower import Follower
from lgi.api.follower import Seen as SeenIn
from lgi.api.streams import Download
from lgi.api.values import Found, Me, Place, Progress, moving
from lgi.client.answers import AnswerMalformed, ResourceRow
from lgi.client.attempts import Patience as Attempts
from lgi.client.grid import Grid, PlacedJob
from lgi.client.landing import Landing
from lgi.client.patience import Patience
from lgi.client.places import Target
from lgi.client.post import CALL_TIMEOUT, Client, Server, connect
from lgi.client.reference import JobReference
from lgi.client.repository import RepositoryClient
from lgi.client.servers import KnownServers
from lgi.client.settings import UserSettings, is_server_url, read_settings
from lgi.client.user import UserClient
from lgi.client.watch import Watch
from lgi.client.wire import Wire, checked_name
from lgi.errors import ErrorNumber
from lgi.lists import ANY
from lgi.model import RepositoryFile
from lgi.tls import ClientPolicy, load_credentials
from lgi.wire.specifics import REPOSITORY_URL, read_tag

BUSY = 90.0  # seconds for which a server that says back-off is asked again
OUTAGE = 60.0  # and one that cannot be reached, where to ask again does no harm
GOODBYE = 1.0


def settings_of(config: str | Path | None, server: str, project: str) -> UserSettings:
    """The configuration directory that is named, or in LGI_CONFIG, or ~/.LGI; raises SettingsError."""
    directory = config or os.environ.get("LGI_CONFIG", "") or Path.home() / ".LGI"
    return read_settings(Path(directory), server=server, project=project)


@attrs.frozen(kw_only=True)
class _Opened:
    """What there is while the client is in use."""

    http: Client
    pool: Any
    grid: Grid
    patience: Patience
    watch: Watch


class Core:
    """A project as one user sees it. Nothing is opened before the first call."""

    def __init__(self, settings: UserSettings, *, alone: bool = False) -> None:
        self.settings = settings
        self._alone = alone
        self._now: _Opened | None = None
        self._followers: dict[str, Follower] = {}
        self._closed = False

    @property
    def _opened(self) -> _Opened:
        if self._closed:
            raise ClientClosed("the client has been closed")
        if self._now is None:
            self._now = self._open()
        return self._now

    def _open(self) -> _Opened:
        from twisted.internet import reactor

        settings = self.settings
        policy: Any = ClientPolicy(load_credentials(settings.certificate, settings.privatekey), settings.ca_chain)
        http, pool = connect(reactor, policy)

        def user(url: str) -> UserClient:
            server = Server(http=http, reactor=reactor, url=url, project=settings.project)
            return UserClient(server=server, user=settings.user, groups=settings.groups)

        async def job_wait(url: str) -> int:
            return (await grid.announced(url)).job_wait

        patience = Patience(reactor, busy=BUSY, unreachable=OUTAGE)
        grid = Grid(
            connect=user,
            server=settings.server,
            patience=patience,
            known=KnownServers.of(settings.server, settings.project),
            alone=self._alone,
        )
        forever = Patience(reactor, busy=float("inf"), unreachable=OUTAGE)  # who waits has a timeout of his own
        watch = Watch(reactor=reactor, connect=user, job_wait=job_wait, patience=forever)
        return _Opened(http=http, pool=pool, grid=grid, patience=patience, watch=watch)

    @property
    def reactor(self) -> Any:
        """What all of this happens in."""
        return self._opened.watch.reactor

    async def _found(self, placed: PlacedJob) -> Found:
        reference = await self._opened.grid.reference(placed)
        place = Place(server=placed.server, job_id=placed.answer.job.job_id)
        return Found(place=place, reference=str(reference), answer=placed.answer)

    @staticmethod
    def _at(place: Place) -> JobReference:
        return JobReference(job_id=place.job_id, server=place.server)

    def me(self) -> Me:
        """Who one is; does not ask the server. Raises TLSFileError."""
        settings = self.settings
        certificate = load_credentials(settings.certificate, settings.privatekey).certificate
        return Me(
            user=settings.user,
            groups=settings.groups,
            project=settings.project,
            server=settings.server,
            expires=certificate.not_valid_after_utc,
        )

    async def submit(
        self,
        application: str,
        *,
        files: Sequence[tuple[str, Path]],
        input: bytes,
        targets: Sequence[str],
        specifics: str,
        read_access: Sequence[str],
        write_access: Sequence[str],
        key: str,
        progress: Progress | None,
    ) -> Found:
        """Submit a job; empty application, targets and specifics are those of the configuration."""
        settings = self.settings
        application = application or settings.application
        if not application:
            raise ValueError(f"no application: name one, or write it into {settings.directory}/defaultapplication")
        names = [checked_name(name) for name, _ in files]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"several files go by the name {twice[0]}, a repository holds one of them")
        total = sum(path.stat().st_size for _, path in files)
        placed = await self._opened.grid.submit(
            key=key,
            application=application,
            target_resources=tuple(targets) or settings.target_resources,
            input=input,
            job_specifics=specifics or settings.job_specifics,
            read_access=read_access,
            write_access=write_access,
            uploads=files,
            progress=moving(progress, application, total),
        )
        return await self._found(placed)

    async def job(self, reference: str) -> Found:
        """The job that goes by a reference."""
        return await self._found(await self._opened.grid.job(JobReference.parse(reference)))

    async def look(self, place: Place) -> Found:
        """A job as it is now, whole."""
        return await self._found(await self._opened.grid.job(self._at(place)))

    async def jobs(self, state: str, application: str, limit: int | None) -> list[Found]:
        """The jobs that one may read; raises what asking a server raised where one of them does not say."""
        partial = await self._opened.grid.jobs(state=state or ANY, application=application or ANY, limit=limit)
        if partial.problems:
            raise partial.problems[0][1]
        return [await self._found(placed) for placed in partial.jobs]

    async def delete(self, place: Place, *, cancel: bool = False) -> Found:
        """Delete a job, or have it aborted; with `cancel` one that is over, or only queued, stays with its files."""
        opened = self._opened
        user = opened.grid.user(place.server)
        if cancel and not (await opened.grid.announced(place.server)).remembers_submissions:
            raise AnswerMalformed(f"{place.server} is too old to cancel a job and keep it: delete it")
        answer = await opened.patience.ask(user.delete, place.job_id, cancel=cancel)
        return await self._found(PlacedJob(server=place.server, answer=answer))

    async def over(self, found: Found, timeout: float | None = None, seen: SeenIn | None = None) -> Found | None:
        """The job when it is over, None when it is gone; raises builtin TimeoutError, and what asking raises."""
        opened = self._opened
        place = found.place
        follower = self._followers.get(place.server)
        if follower is None:
            follower = self._followers[place.server] = Follower(opened.watch.reactor, place.server, opened.watch)
        waiting = Deferred.fromCoroutine(follower.over(place.job_id, seen))
        if timeout is not None:
            waiting.addTimeout(timeout, opened.watch.reactor)
        try:
            followed = await waiting
        except TimeoutError:
            raise too_late(f"job {found.reference} is not over after {timeout:g} s") from None
        if followed.refused is not None and followed.refused.number != ErrorNumber.JOB_UNKNOWN:
            raise followed.refused
        if followed.gone or followed.refused is not None or followed.answer is None:
            return None
        return attrs.evolve(found, answer=followed.answer)

    async def resources(self) -> tuple[ResourceRow, ...]:
        """The project's resources."""
        return await self._opened.grid.resources()

    async def servers(self) -> tuple[str, ...]:
        """The addresses of the project's servers."""
        return await self._opened.grid.servers()

    def _repository(self, found: Found) -> RepositoryClient:
        url = read_tag(found.answer.job.job_specifics, REPOSITORY_URL)
        if not is_server_url(url):
            raise ValueError(f"job {found.reference} has no repository")
        return RepositoryClient(http=self._opened.http, reactor=self._opened.watch.reactor, url=url)

    async def files(self, found: Found) -> tuple[RepositoryFile, ...]:
        """The files of a job."""
        return await self._repository(found).list()

    async def download(self, found: Found, names: Sequence[str], to: Path, progress: Progress | None) -> list[Path]:
        """Files by name or pattern, all of them without names; raises FileNotFoundError for one that means none."""
        store = self._repository(found)
        files = await store.list()
        chosen: dict[str, RepositoryFile] = {} if names else {file.name: file for file in files}
        for name in names:
            matches = [file for file in files if file.name == name] or [
                file for file in files if fnmatchcase(file.name, name)
            ]
            if not matches:
                raise FileNotFoundError(f"job {found.reference} has no file {name!r}")
            chosen.update((file.name, file) for file in matches)
        landing = Landing()
        target = Target(to)
        try:
            for name, file in chosen.items():
                with target.place(name) as place:
                    arrived = await store.fetch(name, place, moving(progress, name, file.size))
                    await landing.settle(arrived)
        finally:
            target.close()
        return [to / name for name in chosen]

    async def fetch(self, found: Found, name: str, target: Path) -> None:
        """One file to a path of one's own."""
        await self._repository(found).get(checked_name(name), target)

    async def upload(self, found: Found, files: Iterable[tuple[str, Path]], progress: Progress | None) -> list[str]:
        """Files, each under a name; returns the names."""
        store = self._repository(found)
        names = []
        for name, path in files:
            await store.put(path, checked_name(name), moving(progress, name, path.stat().st_size))
            names.append(name)
        return names

    async def remove(self, found: Found, names: Sequence[str]) -> None:
        """Remove files of a job."""
        store = self._repository(found)
        for name in names:
            await store.delete(checked_name(name))

    async def open(self, found: Found, name: str) -> tuple[Download, bytes]:
        """A file to read piece by piece, and its first piece; raises ServerRefused with 404 where there is none."""
        opened = self._opened
        wire = Wire(
            agent=opened.http.agent,
            reactor=opened.watch.reactor,
            url=self._repository(found).url,
            timeout=CALL_TIMEOUT,
            patience=Attempts(),
        )
        download = Download(wire, checked_name(name), opened.patience)
        return download, await download.read()

    async def close(self) -> None:
        """Let go of all connections; who waits for something is told that the client was closed."""
        self._closed = True
        for follower in self._followers.values():
            follower.close()
        self._followers.clear()
        opened, self._now = self._now, None
        if opened is not None:
            closing: Deferred[None] = opened.pool.closeCachedConnections()
            with suppress(TimeoutError, CancelledError):
                await closing.addTimeout(GOODBYE, opened.watch.reactor)


def too_late(text: str) -> builtins.TimeoutError:
    """The error of Python, not that of Twisted."""
    return builtins.TimeoutError(text)
