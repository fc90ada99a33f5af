"""Wake-ups between machines that share a database: what is rung on this one is passed on to the others.

Beside the bells of this machine's programs hangs one more, the relay's. What it hears is sent to each other server
that serves the project, in signed datagrams; what those send is rung here. Who may be told, where, and with which key
says the database, to which every relay writes that it lives: nobody else is listened to. Like a ring, a datagram is
only a hint to look, and a lost one costs the time until the next look at the database.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import attrs
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger

from lgi.bell import Bell, decode, encode
from lgi.config import ServerConfig, listen_address
from lgi.db.bells import ServerBell, beat, leave
from lgi.db.database import Database
from lgi.errors import LGIError
from lgi.model import Changes
from lgi.server.sealing import KEY_BYTES, LONGEST, NUMBER_BYTES, Opener, Refused, Sealer
from lgi.service import Periodic
from lgi.setup import open_databases

BEAT_SECONDS = 5.0
"""How often a server writes that it lives, and looks who else does."""
SILENT_SECONDS = 16.0
"""A server that has not written so for so long is not told any more."""
DEAD_SECONDS = 60.0
"""After so long its row is removed."""
GATHER_SECONDS = 0.005
"""What is rung within so long after a datagram is sent together."""
COMPLAIN_SECONDS = 60.0
JOBS, OFFERS = 128, 8
"""What one datagram says at most: it should fit into one packet of the network, with names that are not long."""
MOST_JOBS = 4096
"""Of the jobs that have changed at once so many are told, the newest."""


def pieces(changes: Changes) -> Iterator[Changes]:
    """The changes in parts that are small enough for a datagram each; one that is empty for no changes."""
    jobs, offers = sorted(changes.jobs)[-MOST_JOBS:], sorted(changes.offers)
    begin = 0
    while True:
        yield Changes(
            jobs=frozenset(jobs[begin * JOBS :][:JOBS]),
            offers=frozenset(offers[begin * OFFERS :][:OFFERS]),
            agenda=changes.agenda and not begin,
        )
        begin += 1
        if begin * JOBS >= len(jobs) and begin * OFFERS >= len(offers):
            return


@attrs.define(kw_only=True)
class _Other:
    """Another server, as its row was last seen to change, at `since`."""

    row: ServerBell
    address: tuple[str, int]
    receiver: bytes
    key: bytes = attrs.field(repr=False)
    since: float


def _other(row: ServerBell, now: float) -> _Other | None:
    """None for a row that nobody of ours has written."""
    try:
        address = listen_address(row.address)
        receiver, key = bytes.fromhex(row.bell_id), bytes.fromhex(row.bell_key)
    except ValueError:
        return None
    if address is None or len(receiver) != NUMBER_BYTES or len(key) != KEY_BYTES:
        return None
    return _Other(row=row, address=address, receiver=receiver, key=key, since=now)


class _Circle:
    """The servers of one project: this one's row, and the others."""

    def __init__(self, name: str, database: Database) -> None:
        self.name = name
        self.database = database
        self.receiver = secrets.token_bytes(NUMBER_BYTES)
        self.key = secrets.token_bytes(KEY_BYTES)
        self._others: dict[str, _Other] = {}
        self._beats = 0

    async def beat(self, address: str, now: float) -> list[_Other]:
        """Write that this server lives; returns others that are new to it. Raises LGIError."""
        self._beats += 1
        own = ServerBell(bell_id=self.receiver.hex(), address=address, bell_key=self.key.hex(), beat=self._beats)
        dead = [other.row for other in self._others.values() if now - other.since > DEAD_SECONDS]
        rows = await self.database.run("beat of the bell", beat, own, dead)
        before, self._others, new = self._others, {}, []
        for row in rows:
            known = before.get(row.bell_id)
            other = known if known is not None and known.row == row else _other(row, now)
            if other is not None:
                self._others[row.bell_id] = other
                if known is None:
                    new.append(other)
        return new

    def listeners(self, now: float) -> list[_Other]:
        """The others that live."""
        return [other for other in self._others.values() if now - other.since <= SILENT_SECONDS]

    async def leave(self) -> None:
        """Remove this server's row, where the database lets it."""
        try:
            await self.database.run("leave the bells", leave, self.receiver.hex())
        except LGIError:
            # Then the others find out by themselves.
            return


