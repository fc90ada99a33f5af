from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lgi.client.answers import AnswerMalformed, ServerRefused, ServerUnreachable
from lgi.daemon.links import Link, Links, NoAnswer
from lgi.daemon.sessions import DIRECTORY, OpenSessions
from lgi.errors import ErrorNumber
from tests.unit.daemon.server import URL, FakeCalls, FakeServer, refused


class LinkTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = FakeServer()
        self.server.submit()
        self.clock = Clock()
        self.run_directory = Path(self.mktemp()).absolute()
        self.run_directory.mkdir()
        self.sessions = OpenSessions(self.run_directory)
        self.link = Link(
            url=URL, project="LGI", calls=FakeCalls(self.server), clock=self.clock, sessions=self.sessions
        )

    def do(self, coroutine: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def fail_with(self, problem: Exception, *names: str) -> None:
        def before(name: str) -> None:
            if name in names or not names:
                raise problem

        self.server.before = before

    def test_silence_is_no_answer(self) -> None:
        for problem in (ServerUnreachable("refused"), AnswerMalformed("HTML"), refused(ErrorNumber.OVERLOADED, 0)):
            self.fail_with(problem)
            self.failureResultOf(Deferred.fromCoroutine(self.link.state(12)), NoAnswer)

    def left(self) -> list[int]:
        """The sessions that a daemon which starts now would end."""
        return [one.session_id for one in OpenSessions(self.run_directory).left()]

    def test_open_sessions_are_on_disk(self) -> None:
        locked = self.link.locked(12)
        session_id = self.do(locked.__aenter__())
        self.assertEqual(self.left(), [session_id])
        self.do(locked.__aexit__(None, None, None))
        self.assertEqual(self.left(), [])

    def test_a_session_that_could_not_be_ended_is_ended_when_the_server_is_back(self) -> None:
        """A server that was killed finds the session, and the lock, in its database again."""
        locked = self.link.locked(12)
        self.do(locked.__aenter__())
        self.server.down()
        self.do(locked.__aexit__(None, None, None))
        self.assertEqual((len(self.server.locks), len(self.server.sessions)), (1, 1))
        self.server.up()
        self.do(self.link.state(12))
        self.assertEqual((self.server.locks, self.server.sessions, self.left()), ({}, {}, []))

    def test_sessions_of_a_daemon_before_are_ended(self) -> None:
        """Those that the server knows, and those that it knows no more; a silent server's are kept."""
        killed = []
        for _ in range(2):
            killed.append(self.link.locked(12))
            self.do(killed[-1].__aenter__())
            self.link._shared = None
            self.server.locks.clear()
        first, second = self.left()
        del self.server.sessions[first]
        (self.run_directory / DIRECTORY / "half").write_text('{"project": ')
        links = Links(lambda project, url: FakeCalls(self.server), self.clock, OpenSessions(self.run_directory))
        self.fail_with(ServerUnreachable("refused"))
        self.do(links.end_left())
        self.assertEqual((self.left(), list(self.server.sessions)), ([first, second], [second]))
        self.server.up()
        self.do(links.end_left())
        self.assertEqual((self.left(), self.server.sessions), ([], {}))
        self.assertEqual(list((self.run_directory / DIRECTORY).iterdir()), [])

    def test_a_refusal_is_an_answer(self) -> None:
        failure = self.failureResultOf(Deferred.fromCoroutine(self.link.state(13)), ServerRefused)
        self.assertEqual(failure.value.number, ErrorNumber.JOB_UNKNOWN)

    def test_back_off(self) -> None:
        self.fail_with(refused(ErrorNumber.OVERLOADED, 30))
        self.failureResultOf(Deferred.fromCoroutine(self.link.state(12)), NoAnswer)
        self.server.up()
        self.clock.advance(29)
        self.failureResultOf(Deferred.fromCoroutine(self.link.state(12)), NoAnswer)
        self.assertEqual(self.server.said, ["state"], "it is left alone")
        self.clock.advance(1)
        self.assertEqual(self.do(self.link.state(12)).job_id, 12)

    def test_back_off_without_a_time(self) -> None:
        self.fail_with(refused(ErrorNumber.OVERLOADED))
        self.failureResultOf(Deferred.fromCoroutine(self.link.state(12)), NoAnswer)
        self.server.up()
        self.clock.advance(9)
        self.failureResultOf(Deferred.fromCoroutine(self.link.state(12)), NoAnswer)
        self.clock.advance(1)
        self.do(self.link.state(12))

    async def _in_session(self, *waits: Deferred[None]) -> int:
        async with self.link.shared_session() as session_id:
            for wait in waits:
                await wait
            return session_id

    def test_a_session_is_shared_and_signed_off_by_the_last(self) -> None:
        first: Deferred[None] = Deferred()
        second: Deferred[None] = Deferred()
        one = Deferred.fromCoroutine(self._in_session(first))
        two = Deferred.fromCoroutine(self._in_session(second))
        self.assertEqual(len(self.server.sessions), 1)
        first.callback(None)
        self.assertEqual(len(self.server.sessions), 1)
        second.callback(None)
        self.assertEqual(self.successResultOf(one), self.successResultOf(two))
        self.assertEqual(self.server.sessions, {})

    def test_lock_and_unlock(self) -> None:
        async def use() -> None:
            async with self.link.locked(12) as session_id:
                self.assertEqual(self.server.locks, {12: session_id})
                raise NoAnswer("in between")

        self.failureResultOf(Deferred.fromCoroutine(use()), NoAnswer)
        self.assertEqual((self.server.locks, self.server.sessions), ({}, {}))

    def test_a_refused_lock_ends_the_session_too(self) -> None:
        async def use() -> None:
            async with self.link.locked(12):
                self.fail("there is a lock")

        self.server.locks[12] = -1
        self.failureResultOf(Deferred.fromCoroutine(use()), ServerRefused)
        self.assertEqual((self.server.locks, self.server.sessions), ({12: -1}, {}))

    def test_a_session_the_server_has_ended_is_not_used_again(self) -> None:
        long: Deferred[None] = Deferred()
        one = Deferred.fromCoroutine(self._in_session(long))
        self.server.expire()

        async def use() -> None:
            async with self.link.locked(12):
                pass

        self.failureResultOf(Deferred.fromCoroutine(use()), ServerRefused)
        self.do(use())
        long.callback(None)
        self.successResultOf(one)
        self.assertEqual(self.server.sessions, {})

    def test_signing_off_waits_for_a_busy_server(self) -> None:
        leave: Deferred[None] = Deferred()
        session = Deferred.fromCoroutine(self._in_session(leave))
        self.fail_with(refused(ErrorNumber.OVERLOADED, 20), "signoff")
        leave.callback(None)
        self.assertNoResult(session)
        self.server.up()
        self.clock.advance(20)
        self.successResultOf(session)
        self.assertEqual(self.server.sessions, {})

    def test_signing_off_does_not_wait_when_the_daemon_stops(self) -> None:
        leave: Deferred[None] = Deferred()
        session = Deferred.fromCoroutine(self._in_session(leave))
        self.fail_with(refused(ErrorNumber.OVERLOADED, 20), "signoff")
        self.link.close()
        leave.callback(None)
        self.successResultOf(session)

    def test_one_link_to_a_server(self) -> None:
        links = Links(lambda project, url: FakeCalls(self.server), self.clock, self.sessions)
        self.assertIs(links.to("LGI", URL), links.to("LGI", URL + "/"))
        self.assertIsNot(links.to("LGI", URL), links.to("other", URL))
