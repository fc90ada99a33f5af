"""The scheduler at work on a project's real database."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, insert, select, update
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import TestCase

from lgi.admin.project import NewProject, make_project
from lgi.admin.store import on_project, register_resource
from lgi.config import SchedulerSection, load_config
from lgi.db.events import REPOSITORY_RESOURCES, SCHEDULE_CYCLE, schedule
from lgi.db.jobs import fetch_job
from lgi.db.log import entries_of_job
from lgi.db.schema import event_queue, job_log, job_queue, running_locks, running_sessions
from lgi.db.sessions import SESSION_SECONDS
from lgi.model import Job
from lgi.repository.access import RESOURCE_LIST
from lgi.scheduler import service as scheduler_service
from lgi.scheduler import work
from lgi.scheduler.service import ProjectScheduler, ResourceLists, SchedulerService
from lgi.states import JobState
from tests.http.case import ServerCase
from tests.http.memory import OTHER_RESOURCE, PROJECT, RESOURCE, Answer, MemoryServer

PULSE = 3600
INTERVAL = 60
RECORD_DAYS = 400


class SchedulerCase(ServerCase):
    """A scheduler whose clock stands still; the server's goes on as ever."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.clock.advance(reactor.seconds())
        self.scheduler = self.make()

    def make(self) -> ProjectScheduler:
        """One more scheduler, with the same clock."""
        section = self.server.config.scheduler
        section = SchedulerSection(
            certificate=section.certificate, private_key=section.private_key, interval=INTERVAL, pulse_timeout=PULSE
        )
        lists = ResourceLists(self.server.databases, self.server.repositories)
        return ProjectScheduler(self.clock, PROJECT, self.server.database, section, lists, lambda _events: None)

    async def job(self, job_id: int) -> Job:
        job: Job = await self.change(fetch_job, job_id)
        return job

    async def count(self, column: object) -> int:
        found: int = await self.change(lambda connection: len(connection.execute(select(column)).all()))  # type: ignore[call-overload]
        return found

    async def events(self) -> list[str]:
        found: list[str] = await self.change(lambda c: list(c.scalars(select(event_queue.c.event))))
        return found

    def asks(self, session_id: int, who: str) -> Deferred[Answer]:
        return self.server.resource("request_work", who=who, session_id=session_id, application="hello_world")


class SessionTests(SchedulerCase):
    """Sessions that linger."""

    async def test_stale(self) -> None:
        """After 30 minutes without a call a session ends, and what it held is offered again."""
        job_id, kept = await self.server.submit(), await self.server.submit(target_resources="resource2@localhost")
        session_id, other = await self.server.session(), await self.server.session(who=OTHER_RESOURCE)
        await self.asks(session_id, RESOURCE)
        self.clock.advance(SESSION_SECONDS - 2)
        await self.scheduler.work()
        self.assertEqual((await self.job(job_id)).lock_state, 1)

        def call(connection: Connection) -> None:
            statement = update(running_sessions).where(running_sessions.c.session_id == other)
            connection.execute(statement.values(session_time_stamp=int(self.clock.seconds())))

        await self.change(call)
        self.clock.advance(INTERVAL)
        await self.scheduler.work()
        self.assertEqual((await self.job(job_id)).lock_state, 0)
        self.assertEqual(await self.count(running_locks.c.lock_id), 0)
        self.assertEqual(await self.count(running_sessions.c.session_id), 1)
        work = await self.asks(other, OTHER_RESOURCE)
        self.assertEqual(work.value("number_of_jobs"), "2")
        self.assertEqual((await self.job(kept)).lock_state, 1)
        await self.freeze()
        await self.refuses(16, self.asks(session_id, RESOURCE))

    async def test_many(self) -> None:
        """More than one transaction's worth go in one turn."""
        self.patch(work, "BATCH", 10)
        for _ in range(2 * work.BATCH + 5):
            await self.server.session()
        self.clock.advance(SESSION_SECONDS + 1)
        await self.scheduler.work()
        self.assertEqual(await self.count(running_sessions.c.session_id), 0)


