"""What Prometheus is told, on a listener of its own: by the only process, or by the front for all of them."""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector
from twisted.internet.defer import Deferred, DeferredList, TimeoutError
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.web.http import Request as HTTPRequest
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from lgi.config import MetricsSection, listen_address
from lgi.db.database import Database
from lgi.db.depth import Depth, depth
from lgi.errors import LGIError

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
"""In the environment of a process whose metrics are told by the front."""
LOOK_SECONDS = 10.0
"""The queue is looked at no more often."""
PATIENCE_SECONDS = 3.0
# What one process may need at most; reserved, since a full disk would end a process that writes to mapped memory.
_RESERVED = {"counter": 1 << 20, "histogram": 1 << 22, "gauge_livesum": 1 << 18}
_RETIRED = "retired"
_TYPES = ("counter", "histogram")
_log = Logger()
# Nobody reads the files while those of a process that has ended are added to those of its forerunners.
_files = threading.Lock()


def directory_of(run_directory: Path) -> Path:
    """Where the processes behind a front have their values."""
    return run_directory / "metrics"


def prepare_directory(run_directory: Path) -> Path:
    """Make the directory for the values of several processes, empty, and name it in the environment of those to come.

    For the front, before it starts the first of them. Raises OSError.
    """
    directory = directory_of(run_directory)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for file in directory.glob("*.db"):
        file.unlink()
    for kind in _TYPES:
        _reserve(directory / f"{kind}_{_RETIRED}.db", 2 * _RESERVED[kind])
    os.environ[DIRECTORY] = str(directory)
    return directory


def reserve(directory: Path) -> None:
    """Make room for the values of this process; before its first one. Raises OSError."""
    for kind, size in _RESERVED.items():
        _reserve(directory / f"{kind}_{os.getpid()}.db", size)


def _reserve(file: Path, size: int) -> None:
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size)
    finally:
        os.close(descriptor)


def retire(directory: Path, pid: int) -> None:
    """A process has ended: what it counted stays, in one file for all that have, and its momentary values go."""
    with _files:
        mark_process_dead(pid, str(directory))
        for kind in _TYPES:
            file = directory / f"{kind}_{pid}.db"
            if not file.exists():
                continue
            total = MmapedDict(str(directory / f"{kind}_{_RETIRED}.db"))
            for key, value, _time, _position in MmapedDict.read_all_values_from_file(str(file)):
                before, _ = total.read_value(key)
                total.write_value(key, before + value, 0.0)
            total.close()
            file.unlink()


def retire_ended(directory: Path) -> None:
    """Retire all that were children of this process and are not any more."""
    for pid in {name for file in directory.glob("*.db") if (name := file.stem.rpartition("_")[2]).isdecimal()}:
        try:
            # Behind the program's name, which may have any letters: state and parent.
            parent = int(Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[1])
        except OSError:
            parent = 0
        if parent != os.getpid():
            retire(directory, int(pid))


class _AllProcesses(Collector):
    """The values of all processes."""

    def __init__(self, directory: Path) -> None:
        self._collector = MultiProcessCollector(None, str(directory))

    def collect(self) -> Any:
        with _files:
            return self._collector.collect()


def registry_of(directory: Path) -> CollectorRegistry:
    """What all processes measure together that have their values in this directory; for the front."""
    registry = CollectorRegistry()
    registry.register(_AllProcesses(directory))
    return registry


