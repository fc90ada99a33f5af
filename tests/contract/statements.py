"""How many statements the calls make that a busy server answers all day, and that none reads a table from end to end.

BEGIN and COMMIT do not count. The calls come when time stamps are due to be written, which is the worst case.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import attrs
from sqlalchemy import ColumnElement, Connection, Engine, func, select
from twisted.internet.defer import Deferred

from lgi.db.grants import allow_user
from lgi.db.jobs import update_job
from lgi.db.measure import watchers
from lgi.db.schema import job_queue
from lgi.db.usage import used_by
from lgi.errors import ErrorNumber, LGIError
from lgi.model import Grant
from lgi.repository.names import new_repository_name
from lgi.server import jobs, reports, sessions, submit, watching, work
from lgi.server.members import User
from lgi.server.usage import Accounts
from lgi.states import JobState
from tests.contract.case import APPLICATION, RESOURCE
from tests.contract.load import MARKS, LoadCase, caller, fill

JOBS = 2_000
MARK = User(name="mark", groups=("theor",))
POSTED = submit.Submission(application=APPLICATION, target_resources=("any",))
LATER = 60  # seconds after which every time stamp is due

Statement = tuple[str, Any]


@contextmanager
def listening(engine: Engine) -> Iterator[list[Statement]]:
    """Collect the statements of a database."""
    found: list[Statement] = []

    def watch(connection: Connection, text: str, parameters: Any) -> None:
        if connection.engine is engine and not text.startswith("BEGIN"):
            found.append((text, parameters))

    watchers.append(watch)
    try:
        yield found
    finally:
        watchers.remove(watch)


def send_now(connection: Connection) -> None:
    """Have statements sent that would be sent with the next one."""
    connection.exec_driver_sql("SELECT 1")


class CallsCase(LoadCase):
    """The calls on a queue that `load` has filled, in any order."""

    number = JOBS

    def load(self) -> None:
        """Fill the queue; the resource has jobs of its own among them."""
        self.register()
        self.run_in(allow_user, Grant(name="any", application="any", job_limit=0))
        self.run_in(fill, self.number, (RESOURCE,))
        self.server = self.project()

    def count(self, *conditions: ColumnElement[bool]) -> int:
        """How many jobs there are of the application, with these conditions on `job_queue`."""
        counting = select(func.count()).where(job_queue.c.application == APPLICATION, *conditions)
        return self.run_in(lambda connection: int(connection.scalar(counting) or 0))

    async def statements(self, at_most: int, call: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Make a call when all time stamps are due, and check how many statements it makes; returns its result."""
        self.time += LATER
        with listening(self.server.database.engine) as found:
            result = await Deferred.fromCoroutine(call())
        self.assertTrue(found)
        self.assertLessEqual(len(found), at_most, "\n".join(statement for statement, _values in found))
        self.check(found)
        return result

    def check(self, found: list[Statement]) -> None:
        """Look closer at the statements of a call."""

    async def session(self) -> int:
        _resource, session_id = await sessions.sign_up(self.server, caller(RESOURCE), None)
        return session_id

    def wanted(self, session_id: int, **changes: Any) -> work.WorkRequest:
        values: dict[str, Any] = {"application": APPLICATION, "owners": (), "start": 0, "limit": 32}
        return work.WorkRequest(session_id=session_id, **values | changes)

    async def check_request_work(self) -> None:
        for changes, number in (
            ({"limit": 1}, 1),
            ({"limit": 32}, 32),
            ({"limit": 256, "start": 8}, 256),
            ({"owners": ("mark", "!piet")}, 32),
            ({"owners": ("nobody",)}, 0),
            ({"application": "unheard_of"}, 0),
        ):
            wanted = self.wanted(await self.session(), **changes)
            _resource, _number, found = await self.statements(
                7, partial(work.request_work, self.server, caller(RESOURCE), wanted)
            )
            self.assertEqual(len(found), number, changes)

    async def check_updates_of_jobs(self) -> None:
        """As many statements for all that are changed as for one, also where what is written differs."""
        session_id = await self.session()
        _resource, _number, jobs = await work.request_work(
            self.server, caller(RESOURCE), self.wanted(session_id, limit=32)
        )
        for job in jobs:
            # Those of jobs in bulk are none.
            self.assertTrue(self.run_in(update_job, job, {"repository": new_repository_name()}))
        for state in (JobState.RUNNING, JobState.FINISHED):
            posted: dict[int, reports.JobChanges | LGIError] = {
                job.job_id: reports.JobChanges(
                    state=state, job_specifics=f"<n> {job.job_id} </n>", output=b"%d" % job.job_id
                )
                for job in jobs
            }
            before = self.count(job_queue.c.state == state.value)
            _resource, found = await self.statements(
                8, partial(reports.update_several, self.server, caller(RESOURCE), session_id, posted)
            )
            self.assertEqual(list(found), [job.job_id for job in jobs])
            for job in jobs:
                stored = self.fetch(job.job_id)
                self.assertEqual((stored.state, stored.output), (state, b"%d" % job.job_id))
                self.assertIn(f"<n> {job.job_id} </n>", stored.job_specifics)
            self.assertEqual(self.count(job_queue.c.state == state.value), before + len(jobs))
        one = {jobs[0].job_id: reports.JobChanges(state=JobState.FINISHED)}
        await self.statements(4, partial(reports.update_several, self.server, caller(RESOURCE), session_id, one))
        await sessions.sign_off(self.server, caller(RESOURCE), session_id)

    async def check_count_of_work_and_refusal(self) -> None:
        session_id = await self.session()
        counting = self.wanted(session_id, limit=0)
        expected = self.count(job_queue.c.state == "queued")
        _resource, number, _jobs = await self.statements(
            6, lambda: work.request_work(self.server, caller(RESOURCE), counting)
        )
        self.assertEqual(number, expected)
        await work.request_work(self.server, caller(RESOURCE), self.wanted(session_id))
        with self.assertRaises(LGIError) as refused:
            await work.request_work(self.server, caller(RESOURCE), self.wanted(session_id))
        self.assertEqual(refused.exception.number, ErrorNumber.SESSION_HOLDS_LOCKS)

    async def check_job_state_of_a_resource(self) -> None:
        job = self.fetch(9)
        self.assertTrue(self.run_in(update_job, job, {"state": "running"}))
        resource, found = await self.statements(1, lambda: work.state(self.server, caller(RESOURCE), 9))
        self.assertEqual((found.state, resource.last_call_time), (JobState.RUNNING, self.time))
        asked = self.time
        # With those of all others: one statement for the jobs, and one for the resources.
        await self.statements(2, self.server.pulses.stop)
        self.assertEqual(self.fetch(9).daemon_pulse, asked)

    async def check_job_state_of_a_user(self) -> None:
        queued = self.count(job_queue.c.state == "queued", job_queue.c.owners.like("mark,%"))
        for limit, expected in ((64, (64, 64)), (0, (queued, 0))):
            query = jobs.JobQuery(state="queued", application=APPLICATION, start=5 if limit else 0, limit=limit)
            number, found = await self.statements(1, partial(jobs.list_jobs, self.server, MARK, query))
            self.assertEqual((number, len(found)), expected)
        # The job's repository is bulk as well, and has no directory: only the lookup is of interest here.
        found = await self.statements(1, lambda: self.server.database.read("look", jobs._look, MARK, MARKS))
        self.assertEqual(found.repository, f"JOB_bulk{MARKS}")

    async def check_submission_of_a_user(self) -> None:
        # Two for the counts, of which MariaDB makes the second only where one begins.
        job, _files = await self.statements(8, lambda: submit.submit_of_user(self.server, MARK, POSTED, []))
        self.assertEqual(self.fetch(job.job_id).owners, ("mark", "theor"))

    async def check_submission_of_a_user_with_a_key(self) -> None:
        posted = attrs.evolve(POSTED, submission_key="k")
        job, _files = await self.statements(9, lambda: submit.submit_of_user(self.server, MARK, posted, []))
        again, _files = await self.statements(1, lambda: submit.submit_of_user(self.server, MARK, posted, []))
        self.assertEqual(again, self.fetch(job.job_id))

    async def check_changes_of_jobs(self) -> None:
        known = dict.fromkeys(range(MARKS, self.number, MARKS)[:1000], JobState.QUEUED)
        for wanted, expected in ((known, 0), (known | {MARKS: JobState.RUNNING, 2 * MARKS: None}, 2)):
            found = await self.statements(1, partial(watching.changes, self.server, MARK, wanted, 0, _stays))
            self.assertEqual((len(found.jobs), found.gone), (expected, ()))

    async def check_files_that_are_counted(self) -> None:
        job, _files = await submit.submit_of_user(self.server, MARK, POSTED, [])
        accounts = Accounts(databases=[self.server.database], user_limit=100)
        # The first one opens the account.
        for at_most, size in ((5, 60), (3, 40), (3, -50)):
            await self.statements(at_most, partial(accounts.reserve, job.repository, size))
        self.assertEqual(self.fetch(job.job_id).repository_size, 50)
        await self.statements(8, partial(jobs.delete, self.server, MARK, job.job_id))
        self.assertEqual(self.run_in(used_by, "mark"), 0)

    async def check_submission_of_a_user_with_a_limit(self) -> None:
        # Room for one more: of all, and of those that are queued or running.
        for sign in (1, -1):
            limit = sign * (1 + self.count(job_queue.c.owners.like("mark,%")))
            self.run_in(allow_user, Grant(name="mark", application=APPLICATION, job_limit=limit))
            await self.statements(10, lambda: submit.submit_of_user(self.server, MARK, POSTED, []))
            with self.assertRaises(LGIError) as refused:
                await submit.submit_of_user(self.server, MARK, POSTED, [])
            self.assertEqual(refused.exception.number, ErrorNumber.SUBMIT_REFUSED)

    def calls(self) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        """The checks of all calls."""
        return [getattr(self, name) for name in dir(self) if name.startswith("check_")]


