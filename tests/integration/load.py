"""Users who submit and resources that work without a pause, and what they were promised meanwhile.

They behave as deployed programs do: a submission without an answer is not sent again, since that would be a second
job; what a resource asks is repeated until it is answered.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import attrs
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from lgi.admin.layout import existing
from lgi.admin.members import open_office
from lgi.cli.session import connected
from lgi.client.answers import ServerRefused, ServerUnreachable
from lgi.client.post import Server
from lgi.client.resource import ResourceClient
from lgi.client.user import UserClient
from lgi.errors import ErrorNumber
from lgi.lists import ANY
from lgi.model import Job
from lgi.states import JobState
from tests.integration.grid import RESOURCE, USER, Grid

P = ParamSpec("P")
R = TypeVar("R")

APPLICATION = "hello_world"
BACK_OFF = (ErrorNumber.OVERLOADED, ErrorNumber.DATABASE_UNREACHABLE)
SIGNED_OFF = (ErrorNumber.SESSION_ENDED, ErrorNumber.SESSION_UNKNOWN)
UNLOCKED = (ErrorNumber.LOCK_MISSING, ErrorNumber.LOCK_OF_ANOTHER)
RETRY_SECONDS = 0.1
LONGEST_BACK_OFF = 2.0
FILE = "data.bin"


async def as_user(reactor: Any, grid: Grid, call: Callable[[UserClient], Awaitable[R]]) -> R:
    """The result of `call(client)` on a connection of its own."""
    home = grid.home
    async with connected(reactor, home / "certificate", home / "privatekey", home / "ca_chain") as http:
        server = Server(http=http, reactor=reactor, url=grid.url, project="LGI")
        return await call(UserClient(server=server, user=USER, groups=("theor",)))


async def as_resource(
    reactor: Any, grid: Grid, call: Callable[[ResourceClient], Awaitable[R]], name: str = RESOURCE
) -> R:
    """The result of `call(client)` on a connection of its own."""
    home = grid.root / "resources" / name
    async with connected(reactor, home / "resource.crt", home / "resource.key", home / "ca.crt") as http:
        return await call(ResourceClient(server=Server(http=http, reactor=reactor, url=grid.url, project="LGI")))


@attrs.define
class Ledger:
    """What was promised to clients, and whatever they saw that must not be.

    A job is held from when a resource is told of its lock until it begins to give the lock back, and owned from when
    `running` was acknowledged until it begins to put the job back. All clients live in one thread, so that the order
    of these moments is certain.
    """

    sent: dict[bytes, bytes | None] = attrs.Factory(dict)  # the input of each submission, and its file
    submitted: dict[int, bytes] = attrs.Factory(dict)
    held: dict[int, str] = attrs.Factory(dict)
    owned: dict[int, str] = attrs.Factory(dict)
    finished: dict[int, bytes] = attrs.Factory(dict)
    lost_answers: int = 0
    backed_off: int = 0
    problems: list[str] = attrs.Factory(list)

    def given(self, job: Job, resource: str) -> None:
        """A resource was told that it holds a job."""
        number = job.job_id
        for word, others in (("is held by", self.held), ("belongs to", self.owned)):
            if number in others:
                self.problems.append(f"job {number} was given to {resource}, but {word} {others[number]}")
        if number in self.finished:
            self.problems.append(f"job {number} was given to {resource} after it had finished")
        self.held[number] = resource

    def released(self, resource: str) -> None:
        """A resource gives back all its locks."""
        for number in [number for number, holder in self.held.items() if holder == resource]:
            del self.held[number]


class Client:
    """What users and resources have in common."""

    def __init__(self, reactor: Any, ledger: Ledger, name: str, seed: int) -> None:
        self.reactor = reactor
        self.ledger = ledger
        self.name = name
        self.chance = random.Random(seed)
        self.stopping = False
        self.repeated = 0

    async def pause(self, seconds: float) -> None:
        """Wait, for up to twice as long."""
        await deferLater(self.reactor, seconds * (1 + self.chance.random()))

    async def unanswered(self, problem: ServerUnreachable) -> None:
        """Note a call without an answer, and wait before the next one."""
        if "HTTP status" in str(problem):
            self.ledger.problems.append(f"{self.name}: {problem}")
        self.ledger.lost_answers += 1
        self.repeated += 1
        await self.pause(RETRY_SECONDS)

    async def told_to_wait(self, problem: ServerRefused) -> None:
        """Do as a server says that is busy; raises any other refusal."""
        if problem.number not in BACK_OFF:
            raise problem
        if "unexpected" in problem.message or (problem.number == BACK_OFF[0] and not problem.timeout):
            self.ledger.problems.append(f"{self.name}: {problem}, come back in {problem.timeout} s")
        self.ledger.backed_off += 1
        self.repeated += 1
        await self.pause(min(problem.timeout or LONGEST_BACK_OFF, LONGEST_BACK_OFF) / 2)

    async def live(self) -> None:
        """Work until told to stop; what is not expected is a problem."""
        try:
            await self.work()
        except Exception as problem:
            self.ledger.problems.append(f"{self.name} ended: {type(problem).__name__}: {problem}")

    async def work(self) -> None:
        """For the subclass."""
        raise NotImplementedError


class Submitter(Client):
    """A user who submits one job after the other, every third one with a file."""

    def __init__(self, *base: Any, client: UserClient, files: Path) -> None:
        super().__init__(*base)
        self._client = client
        self._files = files / self.name
        self._files.mkdir(parents=True)

    async def work(self) -> None:
        """Submit until told to stop."""
        number = 0
        while not self.stopping:
            number += 1
            text = f"{self.name}, job {number}".encode()
            uploads, content = [], None
            if number % 3 == 0:
                content = self.chance.randbytes(self.chance.randint(0, 70_000))
                uploads = [self._files / FILE]
                uploads[0].write_bytes(content)
            await self._submit(text, content, uploads)

    async def _submit(self, text: bytes, content: bytes | None, uploads: list[Path]) -> None:
        self.ledger.sent[text] = content
        while not self.stopping:
            try:
                answer = await self._client.submit(application=APPLICATION, input=text, uploads=uploads)
            except ServerUnreachable as problem:
                await self.unanswered(problem)
                if problem.maybe_done:
                    return
            except ServerRefused as problem:
                await self.told_to_wait(problem)
                if problem.number == ErrorNumber.DATABASE_UNREACHABLE:
                    # As with no answer at all: nobody knows.
                    return
            else:
                self.ledger.submitted[answer.job.job_id] = text
                return


class Worker(Client):
    """A resource that takes jobs, puts some of them back, and reports the others finished."""

    def __init__(self, *base: Any, client: ResourceClient) -> None:
        super().__init__(*base)
        self._client = client
        self._mine: set[int] = set()  # maybe: as with a daemon's job directories

    async def _ask(self, call: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        while True:
            try:
                return await call(*args, **kwargs)
            except ServerUnreachable as problem:
                await self.unanswered(problem)
            except ServerRefused as problem:
                await self.told_to_wait(problem)

    async def _already(
        self, done: Collection[ErrorNumber], call: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Ask for something that an earlier call without an answer may have done: it is refused as `done` then."""
        before = self.repeated
        try:
            await self._ask(call, *args, **kwargs)
        except ServerRefused as problem:
            if problem.number not in done or self.repeated == before:
                raise

    async def work(self) -> None:
        """Cycles of a daemon, until told to stop and all work is done."""
        while not self.stopping or self._mine:
            session_id = (await self._ask(self._client.signup)).session_id
            try:
                if not self.stopping:
                    await self._take(session_id)
                for job_id in sorted(self._mine):
                    await self._look_after(session_id, job_id)
            finally:
                self.ledger.released(self.name)
                await self._already(SIGNED_OFF, self._client.signoff, session_id)
            await self.pause(0.005)

    async def _take(self, session_id: int) -> None:
        try:
            offered = await self._ask(
                self._client.request_work, session_id, APPLICATION, limit=self.chance.randint(1, 4)
            )
        except ServerRefused as problem:
            if problem.number != ErrorNumber.SESSION_HOLDS_LOCKS:
                raise
            # An answer was lost. Which jobs they are is not known: the session ends, and with it the locks.
            return
        for answer in offered:
            self.ledger.given(answer.job, self.name)
        for answer in offered:
            job_id = answer.job.job_id
            if self.chance.random() < 0.1:
                self.ledger.held.pop(job_id)
            else:
                self._mine.add(job_id)
                await self._ask(
                    self._client.update,
                    session_id,
                    job_id,
                    state=JobState.RUNNING,
                    target_resources=(self.name,),
                )
                self.ledger.owned[job_id] = self.name
                self.ledger.held.pop(job_id)
            await self._already(UNLOCKED, self._client.unlock, session_id, job_id)

    async def _look_after(self, session_id: int, job_id: int) -> None:
        pulse = await self._ask(self._client.state, job_id)
        if pulse.job.state is not JobState.RUNNING:
            self.ledger.problems.append(f"job {job_id} of {self.name} is {pulse.job.state}")
        # Others run on until a later cycle.
        if self.stopping or self.chance.random() < 0.5:
            await self._report(session_id, job_id)

    async def _report(self, session_id: int, job_id: int) -> None:
        # The lock may be ours already, by a call that was not answered; somebody else's would be a problem.
        await self._already([ErrorNumber.LOCK_REFUSED], self._client.lock, session_id, job_id)
        self.ledger.held[job_id] = self.name
        if self.chance.random() < 0.1:
            self.ledger.owned.pop(job_id)
            await self._ask(self._client.update, session_id, job_id, state=JobState.QUEUED, target_resources=(ANY,))
        else:
            output = f"{self.name} has done job {job_id}\n".encode() * self.chance.randint(1, 100)
            await self._ask(self._client.update, session_id, job_id, state=JobState.FINISHED, output=output)
            self.ledger.finished[job_id] = output
        self._mine.remove(job_id)
        self.ledger.held.pop(job_id)
        await self._already(UNLOCKED, self._client.unlock, session_id, job_id)