class Depths(Collector):
    """The queues of all projects, looked at when somebody asks; register it with what is served."""

    def __init__(self, reactor: Any, databases: Mapping[str, Database]) -> None:
        self._reactor = reactor
        self._databases = databases
        self._seen: dict[str, Depth | None] = {}
        self._looked: float | None = None

    async def look(self) -> None:
        """Look at the queues, unless somebody did within the last LOOK_SECONDS."""
        now = self._reactor.seconds()
        if self._looked is not None and 0 <= now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        await DeferredList(
            [Deferred.fromCoroutine(self._see(name, database)) for name, database in self._databases.items()],
            fireOnOneErrback=True,
            consumeErrors=True,
        )

    async def _see(self, name: str, database: Database) -> None:
        reading = Deferred.fromCoroutine(database.read("queue depth", depth))
        try:
            # Whoever asks would give up before a database that is away does, and hear nothing at all.
            self._seen[name] = await reading.addTimeout(PATIENCE_SECONDS, self._reactor)
        except (LGIError, TimeoutError) as problem:
            _log.warn("the queue of {name} is not known: {problem}", name=name, problem=str(problem) or "no answer")
            self._seen[name] = None

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """What was seen; nothing of a queue that could not be looked at."""
        answers = GaugeMetricFamily("lgi_database_answers", "Whether the queue could be read.", labels=["project"])
        jobs = GaugeMetricFamily("lgi_jobs", "Jobs in the database.", labels=["project", "application", "state"])
        oldest = GaugeMetricFamily(
            "lgi_oldest_queued_seconds",
            "For how long the oldest job that is on offer is queued.",
            labels=["project", "application"],
        )
        now = self._reactor.seconds()
        for name, seen in list(self._seen.items()):
            answers.add_metric([name], 0 if seen is None else 1)
            if seen is not None:
                for (application, state), number in sorted(seen.jobs.items()):
                    jobs.add_metric([name, application, state], number)
                for application, since in sorted(seen.oldest.items()):
                    oldest.add_metric([name, application], max(0, now - since))
        yield from (answers, jobs, oldest)


class _Exposition(Resource):
    """`GET /metrics`, and nothing else."""

    isLeaf = True

    def __init__(self, reactor: Any, registry: CollectorRegistry, refresh: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._reactor = reactor
        self._registry = registry
        self._refresh = refresh

    def render(self, request: Request) -> int | bytes:
        """Collect in a thread, since it takes some milliseconds, and answer."""
        if request.path != b"/metrics":
            request.setResponseCode(404)
            return b"there is nothing here but /metrics\n"
        if request.method not in (b"GET", b"HEAD"):
            request.setResponseCode(405)
            request.setHeader(b"Allow", b"GET, HEAD")
            return b"this can only be read\n"
        Deferred.fromCoroutine(self._answer(request)).addErrback(
            lambda failure: _log.failure("metrics could not be told", failure)
        )
        return NOT_DONE_YET

    async def _answer(self, request: Request) -> None:
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)
        try:
            await self._refresh()
            body = await deferToThreadPool(
                self._reactor, self._reactor.getThreadPool(), generate_latest, self._registry
            )
            request.setHeader(b"Content-Type", CONTENT_TYPE_LATEST.encode())
        except Exception:
            _log.failure("metrics could not be collected")
            request.setResponseCode(500)
            body = b"metrics could not be collected, see the server's log\n"
        if not gone:
            request.setHeader(b"Content-Length", b"%d" % len(body))
            request.write(b"" if request.method == b"HEAD" else body)
            request.finish()


class _Site(Site):
    displayTracebacks = False
    noisy = False

    def logPrefix(self) -> str:
        """What is said to start on the address."""
        return "metrics"

    def log(self, request: HTTPRequest) -> None:
        """Nobody wants to read who asked for metrics four times a minute."""


def make_site(reactor: Any, registry: CollectorRegistry, refresh: Callable[[], Awaitable[None]]) -> Site:
    """The HTTP side: `refresh` is called before each answer."""
    return _Site(_Exposition(reactor, registry, refresh), timeout=30, reactor=reactor)


def serve(
    reactor: Any, config: MetricsSection, registry: CollectorRegistry, refresh: Callable[[], Awaitable[None]]
) -> IListeningPort | None:
    """Listen where the configuration says, None where it says nothing; raises OSError."""
    address = listen_address(config.listen)
    if address is None:
        return None
    host, number = address
    try:
        port: IListeningPort = reactor.listenTCP(number, make_site(reactor, registry, refresh), interface=host)
    except CannotListenError as problem:
        raise OSError(
            0, f"it cannot be had: {problem.socketError.strerror}", f"metrics.listen {config.listen}"
        ) from None
    _log.info("metrics are on {host} port {port}", host=host, port=getattr(port.getHost(), "port", number))
    return port