class PulseTests(SchedulerCase):
    """Jobs that no daemon looks after."""

    async def lose(self) -> None:
        """Let the time pass, and the scheduler see to it."""
        self.clock.advance(PULSE + 2)
        await self.scheduler.work()

    async def test_queued_again(self) -> None:
        """For its own resource alone, since that may still be running it."""
        job_id, _session = await self.server.running_job()
        await self.scheduler.work()
        self.assertEqual((await self.job(job_id)).state, JobState.RUNNING)
        with capturedLogs() as events:
            await self.lose()
        job = await self.job(job_id)
        self.assertEqual((job.state, job.target_resources), (JobState.QUEUED, ("resource1@localhost",)))
        self.assertEqual(job.state_time_stamp, int(self.clock.seconds()))
        entry = (await self.change(entries_of_job, job_id))[-1]
        self.assertEqual((entry.from_state, entry.to_state, entry.actor), ("running", "queued", "scheduler"))
        self.assertIn(str(PULSE), entry.detail)
        warned = [formatEvent(event) for event in events if event["log_level"] is LogLevel.warn]
        self.assertEqual(len(warned), 1)
        self.assertIn(f"job {job_id}", warned[0])
        other = await self.asks(await self.server.session(who=OTHER_RESOURCE), OTHER_RESOURCE)
        self.assertEqual(other.value("number_of_jobs"), "0")
        own = await self.asks(await self.server.session(), RESOURCE)
        self.assertEqual((own.value("number_of_jobs"), own.value("job_id")), ("1", str(job_id)))
        self.assertIn("<daemon_reference> ABC </daemon_reference>", own.text)

    async def test_aborting(self) -> None:
        """It is given up, and can be deleted."""
        job_id, _session = await self.server.running_job()
        await self.server.user("delete_job", job_id=job_id)
        await self.lose()
        self.assertEqual((await self.job(job_id)).state, JobState.ABORTED)
        answer = await self.server.user("delete_job", job_id=job_id)
        self.assertEqual(answer.value("state"), "deleted")

    async def test_left_alone(self) -> None:
        """Jobs that are locked, looked after, queued or at their end."""
        locked, session_id = await self.server.running_job()
        await self.server.resource("lock_job", session_id=session_id, job_id=locked)
        queued = await self.server.submit()
        await self.server.user("delete_job", job_id=queued)
        finished = (await self.server.running_job(who=OTHER_RESOURCE))[0]
        looked_after = (await self.server.running_job(who=OTHER_RESOURCE))[0]
        await self.server.submit()

        def pulse(connection: Connection) -> None:
            now = int(self.clock.seconds()) + PULSE
            statement = update(job_queue).where(job_queue.c.job_id == looked_after)
            connection.execute(statement.values(daemon_pulse=now))
            connection.execute(update(job_queue).where(job_queue.c.job_id == finished).values(state="finished"))
            ended = update(running_sessions).values(session_time_stamp=now + PULSE)
            connection.execute(ended)

        await self.change(pulse)
        await self.freeze()
        before = self._frozen[0]["job_queue"], self._frozen[0]["job_log"], self._frozen[0]["job_offers"]
        await self.lose()
        after = (await self.state())[0]
        self.assertEqual((after["job_queue"], after["job_log"], after["job_offers"]), before)

    async def test_changed_in_between(self) -> None:
        """A job whose daemon is back, or that was locked, after it was found."""
        locked, session_id = await self.server.running_job()
        await self.server.resource("lock_job", session_id=session_id, job_id=locked)
        alive, _session = await self.server.running_job()
        gone = await self.server.submit()
        await self.server.user("delete_job", job_id=gone)
        found = [
            Job(
                job_id=job_id,
                state=JobState.RUNNING,
                application="hello_world",
                target_resources=("resource1@localhost",),
                owners=(),
                read_access=(),
                write_access=(),
                state_time_stamp=0,
            )
            for job_id in (locked, alive, gone)
        ]
        # As another transaction saw them.
        self.patch(work, "without_pulse", lambda *_arguments: found)
        now = int(self.clock.seconds()) + 10
        await self.freeze()
        self.assertEqual(await self.change(work.see_to_lost_jobs, now, PULSE), [])
        self.assertEqual(await self.state(), self._frozen)

    async def test_two_schedulers(self) -> None:
        """At once on the same jobs: each job changes once."""
        for _ in range(5):
            await self.server.running_job()
        entries = await self.count(job_log.c.number)
        self.clock.advance(PULSE + 2)
        await gatherResults([Deferred.fromCoroutine(self.make().work()) for _ in range(4)])
        self.assertEqual(await self.count(job_log.c.number), entries + 5)
        work = await self.asks(await self.server.session(), RESOURCE)
        self.assertEqual(work.value("number_of_jobs"), "5")
        self.assertEqual(await self.events(), [])


class RecordTests(SchedulerCase):
    """How long it is known what happened to jobs."""

    async def test_forgotten(self) -> None:
        """The record of a job that was deleted long ago goes whole, that of one that is there stays."""
        kept, deleted, old = await self.server.submit(), await self.server.submit(), await self.server.submit()
        for job_id in (deleted, old):
            await self.server.user("delete_job", job_id=job_id)
        long_ago = int(self.clock.seconds()) - RECORD_DAYS * 86_400 - 1

        def age(connection: Connection) -> None:
            connection.execute(update(job_log).where(job_log.c.job_id.in_([kept, old])).values(time=long_ago))

        await self.change(age)
        await self.scheduler.work()
        found = [(await self.change(entries_of_job, job_id)) for job_id in (kept, deleted, old)]
        self.assertEqual(
            [[entry.to_state for entry in entries] for entries in found], [["queued"], ["queued", "deleted"], []]
        )

    async def test_in_batches(self) -> None:
        self.patch(scheduler_service, "RECORD_BATCH", 2)

        def fill(connection: Connection) -> None:
            entry = {"time": 5, "from_state": "finished", "to_state": "deleted", "actor": "x", "detail": ""}
            connection.execute(insert(job_log), [entry | {"job_id": 1000 + number} for number in range(5)])

        await self.change(fill)
        left = []
        for _ in range(3):
            await self.scheduler.work()
            left.append(await self.count(job_log.c.number))
            self.clock.advance(INTERVAL)
        self.assertEqual(left, [3, 1, 0])


