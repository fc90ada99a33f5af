"""Relays of several servers in one process, with real sockets, on one database."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import attrs
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from lgi.bell import Bell, encode
from lgi.db.bells import ServerBell, beat, others
from lgi.db.database import Database, database_url, make_engine
from lgi.db.upgrade import upgrade_schema
from lgi.model import Changes
from lgi.server import relay
from lgi.server.relay import Relay, pieces
from lgi.server.sealing import LONGEST, Sealer

PROJECT = "LGI"
CHANGES = Changes(
    jobs=frozenset([1, 10**12]), offers=frozenset([("hello_world", "any"), ("é", "r1@host")]), agenda=True
)
SOON = 0.05


class PiecesTests(SynchronousTestCase):
    """Changes in parts."""

    def test_small(self) -> None:
        self.assertEqual(list(pieces(CHANGES)), [CHANGES])
        self.assertEqual(list(pieces(Changes())), [Changes()])

    def test_large(self) -> None:
        offers = frozenset(("a" * 254, f"r{number}") for number in range(100))
        changes = Changes(jobs=frozenset(range(10_000)), offers=offers, agenda=True)
        parts = list(pieces(changes))
        self.assertEqual([part.agenda for part in parts].count(True), 1)
        whole = Changes()
        for part in parts:
            self.assertLess(len(encode(PROJECT, part)), 4096)
            whole |= part
        self.assertEqual(whole.offers, offers)
        self.assertEqual(whole.jobs, frozenset(range(10_000 - relay.MOST_JOBS, 10_000)))

    def test_names_as_long_as_they_may_be(self) -> None:
        worst = Changes(offers=frozenset(("\U0001f600" * 253 + str(number), "é" * 254) for number in range(8)))
        self.assertLess(len(encode(PROJECT, worst)), LONGEST - 100)


class Machine:
    """A relay, and a program on its machine."""

    def __init__(self, folder: Path, url: str) -> None:
        self.databases = {PROJECT: Database(reactor, make_engine(database_url(url), pool_size=1), threads=1)}
        self.relay = Relay(reactor, folder, self.databases, ("127.0.0.1", 0))
        self.bell = Bell(folder)
        self.heard: list[tuple[str, Changes]] = []
        self.bell.heard = lambda project, changes: self.heard.append((project, changes))

    def start(self) -> None:
        self.relay.start()
        self.bell.listen(reactor)

    @property
    def others(self) -> list[str]:
        """Whom it tells, by their addresses."""
        return sorted(other.row.address for other in self.relay._circles[PROJECT].listeners(reactor.seconds()))

    async def stop(self) -> None:
        self.bell.close()
        await self.relay.stop()


class RelayTests(TestCase):
    """Two machines, or three."""

    timeout = 30

    def setUp(self) -> None:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        self.url = f"sqlite:///{folder / 'project.sqlite'}"
        self.engine = make_engine(database_url(self.url), pool_size=1)
        self.addCleanup(self.engine.dispose)
        with self.engine.begin() as connection:
            upgrade_schema(connection)
        self.folder = folder
        self.warned: list[str] = []
        self.failed: list[str] = []

        @implementer(ILogObserver)
        def note(event: LogEvent) -> None:
            if event.get("log_namespace", "").startswith("lgi.server.relay") and "text" in event:
                self.warned.append(event["text"])
            if "log_failure" in event:
                self.failed.append(event["log_failure"].getTraceback())

        globalLogPublisher.addObserver(note)
        self.addCleanup(globalLogPublisher.removeObserver, note)

    def machine(self) -> Machine:
        machine = Machine(self.folder / f"run{len(list(self.folder.iterdir()))}", self.url)
        machine.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(machine.stop()))
        return machine

    async def until(self, true: Callable[[], object]) -> None:
        while not true():
            await deferLater(reactor, 0.01)

    async def two(self) -> tuple[Machine, Machine]:
        """Two that know each other; the second one has come last, and has not waited for the other's next beat."""
        first = self.machine()
        await self.until(self.rows)
        second = self.machine()
        await self.until(lambda: (first.others, second.others) == ([second.relay.address], [first.relay.address]))
        return first, second

    def rows(self) -> list[ServerBell]:
        with self.engine.begin() as connection:
            return others(connection, "")

    async def test_heard_on_the_other_machine(self) -> None:
        first, second = await self.two()
        ringing = Bell(first.relay._bell._directory)
        self.addCleanup(ringing.close)
        ringing.ring(PROJECT, CHANGES)
        ringing.ring("another", CHANGES)
        await self.until(lambda: second.heard)
        # And on its own, not by way of the other.
        await deferLater(reactor, SOON)
        self.assertEqual(second.heard, [(PROJECT, CHANGES)])
        self.assertEqual(first.heard, [(PROJECT, CHANGES), ("another", CHANGES)])
        self.assertEqual(self.warned, [])

    async def test_many_rings_are_few_datagrams(self) -> None:
        first, second = await self.two()
        ringing = Bell(first.relay._bell._directory)
        self.addCleanup(ringing.close)
        # One that listens rings again what finds no room.
        ringing.listen(reactor)
        for number in range(200):
            ringing.ring(PROJECT, Changes(jobs=frozenset([number])))
        await self.until(lambda: frozenset(range(200)) <= frozenset().union(*(one.jobs for _, one in second.heard)))
        self.assertLess(len(second.heard), 100)

    async def test_forged_and_repeated(self) -> None:
        """What is not another server's, or has come before, is not rung; what is, still is."""
        first, _second = await self.two()
        host, port = "127.0.0.1", int(first.relay.address.rpartition(":")[2])
        (row,) = [row for row in self.rows() if row.address == first.relay.address]
        receiver, key = bytes.fromhex(row.bell_id), bytes.fromhex(row.bell_key)
        said, now = encode("called otherwise there", CHANGES), reactor.seconds()
        sealer = Sealer()
        good = sealer.seal(said, receiver=receiver, key=key, now=now)
        bad = [
            b"",
            said,
            sealer.seal(said, receiver=receiver, key=bytes(32), now=now),
            sealer.seal(said, receiver=bytes(8), key=key, now=now),
            sealer.seal(said, receiver=receiver, key=key, now=now - 3600),
            sealer.seal(b"{}", receiver=receiver, key=key, now=now),
            sealer.seal(b"\xff", receiver=receiver, key=key, now=now),
            good[:-1] + bytes([good[-1] ^ 1]),
            b"x" * 65_000,
        ]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for datagram in (*bad, good, good, *bad):
                stranger.sendto(datagram, (host, port))
        await self.until(lambda: first.heard)
        await deferLater(reactor, SOON)
        self.assertEqual(first.heard, [(PROJECT, CHANGES)])
        # One line, for all of them, without what was in them.
        self.assertEqual(len(self.warned), 1)
        self.assertEqual(first.relay._refused, 2 * len(bad))
        self.assertNotIn(key.hex(), "".join(self.warned))

    async def test_one_that_goes_is_not_told(self) -> None:
        first, second = await self.two()
        await second.stop()
        self.assertEqual([row.address for row in self.rows()], [first.relay.address])
        first.relay._beats[PROJECT].wake()
        await self.until(lambda: not first.others)

    async def test_one_that_dies_is_forgotten(self) -> None:
        self.patch(relay, "SILENT_SECONDS", 0.2)
        self.patch(relay, "DEAD_SECONDS", 0.6)
        self.patch(relay, "BEAT_SECONDS", 0.05)
        dead = ServerBell(bell_id="00" * 8, address="127.0.0.1:9", bell_key="11" * 32, beat=1)
        nonsense = ServerBell(bell_id="22" * 8, address="nowhere", bell_key="x", beat=1)
        with self.engine.begin() as connection:
            beat(connection, dead, ())
            beat(connection, nonsense, ())
        first = self.machine()
        await self.until(lambda: first.others)
        self.assertEqual(first.others, [dead.address])
        await self.until(lambda: not first.others)
        self.assertEqual(len(self.rows()), 3)
        # It was not dead after all, only slow.
        with self.engine.begin() as connection:
            beat(connection, attrs.evolve(dead, beat=2), ())
        await self.until(lambda: first.others)
        await self.until(lambda: len(self.rows()) == 2)
        self.assertNotIn(dead.bell_id, [row.bell_id for row in self.rows()])

    async def test_key_is_in_no_log(self) -> None:
        """Not even with what goes wrong in the database."""
        first, _second = await self.two()
        with self.engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM server_bells")
            connection.exec_driver_sql("ALTER TABLE server_bells RENAME COLUMN bell_key TO secret")
        first.relay._beats[PROJECT].wake()
        await self.until(lambda: self.failed)
        circle = first.relay._circles[PROJECT]
        for text in (*self.failed, repr(circle._others)):
            self.assertIn("server_bells" if text in self.failed else "127.0.0.1", text)
            for key in (circle.key, *(other.key for other in circle._others.values())):
                self.assertNotIn(key.hex(), text)
                self.assertNotIn(repr(key), text)
        self.assertEqual(len(self.flushLoggedErrors()), len(self.failed))

    async def test_row_that_was_taken_away_comes_back(self) -> None:
        first, _second = await self.two()
        with self.engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM server_bells")
        first.relay._beats[PROJECT].wake()
        await self.until(lambda: first.relay.address in [row.address for row in self.rows()])
