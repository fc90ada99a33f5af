"""Files to and from a real server, over connections that break, while things change on both sides."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import attrs
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from lgi.cli.session import connected
from lgi.cli.show import tag
from lgi.client.repository import FileChanged, Patience, RepositoryClient
from lgi.wire.specifics import REPOSITORY_URL
from tests.integration.grid import Grid, Program
from tests.integration.load import APPLICATION, as_user

reactor: Any = global_reactor

SIZE = 64 << 20
CUTS = 20


class _Far(Protocol):
    """Towards the server."""

    def __init__(self, near: _Near) -> None:
        self.near = near

    def connectionMade(self) -> None:
        transport: Any = self.transport
        self.near.transport.registerProducer(transport, True)
        transport.registerProducer(self.near.transport, True)
        transport.write(b"".join(self.near.waiting))

    def dataReceived(self, data: bytes) -> None:
        self.near.transport.write(data)
        self.near.moved(len(data))

    def connectionLost(self, reason: Any = None) -> None:
        self.near.transport.loseConnection()


class _Near(Protocol):
    """Towards the client."""

    transport: Any
    factory: Cutter

    def connectionMade(self) -> None:
        self.factory.open.add(self)
        self.waiting: list[bytes] = []
        self.far: Any = None
        self.left = next(self.factory.cuts, None)
        endpoint = HostnameEndpoint(reactor, "localhost", self.factory.port)
        connecting = connectProtocol(endpoint, _Far(self))
        connecting.addCallbacks(self._connected, lambda _: self.transport.abortConnection())

    def _connected(self, far: _Far) -> None:
        self.far = far

    def dataReceived(self, data: bytes) -> None:
        if self.far is None:
            self.waiting.append(data)
        else:
            self.far.transport.write(data)
        self.moved(len(data))

    def moved(self, count: int) -> None:
        """Cut the connection once so many bytes have gone over it, either way."""
        if self.left is None:
            return
        self.left -= count
        if self.left <= 0:
            self.left = None
            self.factory.done += 1
            self.transport.abortConnection()

    def connectionLost(self, reason: Any = None) -> None:
        self.factory.open.discard(self)
        if self.far is not None:
            self.far.transport.abortConnection()


class Cutter(Factory):
    """Passes connections on to a port of this machine, each of them for so many bytes; `done` counts the cuts."""

    noisy = False

    def __init__(self, port: int) -> None:
        self.port = port
        self.cuts: Iterator[int] = iter(())
        self.done = 0
        self.open: set[_Near] = set()

    def buildProtocol(self, addr: Any) -> Any:
        near = _Near()
        near.factory = self
        return near

    def cut_all(self) -> None:
        """End all connections."""
        for one in list(self.open):
            one.transport.abortConnection()


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class TransferTests(TestCase):
    """One server for all, since starting one takes longer than most tests."""

    timeout = 120
    folder: ClassVar[tempfile.TemporaryDirectory[str]]
    grid: ClassVar[Grid]
    server: ClassVar[Program]

    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = tempfile.TemporaryDirectory(prefix="lgi-transfers-")
        Path(cls.folder.name).chmod(0o755)
        cls.grid = Grid(Path(cls.folder.name) / "grid")
        cls.server = cls.grid.start_server()

    @classmethod
    def tearDownClass(cls) -> None:
        try:
            cls.grid.stop()
        finally:
            cls.folder.cleanup()

    def setUp(self) -> None:
        self.here = Path.cwd() / f"{self.id().rsplit('.', 1)[-1]}-files"
        self.here.mkdir()

    async def with_store(self, work: Any, *, through: Cutter | None = None, patience: Patience | None = None) -> Any:
        """The result of `work(store)` on a new job's repository, with connections of its own."""
        answer = await as_user(reactor, self.grid, lambda user: user.submit(application=APPLICATION, input=b"x"))
        url = tag(answer.job, REPOSITORY_URL)
        return await self.at(url, work, through=through, patience=patience)

    async def at(
        self, url: str, work: Any, *, through: Cutter | None = None, patience: Patience | None = None
    ) -> Any:
        """The same with a repository that there is."""
        home = self.grid.home
        port = None
        if through is not None:
            port = reactor.listenTCP(0, through, interface="127.0.0.1")
            url = url.replace(str(self.grid.port), str(port.getHost().port))
        try:
            async with connected(reactor, home / "certificate", home / "privatekey", home / "ca_chain") as http:
                store = RepositoryClient(http=http, reactor=reactor, url=url)
                return await work(attrs.evolve(store, patience=patience) if patience else store)
        finally:
            if port is not None and through is not None:
                await port.stopListening()
                through.cut_all()

    def local(self, name: str, data: bytes) -> Path:
        path = self.here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    async def test_cut_twenty_times_each_way(self) -> None:
        chance = random.Random(os.urandom(8))
        source = self.local("big", chance.randbytes(SIZE))
        cutter = Cutter(self.grid.port)
        patience = Patience(jitter=lambda low, high: 0.02)

        def cuts() -> Iterator[int]:
            # Far enough each time for the handshake, so that twenty of them do not reach the end.
            return iter([chance.randrange(20_000, 2 * SIZE // CUTS - 200_000) for _ in range(CUTS)])

        async def work(store: RepositoryClient) -> None:
            cutter.cuts = cuts()
            moved: list[int] = []
            self.assertEqual(await store.put(source, "run1/big", moved.append), SIZE)
            self.assertEqual(sum(moved), SIZE)
            up, cutter.done = cutter.done, 0
            cutter.cut_all()
            cutter.cuts = cuts()
            target = self.here / "back"
            self.assertEqual(await store.get("run1/big", target, verify=True), SIZE)
            self.assertEqual(digest(target), digest(source))
            # What is random may end a little early; the most of it is always there.
            self.assertGreater(up, CUTS // 2)
            self.assertGreater(cutter.done, CUTS // 2)

        await self.with_store(work, through=cutter, patience=patience)
        self.assertEqual(sorted(path.name for path in self.here.iterdir()), ["back", "big"])
        stored = list((self.grid.root / "repository").glob("*/JOB_*/run1/big"))
        self.assertEqual([digest(path) for path in stored], [digest(source)])

    async def test_server_killed_in_the_middle_of_an_upload(self) -> None:
        source = self.local("big", os.urandom(SIZE // 2))
        killed: Deferred[None] = Deferred()
        moved = 0

        def kill(count: int) -> None:
            nonlocal moved
            moved += count
            if moved > SIZE // 4 and not killed.called:
                self.server.stop(signal.SIGKILL)
                killed.callback(None)

        async def work(store: RepositoryClient) -> None:
            putting = Deferred.fromCoroutine(store.put(source, "big", kill))
            await killed
            type(self).server = await deferToThread(self.grid.start_server)
            self.assertEqual(await putting, SIZE // 2)
            self.assertEqual(moved, SIZE // 2)
            target = self.here / "back"
            await store.get("big", target)
            self.assertEqual(digest(target), digest(source))

        await self.with_store(work)

    async def test_many_small_files_there_and_back(self) -> None:
        for number in range(300):
            self.local(f"tree/d{number % 7}/e{number % 3}/f{number}", os.urandom(number * 10))
        url = tag((await as_user(reactor, self.grid, self._submit)).job, REPOSITORY_URL)
        lgi = self.grid.user

        def there_and_back() -> None:
            lgi("files", "put", url, "-r", str(self.here / "tree"), "--verify")
            self.assertEqual(len(lgi("files", "ls", url).splitlines()), 300)
            lgi("files", "get", url, "-r", "tree", "--to", str(self.here / "back"))
            self.assertEqual(_contents(self.here / "tree"), _contents(self.here / "back" / "tree"))
            lgi("files", "rm", url, "tree/**/f1*")
            self.assertEqual(len(lgi("files", "ls", url).splitlines()), 300 - 111)
            planted = self.here / "planted"
            planted.mkdir()
            (planted / "tree").symlink_to(self.here / "back")
            said = lgi("files", "get", url, "tree/d0/**", "--to", str(planted), status=1)
            self.assertIn("symbolic link", said)
            self.assertEqual(list(planted.iterdir()), [planted / "tree"])
            self.assertFalse((self.here / "back" / "d0").exists())

        await deferToThread(there_and_back)
        self.assertEqual(list(self.here.rglob(".*")), [])

    @staticmethod
    async def _submit(user: Any) -> Any:
        return await user.submit(application=APPLICATION, input=b"x")

    async def test_files_that_change_meanwhile(self) -> None:
        first, second = os.urandom(SIZE // 4), os.urandom(SIZE // 4)
        source = self.local("source", first)
        shrinking = self.local("shrinking", first)

        async def work(store: RepositoryClient) -> None:
            await store.put(source, "x")
            source.write_bytes(second)
            replaced: list[Deferred[int]] = []

            def replace(_count: int) -> None:
                if not replaced:
                    replaced.append(Deferred.fromCoroutine(store.put(source, "x")))

            target = self.here / "back"
            await store.get("x", target, replace)
            await replaced[0]
            self.assertIn(target.read_bytes(), (first, second))
            await store.get("x", target)
            self.assertEqual(target.read_bytes(), second)

            def shrink(_count: int) -> None:
                os.truncate(shrinking, 1000)

            failing = Deferred.fromCoroutine(store.put(shrinking, "x", shrink))
            problem = await self.assertFailure(failing, FileChanged)
            self.assertIn("changed while it was being sent", str(problem))
            await store.get("x", target)
            self.assertEqual(target.read_bytes(), second)

        await self.with_store(work)


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
