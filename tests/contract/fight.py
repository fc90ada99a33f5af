"""Thirty-two clients fight for two thousand jobs: each job is given out exactly once, and none is left."""

from __future__ import annotations

from collections import Counter

from sqlalchemy import Connection, func, select
from twisted.internet.defer import Deferred, gatherResults

from lgi.db.schema import job_offers, job_queue, running_locks
from lgi.errors import ErrorNumber, LGIError
from lgi.httpd.peer import Caller
from lgi.server import sessions, work
from lgi.server.project import Project
from tests.contract.case import APPLICATION, RESOURCE
from tests.contract.load import LoadCase, caller, fill

CLIENTS = 32
JOBS = 2_000
BATCH = 16


def _offers(connection: Connection) -> int:
    return connection.scalar(select(func.count()).select_from(job_offers)) or 0


class FightContract(LoadCase):
    """Half of the clients call one server process, half another; a third of the jobs is for certain resources."""

    async def test_every_job_is_given_out_once(self) -> None:
        names = [f"resource{number}@localhost" for number in range(CLIENTS)]
        for name in names:
            self.register(name)
        self.run_in(fill, JOBS, tuple(names))
        projects = [self.project(), self.project()]
        # Session to the jobs that it was given; no answer is left out.
        given: dict[int, list[int]] = {}

        async def take(project: Project, client: Caller) -> None:
            while await project.database.read("offers", _offers):
                _resource, session_id = await sessions.sign_up(project, client, None)
                wanted = work.WorkRequest(
                    session_id=session_id, application=APPLICATION, owners=(), start=0, limit=BATCH
                )
                _resource, number, jobs = await work.request_work(project, client, wanted)
                self.assertEqual(number, len(jobs))
                self.assertNotIn(session_id, given)
                given[session_id] = [job.job_id for job in jobs]

        # An error of any client is an error of the test: nothing here is to be refused.
        await gatherResults(
            [
                Deferred.fromCoroutine(take(projects[index % len(projects)], caller(name)))
                for index, name in enumerate(names)
            ],
            consumeErrors=True,
        )
        times = Counter(job_id for found in given.values() for job_id in found)
        self.assertEqual(set(times), set(range(1, JOBS + 1)))
        self.assertEqual(set(times.values()), {1})
        with self.engine.connect() as connection:
            locks = connection.execute(select(running_locks.c.session_id, running_locks.c.job_id)).all()
            free = connection.scalar(select(func.count()).where(job_queue.c.lock_state == 0))
        self.assertEqual(
            sorted((row.session_id, row.job_id) for row in locks),
            sorted((session_id, job_id) for session_id, found in given.items() for job_id in found),
        )
        self.assertEqual(free, 0)

    async def test_calls_of_one_session_get_work_once(self) -> None:
        self.register()
        self.run_in(fill, JOBS // 10)
        project, client = self.project(), caller(RESOURCE)
        _resource, session_id = await sessions.sign_up(project, client, None)
        wanted = work.WorkRequest(session_id=session_id, application=APPLICATION, owners=(), start=0, limit=BATCH)
        refused: list[ErrorNumber] = []

        async def take() -> int:
            try:
                _resource, number, _jobs = await work.request_work(project, client, wanted)
            except LGIError as problem:
                refused.append(problem.number)
                return 0
            return number

        given = await gatherResults([Deferred.fromCoroutine(take()) for _ in range(8)], consumeErrors=True)
        self.assertEqual(sorted(given), [0] * 7 + [BATCH])
        self.assertEqual(refused, [ErrorNumber.SESSION_HOLDS_LOCKS] * 7)
