"""Users who wait for changes of jobs over HTTP: what is different, what wakes them, and what ends it."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults

from lgi.admin.store import on_project
from lgi.db.jobs import fetch_job, update_job
from lgi.db.log import record
from lgi.model import Changes
from lgi.server import news, watching
from lgi.server.news import Ear
from tests.contract.statements import listening
from tests.http.case import ServerCase
from tests.http.memory import MARK, PIET, PROJECT, Answer, multipart

STATE = "interfaces/interface_job_state.php"


def seen(answer: Answer) -> tuple[dict[int, str], str]:
    """The jobs in an answer with their states, and those that are gone."""
    assert answer.number() is None, answer.text
    found = re.findall(r"<job number='\d+'> <job_id> (\d+) </job_id> <state> (\w+) </state>", answer.text)
    assert len(found) == int(answer.value("number_of_jobs")), answer.text
    return {int(job_id): state for job_id, state in found}, answer.value("gone")


class WatchCase(ServerCase):
    """With users who wait, where nothing is found by looking again."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(news, "RECHECK", 3600.0)
        self.patch(watching, "RECHECK", 3600.0)
        self.addCleanup(lambda: self.run_now(self.server.site.drain()))
        self.waits: list[float] = []
        heard = Ear.heard

        def noted(ear: Ear, seconds: float) -> Any:
            self.waits.append(seconds)
            return heard(ear, seconds)

        self.patch(Ear, "heard", noted)

    def watch(self, jobs: str, wait: int = 0, who: str = MARK, **fields: Any) -> Deferred[Answer]:
        return self.server.user("job_state", who=who, jobs=jobs, wait=wait, **fields)

    async def waiting(self, jobs: str, who: str = MARK) -> Deferred[Answer]:
        """A call that waits."""
        before = len(self.waits)
        held = self.watch(jobs, 100, who)
        await self.server.until(lambda: len(self.waits) > before)
        self.assertFalse(held.called)
        return held


