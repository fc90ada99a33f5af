"""The errors that take something out of the ordinary, each caused by what is posted or by what has broken."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, text, update
from twisted.internet.defer import gatherResults

from lgi.db import connections
from lgi.db.schema import running_sessions
from lgi.wire.fields import DIGITS
from tests.http.case import JOB, WHOLE, ServerCase
from tests.http.memory import MARK, RESOURCE, Answer, Fields, multipart


class SessionTests(ServerCase):
    """Session 0 is no session: locks of interfaces bear it."""

    async def test_session_zero(self) -> None:
        """Each call says what it would need a session for."""
        job_id = await self.server.submit()
        await self.freeze()
        fields: Fields = {**JOB, "session_id": 0, "job_id": job_id, "owners": "theor", "state": "queued"}
        for call, number in (
            ("signoff_resource", 7),
            ("request_work", 9),
            ("request_job_details", 9),
            ("update_job", 9),
            ("unlock_job", 10),
            ("lock_job", 11),
            ("submit_job", 11),
        ):
            await self.refuses(number, self.server.resource(call, **fields))

    async def test_number_that_could_not_be_posted(self) -> None:
        """A session whose number would be too big for the field is not set up."""
        session_id = await self.server.session()
        statement = update(running_sessions).where(running_sessions.c.session_id == session_id)
        await self.change(lambda connection: connection.execute(statement.values(session_id=10**DIGITS - 2)))
        self.assertEqual(await self.server.session(), 10**DIGITS - 1)
        await self.freeze()
        capabilities: Fields = {"capabilities": "<new> </new>"}
        await self.refuses(44, self.server.resource("signup_resource", **capabilities), "9 digits")
        work = self.server.resource("request_work", session_id=10**DIGITS - 1, application="hello_world")
        self.assertIsNone((await work).number())


class LockTests(ServerCase):
    """What the database's own keys and rows rule out, and what is said where they do not."""

    changes = "[limits]\nlock_wait = 20\n"

    async def held(self) -> Fields:
        """A job that a session holds."""
        job_id, session_id = await self.server.submit(), await self.server.session()
        await self.server.resource("lock_job", session_id=session_id, job_id=job_id)
        return {"session_id": session_id, "job_id": job_id}

    async def break_with(self, *statements: str) -> None:
        """Do to the database what no program of ours does."""

        def run(connection: Connection) -> None:
            for statement in statements:
                connection.execute(text(statement))

        await self.change(run)

    async def test_more_than_one_lock(self) -> None:
        """In a database that has lost its unique key."""
        held = await self.held()
        await self.break_with(
            "CREATE TABLE copy AS SELECT * FROM running_locks",
            "INSERT INTO copy SELECT lock_id + 1, job_id, resource_id, lock_time, session_id + 1 FROM running_locks",
            "DROP TABLE running_locks",
            "ALTER TABLE copy RENAME TO running_locks",
        )
        await self.freeze()
        await self.refuses(12, self.server.resource("unlock_job", **held))
        await self.refuses(12, self.server.resource("request_job_details", **held))
        await self.refuses(12, self.server.resource("update_job", **held, state="finished"))

    async def test_lock_on_a_job_that_is_gone(self) -> None:
        held = await self.held()
        await self.break_with("DELETE FROM job_queue")
        await self.freeze()
        await self.refuses(23, self.server.resource("unlock_job", **held))

    async def test_session_that_goes_while_it_is_ended(self) -> None:
        held = await self.held()
        await self.break_with(
            "CREATE TRIGGER kept BEFORE DELETE ON running_sessions BEGIN SELECT RAISE(IGNORE); END",
        )
        await self.freeze()
        await self.refuses(42, self.server.resource("signoff_resource", session_id=held["session_id"]))
        await self.break_with("DROP TRIGGER kept")
        self.assertIsNone((await self.server.resource("signoff_resource", session_id=held["session_id"])).number())

    async def test_deleted_while_another_waited_to_delete_it(self) -> None:
        """Of two who wait for the lock one deletes the job, the other finds it gone."""
        held = await self.held()
        looked: list[str] = []
        run = self.server.database.run

        async def counted(name: str, *args: Any, **kwargs: Any) -> Any:
            result = await run(name, *args, **kwargs)
            looked.append(name)
            return result

        self.patch(self.server.database, "run", counted)
        waiting = [self.server.user("delete_job", job_id=held["job_id"]) for _ in range(2)]
        await self.server.until(lambda: looked.count("delete job") == 2)
        self.assertFalse([one for one in waiting if one.called])
        await self.server.resource("unlock_job", **held)
        answers = await gatherResults(waiting)
        self.assertEqual(sorted(answer.number() or 0 for answer in answers), [0, 36])
        await self.freeze()
        await self.refuses(15, self.server.user("delete_job", job_id=held["job_id"]))

    async def test_gone_between_looking_and_deleting(self) -> None:
        """The row is not as it was read: nothing is deleted, and nothing is said to be."""
        job_id = await self.server.submit()
        await self.break_with("CREATE TRIGGER kept BEFORE DELETE ON job_queue BEGIN SELECT RAISE(IGNORE); END")
        await self.freeze()
        await self.refuses(36, self.server.user("delete_job", job_id=job_id))


