"""The one way into SQL: named transactions in threads of a pool, repeated where the database asks for it."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from twisted.internet.defer import Deferred, DeferredSemaphore, TimeoutError
from twisted.internet.task import deferLater
from twisted.logger import Logger

from lgi.db.direct import go_direct
from lgi.db.measure import UNMEASURED, Measure, before_statement
from lgi.db.trouble import CommitFailed, disk_full, may_pass, shut
from lgi.db.workers import Workers
from lgi.errors import ErrorNumber, LGIError
from lgi.model import Changes

if TYPE_CHECKING:
    from lgi.db.fibres import Fibres

P = ParamSpec("P")
R = TypeVar("R")

# The driver that is compiled costs half the time, where it is installed (the extra `mysqlclient`).
_MYSQL = "pymysql" if find_spec("MySQLdb") is None else "mysqldb"
_DRIVERS = {
    "mysql": f"mysql+{_MYSQL}",
    "mariadb": f"mariadb+{_MYSQL}",
    "postgresql": "postgresql+psycopg",
    "sqlite": "sqlite",
}
ATTEMPTS = 6
BACK_OFF_SECONDS = 10
# For so long a transaction waits for its turn, and so long after its begin another attempt may begin: together with
# the last attempt this stays well below the time after which clients give up.
WAIT_SECONDS = 10.0
# How long one attempt waits for other processes that write.
SQLITE_BUSY_SECONDS = 5


class DatabaseURLError(Exception):
    """A database URL that cannot be used; the message says why."""


def database_url(text: str) -> URL:
    """Check `text` and choose the driver: `sqlite:///path`, `mariadb://user:password@host/name`, `mysql://…`."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise DatabaseURLError(
            "a database URL looks like sqlite:///path/to/file, mariadb://user:password@host:3306/name "
            "or postgresql://user:password@host/name"
        ) from None
    if url.drivername in _DRIVERS:
        url = url.set(drivername=_DRIVERS[url.drivername])
    if url.get_backend_name() not in _DRIVERS:
        known = ", ".join(sorted(_DRIVERS))
        raise DatabaseURLError(f"databases of the kind {url.drivername!r} are not supported; known are: {known}")
    if not url.database:
        raise DatabaseURLError("the database URL names no database")
    if url.database == ":memory:":
        raise DatabaseURLError("a database in memory is no use: give the path of a file, sqlite:///path/to/file")
    return url


def make_engine(url: URL, *, pool_size: int = 8, patience: int | None = None) -> Engine:
    """An engine whose transactions are read committed on a server, and serialised writes on SQLite.

    With `patience` a server that has not answered a statement for so many seconds counts as lost: a service must not
    wait for ever behind a broken network. Migrations take their time and have none.
    """
    try:
        if url.get_backend_name() == "sqlite":
            engine = create_engine(
                url, pool_size=pool_size, max_overflow=-1, connect_args={"timeout": SQLITE_BUSY_SECONDS}
            )
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
            event.listen(engine, "before_cursor_execute", before_statement)
            return engine
        options: dict[str, Any] = {"connect_timeout": 5}
        if url.get_backend_name() != "postgresql":
            url = url.update_query_dict({"charset": "utf8mb4"})
            # Whatever the server's own mode: what does not fit is refused, never cut.
            options["sql_mode"] = "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION"
            if patience is not None:
                options["read_timeout"] = options["write_timeout"] = patience
        elif patience is not None:
            options["options"] = f"-c statement_timeout={patience * 1000}"
            options["tcp_user_timeout"] = patience * 1000
        engine = create_engine(
            url,
            pool_size=pool_size,
            max_overflow=-1,
            pool_recycle=3600,
            isolation_level="READ COMMITTED",
            # Every transaction ends before its connection is given back: one more rollback would say nothing new.
            pool_reset_on_return=None,
            connect_args=options,
        )
    except (NoSuchModuleError, ModuleNotFoundError) as problem:
        raise DatabaseURLError(f"no driver for {url.drivername!r} is installed: {problem}") from None
    event.listen(engine, "before_cursor_execute", before_statement)
    if engine.dialect.driver == "mysqldb":
        # Only where it is installed.
        from lgi.db.fibres import prepare_engine

        prepare_engine(engine)
        go_direct(engine)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # We begin transactions ourselves: the driver would begin them late, and a transaction that reads before it writes
    # would then fail instead of wait.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode=WAL")
    # An acknowledged job survives the loss of power.
    connection.execute("PRAGMA synchronous=FULL")


