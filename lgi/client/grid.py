"""All servers of a project as one: where to submit, where a job is, what goes on when one of them is down.

LGI 1.41, General design: the master is asked for the project's servers, and the load is spread over them.
"""

from __future__ import annotations

import hashlib
import random
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import Deferred, gatherResults

from lgi.client.answers import AnswerMalformed, JobAnswer, ResourceRow, ServerList, ServerRefused, ServerUnreachable
from lgi.client.patience import Patience
from lgi.client.reference import JobReference, UnknownReference, named_server, server_names
from lgi.client.servers import KnownServers
from lgi.client.user import UserClient
from lgi.errors import ErrorNumber
from lgi.lists import ANY

T = TypeVar("T")

PAGE = 1024
_NOT_THERE = (ErrorNumber.JOB_UNKNOWN, ErrorNumber.READ_REFUSED)
Problem = ServerRefused | ServerUnreachable | AnswerMalformed


class SubmissionUnknown(Exception):
    """No usable answer, so the job may or may not be there; `key` and `server` repeat it without a second job."""

    def __init__(self, problem: BaseException, server: str, key: str, *, remembered: bool) -> None:
        self.server = server
        self.key = key
        self.remembered = remembered
        super().__init__(str(problem))


class DirectoriesUnknown(Exception):
    """A server that is to get files in directories, and has none in its repositories; nothing was sent."""


@attrs.frozen(kw_only=True)
class PlacedJob:
    """A job, and the address of the server that has it."""

    server: str
    answer: JobAnswer


@attrs.frozen(kw_only=True)
class Partial:
    """What some servers had to say, and why others did not."""

    jobs: tuple[PlacedJob, ...]
    problems: tuple[tuple[str, Problem], ...]


def _draw(key: str, server: str) -> bytes:
    """What decides which server a key belongs to: the highest, which few others take over when servers come or go."""
    return hashlib.sha256(f"{key}\n{server}".encode()).digest()


def new_submission_key() -> str:
    """A key that no other submission has."""
    return secrets.token_urlsafe(24)


