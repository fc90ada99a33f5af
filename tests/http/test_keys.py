"""Submission keys over HTTP: the first submission counts, however often and whenever it is repeated."""

from __future__ import annotations

from collections import Counter
from typing import Any
from unittest.mock import patch

from sqlalchemy import Connection, func, select
from twisted.internet.defer import Deferred, gatherResults

from lgi.db.database import CommitUnknown, Database
from lgi.db.grants import allow_user
from lgi.db.schema import job_log, job_queue
from lgi.model import Grant
from lgi.server import submit
from tests.http.case import JOB, ServerCase
from tests.http.memory import MARK, PIET, Answer, Fields, multipart

KEY = "a-Key_0123456789"
SUBMIT = "interfaces/interface_submit_job.php"


class KeyTests(ServerCase):
    """interface_submit_job with `submission_key`."""

    def submit(self, *files: tuple[str, bytes], who: str = MARK, **fields: Any) -> Deferred[Answer]:
        posted: Fields = JOB | {"submission_key": KEY} | fields
        return self.server.user("submit_job", who=who, files=files, **posted)

    async def jobs(self) -> int:
        """How many jobs there are."""

        def count(connection: Connection) -> int:
            return connection.scalar(select(func.count()).select_from(job_queue)) or 0

        number: int = await self.server.database.read("count", count)
        return number

    def repositories(self) -> int:
        return len(list(self.root.glob("*/JOB_*")))

    async def test_repeated(self) -> None:
        """The first job comes back as it is now, with its files; nothing is made, and nobody is woken."""
        first = await self.submit(("a.txt", b"first"), input="61")
        self.assertEqual((first.number(), first.value("submission_key")), (None, KEY))
        await self.freeze()
        told: list[object] = []
        self.patch(self.server.database, "committed", told.append)
        again = await self.submit(("b.txt", b"other"), input="62", application="lj_md")
        self.assertEqual(again.text, first.text)
        self.assertIn("<file_name> a.txt </file_name> <size> 5 </size>", again.text)
        self.assertEqual((await self.state(), self.spooled(), told), (self._frozen, [], []))

    async def test_as_it_is_now(self) -> None:
        answer = await self.submit()
        job_id, session_id = answer.value("job_id"), await self.server.session()
        ours: Fields = {"session_id": session_id, "job_id": job_id}
        await self.server.resource("lock_job", **ours)
        await self.server.resource("update_job", **ours, state="running", output="6f7574")
        # Also while it is locked.
        again = await self.submit()
        self.assertEqual([again.value(tag) for tag in ("job_id", "state", "output")], [job_id, "running", "6f7574"])

    async def test_other_keys_and_users(self) -> None:
        answers = [
            await self.submit(),
            await self.submit(submission_key=KEY.lower()),
            await self.submit(who=PIET, groups="theor"),
            await self.submit(submission_key=""),
            await self.submit(submission_key=""),
        ]
        self.assertEqual([answer.value("job_id") for answer in answers], ["1", "2", "3", "4", "5"])
        self.assertNotIn("submission_key", answers[-1].text)

    async def test_of_a_deleted_job(self) -> None:
        """It is free again."""
        await self.submit()
        await self.server.user("delete_job", job_id=1)
        self.assertEqual((await self.submit()).value("job_id"), "2")

    async def test_refused(self) -> None:
        await self.freeze()
        for key in ("x" * 65, "x" * 300, "x" * 200_000, "a b", "a:b", "é", "../a", "a,b"):
            await self.refuses(68, self.submit(("a", b"1"), submission_key=key), "submission_key")

    async def test_counts_against_no_limit(self) -> None:
        await self.change(allow_user, Grant(name="mark@localhost", application="hello_world", job_limit=1))
        first = await self.submit()
        self.assertEqual((await self.submit()).text, first.text)
        self.assertEqual((await self.submit(submission_key="other")).number(), 33)

    async def test_many_at_once(self) -> None:
        """One job, one repository, and everybody is told of it."""
        for limit in (0, 1):
            await self.change(allow_user, Grant(name="mark@localhost", application="hello_world", job_limit=limit))
            answers = await gatherResults([self.submit((f"f{number}", b"x")) for number in range(12)])
            self.assertEqual(Counter(answer.number() for answer in answers), {None: 12})
            self.assertEqual(len({answer.text for answer in answers}), 1)
            self.assertEqual((await self.jobs(), self.repositories(), self.spooled()), (1, 1, []))
            self.assertEqual(list((self.root / ".trash").iterdir()), [])
            await self.server.user("delete_job", job_id=answers[0].value("job_id"))

    async def test_lost_answer(self) -> None:
        """A client that hangs up and comes again finds its job."""
        kind, body = multipart(
            {"project": "LGI", "user": "mark@localhost", "groups": "theor", "submission_key": KEY, **JOB},
            [("a", b"1")],
        )
        protocol, _transport = self.server.connect(MARK)
        head = f"POST /LGI/{SUBMIT} HTTP/1.1\r\nHost: localhost:8443\r\nContent-Length: {len(body)}\r\n"
        protocol.dataReceived(f"{head}Content-Type: {kind}\r\n\r\n".encode() + body)
        self.server.hang_up(protocol)
        again = await self.submit(("a", b"1"))
        self.assertEqual((again.value("job_id"), await self.jobs()), ("1", 1))
        # Whichever of the two came second takes its repository away.
        await self.server.until(lambda: self.repositories() == 1)

    async def test_commit_of_which_nobody_knows(self) -> None:
        """Error 3 is told, and the repeated submission finds the job if it is there, and makes it if it is not."""
        run = Database.run
        for done in (True, False):

            async def unknown(database: Database, name: str, function: Any, *args: Any, done: bool = done) -> Any:
                if name == "submit":
                    if done:
                        await run(database, name, function, *args)
                    raise CommitUnknown
                return await run(database, name, function, *args)

            with patch.object(Database, "run", unknown):
                self.assertEqual((await self.submit(("a", b"1"))).number(), 3)
            before = await self.jobs()
            self.assertEqual(before, int(done))
            answer = await self.submit(("a", b"1"))
            self.assertIn("<file_name> a </file_name>", answer.text)
            self.assertEqual(await self.jobs(), 1)
            await self.server.user("delete_job", job_id=answer.value("job_id"))

    async def test_gone_at_this_moment(self) -> None:
        """The other one's job is deleted before it can be looked at: come again."""
        self.patch(submit, "fetch_submitted", lambda _connection, _key: None)
        await self.submit()
        await self.freeze()
        answer = await self.refuses(1, self.submit(("a", b"1")))
        self.assertEqual(answer.value("timeout"), "10")

    async def test_of_resources_is_not_read(self) -> None:
        session_id = await self.server.session()
        posted: Fields = JOB | {"session_id": session_id, "state": "queued", "owners": "mark@localhost"}
        for _ in range(2):
            await self.server.resource("submit_job", submission_key=KEY, **posted)
        self.assertEqual(await self.jobs(), 2)
        entries = select(func.count()).select_from(job_log)
        self.assertEqual(await self.change(lambda connection: connection.scalar(entries)), 2)