class EventTests(SchedulerCase):
    """The agenda."""

    def at(self, event: str, seconds: int = 0) -> Deferred[None]:
        return Deferred.fromCoroutine(self.change(schedule, event, int(self.clock.seconds()) + seconds))

    def listed(self) -> str:
        return (self.root / RESOURCE_LIST).read_text()

    async def test_resource_list(self) -> None:
        """Written at the start, when a resource is registered, and again when it is damaged or gone."""
        await self.scheduler.work()
        names = ["LGI@localhost", "resource1@localhost", "resource2@localhost"]
        self.assertEqual(self.listed(), ", ".join(names))

        def register(connection: Connection) -> None:
            register_resource(connection, name="new@localhost", certificate=b"x", url="new")

        await self.change(register)
        self.clock.advance(2)
        await self.scheduler.work()
        self.assertEqual(self.listed(), ", ".join([*names[:1], "new@localhost", *names[1:]]))
        file = self.root / RESOURCE_LIST
        before = file.stat().st_ino
        await self.at(REPOSITORY_RESOURCES)
        await self.scheduler.work()
        self.assertEqual(file.stat().st_ino, before)
        file.unlink()
        self.clock.advance(INTERVAL)
        await self.scheduler.work()
        self.assertIn("new@localhost", self.listed())
        self.assertEqual(list((self.root / ".spool").iterdir()), [])

    async def test_events_go_when_they_were_worked(self) -> None:
        await self.server.submit()
        await self.at("nonsense")
        await self.at(SCHEDULE_CYCLE, 30)
        self.clock.advance(1)
        with capturedLogs() as events:
            pause = await self.scheduler.work()
        self.assertEqual(await self.events(), [SCHEDULE_CYCLE])
        self.assertEqual(pause, 1.0)
        unknown = [formatEvent(event) for event in events if event["log_level"] is LogLevel.warn]
        self.assertEqual(unknown, [f"project {PROJECT}: unknown event 'nonsense'"])
        self.clock.advance(30)
        await self.scheduler.work()
        self.assertEqual(await self.events(), [])

    async def test_more_than_one_turn(self) -> None:
        def many(connection: Connection) -> None:
            rows = [{"event_time_stamp": number, "event": SCHEDULE_CYCLE} for number in range(work.BATCH + 1)]
            connection.execute(insert(event_queue), rows)

        await self.change(many)
        self.assertEqual(await self.scheduler.work(), 0)
        await self.scheduler.work()
        self.assertEqual(await self.events(), [])

    async def test_failure_repeats(self) -> None:
        """What an event asked for is done in the next turn, where the first one failed."""
        await self.at(REPOSITORY_RESOURCES)
        spool = self.root / ".spool"
        spool.rmdir()
        self.clock.advance(1)
        with self.assertRaises(OSError):
            await self.scheduler.work()
        self.assertEqual(await self.events(), [])
        spool.mkdir()
        await self.scheduler.work()
        self.assertEqual(await self.events(), [])
        self.assertIn("resource1@localhost", self.listed())


class ServiceTests(TestCase):
    """The whole service on a new project."""

    timeout = 60

    async def test_from_start_to_stop(self) -> None:
        new = NewProject(directory=Path(self.mktemp()).absolute(), project=PROJECT, host="localhost", port=8443)
        config = load_config(make_project(new).config)
        file = config.repository.directory / RESOURCE_LIST
        file.unlink()
        service = SchedulerService(reactor, config)
        service.startService()
        await MemoryServer.until(file.exists)
        self.assertEqual(file.read_text(), "LGI@localhost")
        await service.stopService()

    async def test_events_are_worked_when_they_are_due(self) -> None:
        """An event that somebody puts on the agenda is worked at once, one for later at its second."""
        new = NewProject(directory=Path(self.mktemp()).absolute(), project=PROJECT, host="localhost", port=8443)
        config = load_config(make_project(new).config)
        # So that nothing is found by looking.
        self.patch(scheduler_service, "LOOK_SECONDS", 3600.0)
        file = config.repository.directory / RESOURCE_LIST
        file.unlink()
        service = SchedulerService(reactor, config)
        service.startService()
        self.addCleanup(service.stopService)

        def plan(at: int) -> None:
            on_project(config, PROJECT, lambda connection: schedule(connection, REPOSITORY_RESOURCES, at))

        # The turn it begins with.
        await MemoryServer.until(file.exists)
        file.unlink()
        plan(int(reactor.seconds()))
        await MemoryServer.until(file.exists)
        file.unlink()
        due = int(reactor.seconds()) + 2
        plan(due)
        await MemoryServer.until(file.exists)
        self.assertGreaterEqual(file.stat().st_mtime, due)