class Load:
    """Clients of a grid, each with a connection and, if a resource, a certificate of its own."""

    def __init__(self, reactor: Any, grid: Grid, seed: int, *, users: int = 8, resources: int = 8) -> None:
        self.ledger = Ledger()
        self._reactor = reactor
        self._grid = grid
        self._seed = seed
        self._users = users
        self._clients: list[Client] = []
        self._ended: list[Deferred[None]] = []
        self._names = [f"worker{number}@localhost" for number in range(resources)]
        office = open_office(existing(grid.root))
        for name in self._names:
            office.issue_resource(name, projects=["LGI"], applications=[APPLICATION], days=10, renew=False)

    def start(self) -> None:
        """Begin; the server need not be there yet."""
        for number in range(self._users):
            self._ended.append(Deferred.fromCoroutine(self._submit(f"user {number}", self._seed + number)))
        for number, name in enumerate(self._names):
            self._ended.append(Deferred.fromCoroutine(self._work(name, self._seed + 1000 + number)))

    def end(self) -> None:
        """End whoever has not ended."""
        for client in self._ended:
            client.cancel()

    async def stop(self) -> None:
        """Let everybody finish what was begun; the server must be there."""
        for client in self._clients:
            client.stopping = True
        await gatherResults(self._ended)

    async def _submit(self, name: str, seed: int) -> None:
        async def live(user: UserClient) -> None:
            files = self._grid.root / "uploads"
            await self._live(Submitter(self._reactor, self.ledger, name, seed, client=user, files=files))

        await as_user(self._reactor, self._grid, live)

    async def _work(self, name: str, seed: int) -> None:
        async def live(resource: ResourceClient) -> None:
            await self._live(Worker(self._reactor, self.ledger, name, seed, client=resource))

        await as_resource(self._reactor, self._grid, live, name)

    async def _live(self, client: Client) -> None:
        self._clients.append(client)
        await client.live()