class Relay(DatagramProtocol):
    """Passes on what is rung in `directory`, and rings there what comes, for the projects of `databases`.

    It listens on `address`, where the others reach it, and closes the databases at its end, which are its own.
    """

    _log = Logger()

    def __init__(
        self, reactor: Any, directory: Path, databases: Mapping[str, Database], address: tuple[str, int]
    ) -> None:
        self._reactor = reactor
        self._address = address
        self._bell = Bell(directory)
        for database in databases.values():
            # Keys are among them, and errors are logged.
            database.engine.hide_parameters = True
        self._circles = {name: _Circle(name, database) for name, database in databases.items()}
        self._by_receiver = {circle.receiver: circle for circle in self._circles.values()}
        self._sealer = Sealer()
        self._opener = Opener({circle.receiver: circle.key for circle in self._circles.values()})
        self._beats: dict[str, Periodic] = {}
        self._services = MultiService()
        self._port: IListeningPort | None = None
        self._gathered: dict[str, Changes] = {}
        self._timer: Any = None
        self._refused = 0
        self._complained: float | None = None

    @property
    def address(self) -> str:
        """Where the others reach it, with the port that it has."""
        host = self._address[0]
        port = self._address[1] if self._port is None else self._port.getHost().port  # type: ignore[attr-defined]
        return f"[{host}]:{port}" if ip_address(host).version == 6 else f"{host}:{port}"

    def start(self) -> None:
        """Listen, on this machine and to the others; raises OSError and CannotListenError."""
        host, port = self._address
        self._port = self._reactor.listenUDP(port, self, interface=host, maxPacketSize=LONGEST + 1)
        self._bell.heard = self._rung
        self._bell.listen(self._reactor)
        for name, circle in self._circles.items():
            circle.database.start()
            beats = self._beats[name] = Periodic(
                self._reactor, f"the beat of the bell of project {name}", self._beating(circle), pause=1.0
            )
            beats.setServiceParent(self._services)
        self._services.startService()

    def _beating(self, circle: _Circle) -> Callable[[], Awaitable[float]]:
        told: set[str] = set()

        async def turn() -> float:
            nonlocal told
            for other in await circle.beat(self.address, self._reactor.seconds()):
                # So that they know this one, too, before their next beat.
                self._send(circle, Changes(), (other,))
            now_told = {other.row.address for other in circle.listeners(self._reactor.seconds())}
            for address in sorted(now_told - told):
                self._log.info(
                    "{address} is told of changes in project {project}", address=address, project=circle.name
                )
            for address in sorted(told - now_told):
                self._log.info("{address} is told no more of project {project}", address=address, project=circle.name)
            told = now_told
            return BEAT_SECONDS

        return turn

    async def stop(self) -> None:
        """Pass on nothing more, and take this server's rows away."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._bell.close()
        if self._port is None:
            return
        stopping: Deferred[Any] = maybeDeferred(self._services.stopService)
        await stopping
        await maybeDeferred(self._port.stopListening)
        self._port = None
        for circle in self._circles.values():
            await circle.leave()
            circle.database.stop()

    # From this machine to the others.

    def _rung(self, project: str, changes: Changes) -> None:
        if project not in self._circles:
            return
        if self._timer is not None:
            self._gathered[project] = self._gathered.get(project, Changes()) | changes
            return
        self._pass_on(project, changes)
        self._timer = self._reactor.callLater(GATHER_SECONDS, self._pass_on_gathered)

    def _pass_on_gathered(self) -> None:
        self._timer = None
        gathered, self._gathered = self._gathered, {}
        for project, changes in gathered.items():
            self._pass_on(project, changes)
        if gathered:
            self._timer = self._reactor.callLater(GATHER_SECONDS, self._pass_on_gathered)

    def _pass_on(self, project: str, changes: Changes) -> None:
        circle = self._circles[project]
        self._send(circle, changes, circle.listeners(self._reactor.seconds()))

    def _send(self, circle: _Circle, changes: Changes, receivers: list[_Other] | tuple[_Other, ...]) -> None:
        if not receivers or self.transport is None:
            return
        for piece in pieces(changes):
            said = encode(circle.name, piece)
            for other in receivers:
                now = self._reactor.seconds()
                datagram = self._sealer.seal(said, receiver=other.receiver, key=other.key, now=now)
                try:
                    self.transport.write(datagram, other.address)
                except (OSError, ValueError) as problem:
                    # A full buffer, a network that is away, an address of the other version of IP.
                    self._complain(f"{other.row.address} is not told: {problem}")

    # From the others to this machine.

    def datagramReceived(self, datagram: bytes, _address: object) -> None:
        """Ring what another server says; what is not from one costs a look at it, and a line in the log at times."""
        try:
            receiver, said = self._opener.open(datagram, self._reactor.seconds())
            circle = self._by_receiver[receiver]
            _name, changes = decode(said)
        except Refused as problem:
            self._complain(f"a datagram is not taken: {problem}")
            return
        except (ValueError, TypeError, KeyError):
            self._complain("a datagram of another server is not understood")
            return
        if changes:
            # The key says which project it is; what others call it is their affair.
            self._bell.ring(circle.name, changes)
        else:
            # Somebody has come.
            self._beats[circle.name].wake()

    def _complain(self, text: str) -> None:
        now = self._reactor.seconds()
        if self._complained is None or now - self._complained >= COMPLAIN_SECONDS:
            self._log.warn("{text} ({before} like this before)", text=text, before=self._refused)
            self._complained, self._refused = now, 0
        else:
            self._refused += 1


def relay_of(reactor: Any, config: ServerConfig) -> Relay | None:
    """The relay that `[server] bell` asks for, None where it asks for none."""
    address = listen_address(config.server.bell)
    if address is None:
        return None
    projects = {name: attrs.evolve(section, threads=1) for name, section in config.projects.items()}
    databases = open_databases(attrs.evolve(config, projects=projects), reactor)
    return Relay(reactor, config.server.run_directory, databases, address)