def _stays(_action: Callable[[], None]) -> None:
    """Nobody hangs up."""


class StatementsContract(CallsCase):
    """Every call, on a queue of its own."""

    async def test_request_work(self) -> None:
        self.load()
        await self.check_request_work()

    async def test_updates_of_jobs(self) -> None:
        self.load()
        await self.check_updates_of_jobs()

    async def test_count_of_work_and_refusal(self) -> None:
        self.load()
        await self.check_count_of_work_and_refusal()

    async def test_job_state_of_a_resource(self) -> None:
        self.load()
        await self.check_job_state_of_a_resource()

    async def test_job_state_of_a_user(self) -> None:
        self.load()
        await self.check_job_state_of_a_user()

    async def test_submission_of_a_user(self) -> None:
        self.load()
        await self.check_submission_of_a_user()

    async def test_submission_of_a_user_with_a_key(self) -> None:
        self.load()
        await self.check_submission_of_a_user_with_a_key()

    async def test_changes_of_jobs(self) -> None:
        self.load()
        await self.check_changes_of_jobs()

    async def test_files_that_are_counted(self) -> None:
        self.load()
        await self.check_files_that_are_counted()

    async def test_submission_of_a_user_with_a_limit(self) -> None:
        self.load()
        await self.check_submission_of_a_user_with_a_limit()