class DatabaseTests(ServerCase):
    """A database that cannot be opened, which no waiting mends."""

    async def test_file_that_cannot_be_opened(self) -> None:
        """Told to every call as what it is, and over when it is over."""
        job_id = await self.server.submit()
        folder = self.server.config.server.ca_certificate.parent.parent / "db"
        await self.freeze()
        # Whichever thread comes to it opens its connection anew.
        self.patch(connections, "IDLE_SECONDS", -1)
        folder.rename(folder.with_name("away"))
        calls = [
            self.server.user("submit_job", **JOB, files=[("a", b"1")]),
            self.server.user("job_state", job_id=job_id),
            self.server.resource("signup_resource"),
        ]
        for answer in await gatherResults(calls):
            self.assertEqual((answer.code, answer.number()), (200, 3), answer.text)
            self.assertNotIn("<timeout>", answer.text)
        folder.with_name("away").rename(folder)
        self.assertEqual((await self.state(), self.spooled()), (self._frozen, []))
        self.assertIsNone((await self.server.user("job_state", job_id=job_id)).number())


class BrowserTests(ServerCase):
    """A browser that was made to post with its owner's certificate."""

    async def ask(self, who: str, path: str, fields: Fields, **headers: str) -> Answer:
        kind, body = multipart(fields)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.server.request(who, "POST", path, body, {"Content-Type": kind, **named})

    async def test_page_of_another_site(self) -> None:
        """It says where the page came from, and no page can make it say anything else."""
        await self.freeze()
        for headers in (
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Origin": "http://localhost:8443"},
            {"Origin": "https://localhost:8443.evil.example"},
            {"Origin": "https://localhost"},
            {"Sec_Fetch_Site": "cross-site"},
            {"Sec_Fetch_Site": "same-site", "Origin": "https://localhost:8443"},
            {"Sec_Fetch_Site": "same-origin", "Origin": "https://evil.example"},
            {"Sec_Fetch_Site": "<x>\xff"},
        ):
            for who, path, fields in (
                (MARK, "interfaces/interface_submit_job.php", WHOLE),
                (RESOURCE, "resources/resource_signup_resource.php", {"project": "LGI"}),
            ):
                answer = await self.ask(who, path, fields, **headers)
                self.assertEqual((answer.code, answer.number()), (200, 66), (headers, answer.text))
        self.assertEqual((await self.state(), self.spooled()), (self._frozen, []))

    async def test_page_of_this_site(self) -> None:
        """There is none that would post to the API."""
        await self.freeze()
        for headers in (
            {"Origin": "https://localhost:8443"},
            {"Origin": "HTTPS://LOCALHOST:8443", "Sec_Fetch_Site": "same-origin"},
            {"Sec_Fetch_Site": "none", "Sec_Fetch_Mode": "navigate"},
        ):
            answer = await self.ask(MARK, "interfaces/interface_submit_job.php", WHOLE, **headers)
            self.assertEqual((answer.code, answer.number()), (200, 67), (headers, answer.text))
        self.assertEqual((await self.state(), self.spooled()), (self._frozen, []))

    async def test_programs_say_nothing_of_the_kind(self) -> None:
        answer = await self.ask(MARK, "interfaces/interface_submit_job.php", WHOLE, Accept="*/*", Expect="")
        self.assertIsNone(answer.number(), answer.text)