class Grid:
    """A project, as a user sees it.

    `connect` gives the calls of a server by its address; `server` is asked for the others, and if it is `alone` no
    other is used. Reading calls are repeated by `patience`, submissions where a second job cannot come of it.
    """

    def __init__(
        self,
        *,
        connect: Callable[[str], UserClient],
        server: str,
        patience: Patience,
        known: KnownServers | None = None,
        alone: bool = False,
        shuffled: Callable[[Sequence[str]], list[str]] = lambda servers: random.sample(servers, len(servers)),
    ) -> None:
        self._connect = connect
        self._server = server.rstrip("/")
        self._patience = patience
        self._known = known
        self._alone = alone
        self._shuffled = shuffled
        self._lists: dict[str, ServerList] = {}
        self._all: tuple[str, ...] = ()

    def user(self, server: str = "") -> UserClient:
        """The calls of a server, of the configured one if none is named."""
        return self._connect(server or self._server)

    async def announced(self, server: str) -> ServerList:
        """What a server says of itself and the others; asked once."""
        if server not in self._lists:
            self._lists[server] = await self._patience.ask(self.user(server).servers)
        return self._lists[server]

    async def servers(self) -> tuple[str, ...]:
        """The addresses of all servers, the configured one first.

        Where that is down, those that are remembered are asked. Raises what asking the configured one raised.
        """
        if not self._all:
            if self._alone:
                self._all = (self._server,)
            else:
                first, found = await self._first_list()
                # The one that answered goes by the address by which it has been reached.
                others = (server.rstrip("/") for server in found.all if server != found.this)
                self._all = tuple(dict.fromkeys((first, *others)))
                if self._known is not None:
                    self._known.write(self._all)
        return self._all

    async def _first_list(self) -> tuple[str, ServerList]:
        remembered = () if self._known is None else self._known.read()
        others = [server for server in remembered if server != self._server]
        if not others:
            return self._server, await self.announced(self._server)
        problem: ServerUnreachable | None = None
        for server in (self._server, *others):
            try:
                self._lists[server] = await self.user(server).servers()
            except ServerUnreachable as unreachable:
                problem = problem or unreachable
            else:
                return server, self._lists[server]
        assert problem is not None
        raise problem

    async def known_servers(self) -> tuple[str, ...]:
        """The addresses as `servers` has them, or what is known of them while none answers."""
        try:
            return await self.servers()
        except ServerUnreachable:
            remembered = () if self._known is None else self._known.read()
            return tuple(dict.fromkeys((self._server, *remembered)))

    async def reference(self, job: PlacedJob) -> JobReference:
        """What the job goes by: its number, with the server's name where there are several."""
        names = server_names(await self.servers())
        name = names.get(job.server, "") if len(names) > 1 else ""
        return JobReference(job_id=job.answer.job.job_id, server=name)

    async def submit(
        self, *, key: str = "", note: Callable[[str], None] = lambda _text: None, **job: Any
    ) -> PlacedJob:
        """Submit to one of the servers; arguments as of `UserClient.submit`.

        With a `key` of the caller's own, the first submission under it counts, on the server that got it. Raises
        SubmissionUnknown, DirectoriesUnknown, and what `Server.call` raises.
        """
        servers = await self.servers()
        # Each server has its own keys: what may be repeated goes to the same one each time, up or down.
        order = [max(servers, key=lambda server: _draw(key, server))] if key else self._shuffled(servers)
        key = key or new_submission_key()
        for server in order:
            try:
                if server is not order[-1] and server not in self._lists:
                    # Nobody is waited for while there is another.
                    self._lists[server] = await self.user(server).servers()
                return await self._submit_to(server, key, job)
            except ServerUnreachable as problem:
                if server is order[-1]:
                    raise
                note(f"{problem}; trying another server")
        raise AssertionError("a project has a server")

    async def _submit_to(self, server: str, key: str, job: dict[str, Any]) -> PlacedJob:
        user = self.user(server)
        remembered = (await self.announced(server)).remembers_submissions
        # Directories came into the protocol together with that.
        if not remembered and any(
            isinstance(upload, tuple) and "/" in upload[0] for upload in job.get("uploads", ())
        ):
            raise DirectoriesUnknown(f"{server} is too old for directories")
        ask = self._patience if remembered else self._patience.for_what_happens_once()
        unknown = False

        async def attempt() -> JobAnswer:
            nonlocal unknown
            try:
                return await user.submit(submission_key=key, **job)
            except (ServerUnreachable, AnswerMalformed) as problem:
                unknown = unknown or getattr(problem, "maybe_done", True)
                raise
            except ServerRefused as problem:
                unknown = unknown or problem.number == ErrorNumber.DATABASE_UNREACHABLE
                raise

        try:
            return PlacedJob(server=server, answer=await ask.ask(attempt))
        except (ServerRefused, ServerUnreachable, AnswerMalformed) as problem:
            if unknown:
                raise SubmissionUnknown(problem, server, key, remembered=remembered) from problem
            raise

    async def locate(self, reference: JobReference) -> str:
        """The address of the server that has the job; raises UnknownReference, and what asking for it raises.

        Where no server is named and there are several, all of them are asked.
        """
        servers = await self.servers()
        if reference.server:
            return named_server(reference.server, servers)
        if len(servers) == 1:
            return servers[0]
        asked = await self._each(servers, lambda server: self._has(server, reference.job_id))
        for server, found in asked:
            if isinstance(found, Exception):
                names = server_names(servers)
                raise UnknownReference(
                    f"which job {reference.job_id} is meant cannot be told while {names[server]} does not answer "
                    f"({found}); say it as {reference.job_id}@server"
                )
        having = [server for server, found in asked if found]
        if len(having) > 1:
            names = server_names(servers)
            raise UnknownReference(
                f"job {reference.job_id} may be {' or '.join(f'{reference.job_id}@{names[s]}' for s in having)}"
            )
        return having[0] if having else servers[0]

    async def _has(self, server: str, job_id: int) -> bool:
        try:
            await self._patience.ask(self.user(server).job, job_id)
        except ServerRefused as problem:
            if problem.number in _NOT_THERE:
                return False
            raise
        return True

    async def job(self, reference: JobReference) -> PlacedJob:
        """One job with its input, output and files."""
        server = await self.locate(reference)
        return PlacedJob(server=server, answer=await self._patience.ask(self.user(server).job, reference.job_id))

    async def delete(self, reference: JobReference, *, cancel: bool = False) -> PlacedJob:
        """Delete a job, or have a running one aborted; with `cancel` one that is over stays as it is."""
        server = await self.locate(reference)
        answer = await self._patience.ask(self.user(server).delete, reference.job_id, cancel=cancel)
        return PlacedJob(server=server, answer=answer)

    async def jobs(self, *, state: str = ANY, application: str = ANY, limit: int | None = None) -> Partial:
        """The jobs that the user may read, oldest first on each server; at most `limit` in all."""

        async def of(server: str) -> list[JobAnswer]:
            return await self._pages(server, state=state, application=application, limit=limit)

        asked = await self._each(await self.servers(), of)
        jobs = [
            PlacedJob(server=server, answer=answer)
            for server, found in asked
            if not isinstance(found, Exception)
            for answer in found
        ]
        problems = [(server, found) for server, found in asked if isinstance(found, Exception)]
        if len(problems) == len(asked):
            raise problems[0][1]
        return Partial(jobs=tuple(jobs[:limit]), problems=tuple(problems))

    async def _pages(self, server: str, *, state: str, application: str, limit: int | None) -> list[JobAnswer]:
        """Page by page: a page may be smaller than asked for, the last one is empty."""
        found: dict[int, JobAnswer] = {}
        start = 0
        user = self.user(server)
        while limit is None or start < limit:
            ask = PAGE if limit is None else min(PAGE, limit - start)
            page = await self._patience.ask(user.jobs, state=state, application=application, start=start, limit=ask)
            if not page:
                break
            if start and all(answer.job.job_id in found for answer in page):
                raise AnswerMalformed("the server gives the same page of jobs again and again")
            start += len(page)
            found.update((answer.job.job_id, answer) for answer in page)
        return list(found.values())

    async def resources(self) -> tuple[ResourceRow, ...]:
        """The project's resources, as the first server that answers knows them."""
        servers = await self.servers()
        for server in servers:
            try:
                return await self._patience.ask(self.user(server).resources)
            except ServerUnreachable:
                if server is servers[-1]:
                    raise
        raise AssertionError("a project has a server")

    async def _each(
        self, servers: Sequence[str], ask: Callable[[str], Awaitable[T]]
    ) -> list[tuple[str, T | Problem]]:
        """Ask all of them at once; what one of them fails with is its part of the result."""

        async def one(server: str) -> tuple[str, T | Problem]:
            try:
                return server, await ask(server)
            except (ServerRefused, ServerUnreachable, AnswerMalformed) as problem:
                return server, problem

        asking = [Deferred.fromCoroutine(one(server)) for server in servers]
        return list(await gatherResults(asking, consumeErrors=True))
