"""A project on a private MariaDB with as many jobs as wanted, in the proportions that figures are compared in."""

from __future__ import annotations

import hashlib
from pathlib import Path

from lgi.db.counts import recounted, settle_counts
from lgi.db.database import database_url, make_engine
from tests.integration.grid import Grid
from tests.mariadb import PrivateMariaDB

USER, OWNERS, TARGETS = "mark@localhost", 8, 50
APPLICATIONS = ("hello_world", "app2", "app3", "app4")
RESOURCES = 16
# Jobs of the measured user whose repository is there: those that the load generator asks about.
WITH_FILES = 16384
DATABASE_OPTIONS = ("--innodb-buffer-pool-size=1G", "--innodb-log-file-size=96M", "--max-connections=200")


def repository(number: int) -> str:
    """The name of a loaded job's repository."""
    return "JOB_" + hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()


class Queue:
    """A project with `jobs` jobs, 8 owners, 4 applications, half of them for any resource, 95 % of them queued."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "mariadb").mkdir()
        self.mariadb = PrivateMariaDB(folder / "mariadb", *DATABASE_OPTIONS)
        self.mariadb.install()
        self.mariadb.start()
        self.url = self.mariadb.create_database()
        self.database = self.url.partition("?")[0].rpartition("/")[2]
        self.grid = Grid(folder / "grid", database=self.url)
        for number in range(2, RESOURCES + 1):
            self.grid.ca("issue", "resource", f"resource{number}@localhost", "--applications", "hello_world")
        capabilities = " ".join(f"<{name}> </{name}>" for name in APPLICATIONS)
        self.execute(
            f"UPDATE active_resources SET resource_capabilities = '{capabilities}' WHERE project_server = 0",
            "INSERT IGNORE INTO resource_applications (application, resource_name) SELECT name, resource_name FROM "
            f"active_resources JOIN ({' UNION '.join(f'SELECT {name!r} AS name' for name in APPLICATIONS)}) names "
            "WHERE project_server = 0",
        )
        self.jobs = 0

    def execute(self, *statements: str) -> None:
        """Run statements, each committed."""
        connection = self.mariadb.connect(self.database)
        try:
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
        finally:
            connection.close()

    def load(self, jobs: int) -> None:
        """Put the queue into the state in which every measurement begins."""
        for table in (
            "job_queue",
            "job_access",
            "job_offers",
            "job_log",
            "job_counts",
            "access_sets",
            "running_locks",
            "running_sessions",
        ):
            self.execute(f"TRUNCATE {table}")
        root = self.grid.root / "repository"
        owner = f"IF(seq % {OWNERS} = 0, '{USER}', CONCAT('user', seq % {OWNERS}, '@localhost'))"
        group = f"IF(seq % {OWNERS} = 0, 'theor', CONCAT('group', seq % {OWNERS}))"
        application = f"ELT(1 + (seq DIV {OWNERS}) % 4, {', '.join(repr(name) for name in APPLICATIONS)})"
        target = f"IF((seq DIV 32) % 2 = 0, 'any', CONCAT('resource', 1 + (seq DIV 64) % {TARGETS}, '@localhost'))"
        state = "IF((seq DIV 8) % 20 = 0, 'finished', 'queued')"
        name = "CONCAT('JOB_', MD5(seq))"
        specifics = (
            f"CONCAT('<bench> 1 </bench> <repository> LGI@localhost:{root}/', RIGHT({name}, 3), '/', {name}, "
            f"' </repository> <repository_url> {self.grid.url}/repository/', RIGHT({name}, 3), '/', {name}, "
            "' </repository_url>')"
        )
        for first in range(1, jobs + 1, 50_000):
            last = min(jobs, first + 49_999)
            source = f"FROM seq_{first}_to_{last}"
            self.execute(
                "INSERT INTO job_queue (job_id, state, application, owners, read_access, write_access, "
                "target_resources, input, output, job_specifics, lock_state, state_time_stamp, daemon_pulse, "
                "priority, repository, repository_size) "
                f"SELECT seq, {state}, {application}, CONCAT({owner}, ', ', {group}), "
                f"CONCAT('admin, ', {owner}), CONCAT('admin, ', {owner}), {target}, 'hello world', '', {specifics}, "
                f"0, 1790000000 + seq DIV 10, 0, 1790000000 + seq DIV 10, {name}, 0 {source}",
                *(
                    f"INSERT INTO job_access (kind, name, job_id) SELECT '{kind}', {who}, seq {source}"
                    for kind, who in (
                        ("o", owner),
                        ("o", group),
                        ("r", "'admin'"),
                        ("r", owner),
                        ("w", "'admin'"),
                        ("w", owner),
                    )
                ),
                "INSERT INTO job_offers (application, target, priority, job_id) SELECT "
                f"{application}, {target}, 1790000000 + seq DIV 10, seq {source} WHERE {state} = 'queued'",
                "INSERT INTO job_log (time, job_id, from_state, to_state, actor, detail) SELECT "
                f"1790000000 + seq DIV 10, seq, '', 'queued', {owner}, '' {source}",
            )
        self._count()
        self.execute("ANALYZE TABLE job_queue, job_access, job_offers, job_log")
        self._make_repositories(root, self.jobs, jobs)
        self.jobs = max(jobs, self.jobs)

    def _count(self) -> None:
        engine = make_engine(database_url(self.url))
        try:
            with engine.begin() as connection:
                settle_counts(connection, recounted(connection))
        finally:
            engine.dispose()

    def _make_repositories(self, root: Path, have: int, jobs: int) -> None:
        for number in range(OWNERS, min(jobs, OWNERS * WITH_FILES) + 1, OWNERS):
            if number > have:
                path = root / repository(number)[-3:] / repository(number)
                path.mkdir(parents=True)
                (path / ".LGI_repository_write_access").write_text(f"admin, {USER}")

    def reset(self) -> None:
        """Undo what a measurement has changed: submitted jobs, jobs that were taken, sessions."""
        self.execute(
            f"DELETE FROM job_access WHERE job_id > {self.jobs}",
            f"DELETE FROM job_offers WHERE job_id > {self.jobs}",
            f"DELETE FROM job_log WHERE number > {self.jobs}",
            f"DELETE FROM job_queue WHERE job_id > {self.jobs}",
            "DELETE FROM running_locks",
            "DELETE FROM running_sessions",
            "UPDATE job_queue SET lock_state = 0 WHERE lock_state <> 0",
            "INSERT IGNORE INTO job_offers (application, target, priority, job_id) SELECT application, "
            "target_resources, priority, job_id FROM job_queue WHERE state = 'running'",
            "UPDATE job_queue SET state = 'queued' WHERE state = 'running'",
        )
        self._count()
