"""Waiting for work over HTTP: the announcement, the call, and what ends it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from lgi.server import waiting
from tests.http.case import ServerCase
from tests.http.memory import OTHER_RESOURCE, RESOURCE, Answer


class WaitingCase(ServerCase):
    """With resources that wait, on a server that tells nothing a second time."""

    def setUp(self) -> None:
        super().setUp()
        # So that nothing is told a second time.
        self.patch(waiting, "RETELL", 3600.0)
        self.addCleanup(lambda: self.run_now(self.server.site.drain()))

    def wait(self, session: int, who: str = RESOURCE, **fields: object) -> Deferred[Answer]:
        values: dict[str, Any] = {"wait": 100, "applications": "hello_world, lj_md", "session_id": session}
        return self.server.resource("request_work", who=who, **values | fields)

    async def looked(self, who: str = RESOURCE) -> tuple[int, Deferred[Answer]]:
        """A session that waits."""
        session_id = await self.server.session(who=who)
        first = await self.wait(session_id, who)
        self.assertEqual(first.value("work_for"), "hello_world, lj_md")
        return session_id, self.wait(session_id, who)


class WaitForWorkTests(WaitingCase):
    """resource_request_work with `wait`."""

    async def test_announced(self) -> None:
        answer = await self.server.resource("signup_resource")
        self.assertEqual(answer.value("work_wait"), "240")

    async def test_told(self) -> None:
        """One of those that wait is told of a job, and gets it; the other is told of its own."""
        session_id, first = await self.looked()
        _other, second = await self.looked(OTHER_RESOURCE)
        job_id = await self.server.submit()
        answer = await first
        self.assertEqual((answer.value("work_for"), answer.value("session_id")), ("hello_world", str(session_id)))
        self.assertFalse(second.called)
        work = await self.server.resource("request_work", session_id=session_id, application="hello_world")
        self.assertEqual((work.value("number_of_jobs"), work.value("job_id")), ("1", str(job_id)))
        await self.server.submit(target_resources="resource2@localhost")
        self.assertEqual((await second).value("work_for"), "hello_world")

    async def test_given_back(self) -> None:
        """What a resource does not want is not told to it at once again."""
        session_id, first = await self.looked()
        job_id = await self.server.submit()
        await first
        await self.server.resource("request_work", session_id=session_id, application="hello_world")
        await self.server.resource("unlock_job", session_id=session_id, job_id=job_id)
        again = self.wait(session_id)
        await self.server.user("job_state", job_id=job_id)
        self.assertFalse(again.called)
        # The end of a session that holds it is another matter.
        other = await self.server.session(who=OTHER_RESOURCE)
        await self.server.resource("request_work", who=OTHER_RESOURCE, session_id=other, application="hello_world")
        await self.server.resource("signoff_resource", who=OTHER_RESOURCE, session_id=other)
        self.assertEqual((await again).value("work_for"), "hello_world")

    async def test_time_is_up(self) -> None:
        session_id = await self.server.session()
        await self.wait(session_id)
        answer = await self.wait(session_id, wait=1)
        self.assertEqual((answer.number(), answer.value("work_for")), (None, ""))

    async def test_signed_off(self) -> None:
        session_id, held = await self.looked()
        await self.server.resource("signoff_resource", session_id=session_id)
        self.assertEqual((await held).value("work_for"), "")
        self.assertEqual((await self.wait(session_id)).number(), 16)

    async def test_refused(self) -> None:
        session_id = await self.server.session()
        for fields, number in (
            ({"applications": ""}, 18),
            ({"applications": "a" * 255}, 46),
            ({"applications": ",".join(f"a{number}" for number in range(1001))}, 46),
            ({"wait": "1234567890"}, 49),
            ({"session_id": session_id + 1}, 16),
        ):
            self.assertEqual((await self.wait(session_id, **fields)).number(), number, fields)
        answer = await self.wait(session_id, OTHER_RESOURCE)
        self.assertEqual(answer.number(), 16)


class CrowdTests(WaitingCase):
    """No more of them than the server takes."""

    changes = "\n[limits]\nwaiting = 1\n"

    async def test_too_many(self) -> None:
        """One more is told to come back; who is in the line already stays there."""
        session_id, held = await self.looked()
        answer = await self.wait(await self.server.session(who=OTHER_RESOURCE), OTHER_RESOURCE)
        self.assertEqual((answer.number(), answer.value("timeout")), (1, "10"))
        job_id = await self.server.submit()
        self.assertEqual((await held).value("work_for"), "hello_world")
        self.assertGreater(job_id, 0)
        again = await self.wait(session_id, wait=1)
        self.assertIsNone(again.number(), again.text)