class WatchTests(WatchCase):
    """interface_job_state with `jobs`."""

    async def test_announced(self) -> None:
        for call, fields in (
            ("project_server_list", {}),
            ("submit_job", {"application": "hello_world", "target_resources": "any"}),
            ("job_state", {"job_id": 1}),
            ("job_state", {}),
            ("job_state", {"limit": 0}),
            ("job_state", {"jobs": "1:?"}),
        ):
            answer = await self.server.user(call, **fields)
            self.assertEqual(answer.value("job_wait"), "240", (call, fields))

    async def test_differences(self) -> None:
        """What is known and so needs no answer, what is not, and what there is not for this user."""
        running, session_id = await self.server.running_job()
        first, second = await self.server.submit(), await self.server.submit(job_specifics="<a> 1 </a>")
        hidden = await self.server.submit(who=PIET, groups="chem")
        shown = await self.server.submit(who=PIET, groups="chem", read_access="theor")
        # A lock does not matter.
        self.assertIsNone((await self.server.resource("lock_job", session_id=session_id, job_id=second)).number())
        answer = await self.watch(f"{first}:queued, {second}:?, {running}:queued, {hidden}:queued, {shown}:?, 99:?")
        self.assertEqual(seen(answer), ({second: "queued", running: "running", shown: "queued"}, f"{hidden}, 99"))
        listed = (await self.server.user("job_state", start=2, limit=1)).text
        content = re.search(r"<job number='1'>(.*?</job>)", listed)
        assert content is not None
        self.assertIn(f"<job number='2'>{content[1]}", answer.text)
        self.assertNotIn("<input>", answer.text)
        answer = await self.watch(f"{first}:queued, {second}:queued, {running}:running, {shown}:queued")
        self.assertEqual(seen(answer), ({}, ""))
        self.assertEqual(seen(await self.watch("99:queued")), ({}, "99"))

    async def test_waits(self) -> None:
        """Until one of the jobs is in another state; a lock is no change."""
        first, second = await self.server.submit(), await self.server.submit()
        session_id = await self.server.session()
        held = await self.waiting(f"{first}:queued, {second}:queued")
        ours: dict[str, Any] = {"session_id": session_id, "job_id": second}
        await self.server.resource("lock_job", **ours)
        await self.server.resource("unlock_job", **ours)
        await self.server.until(lambda: len(self.waits) > 1)
        self.assertFalse(held.called)
        await self.server.resource("lock_job", **ours)
        await self.server.resource("update_job", **ours, state="running")
        self.assertEqual(seen(await held), ({second: "running"}, ""))

    async def test_deleted(self) -> None:
        first, second = await self.server.submit(), await self.server.submit()
        waiting = [await self.waiting(f"{first}:queued, {second}:queued") for _ in range(3)]
        await self.server.user("delete_job", job_id=first)
        for answer in await gatherResults(waiting):
            self.assertEqual(seen(answer), ({}, str(first)))

    async def test_change_while_it_is_looked_at(self) -> None:
        """What happens between the look and the waiting is not missed."""
        job_id = await self.server.submit()
        original = watching.difference

        def slow(connection: Any, user: Any, known: Any) -> Any:
            found = original(connection, user, known)
            if not self.waits:
                # As another process does it, whose commit comes at this very moment.
                self.server.bell.heard(PROJECT, Changes(jobs=frozenset([job_id])))
            return found

        self.patch(watching, "difference", slow)
        held = self.watch(f"{job_id}:queued", 100)
        await self.server.until(lambda: len(self.waits) == 2)
        self.assertFalse(held.called)
        await self.server.user("delete_job", job_id=job_id)
        self.assertEqual(seen(await held), ({}, str(job_id)))

    async def test_time_is_up(self) -> None:
        job_id = await self.server.submit()
        self.assertEqual(seen(await self.watch(f"{job_id}:queued", 1)), ({}, ""))
        self.assertEqual(len(self.waits), 1)

    async def test_another_program(self) -> None:
        """What another program changes is heard."""
        self.server.bell.listen(reactor)
        self.addCleanup(self.server.bell.close)
        job_id = await self.server.submit()
        held = await self.waiting(f"{job_id}:queued")
        queued = on_project(self.server.config, PROJECT, lambda connection: fetch_job(connection, job_id))
        assert queued is not None

        def finish(connection: Any) -> None:
            update_job(connection, queued, {"state": "finished"})
            record(connection, job_id=job_id, from_state="queued", to_state="finished", actor="a", now=1)

        on_project(self.server.config, PROJECT, finish)
        self.assertEqual(seen(await held), ({job_id: "finished"}, ""))

    async def test_one_statement(self) -> None:
        jobs = [await self.server.submit() for _ in range(3)]
        await self.server.user("project_server_list")
        with listening(self.server.database.engine) as found:
            await self.watch(", ".join(f"{job_id}:?" for job_id in jobs))
        self.assertEqual(len(found), 1, found)

    async def test_most(self) -> None:
        first = await self.server.submit()
        numbers = range(first, first + 1000)
        jobs, gone = seen(await self.watch(", ".join(f"{number}:?" for number in numbers)))
        self.assertEqual((jobs, gone), ({first: "queued"}, ", ".join(map(str, numbers[1:]))))

    async def test_refused(self) -> None:
        await self.freeze()
        for jobs, said in (
            ("1:queued, 2", "&apos;2&apos;"),
            ("1:strange", "&apos;1:strange&apos;"),
            ("1:?, 1:queued", "job 1 "),
            (", ".join(f"{number}:?" for number in range(1001)), "1001 items"),
        ):
            await self.refuses(19, self.watch(jobs, 100), said)
        await self.refuses(49, self.watch("1:?", 1234567890))
        await self.refuses(30, self.watch("1:?", user="piet@localhost"))

    async def test_hanging_up(self) -> None:
        """Who is not there any more is not kept."""
        job_id = await self.server.submit()
        kind, body = multipart(
            {"project": PROJECT, "user": "mark@localhost", "groups": "theor", "jobs": f"{job_id}:queued", "wait": 99}
        )
        protocol, _transport = self.server.connect(MARK)
        head = f"POST /LGI/{STATE} HTTP/1.1\r\nHost: localhost:8443\r\nContent-Length: {len(body)}\r\n"
        protocol.dataReceived(f"{head}Content-Type: {kind}\r\n\r\n".encode() + body)
        await self.server.until(lambda: len(self.waits) == 1)
        reads: list[object] = []
        self.patch(watching, "difference", lambda *_args: reads.append(1))
        self.server.hang_up(protocol)
        await self.server.turn()
        # Nobody is there to be told, and nothing is looked at.
        await self.server.user("delete_job", job_id=job_id)
        self.assertEqual((len(self.waits), reads), (1, []))

    async def test_stopping(self) -> None:
        """Nobody is kept when the server stops."""
        job_id = await self.server.submit()
        waiting = [await self.waiting(f"{job_id}:queued") for _ in range(2)]
        await self.server.site.drain()
        for answer in await gatherResults(waiting):
            self.assertEqual(seen(answer), ({}, ""))


class RecheckTests(WatchCase):
    """Where nobody tells of a change."""

    async def test_found_by_looking_again(self) -> None:
        self.patch(watching, "RECHECK", 0.05)
        job_id = await self.server.submit()
        held = await self.waiting(f"{job_id}:queued")
        with self.server.database.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE job_queue SET state = 'running'")
        self.assertEqual(seen(await held), ({job_id: "running"}, ""))
        self.assertEqual(self.waits[0], 0.05)


class CrowdTests(WatchCase):
    """No more of them than the server takes, and as many calls as before beside them."""

    changes = "\n[limits]\nwaiting = 2\nrequests = 1\nback_off = 7\n"

    async def test_too_many(self) -> None:
        job_id = await self.server.submit()
        waiting = [await self.waiting(f"{job_id}:queued") for _ in range(2)]
        answer = await self.watch(f"{job_id}:queued", 100)
        self.assertEqual((answer.number(), answer.value("timeout")), (1, "7"))
        # Who need not wait is answered.
        self.assertEqual(seen(await self.watch(f"{job_id}:?", 100)), ({job_id: "queued"}, ""))
        self.assertEqual(seen(await self.watch(f"{job_id}:queued")), ({}, ""))
        await self.server.user("delete_job", job_id=job_id)
        for held in waiting:
            self.assertEqual(seen(await held), ({}, str(job_id)))
        other = await self.server.submit()
        await self.waiting(f"{other}:queued")


class NotOfferedTests(WatchCase):
    """A server where nobody may wait."""

    changes = "\n[limits]\njob_wait = 0\n"

    async def test_at_once(self) -> None:
        job_id = await self.server.submit()
        answer = await self.watch(f"{job_id}:queued", 100)
        self.assertEqual((seen(answer), answer.value("job_wait"), self.waits), (({}, ""), "0", []))
