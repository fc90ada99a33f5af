"""A project on a private MariaDB with as many jobs as wanted, in the proportions that figures are compared in."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from contextlib import ExitStack
from pathlib import Path

from lgi.db.counts import recounted, settle_counts
from lgi.db.database import database_url, make_engine
from lgi.repository.access import ACCESS_FILE, encode_access
from tests.integration.grid import Grid
from tests.mariadb import PrivateMariaDB

USER, OWNERS, TARGETS = "mark@localhost", 8, 50
GROUP = "theor"
APPLICATIONS = ("hello_world", "app2", "app3", "app4")
RESOURCES = 16
# So many jobs all have a repository on disk. Beyond that, jobs of the measured user do: the first so many of his,
# which are those that the load generator asks about.
ALL_WITH_FILES = 100_000
WITH_FILES = 16384
DATABASE_OPTIONS = ("--innodb-buffer-pool-size=1G", "--innodb-log-file-size=96M", "--max-connections=200")
BATCH = 50_000
TABLES = ("job_queue", "job_access", "job_offers", "job_log")
"""What is loaded for each job; what it is counted with comes after."""
EMPTY = ("running_locks", "running_sessions", "event_queue", "user_usage")
# While it loads; afterwards what is dirty is written at once, so that no measurement pays for it.
FLUSH_PAGES = 20_000
FLUSH_SECONDS = 600.0


def repository(number: int) -> str:
    """The name of a loaded job's repository."""
    return "JOB_" + hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()


def owners(number: int) -> tuple[str, str]:
    """The user and the group whose a loaded job is."""
    place = number % OWNERS
    return (f"user{place}@localhost", f"group{place}") if place else (USER, GROUP)


