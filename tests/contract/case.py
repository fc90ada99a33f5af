"""What the contract of the database is tested with: a fresh database for each test, and short ways to fill it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Barrier, Thread
from typing import Any, ClassVar, TypeVar

from sqlalchemy import Connection, Engine
from twisted.trial.unittest import TestCase

from lgi.db.database import database_url, make_engine
from lgi.db.jobs import fetch_job, insert_job
from lgi.db.resources import register
from lgi.db.schema import metadata
from lgi.db.sessions import hold_session, keep_alive
from lgi.db.upgrade import upgrade_schema
from lgi.errors import ErrorNumber, LGIError
from lgi.model import Job
from lgi.repository.names import new_repository_name
from lgi.states import JobState
from tests import mariadb, postgresql

R = TypeVar("R")

NOW = 1_700_000_000
APPLICATION = "hello_world"
RESOURCE = "resource1@localhost"
THREADS = 16


def job(**changes: Any) -> Job:
    """A queued job of mark's, with what is asked for changed."""
    values: dict[str, Any] = {
        "job_id": 0,
        "state": JobState.QUEUED,
        "application": APPLICATION,
        "target_resources": ("any",),
        "owners": ("mark", "theor"),
        "read_access": ("admin", "mark"),
        "write_access": ("admin", "mark"),
        "state_time_stamp": NOW,
        "priority": NOW,
    }
    return Job(**values | changes)


def keep_session(connection: Connection, session_id: int, name: str, now: int) -> None:
    """Hold a session of a resource that was registered, and let it go on; raises LGIError(SESSION_ENDED)."""
    held = hold_session(connection, session_id, name)
    if held is None:
        raise LGIError(ErrorNumber.SESSION_ENDED)
    keep_alive(connection, held, now)


class ContractCase(TestCase):
    """One test on one database; which kind of database is for the subclass to say."""

    timeout = 60

    def make_database(self) -> str:
        """The URL of a database with our schema and nothing in it, which nobody else uses during the test."""
        raise NotImplementedError

    def setUp(self) -> None:
        """Make the database."""
        self.url = self.make_database()
        self.engine = self.new_engine()

    def new_engine(self, threads: int = THREADS) -> Engine:
        """An engine on the test's database."""
        engine = make_engine(database_url(self.url), pool_size=threads)
        self.addCleanup(engine.dispose)
        return engine

    def run_in(self, function: Callable[..., R], *args: Any, **kwargs: Any) -> R:
        """Run a function in a transaction of its own, which is rolled back when it raises."""
        with self.engine.begin() as connection:
            return function(connection, *args, **kwargs)

    def submit(self, **changes: Any) -> int:
        """Store a job."""
        return self.run_in(insert_job, job(repository=new_repository_name(), **changes), actor="mark")

    def fetch(self, job_id: int) -> Job:
        """A job that is there, with input and output."""
        found = self.run_in(fetch_job, job_id, blobs=True)
        assert found is not None, f"there is no job {job_id}"
        return found

    def register(self, name: str = RESOURCE, applications: Sequence[str] = (APPLICATION,)) -> int:
        """Register a resource that offers applications."""
        return self.run_in(
            register,
            name=name,
            certificate=f"certificate of {name}",
            url=name,
            capabilities=" ".join(f"<{application}>  </{application}>" for application in applications),
        )

    def at_once(self, number: int, work: Callable[[int], object]) -> None:
        """Call `work` with 0, 1, … in as many threads, all let go at the same moment; fails where one fails."""
        gate = Barrier(number)
        problems: list[BaseException] = []

        def run(index: int) -> None:
            try:
                gate.wait(30)
                work(index)
            except BaseException as problem:
                problems.append(problem)

        threads = [Thread(target=run, args=[index], daemon=True) for index in range(number)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(50)
        self.assertFalse([thread for thread in threads if thread.is_alive()], "threads that do not end")
        if problems:
            raise problems[0]


class SQLiteCase(ContractCase):
    """On the embedded database."""

    # Migrated once, copied for each test: that takes a tenth of the time.
    _template: ClassVar[bytes] = b""

    def make_database(self) -> str:
        """A file in the test's own directory."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        file = folder / "project.sqlite"
        url = f"sqlite:///{file}"
        if SQLiteCase._template:
            file.write_bytes(SQLiteCase._template)
        else:
            migrate(url)
            SQLiteCase._template = file.read_bytes()
        return url


class MariaDBCase(ContractCase):
    """On a real server of the production database, with one driver or the other."""

    driver = "mysqldb"

    # Made and migrated once, emptied for each test, since a server takes long over the making of tables.
    _spare: ClassVar[list[str]] = []

    def make_database(self) -> str:
        """A database on the private server."""
        server = mariadb.server()
        if MariaDBCase._spare:
            url = MariaDBCase._spare.pop()
            empty(url)
        else:
            url = server.create_database()
            migrate(url)
        self.addCleanup(MariaDBCase._spare.append, url)
        return url.replace("mariadb:", f"mariadb+{self.driver}:", 1)


class PostgreSQLCase(ContractCase):
    """On a real server of the third database."""

    _spare: ClassVar[list[str]] = []

    def make_database(self) -> str:
        """A database on the private server."""
        server = postgresql.server()
        if PostgreSQLCase._spare:
            url = PostgreSQLCase._spare.pop()
            empty(url)
        else:
            url = server.create_database()
            migrate(url)
        self.addCleanup(PostgreSQLCase._spare.append, url)
        return url


def migrate(url: str) -> None:
    """Make our schema in an empty database."""
    engine = make_engine(database_url(url), pool_size=1)
    with engine.begin() as connection:
        upgrade_schema(connection)
    engine.dispose()


def empty(url: str) -> None:
    """Delete everything but the tables."""
    engine = make_engine(database_url(url), pool_size=1)
    with engine.begin() as connection:
        for table in metadata.sorted_tables:
            connection.execute(table.delete())
    engine.dispose()


def read(engine: Engine, function: Callable[..., R], *args: Any, **kwargs: Any) -> R:
    """Run a function in a transaction on a given engine, as another process would."""
    with engine.begin() as connection:
        return function(connection, *args, **kwargs)


def rows(connection: Connection, table: Any) -> int:
    """How many rows a table has."""
    return len(connection.execute(table.select()).all())
