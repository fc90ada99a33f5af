"""What nobody told this process, it finds by its own look at the database: one for all that wait."""

from __future__ import annotations

from sqlalchemy import Connection
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from lgi.admin.store import on_project
from lgi.db.jobs import fetch_job, insert_job, update_job
from lgi.db.log import record
from lgi.model import Job
from lgi.repository.names import new_repository_name
from lgi.server import news, watching
from lgi.server.look import Looks
from lgi.server.service import Ending
from lgi.states import JobState
from tests.contract.statements import listening
from tests.http.case import ServerCase
from tests.http.memory import OTHER_RESOURCE, PROJECT, RESOURCE, Answer

SECONDS = 0.05


def submitted(connection: Connection) -> int:
    """A job that another program submits for a resource."""
    job = Job(
        job_id=0,
        state=JobState.QUEUED,
        application="hello_world",
        target_resources=("resource2@localhost",),
        owners=("mark@localhost",),
        read_access=("admin", "mark@localhost"),
        write_access=("admin",),
        state_time_stamp=1,
        priority=1,
        repository=new_repository_name(),
    )
    return insert_job(connection, job, actor="mark@localhost")


def begun(connection: Connection, job_id: int) -> None:
    """Another program begins a job."""
    job = fetch_job(connection, job_id, for_update=True)
    assert job is not None
    update_job(connection, job, {"state": JobState.RUNNING.value})
    record(connection, job_id=job_id, from_state="queued", to_state="running", actor="resource", now=1)


class LookTests(ServerCase):
    """The bell is not heard here, and nobody who waits looks by himself."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(news, "RECHECK", 3600.0)
        self.patch(watching, "RECHECK", 3600.0)
        self.addCleanup(lambda: self.run_now(self.server.site.drain()))
        assert isinstance(self.server.site.drain, Ending)
        self.project = self.server.site.drain.projects.by_name[PROJECT]

    def look(self) -> None:
        looks = Looks(reactor, [self.project], SECONDS)
        looks.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(looks.stop()))

    def wait(self, session_id: int, who: str) -> Deferred[Answer]:
        return self.server.resource(
            "request_work", who=who, session_id=session_id, wait=100, applications="hello_world"
        )

    async def looked(self, who: str) -> Deferred[Answer]:
        """A resource that waits."""
        session_id = await self.server.session(who=who)
        await self.wait(session_id, who)
        held = self.wait(session_id, who)
        await self.server.until(lambda: session_id in self.project.waiting)
        return held

    async def test_work(self) -> None:
        self.look()
        first, second = await self.looked(RESOURCE), await self.looked(OTHER_RESOURCE)
        await self.server.until(lambda: self.project.waiting.held == 2)
        on_project(self.server.config, PROJECT, submitted)
        self.assertEqual((await second).value("work_for"), "hello_world")
        self.assertFalse(first.called)

    async def test_change(self) -> None:
        self.look()
        job_id = await self.server.submit()
        held = self.server.user("job_state", jobs=f"{job_id}:queued", wait=100)
        await self.server.until(lambda: self.project.news.awaited)
        on_project(self.server.config, PROJECT, lambda connection: begun(connection, job_id))
        self.assertIn("<state> running </state>", (await held).text)

    async def test_one_statement_however_many_wait(self) -> None:
        job_id = await self.server.submit()
        waiting = [self.server.user("job_state", jobs=f"{job_id}:queued", wait=100) for _ in range(20)]
        await self.server.until(lambda: self.project.news.crowded == len(waiting))
        self.look()
        with listening(self.server.database.engine) as statements:
            await self.server.until(lambda: len(statements) > 3)
        self.assertEqual({text.count("job_log") > 0 for text, _values in statements}, {True})
        self.assertEqual([held.called for held in waiting], [False] * len(waiting))
