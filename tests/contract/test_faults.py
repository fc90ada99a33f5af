"""What goes wrong between a program and its database: contention, lost connections, a server that is away."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event

from sqlalchemy import Connection, event, update
from sqlalchemy.exc import DBAPIError
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from lgi.db.database import CommitUnknown, Database, database_url, make_engine
from lgi.db.grants import allow_user
from lgi.db.jobs import insert_job, insert_last_job, offer, update_job, without_pulse
from lgi.db.locks import claim_offers, lock_job, locked_by_session, unlock_jobs
from lgi.db.pulses import write_pulses
from lgi.db.schema import job_offers, job_queue, running_sessions, users_allowed
from lgi.db.sessions import SESSION_SECONDS, end_session, end_session_of_known, stale_sessions, start_session
from lgi.errors import ErrorNumber, LGIError
from lgi.model import Grant
from lgi.states import JobState
from tests import mariadb
from tests.contract import case
from tests.contract.case import APPLICATION, NOW, RESOURCE, call_in, job, rows
from tests.contract.together import REMOVE, add


def overloaded(test: TestCase, problem: LGIError) -> None:
    """Assert that a caller is told to come back in ten seconds."""
    test.assertEqual((problem.number, problem.timeout), (ErrorNumber.OVERLOADED, 10))


class _Faults(case.ContractCase):
    def open(self, threads: int = 8) -> Database:
        database = Database(reactor, self.new_engine(threads), threads=threads)
        database.start()
        self.addCleanup(database.stop)
        return database

    def limits(self) -> dict[str, int]:
        # On a new connection: the old ones may be among the lost.
        self.engine.dispose()
        found = self.run_in(lambda connection: connection.execute(users_allowed.select()).all())
        return {row.user_name: row.job_limit for row in found}


def raise_limit(connection: Connection, name: str) -> None:
    """Add one to a row."""
    connection.execute(
        update(users_allowed).where(users_allowed.c.user_name == name).values(job_limit=users_allowed.c.job_limit + 1)
    )


class MariaDBFaultTests(case.MariaDBCase, _Faults):
    """A transaction is run again where that can help, never where it may have taken effect."""

    def setUp(self) -> None:
        super().setUp()
        for name in ("a", "b"):
            self.run_in(allow_user, Grant(name=name, application="any", job_limit=0))

    def kill(self, connection: Connection) -> None:
        """End a connection from the server's side."""
        number = connection.exec_driver_sql("SELECT CONNECTION_ID()").scalar_one()
        mariadb.server().execute(f"KILL {number}")

    def open_threads(self) -> Database:
        """With the driver whose transactions run in threads, so that they can wait for each other here."""
        self.url = self.url.replace(f"+{self.driver}:", "+pymysql:", 1)
        return self.open()

    async def test_deadlock_is_resolved_by_running_again(self) -> None:
        database = self.open_threads()
        meeting = Barrier(2)
        calls: list[str] = []

        def both(connection: Connection, first: str, second: str) -> None:
            calls.append(first)
            raise_limit(connection, first)
            if calls.count(first) == 1:
                # Each has one row by now, and goes on to the other's.
                meeting.wait(30)
            raise_limit(connection, second)

        await gatherResults(
            [Deferred.fromCoroutine(database.run("both", both, *names)) for names in (("a", "b"), ("b", "a"))]
        )
        self.assertEqual(len(calls), 3)
        self.assertEqual(self.limits(), {"a": 2, "b": 2})

    async def test_waiting_too_long_for_a_row_is_tried_again(self) -> None:
        server = mariadb.server()
        server.execute("SET GLOBAL innodb_lock_wait_timeout = 1")
        self.addCleanup(server.execute, "SET GLOBAL innodb_lock_wait_timeout = 50")
        database = self.open()
        calls: list[int] = []
        holder = self.engine.connect()
        holding = holder.begin()
        raise_limit(holder, "a")

        def once(connection: Connection) -> None:
            calls.append(1)
            if len(calls) == 2:
                holding.rollback()
                holder.close()
            raise_limit(connection, "a")

        await database.run("once", once)
        self.assertEqual((len(calls), self.limits()["a"]), (2, 1))

    async def test_connection_lost_within_a_transaction_is_replaced(self) -> None:
        database = self.open()
        calls: list[int] = []

        def work(connection: Connection) -> None:
            calls.append(1)
            raise_limit(connection, "a")
            if len(calls) == 1:
                self.kill(connection)
            raise_limit(connection, "b")

        await database.run("work", work)
        self.assertEqual((len(calls), self.limits()), (2, {"a": 1, "b": 1}))

    async def test_connections_lost_while_idle_are_replaced(self) -> None:
        database = self.open()
        await gatherResults([Deferred.fromCoroutine(database.read("look", rows, job_queue)) for _ in range(8)])
        for (number,) in mariadb.server().execute(
            f"SELECT id FROM information_schema.processlist WHERE db = '{database.engine.url.database}'"
        ):
            mariadb.server().execute(f"KILL {number}")
        await database.run("work", raise_limit, "a")
        self.assertEqual(self.limits()["a"], 1)

    async def test_connection_lost_in_commit_is_not_run_again(self) -> None:
        # It may have taken effect, and a job must not be stored twice.
        database = self.open()
        calls: list[int] = []

        def work(connection: Connection) -> None:
            calls.append(1)
            raise_limit(connection, "a")
            self.kill(connection)

        with self.assertRaises(LGIError) as caught:
            await database.run("work", work)
        self.assertIsInstance(caught.exception, CommitUnknown)
        self.assertEqual((len(calls), self.limits()["a"]), (1, 0))
        await database.run("work", raise_limit, "a")
        self.flushLoggedErrors()

    async def test_connection_lost_in_a_commit_with_others_is_not_run_again(self) -> None:
        """Of which nobody knows whether they took effect."""
        database = self.open()
        calls: list[str] = []

        def later(connection: Connection) -> None:
            calls.append("later")
            self.kill(connection)
            add(connection, "c")
            add(connection, "d")

        def last(connection: Connection) -> None:
            calls.append("last")
            add(connection, "c")
            self.kill(connection)
            REMOVE.last(connection, name="a")

        def number(connection: Connection) -> None:
            def complete() -> None:
                add(connection, "c")
                self.kill(connection)

            calls.append("number")
            insert_last_job(connection, job(repository="JOB_1"), actor="mark", complete=complete)

        for work in (later, last, number):
            with self.assertRaises(LGIError) as caught:
                await database.run("work", work)
            self.assertIsInstance(caught.exception, CommitUnknown)
        self.assertEqual((calls, self.limits()), (["later", "last", "number"], {"a": 0, "b": 0}))
        self.assertEqual(self.run_in(rows, job_queue), 0)
        await database.run("work", add, "c")
        self.assertEqual(self.limits(), {"a": 0, "b": 0, "c": 0})
        self.flushLoggedErrors()

    async def test_row_that_is_waited_for_in_vain_in_a_commit_is_tried_again(self) -> None:
        """Of what was sent with it nothing is left."""
        server = mariadb.server()
        server.execute("SET GLOBAL innodb_lock_wait_timeout = 1")
        self.addCleanup(server.execute, "SET GLOBAL innodb_lock_wait_timeout = 50")
        database = self.open()
        calls: list[int] = []
        holder = self.engine.connect()
        holding = holder.begin()
        raise_limit(holder, "a")

        def once(connection: Connection) -> None:
            calls.append(1)
            if len(calls) == 2:
                holding.rollback()
                holder.close()
                return
            add(connection, "c")
            REMOVE.later(connection, name="a")

        await database.run("once", once)
        self.assertEqual((len(calls), self.limits()), (2, {"a": 0, "b": 0}))

    async def test_server_that_is_away_is_said_and_found_again(self) -> None:
        server = mariadb.server()
        database = self.open()
        await database.run("before", raise_limit, "a")
        server.stop()
        try:
            with self.assertRaises(LGIError) as caught:
                await database.run("without", raise_limit, "a")
            overloaded(self, caught.exception)
            with self.assertRaises(LGIError) as caught:
                await database.read("without", rows, job_queue)
            overloaded(self, caught.exception)
        finally:
            server.start()
        await database.run("after", raise_limit, "a")
        self.assertEqual(self.limits()["a"], 2)

    async def test_server_that_comes_back_during_the_attempts_is_enough(self) -> None:
        server = mariadb.server()
        database = self.open_threads()
        failed = Event()
        event.listen(database.engine, "handle_error", lambda _context: failed.set())
        server.stop()
        try:
            done = Deferred.fromCoroutine(database.run("patient", raise_limit, "a"))
            self.assertTrue(failed.wait(30))
        finally:
            server.start()
        await done
        self.assertEqual(self.limits()["a"], 1)

    async def test_mode_of_the_server_does_not_let_values_be_cut(self) -> None:
        server = mariadb.server()
        [(mode,)] = server.execute("SELECT @@GLOBAL.sql_mode")
        server.execute("SET GLOBAL sql_mode = ''")
        self.addCleanup(server.execute, f"SET GLOBAL sql_mode = '{mode}'")
        with self.assertRaises(DBAPIError):
            await self.open().run("long", insert_job, job(application="a" * 300, repository="JOB_1"), actor="mark")
        self.assertEqual(self.run_in(rows, job_queue), 0)

    def test_claims_pass_over_what_others_are_claiming(self) -> None:
        ids = [self.submit() for _ in range(4)]

        def claim(connection: Connection, session_id: int) -> list[int]:
            found = claim_offers(
                connection,
                application=APPLICATION,
                resource_name=RESOURCE,
                resource_id=1,
                session_id=session_id,
                start=0,
                limit=2,
                now=NOW,
            )
            return [claimed.job_id for claimed in found]

        with self.engine.begin() as first:
            self.assertEqual(claim(first, 1), ids[:2])
            # Would wait for the first one here, for ever.
            self.assertEqual(self.run_in(claim, 2), ids[2:])
            self.assertEqual(self.run_in(claim, 3), [])

    def test_session_that_a_call_keeps_alive_is_not_taken_for_stale(self) -> None:
        session_id = self.run_in(start_session, self.register(), NOW)
        with self.engine.begin() as call:
            call_in(call, session_id, NOW + SESSION_SECONDS - 1)
            self.assertEqual(self.run_in(stale_sessions, NOW + SESSION_SECONDS, 9), [])
        self.assertEqual(self.run_in(stale_sessions, NOW + SESSION_SECONDS, 9), [])

    async def test_session_is_either_ended_or_kept_alive(self) -> None:
        session_id = self.run_in(start_session, self.register(), NOW)
        database, found = self.open_threads(), Event()
        ended: list[list[int]] = []

        def end_stale(connection: Connection) -> None:
            ended.append(stale_sessions(connection, NOW + SESSION_SECONDS, 9))
            if not found.is_set():
                found.set()
                self.until_somebody_waits()
            for stale in ended[-1]:
                end_session(connection, stale)

        def call(connection: Connection) -> None:
            # Comes while the scheduler is at it, with a clock that is a second behind.
            found.wait(30)
            call_in(connection, session_id, NOW + SESSION_SECONDS - 1)

        scheduler = Deferred.fromCoroutine(database.run("end", end_stale))
        try:
            await database.run("call", call)
            kept = True
        except LGIError as problem:
            self.assertEqual(problem.number, ErrorNumber.SESSION_ENDED)
            kept = False
        await scheduler
        self.assertEqual(ended[0], [session_id])
        self.assertEqual(self.run_in(rows, running_sessions), int(kept))

    def test_ending_a_session_frees_what_a_call_under_way_locks(self) -> None:
        session_id = self.run_in(start_session, self.register(), NOW)
        job_id = self.submit()
        freed: list[list[int]] = []
        call = self.engine.connect()
        with call.begin():
            call_in(call, session_id, NOW)
            lock_job(call, job_id, resource_id=1, session_id=session_id, now=NOW)
            ending = self.started(lambda: freed.append(self.run_in(end_session, session_id)))
            self.until_somebody_waits()
        call.close()
        ending()
        self.assertEqual(freed, [[job_id]])
        self.assertEqual(self.run_in(locked_by_session, session_id), [])

    def test_session_that_a_call_under_way_gives_a_lock_does_not_end_without_it(self) -> None:
        """The shortest way to end one is for those without locks, whenever they got them."""
        session_id = self.run_in(start_session, self.register(), NOW)
        job_id = self.submit()
        ended: list[object] = []
        call = self.engine.connect()
        with call.begin():
            call_in(call, session_id, NOW)
            lock_job(call, job_id, resource_id=1, session_id=session_id, now=NOW)

            def end() -> None:
                certificate = f"certificate of {RESOURCE}"
                values = {"certificate": certificate, "heard": -1, "now": NOW}
                ended.append(self.run_in(end_session_of_known, session_id, RESOURCE, **values))

            ending = self.started(end)
            self.until_somebody_waits()
        call.close()
        ending()
        self.assertEqual(ended, [None])
        self.assertEqual(self.run_in(locked_by_session, session_id), [job_id])
        self.assertEqual(self.run_in(rows, running_sessions), 1)
        self.run_in(end_session, session_id)
        end()
        self.assertEqual(ended, [None, None])

    def test_job_queued_again_while_it_is_being_locked_can_be_unlocked(self) -> None:
        job_id = self.submit(state=JobState.RUNNING, daemon_pulse=NOW - 9)
        scheduler = self.engine.connect()
        with scheduler.begin():
            [lost] = without_pulse(scheduler, NOW, 9)
            locking = self.started(lambda: self.run_in(lock_job, job_id, resource_id=1, session_id=1, now=NOW))
            self.until_somebody_waits()
            self.assertTrue(update_job(scheduler, lost, {"state": "queued"}))
            offer(scheduler, job_id, lost.application, lost.target_resources, lost.priority)
        scheduler.close()
        locking()
        self.assertEqual(self.fetch(job_id).lock_state, 1)
        self.run_in(unlock_jobs, [job_id])
        self.assertEqual(self.run_in(rows, job_offers), 1)

    def test_job_whose_pulse_is_coming_in_is_not_lost(self) -> None:
        job_id = self.submit(state=JobState.RUNNING, daemon_pulse=NOW - 9)
        with self.engine.begin() as call:
            write_pulses(call, {job_id: NOW}, {})
            self.assertEqual(self.run_in(without_pulse, NOW, 9), [])

    def started(self, work: Callable[[], object]) -> Callable[[], None]:
        """Begin in a thread; what is returned waits for its end and raises what it raised."""
        pool = ThreadPoolExecutor(1)
        future = pool.submit(work)

        def wait() -> None:
            future.result(30)
            pool.shutdown()

        return wait

    def until_somebody_waits(self) -> None:
        """Return when a transaction waits for a row of another one."""
        deadline = time.monotonic() + 30
        while mariadb.server().execute("SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'")[0][1] == "0":
            self.assertLess(time.monotonic(), deadline, "nobody waits")