def _begin_sqlite(connection: Connection) -> None:
    reading = connection.get_execution_options().get("lgi_reading", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _carrier(reactor: Any, engine: Engine, number: int) -> Workers | Fibres:
    """Who carries out so many transactions at a time."""
    if engine.dialect.driver != "mysqldb":
        return Workers(reactor, engine, number)
    # Only where the driver is installed.
    from lgi.db.fibres import Fibres

    return Fibres(reactor, engine, number)


class CommitUnknown(LGIError):
    """Nobody knows whether a transaction took effect; not a back-off, which says that nothing was done."""

    def __init__(self) -> None:
        super().__init__(
            ErrorNumber.DATABASE_UNREACHABLE, "whether this was done is not known, look before repeating it"
        )


class Database:
    """A project's database.

    Functions given to `run` and `read` get a connection first, do no other I/O, return plain values, and may be run
    again. They raise LGIError for expected outcomes, which rolls back. `committed` is called with what each
    transaction has changed, after its commit and before its caller goes on. `measured` gives the measure of a
    transaction of a name, and `threads` is how many threads there are.
    """

    _log = Logger()

    def __init__(self, reactor: Any, engine: Engine, *, threads: int = 8) -> None:
        self._reactor = reactor
        self.engine = engine
        self.committed: Callable[[Changes], None] = lambda _changes: None
        self.measured: Callable[[str], Measure] = lambda _name: UNMEASURED
        self.threads = threads
        self._given = 0
        self._workers = _carrier(reactor, engine, threads)
        # SQLite has one writer: the others wait here in order, and not in threads for its file lock.
        self._writers = DeferredSemaphore(1 if engine.dialect.name == "sqlite" else threads)

    def start(self) -> None:
        """Start the threads; before the reactor runs or while it does."""
        self._workers.start()

    @property
    def load(self) -> tuple[int, int]:
        """How many transactions have a thread, and how many wait for one or for their turn to write."""
        busy = min(self._given, self.threads)
        return busy, self._given - busy + len(self._writers.waiting)

    def stop(self) -> None:
        """Wait for transactions under way and close the connections; what comes later is refused. Twice is once."""
        self._workers.stop()
        self.engine.dispose()

    async def run(
        self, name: str, function: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run `function` in a transaction that may write, and commit it.

        Raises LGIError(OVERLOADED), with nothing done, when the database stays busy or away, after at most ATTEMPTS
        attempts, or has no room left on its disk; LGIError(DATABASE_UNREACHABLE), with nothing done, when it does not
        let this program in; CommitUnknown when it went away in the commit.
        """
        with self.measured(name) as measure:
            await self._turn()
            try:
                return await self._attempts(
                    name, False, lambda connection: function(connection, *args, **kwargs), measure
                )
            finally:
                self._writers.release()

    async def read(
        self, name: str, function: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run `function` in a transaction that only reads; raises like `run`."""
        with self.measured(name) as measure:
            return await self._attempts(name, True, lambda connection: function(connection, *args, **kwargs), measure)

    async def _turn(self) -> None:
        if self._writers.tokens:
            # As it would, without the making of a Deferred that has fired already.
            self._writers.tokens -= 1
            return
        waiting: Deferred[Any] = self._writers.acquire()
        if not waiting.called:
            waiting.addTimeout(WAIT_SECONDS, self._reactor)
        try:
            await waiting
        except TimeoutError:
            raise LGIError(ErrorNumber.OVERLOADED, "the database is busy", timeout=BACK_OFF_SECONDS) from None

    async def _attempts(self, name: str, reading: bool, function: Callable[[Connection], R], measure: Measure) -> R:
        function = measure.counting(function)
        end = self._reactor.seconds() + WAIT_SECONDS
        for attempt in range(1, ATTEMPTS + 1):
            if self._workers.stopped:
                # The threads would drop the work without a word.
                raise LGIError(ErrorNumber.OVERLOADED, "the database is being closed", timeout=BACK_OFF_SECONDS)
            self._given += 1
            try:
                result, changes = await self._workers.do(reading, function)
            except DBAPIError as problem:
                if shut(problem):
                    self._log.error("transaction {name}: {problem}", name=name, problem=problem.orig)
                    raise LGIError(ErrorNumber.DATABASE_UNREACHABLE) from None
                if disk_full(problem):
                    self._log.error("transaction {name}: {problem}", name=name, problem=problem.orig)
                    text = "there is no room left on the disk of the database"
                    raise LGIError(ErrorNumber.OVERLOADED, text, timeout=BACK_OFF_SECONDS) from None
                if not may_pass(problem):
                    raise
                self._log.warn(
                    "transaction {name}, attempt {attempt}: {problem}",
                    name=name,
                    attempt=attempt,
                    problem=problem.orig,
                )
            except CommitFailed as problem:
                # Not repeated: it may have taken effect.
                self._log.error(
                    "transaction {name}: connection lost in commit: {problem}", name=name, problem=problem
                )
                raise CommitUnknown from None
            else:
                if changes:
                    self.committed(changes)
                return result
            finally:
                self._given -= 1
            if attempt == ATTEMPTS or self._reactor.seconds() >= end:
                break
            measure.retry()
            await deferLater(self._reactor, 0.02 * 2**attempt)
        raise LGIError(ErrorNumber.OVERLOADED, "the database does not answer", timeout=BACK_OFF_SECONDS)
