"""What this process measures of itself, for Prometheus.

Where the environment has PROMETHEUS_MULTIPROC_DIR when this is imported, values go to files in that directory, from
which the front collects those of all processes (`lgi.server.exposition`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from time import perf_counter
from types import TracebackType
from typing import Any, Self, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from sqlalchemy import Connection

from lgi.db.database import Database
from lgi.db.measure import Measure, statements_on
from lgi.errors import ErrorNumber, LGIError
from lgi.httpd.record import CURRENT, Record
from lgi.httpd.router import Router
from lgi.server.project import Project

R = TypeVar("R")

CALL_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
TRANSACTION_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0)
_FAILURES = (ErrorNumber.OVERLOADED, ErrorNumber.DATABASE_UNREACHABLE)


class _Count:
    """What is to be added to a counter: adding at once would cost several times as much."""

    __slots__ = ("_counter", "number")

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self.number = 0

    def pour(self) -> None:
        """Add it."""
        if self.number:
            self._counter.inc(self.number)
            self.number = 0


class _Times:
    """What is to be added to a histogram of these bounds."""

    __slots__ = ("_bounds", "_histogram", "_numbers", "_sum")

    def __init__(self, histogram: Histogram, bounds: tuple[float, ...]) -> None:
        self._histogram: Any = histogram
        self._bounds = bounds
        self._numbers = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        """One more has taken so long."""
        self._numbers[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def pour(self) -> None:
        """Add them."""
        if self._sum or any(self._numbers):
            # The library has no way to observe many at once. A bucket of its has only what is in no smaller one.
            for bucket, number in zip(self._histogram._buckets, self._numbers, strict=True):
                if number:
                    bucket.inc(number)
            self._histogram._sum.inc(self._sum)
            self._numbers = [0] * len(self._numbers)
            self._sum = 0.0


class _Tally:
    """The counters of the transactions of one name, looked up once."""

    __slots__ = ("failed", "ok", "refused", "retries", "seconds", "statements")

    def __init__(self, metrics: Metrics, project: str, name: str) -> None:
        self.ok = metrics.count(metrics.transactions, project, name, "ok")
        self.refused = metrics.count(metrics.transactions, project, name, "refused")
        self.failed = metrics.count(metrics.transactions, project, name, "failed")
        self.seconds = metrics.times(metrics.transaction_seconds, TRANSACTION_SECONDS, project, name)
        self.statements = metrics.count(metrics.statements, project, name)
        self.retries = metrics.count(metrics.retries, project, name)


class Timed(Measure):
    """Adds the time of a transaction to the call that it is made for, and to a tally if there is one."""

    __slots__ = ("_began", "_statements", "_tally")

    def __init__(self, tally: _Tally | None = None) -> None:
        self._tally = tally
        self._statements = 0

    def __enter__(self) -> Self:
        self._began = perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        seconds = perf_counter() - self._began
        record = CURRENT.get()
        if record is not None:
            record.database += seconds
            record.transactions += 1
        tally = self._tally
        if tally is not None:
            tally.seconds.add(seconds)
            tally.statements.number += self._statements
            if problem is None:
                tally.ok.number += 1
            elif isinstance(problem, LGIError) and problem.number not in _FAILURES:
                tally.refused.number += 1
            else:
                tally.failed.number += 1

    def counting(self, function: Callable[[Connection], R]) -> Callable[[Connection], R]:
        """Count the statements of each attempt."""
        if self._tally is None:
            return function

        def counted(connection: Connection) -> R:
            before = statements_on(connection)
            try:
                return function(connection)
            finally:
                # One that is lost knows of none.
                self._statements += max(0, statements_on(connection) - before)

        return counted

    def retry(self) -> None:
        """Count it."""
        if self._tally is not None:
            self._tally.retries.number += 1


class Metrics:
    """The instruments; without a directory for several processes they are in `registry`."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests = Counter(
            "lgi_requests",
            "Requests, by call and result: ok, an LGI error or http.",
            ("call", "result"),
            registry=registry,
        )
        self._request_seconds = Histogram(
            "lgi_request_seconds",
            "Time for a request, without what it waited on purpose.",
            ("call",),
            buckets=CALL_SECONDS,
            registry=registry,
        )
        names = ("project", "transaction")
        self.transactions = Counter(
            "lgi_transactions", "Transactions: ok, refused or failed.", (*names, "result"), registry=registry
        )
        self.transaction_seconds = Histogram(
            "lgi_transaction_seconds",
            "Time for a transaction, with waiting for a thread and with further attempts.",
            names,
            buckets=TRANSACTION_SECONDS,
            registry=registry,
        )
        self.retries = Counter(
            "lgi_transaction_retries", "Attempts that were in vain and made again.", names, registry=registry
        )
        self.statements = Counter("lgi_statements", "SQL statements.", names, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, registry=registry, multiprocess_mode="livesum")

        self._under_way = gauge("lgi_calls_under_way", "Calls that are being answered, without those that wait.")
        self._waiting = gauge("lgi_waiting", "Clients that wait on purpose.", "project", "who")
        self._threads = gauge("lgi_database_threads", "Threads of the database.", "project")
        self._busy = gauge("lgi_database_threads_busy", "Threads that are in a transaction.", "project")
        self._queued = gauge("lgi_database_queued", "Transactions that wait for a thread or their turn.", "project")
        self._results: dict[tuple[str, int, int | None], _Count] = {}
        self._seconds: dict[str, _Times] = {}
        self._samplers: list[Callable[[], None]] = []

    def count(self, counter: Counter, *labels: str) -> _Count:
        """Counts for `counter` with these labels."""
        found = _Count(counter.labels(*labels))
        self._samplers.append(found.pour)
        return found

    def times(self, histogram: Histogram, bounds: tuple[float, ...], *labels: str) -> _Times:
        """Takes times for `histogram` with these labels."""
        found = _Times(histogram.labels(*labels), bounds)
        self._samplers.append(found.pour)
        return found

    def request(self, record: Record) -> None:
        """Count a request that is over."""
        key = (record.call, record.status, record.error)
        counter = self._results.get(key)
        if counter is None:
            counter = self._results[key] = self.count(self._requests, record.call, record.result)
        counter.number += 1
        seconds = self._seconds.get(record.call)
        if seconds is None:
            seconds = self._seconds[record.call] = self.times(self._request_seconds, CALL_SECONDS, record.call)
        seconds.add(record.worked)

    def measuring(self, project: str) -> Callable[[str], Timed]:
        """What gives the measure of a transaction by its name; for `Database.measured`."""
        tallies: dict[str, _Tally] = {}

        def measure(name: str) -> Timed:
            tally = tallies.get(name)
            if tally is None:
                tally = tallies[name] = _Tally(self, project, name)
            return Timed(tally)

        return measure

    def attach(self, router: Router, projects: Mapping[str, Project]) -> None:
        """From now on `sample` looks at these."""
        under_way = self._under_way
        self._samplers.append(lambda: under_way.set(router.under_way))
        for name, project in projects.items():
            self._samplers.append(self._sampler(name, project, project.database))

    def _sampler(self, name: str, project: Project, database: Database) -> Callable[[], None]:
        resources, users = self._waiting.labels(name, "resource"), self._waiting.labels(name, "user")
        busy, queued = self._busy.labels(name), self._queued.labels(name)
        self._threads.labels(name).set(database.threads)

        def sample() -> None:
            resources.set(project.waiting.held)
            users.set(project.news.crowded)
            load = database.load
            busy.set(load[0])
            queued.set(load[1])

        return sample

    def sample(self) -> None:
        """Have the instruments show what was counted, and what is so or so at the moment."""
        for sampler in self._samplers:
            sampler()