class AbsentServerTests(TestCase):
    """A server that never was there."""

    async def test_nobody_listens(self) -> None:
        with socket.socket() as place:
            place.bind(("127.0.0.1", 0))
            port = place.getsockname()[1]
            # Bound, so that nobody else gets the port, but not listening.
            engine = make_engine(database_url(f"mariadb://lgi:secret@127.0.0.1:{port}/lgi"))
            database = Database(reactor, engine, threads=2)
            database.start()
            self.addCleanup(database.stop)
            with self.assertRaises(LGIError) as caught:
                await database.read("look", rows, job_queue)
        overloaded(self, caught.exception)
        self.assertNotIn("secret", str(caught.exception))


class SQLiteFaultTests(case.SQLiteCase, _Faults):
    """Another process at the file, and a disk that is full."""

    async def test_writer_waits_for_another_process(self) -> None:
        database = self.open()
        other = self.engine.connect()
        writing = other.begin()
        insert_job(other, job(repository="JOB_1"), actor="other")
        done = Deferred.fromCoroutine(database.run("insert", insert_job, job(repository="JOB_2"), actor="mark"))
        # Readers need not wait.
        self.assertEqual(await database.read("look", rows, job_queue), 0)
        self.assertFalse(done.called)
        writing.commit()
        other.close()
        await done
        self.assertEqual(self.run_in(rows, job_queue), 2)

    async def test_file_that_stays_busy_is_said(self) -> None:
        database = self.open()
        event.listen(database.engine, "connect", lambda dbapi, _record: dbapi.execute("PRAGMA busy_timeout = 1"))
        calls: list[int] = []
        with self.engine.begin():
            with self.assertRaises(LGIError) as caught:
                await database.run("insert", lambda _connection: calls.append(1))
            overloaded(self, caught.exception)
        self.assertEqual(calls, [])
        await database.run("insert", insert_job, job(repository="JOB_1"), actor="mark")

    async def test_full_disk_is_an_error_that_changes_nothing(self) -> None:
        database = self.open(threads=1)
        pages = await database.read(
            "pages", lambda connection: connection.exec_driver_sql("PRAGMA page_count").scalar()
        )
        event.listen(
            database.engine, "checkout", lambda dbapi, *_rest: dbapi.execute(f"PRAGMA max_page_count = {pages}")
        )
        calls: list[int] = []

        def fill(connection: Connection) -> None:
            calls.append(insert_job(connection, job(output=b"x" * 65_354, repository="JOB_1"), actor="mark"))

        with self.assertRaisesRegex(LGIError, "no room") as caught:
            await database.run("fill", fill)
        overloaded(self, caught.exception)
        self.flushLoggedErrors()
        self.assertEqual((calls, self.run_in(rows, job_queue)), ([], 0))

    def test_commits_survive_the_loss_of_power(self) -> None:
        with self.engine.connect() as connection:
            self.assertEqual(connection.exec_driver_sql("PRAGMA journal_mode").scalar(), "wal")
            # 2 is FULL.
            self.assertEqual(connection.exec_driver_sql("PRAGMA synchronous").scalar(), 2)


class IsolationTests(case.MariaDBCase):
    """What the transactions of others let one see."""

    def test_each_statement_sees_what_is_committed_by_then(self) -> None:
        # Counting after waiting for a grant must see the job that the other one added.
        with self.engine.connect() as connection, connection.begin():
            self.assertEqual(rows(connection, job_queue), 0)
            self.submit()
            self.assertEqual(rows(connection, job_queue), 1)

    def test_url_of_the_kind_mysql_works_as_well(self) -> None:
        self.url = self.url.replace("mariadb", "mysql", 1)
        engine = self.new_engine()
        self.assertEqual(engine.dialect.name, "mysql")
        self.engine = engine
        job_id = self.submit()
        [found] = self.run_in(
            claim_offers,
            application=APPLICATION,
            resource_name=RESOURCE,
            resource_id=1,
            session_id=1,
            start=0,
            limit=1,
            now=NOW,
        )
        self.assertEqual(found.job_id, job_id)