class Queue:
    """A project with `jobs` jobs, 8 owners, 4 applications, half of them for any resource, 95 % of them queued.

    The server has `processes` processes, 0 for what it chooses by itself, and the first `resources` resources have
    certificates. `folder` is empty, and its path short enough for that of a socket.
    """

    def __init__(self, folder: Path, processes: int = 0, resources: int = RESOURCES) -> None:
        self.folder = folder
        self.resources = resources
        (folder / "mariadb").mkdir()
        self.mariadb = PrivateMariaDB(folder / "mariadb", *DATABASE_OPTIONS)
        with ExitStack() as undone:
            undone.callback(self.mariadb.stop)
            self.mariadb.install()
            self.mariadb.start()
            self._found_project(processes, undone)
            undone.pop_all()
        self.jobs = 0
        self._repositories: set[int] = set()

    def _found_project(self, processes: int, undone: ExitStack) -> None:
        self.url = self.mariadb.create_database()
        self.database = self.url.partition("?")[0].rpartition("/")[2]
        self._kept = self.mariadb.create_database().partition("?")[0].rpartition("/")[2]
        self.grid = Grid(self.folder / "grid", database=self.url)
        undone.callback(self.grid.stop)
        text = self.grid.config.read_text("utf-8")
        self.grid.config.write_text(text.replace("[server]\n", f"[server]\nprocesses = {processes}\n", 1), "utf-8")
        for number in range(2, self.resources + 1):
            self.grid.ca("issue", "resource", f"resource{number}@localhost", "--applications", "hello_world")
        capabilities = " ".join(f"<{name}> </{name}>" for name in APPLICATIONS)
        self.execute(
            f"UPDATE active_resources SET resource_capabilities = '{capabilities}' WHERE project_server = 0",
            "INSERT IGNORE INTO resource_applications (application, resource_name) SELECT name, resource_name FROM "
            f"active_resources JOIN ({' UNION '.join(f'SELECT {name!r} AS name' for name in APPLICATIONS)}) names "
            "WHERE project_server = 0",
        )

    def stop(self) -> None:
        """End the server and the database."""
        try:
            self.grid.stop()
        finally:
            self.mariadb.stop()

    def execute(self, *statements: str) -> list[tuple[object, ...]]:
        """Run statements on one connection, each committed, and return the rows of the last."""
        connection = self.mariadb.connect(self.database)
        try:
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
                return list(cursor.fetchall())
        finally:
            connection.close()

    def load(self, jobs: int) -> None:
        """Put the queue into the state in which every measurement begins; the server must not run."""
        for table in (*TABLES, *EMPTY, "job_counts", "access_sets"):
            self.execute(f"TRUNCATE {table}")
        ordinary = self.mariadb.execute(
            "SELECT @@innodb_io_capacity, @@innodb_io_capacity_max, @@innodb_max_dirty_pages_pct"
        )[0]
        self._set_flushing(FLUSH_PAGES, FLUSH_PAGES, 0)
        for first in range(1, jobs + 1, BATCH):
            self.execute(*self._rows(f"seq_{first}_to_{min(jobs, first + BATCH - 1)}"))
        self._count()
        self.execute(f"ANALYZE TABLE {', '.join(TABLES)}, job_counts, access_sets")
        self._make_repositories(jobs)
        self.jobs = jobs
        os.sync()
        self._flushed()
        self._set_flushing(*ordinary)

    def _set_flushing(self, pages: object, most: object, dirty: object) -> None:
        self.execute(
            f"SET GLOBAL innodb_io_capacity_max = {most}",
            f"SET GLOBAL innodb_io_capacity = {pages}",
            f"SET GLOBAL innodb_max_dirty_pages_pct = {dirty}",
        )

    def _flushed(self) -> None:
        self._until_low("Innodb_buffer_pool_pages_dirty")

    def _until_low(self, status: str) -> None:
        deadline = time.monotonic() + FLUSH_SECONDS
        while int(str(self.execute(f"SHOW GLOBAL STATUS LIKE '{status}'")[0][1])) > 100:
            if time.monotonic() > deadline:
                raise AssertionError(f"MariaDB has not written what it was given within {FLUSH_SECONDS:.0f} seconds")
            time.sleep(0.05)

    def _rows(self, source: str) -> list[str]:
        """Statements that insert the rows of the jobs whose numbers are in the column `seq` of a table."""
        root = self.grid.root / "repository"
        owner = f"IF(seq % {OWNERS} = 0, '{USER}', CONCAT('user', seq % {OWNERS}, '@localhost'))"
        group = f"IF(seq % {OWNERS} = 0, '{GROUP}', CONCAT('group', seq % {OWNERS}))"
        application = f"ELT(1 + (seq DIV {OWNERS}) % 4, {', '.join(repr(name) for name in APPLICATIONS)})"
        target = f"IF((seq DIV 32) % 2 = 0, 'any', CONCAT('resource', 1 + (seq DIV 64) % {TARGETS}, '@localhost'))"
        state = "IF((seq DIV 8) % 20 = 0, 'finished', 'queued')"
        name = "CONCAT('JOB_', MD5(seq))"
        moment = "1790000000 + seq DIV 10"
        access = f"CONCAT('admin, ', {owner})"
        specifics = (
            f"CONCAT('<bench> 1 </bench> <repository> LGI@localhost:{root}/', RIGHT({name}, 3), '/', {name}, "
            f"' </repository> <repository_url> {self.grid.url}/repository/', RIGHT({name}, 3), '/', {name}, "
            "' </repository_url>')"
        )
        names = {"o": (owner, group), "r": ("'admin'", owner), "w": ("'admin'", owner)}
        return [
            "INSERT INTO job_queue (job_id, state, application, owners, read_access, write_access, "
            "target_resources, input, output, job_specifics, lock_state, state_time_stamp, daemon_pulse, "
            "priority, repository, repository_size) "
            f"SELECT seq, {state}, {application}, CONCAT({owner}, ', ', {group}), {access}, {access}, {target}, "
            f"'hello world', '', {specifics}, 0, {moment}, 0, {moment}, {name}, 0 FROM {source}",
            *(
                f"INSERT INTO job_access (kind, name, job_id) SELECT '{kind}', {who}, seq FROM {source}"
                for kind, whose in names.items()
                for who in whose
            ),
            "INSERT INTO job_offers (application, target, priority, job_id) "
            f"SELECT {application}, {target}, {moment}, seq FROM {source} WHERE {state} = 'queued'",
            # Numbers of its own would have gaps, and `reset` knows by them what came later.
            "INSERT INTO job_log (number, time, job_id, from_state, to_state, actor, detail) "
            f"SELECT seq, {moment}, seq, '', {state}, {owner}, '' FROM {source}",
        ]

    def _count(self) -> None:
        """Count the jobs as the server itself does, and keep a copy of the counts aside."""
        engine = make_engine(database_url(self.url))
        try:
            with engine.begin() as connection:
                settle_counts(connection, recounted(connection))
        finally:
            engine.dispose()
        self.execute(
            f"DROP TABLE IF EXISTS {self._kept}.job_counts",
            f"CREATE TABLE {self._kept}.job_counts AS SELECT * FROM job_counts",
        )

    def _make_repositories(self, jobs: int) -> None:
        wanted = set(range(1, min(jobs, ALL_WITH_FILES) + 1))
        wanted.update(range(OWNERS, min(jobs, OWNERS * WITH_FILES) + 1, OWNERS))
        root = self.grid.root / "repository"
        for number in sorted(wanted - self._repositories):
            path = root / repository(number)[-3:] / repository(number)
            path.mkdir(parents=True)
            (path / ACCESS_FILE).write_bytes(encode_access(["admin", owners(number)[0]]))
        self._repositories |= wanted

    def reset(self) -> None:
        """Undo what a measurement has changed: submitted jobs and their files, jobs that were taken, sessions."""
        new = f"job_id > {self.jobs}"
        submitted = self.execute(f"SELECT repository FROM job_queue WHERE {new}")
        touched = f"{self._kept}.touched"
        self.execute(
            f"CREATE OR REPLACE TABLE {touched} (seq BIGINT PRIMARY KEY) "
            f"SELECT job_id AS seq FROM job_log WHERE number > {self.jobs} AND job_id <= {self.jobs} "
            "UNION SELECT job_id FROM running_locks UNION SELECT job_id FROM job_queue WHERE state = 'running' "
            "UNION SELECT job_id FROM job_queue WHERE state IN ('queued', 'finished') AND lock_state <> 0",
            f"DELETE FROM {touched} WHERE seq > {self.jobs}",
            *(f"DELETE FROM {table}" for table in EMPTY),
            *(f"DELETE FROM {table} WHERE {new}" for table in TABLES),
            *(f"DELETE {table} FROM {table} JOIN {touched} ON job_id = seq" for table in TABLES),
            *self._rows(touched),
            "START TRANSACTION",
            "DELETE FROM job_counts",
            f"INSERT INTO job_counts SELECT * FROM {self._kept}.job_counts",
            "COMMIT",
        )
        for (name,) in submitted:
            # A job without files has none.
            shutil.rmtree(self.grid.root / "repository" / str(name)[-3:] / str(name), ignore_errors=True)
        # What was deleted is taken out of the tables afterwards: no measurement pays for that either.
        self._until_low("Innodb_history_list_length")
