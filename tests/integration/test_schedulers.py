"""Several schedulers on one database: nothing is done twice, and what one leaves when it is killed the others do."""

from __future__ import annotations

import re
import signal
import time
from collections import Counter
from pathlib import Path
from unittest import TestCase

from sqlalchemy import Connection, func, select

from lgi.admin.store import in_transaction
from lgi.config import load_config
from lgi.db.events import SCHEDULE_CYCLE, due, schedule
from lgi.db.jobs import insert_job
from lgi.db.schema import job_log, job_offers, job_queue
from lgi.db.sessions import SESSION_SECONDS, start_session
from lgi.model import Job
from lgi.repository.names import new_repository_name
from lgi.states import JobState
from tests import mariadb
from tests.integration.grid import RESOURCE, Grid, Program, until

SCHEDULERS, JOBS, EVENTS = 3, 150, 200
OURS = "scheduler"


def _fill(connection: Connection, now: int) -> None:
    """Jobs that no daemon has looked after for a day, sessions that have ended by time, and events that are due.

    Of the odd events is told in the log, by who took them.
    """
    long_ago = now - 24 * 3600
    for number in range(JOBS):
        job = Job(
            job_id=0,
            state=JobState.ABORTING if number % 3 == 0 else JobState.RUNNING,
            application="hello_world",
            target_resources=(RESOURCE,),
            owners=("mark",),
            read_access=("mark",),
            write_access=("mark",),
            state_time_stamp=long_ago,
            daemon_pulse=long_ago,
            priority=long_ago,
            repository=new_repository_name(),
        )
        insert_job(connection, job, actor=RESOURCE)
    for _ in range(20):
        start_session(connection, 1, now - SESSION_SECONDS - 60)
    for number in range(EVENTS):
        schedule(connection, SCHEDULE_CYCLE, now - number)
        schedule(connection, f"odd_{number}", now - number)


def _done(connection: Connection) -> list[tuple[int, str, str]]:
    """What schedulers did to jobs: job, state before and after, in order."""
    rows = connection.execute(
        select(job_log.c.job_id, job_log.c.from_state, job_log.c.to_state)
        .where(job_log.c.actor == OURS)
        .order_by(job_log.c.number)
    )
    return [(row.job_id, row.from_state, row.to_state) for row in rows]


def _number(connection: Connection, table: object) -> int:
    return connection.scalar(select(func.count()).select_from(table)) or 0  # type: ignore[arg-type]


class _Schedulers(TestCase):
    def database(self) -> str:
        """The URL of an empty database, or nothing for the one that `lgi init` makes."""
        return ""

    def setUp(self) -> None:
        self.grid = grid = Grid(Path.cwd() / "-".join(self.id().split(".")[-2:]), database=self.database())
        self.addCleanup(grid.stop)
        grid.config.write_text(grid.config.read_text().replace("# interval = 60 ", "interval = 2 "))
        self.url = load_config(grid.config).projects["LGI"].database

    def start(self) -> list[Program]:
        """Some schedulers, all at work."""
        (self.grid.root / "log").mkdir(exist_ok=True)
        programs = [
            Program("lgi-scheduler", self.grid.config, self.grid.root / "log" / f"scheduler{number}.log")
            for number in range(SCHEDULERS)
        ]
        self.grid.programs += programs
        for program in programs:
            program.wait_for("works the events of project")
        return programs

    def all_done(self) -> bool:
        """Whether the agenda is empty and no job waits for a scheduler."""
        return not in_transaction(self.url, lambda by: due(by, int(time.time()), 1)) and len(
            {job_id for job_id, _before, _after in in_transaction(self.url, _done)}
        ) == in_transaction(self.url, lambda by: _number(by, job_queue))

    def check(self, programs: list[Program]) -> Counter[str]:
        """Assert that each job was seen to once; returns how often each odd event was told of."""
        done = in_transaction(self.url, _done)
        after = {"running": "queued", "aborting": "aborted"}
        self.assertEqual(Counter(job_id for job_id, _before, _after in done).most_common(1)[0][1], 1)
        self.assertEqual(len(done), JOBS)
        self.assertEqual({(before, state) for _job_id, before, state in done}, set(after.items()))
        offers = in_transaction(self.url, lambda by: _number(by, job_offers))
        self.assertEqual(offers, sum(before == "running" for _job_id, before, _after in done))
        report = self.grid.lgi("--json", "admin", "--config", str(self.grid.config), "sessions", "list")
        self.assertEqual(report.strip(), "[]")
        for program in programs:
            self.assertNotIn("Traceback", program.logged())
        told = Counter(name for program in programs for name in re.findall(r"odd_\d+", program.logged()))
        self.assertEqual([name for name, times in told.items() if times > 1], [], "worked twice")
        return told

    def test_nothing_is_done_twice(self) -> None:
        programs = self.start()
        now = int(time.time())
        in_transaction(self.url, lambda by: _fill(by, now))
        until(self.all_done, "the schedulers have done it all", 30)
        self.assertEqual(len(self.check(programs)), EVENTS)

    def test_one_is_killed(self) -> None:
        programs = self.start()
        now = int(time.time())
        in_transaction(self.url, lambda by: _fill(by, now))
        until(lambda: in_transaction(self.url, _done), "the schedulers have begun")
        programs[0].stop(signal.SIGKILL)
        until(self.all_done, "the others have done it all", 30)
        self.check(programs)
        # They go on: what comes later is not left to the one that is gone.
        in_transaction(self.url, lambda by: schedule(by, "odd_later", int(time.time())))
        until(lambda: any("odd_later" in program.logged() for program in programs[1:]), "what comes later is done")


class SQLiteTests(_Schedulers):
    """On the embedded database."""


class MariaDBTests(_Schedulers):
    """On the production database."""

    def database(self) -> str:
        return mariadb.server().create_database()


del _Schedulers
