"""Submitting jobs: their files, who may, how many, and what is left when it fails."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from sqlalchemy import Connection, delete, insert, select
from twisted.internet.defer import Deferred, gatherResults

from lgi.db.jobs import fetch_job
from lgi.db.schema import (
    groups_allowed,
    groups_denied,
    job_access,
    running_locks,
    users_allowed,
    users_denied,
)
from lgi.db.sessions import end_session
from lgi.model import Job
from lgi.repository.access import ACCESS_FILE
from tests.http.case import ServerCase
from tests.http.memory import MARK, PIET, RESOURCE, Answer, Fields, FullSpool, multipart

JOB: Fields = {"application": "hello_world", "target_resources": "any"}


class SubmitCase(ServerCase):
    """What the tests of submissions share."""

    def submit(self, *files: tuple[str, bytes], who: str = MARK, **fields: object) -> Deferred[Answer]:
        posted: Fields = JOB | fields
        return self.server.user("submit_job", who=who, files=files, **posted)

    def files_of(self, answer: Answer) -> dict[str, bytes]:
        """The files of the job in an answer, without the server's own."""
        directory = self.directory_of(answer)
        return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != ACCESS_FILE}

    def directory_of(self, answer: Answer) -> Path:
        """Where the files of the job in an answer are, if it has any."""
        name = answer.value("repository_url").rpartition("/")[2]
        return self.root / name[-3:] / name

    async def job(self, answer: Answer) -> Job:
        job: Job = await self.change(fetch_job, int(answer.value("job_id")), blobs=True)
        return job


class UploadTests(SubmitCase):
    """Files that come with a job."""

    async def test_kinds_of_files(self) -> None:
        binary = bytes(range(256)) * 300 + b"\r\n--\r\n----7dd@$_2\r\n"
        files = [
            ("binary.dat", binary),
            ("empty", b""),
            ("two words and a 'quote'", b"x"),
            ("naïve – 試験.txt", b"\n"),
            ("a; filename=b, c=d & e.txt", b"1"),
            ("a..b", b"2"),
            ("x" * 255, b"3"),
        ]
        answer = await self.submit(*files, number_of_uploaded_files=len(files))
        self.assertIsNone(answer.number(), answer.text)
        self.assertEqual(self.files_of(answer), dict(files))
        self.assertEqual(self.spooled(), [])
        for name, data in files:
            self.assertIn(f"<size> {len(data)} </size>", answer.text)
            self.assertIn(name.replace("&", "&amp;").replace("'", "&apos;"), answer.text)

    async def test_quoted_names(self) -> None:
        """Clients write a quote in a name as `%22` or as `\\"`."""
        answer = await self.submit(("say %22hi%22", b"1"), ('a \\"b\\"', b"2"))
        self.assertEqual(self.files_of(answer), {'say "hi"': b"1", 'a "b"': b"2"})

    async def test_names_that_are_no_names(self) -> None:
        await self.freeze()
        for name in (
            "",
            ".",
            "..",
            "a//b",
            "a/",
            "a/../b",
            "a/./b",
            "a/.b/c",
            "a/repository_content.php/b",
            "/".join("a" * 33),
            "/".join(["x" * 255] * 5),
            "/etc/passwd",
            "../../escape",
            "a\\b",
            "..\\b",
            "a%0Ab",
            "a\x00b",
            "a\x7fb",
            "a\u202eb",
            ".htaccess",
            ACCESS_FILE,
            "repository_content.php",
            "x" * 256,
            "é" * 128,
        ):
            await self.refuses(68, self.submit(("fine", b"1"), (name, b"2")))

    async def test_two_of_one_name(self) -> None:
        await self.freeze()
        await self.refuses(68, self.submit(("a", b"1"), ("b", b"2"), ("a", b"3")), "same name")

    async def test_many_files(self) -> None:
        """As many as a form may have parts; they are not all open at the same time."""
        files = [(f"f{number}", str(number).encode()) for number in range(400)]
        answer = await self.submit(*files)
        self.assertEqual(self.files_of(answer), dict(files))

    async def test_only_uploads_are_files(self) -> None:
        """A part with a file name under another field's name is a field."""
        boundary = "b"
        head = "Content-Disposition: form-data; name="
        fields = {"user": "mark@localhost", "groups": "theor", **JOB}
        body = "".join(
            f'--{boundary}\r\n{head}"{name}"; filename="f"\r\n\r\n{value}\r\n' for name, value in fields.items()
        )
        answer = await self.server.request(
            MARK,
            "POST",
            "interfaces/interface_submit_job.php",
            f"{body}--{boundary}--\r\n".encode(),
            {"Content-Type": f'multipart/form-data; boundary="{boundary}"'},
        )
        self.assertEqual((answer.value("user"), answer.value("application")), ("mark@localhost", "hello_world"))
        self.assertFalse(self.directory_of(answer).exists())

    async def test_urlencoded(self) -> None:
        """A plain form makes a job without files."""
        answer = await self.server.request(
            MARK,
            "POST",
            "interfaces/interface_submit_job.php",
            b"project=LGI&user=mark%40localhost&groups=theor&application=hello_world&target_resources=any"
            b"&job_specifics=%3Ca%3E+1+%2B+1+%3C%2Fa%3E&input=6A&read_access=Andr%C3%A9",
            {"Content-Type": "application/x-www-form-urlencoded; charset=UTF-8"},
        )
        self.assertEqual((answer.value("a"), answer.value("input")), ("1 + 1", "6a"))
        self.assertIn("André", answer.value("read_access"))
        self.assertFalse(self.directory_of(answer).exists())


class FailureTests(SubmitCase):
    """What cannot be stored leaves nothing behind."""

    async def test_full_while_receiving(self) -> None:
        await self.freeze()
        self.server.site._spool = FullSpool(self.root / ".spool")
        for size in (1, 5_000, 500_000):
            await self.refuses(68, self.submit(("a", b"x" * size), ("b", b"y")), "No space left on device")
        answer = await self.server.request(MARK, "PUT", "repository/000/JOB_" + "0" * 32 + "/a", b"x" * 500_000)
        self.assertEqual(answer.code, 403)
        self.assertEqual(self.spooled(), [])

    async def test_no_directory(self) -> None:
        """The job's directory cannot be made, since something is in the way."""
        await self.freeze()
        taken = [self.root / f"{number:03x}" for number in range(4096)]
        for path in taken:
            path.write_bytes(b"")
        await self.refuses(68, self.submit(("a", b"x")), "Not a directory")

    async def test_client_that_hangs_up(self) -> None:
        """In the middle of its upload: no job, no files."""
        await self.freeze()
        protocol, transport = self.server.connect(MARK)
        boundary_and_file = (
            b'--b\r\nContent-Disposition: form-data; name="uploaded_file_1"; filename="a"\r\n\r\n' + b"x" * 100_000
        )
        protocol.dataReceived(
            b"POST /LGI/interfaces/interface_submit_job.php HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + boundary_and_file
        )
        self.assertEqual(len(self.spooled()), 1)
        self.server.hang_up(protocol)
        self.assertEqual(self.spooled(), [])
        self.assertEqual(transport.value(), b"")
        self.assertEqual(await self.state(), self._frozen)

    async def test_client_that_does_not_wait(self) -> None:
        """After its whole request: the job is there, with its files."""
        kind, body = multipart(
            {"user": "mark@localhost", "groups": "theor", **JOB}, [("a", b"1" * 50_000), ("b", b"2")]
        )
        protocol, _transport = self.server.connect(MARK)
        protocol.dataReceived(
            f"POST /LGI/interfaces/interface_submit_job.php HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
            f"Content-Type: {kind}\r\n\r\n".encode()
            + body
        )
        self.server.hang_up(protocol)
        await self.server.site.drain()
        stored = self.stored()
        job: Job = await self.change(fetch_job, 1, blobs=True)
        self.assertEqual(job.state, "queued")
        self.assertEqual(sorted(data for data in stored.values() if data[:1] in (b"1", b"2")), [b"1" * 50_000, b"2"])
        self.assertEqual(self.spooled(), [])


class AccessTests(SubmitCase):
    """Who owns, reads and writes a job."""

    async def test_defaults(self) -> None:
        answer = await self.submit(who=PIET)
        job = await self.job(answer)
        self.assertEqual(job.owners, ("piet@localhost", "theor", "chem"))
        self.assertEqual((job.read_access, job.write_access), (("admin", "piet@localhost"),) * 2)
        self.assertEqual(answer.value("read_access"), "admin, piet@localhost")

    async def test_posted(self) -> None:
        answer = await self.submit(("a", b"1"), read_access="theor,, admin , x,theor", write_access="any")
        job = await self.job(answer)
        self.assertEqual(job.read_access, ("admin", "mark@localhost", "theor", "x"))
        self.assertEqual(job.write_access, ("admin", "mark@localhost", "any"))
        rows = await self.change(
            lambda connection: {
                tuple(row) for row in connection.execute(select(job_access.c.kind, job_access.c.name))
            }
        )
        self.assertEqual({name for kind, name in rows if kind == "r"}, set(job.read_access))
        self.assertEqual({name for kind, name in rows if kind == "w"}, set(job.write_access))
        self.assertEqual({name for kind, name in rows if kind == "o"}, {"mark@localhost", "theor"})
        self.assertEqual((self.directory_of(answer) / ACCESS_FILE).read_text(), "admin, mark@localhost, any")

    async def test_groups_that_the_certificate_has_not(self) -> None:
        answer = await self.submit(groups="theor, chem, admin")
        self.assertEqual(answer.value("groups"), "theor")
        self.assertEqual((await self.job(answer)).owners, ("mark@localhost", "theor"))

    async def test_targets(self) -> None:
        for posted, kept in (
            ("any", ("any",)),
            ("resource1@localhost, any, nobody", ("any",)),
            ("nobody, resource2@localhost,resource2@localhost", ("resource2@localhost",)),
        ):
            self.assertEqual((await self.job(await self.submit(target_resources=posted))).target_resources, kept)


class GrantTests(SubmitCase):
    """The four grant tables."""

    async def grant(
        self,
        users: Sequence[tuple[str, str, int]] = (),
        groups: Sequence[tuple[str, str, int]] = (),
        no_users: Sequence[tuple[str, str]] = (),
        no_groups: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Replace all rows."""

        def fill(connection: Connection) -> None:
            for table, rows in (
                (users_allowed, users),
                (groups_allowed, groups),
                (users_denied, no_users),
                (groups_denied, no_groups),
            ):
                connection.execute(delete(table))
                for row in rows:
                    connection.execute(insert(table).values(row))

        await self.change(fill)

    async def taken(self, number: int, who: str = MARK, **fields: object) -> None:
        """Submit until it is refused, and check how many were taken."""
        for _ in range(number):
            answer = await self.submit(who=who, **fields)
            self.assertIsNone(answer.number(), answer.text)
        await self.freeze()
        await self.refuses(33, self.submit(who=who, **fields))

    async def test_negative_limit(self) -> None:
        """Counts queued and running jobs."""
        await self.grant(users=[("mark@localhost", "hello_world", -2)])
        await self.taken(2)
        session_id = await self.server.session()
        await self.server.resource("lock_job", session_id=session_id, job_id=1)
        ours: Fields = {"session_id": session_id, "job_id": 1}
        await self.server.resource("update_job", state="running", **ours)
        await self.taken(0)
        await self.server.resource("update_job", state="finished", **ours)
        await self.taken(1)

    async def test_positive_limit(self) -> None:
        """Counts all jobs that there are."""
        await self.grant(users=[("mark@localhost", "any", 2)])
        await self.taken(2)
        session_id = await self.server.session()
        await self.server.resource("lock_job", session_id=session_id, job_id=1)
        ours: Fields = {"session_id": session_id, "job_id": 1}
        await self.server.resource("update_job", state="finished", **ours)
        await self.server.resource("unlock_job", **ours)
        await self.taken(0)
        await self.server.user("delete_job", job_id=1)
        await self.taken(1)

    async def test_zero_is_no_limit(self) -> None:
        await self.grant(users=[("mark@localhost", "hello_world", 0)])
        for _ in range(5):
            self.assertIsNone((await self.submit()).number())
        await self.freeze()
        await self.refuses(33, self.submit(application="lj_md"))

    async def test_precedence(self) -> None:
        """A user's own row beats his groups', which beat the row of any user."""
        await self.grant(users=[("mark@localhost", "any", 1)], groups=[("theor", "any", 5)])
        await self.taken(1)
        await self.grant(users=[("any", "any", 0)], groups=[("theor", "any", -2)])
        await self.taken(1)
        await self.grant(users=[("any", "any", -3)])
        await self.taken(1)
        await self.grant(groups=[("any", "any", 4)])
        await self.taken(1)
        await self.grant()
        await self.taken(0)

    async def test_denied(self) -> None:
        everybody = [("any", "any", 0)]
        for denied in ([("mark@localhost", "any")], [("mark@localhost", "hello_world")], [("any", "hello_world")]):
            await self.grant(users=everybody, no_users=denied)
            await self.taken(0)
        for denied in ([("theor", "any")], [("any", "any")]):
            await self.grant(users=everybody, no_groups=denied)
            await self.taken(0)
        await self.grant(
            users=everybody, no_users=[("mark@localhost", "lj_md")], no_groups=[("theor", "hello_world")]
        )
        answer = await self.submit(who=PIET)
        self.assertEqual((await self.job(answer)).owners, ("piet@localhost", "chem"))

    async def test_many_at_once(self) -> None:
        """However many submit at the same time, the limit holds exactly."""
        await self.grant(users=[("mark@localhost", "any", -7)])
        answers = await gatherResults([self.submit((f"f{number}", b"x")) for number in range(30)])
        self.assertEqual(sorted(answer.number() or 0 for answer in answers), [0] * 7 + [33] * 23)
        self.assertEqual(len(list(self.root.glob("*/JOB_*"))), 7)
        self.assertEqual(list((self.root / ".trash").iterdir()), [])

    async def test_groups_at_once(self) -> None:
        """Members of one group share its limit."""
        await self.grant(groups=[("theor", "any", 5)])
        answers = await gatherResults(
            [self.submit(who=who, groups="theor") for _ in range(10) for who in (MARK, PIET)]
        )
        self.assertEqual(sum(answer.number() is None for answer in answers), 5)


class ResourceSubmitTests(SubmitCase):
    """resource_submit_job."""

    def hand_in(self, session_id: int, *files: tuple[str, bytes], **fields: object) -> Deferred[Answer]:
        posted: Fields = {"state": "queued", "owners": "mark@localhost, theor", **JOB} | fields
        return self.server.resource("submit_job", session_id=session_id, files=files, **posted)

    async def test_locked_at_once(self) -> None:
        session_id = await self.server.session()
        answer = await self.hand_in(session_id, ("a", b"1"), output="61")
        job = await self.job(answer)
        self.assertEqual(
            (job.state, job.lock_state, job.owners, job.read_access, job.write_access, job.output),
            ("queued", 1, ("mark@localhost", "theor"), *(("admin", "mark@localhost", "theor"),) * 2, b"a"),
        )
        self.assertEqual(self.files_of(answer), {"a": b"1"})
        locks = await self.change(
            lambda connection: connection.execute(select(running_locks.c.job_id, running_locks.c.session_id)).all()
        )
        self.assertEqual([tuple(lock) for lock in locks], [(job.job_id, session_id)])
        other = await self.server.session()
        work = self.server.resource("request_work", session_id=other, application="hello_world")
        self.assertEqual((await work).value("number_of_jobs"), "0")
        await self.server.resource("unlock_job", session_id=session_id, job_id=job.job_id)
        work = self.server.resource("request_work", session_id=other, application="hello_world")
        self.assertEqual((await work).value("number_of_jobs"), "1")

    async def test_states(self) -> None:
        session_id = await self.server.session()
        for state in ("queued", "running", "finished"):
            job = await self.job(await self.hand_in(session_id, state=state))
            self.assertEqual((job.state, job.lock_state), (state, 1))
            self.assertGreater(job.daemon_pulse, 0)
        # Unlocked by the end of the session: the queued one alone is work.
        await self.change(end_session, session_id)
        other = await self.server.session()
        work = await self.server.resource("request_work", session_id=other, application="hello_world")
        self.assertEqual((work.value("number_of_jobs"), work.value("job_id")), ("1", "1"))

    async def test_owners_that_may(self) -> None:
        """Those of the posted owners who may submit become the owners."""

        def fill(connection: Connection) -> None:
            connection.execute(insert(users_denied), {"user_name": "piet@localhost", "application": "any"})
            connection.execute(insert(groups_denied), {"group_name": "chem", "application": "hello_world"})

        await self.change(fill)
        session_id = await self.server.session()
        answer = await self.hand_in(
            session_id, owners="piet@localhost, theor, chem, mark@localhost", read_access="x", write_access="y"
        )
        job = await self.job(answer)
        self.assertEqual(job.owners, ("theor", "mark@localhost"))
        self.assertEqual(job.read_access, ("admin", "theor", "mark@localhost", "x"))
        self.assertEqual(job.write_access, ("admin", "theor", "mark@localhost", "y"))
        self.assertEqual(answer.value("owners"), "theor, mark@localhost")

    async def test_files_refused(self) -> None:
        session_id = await self.server.session()
        await self.freeze()
        await self.refuses(68, self.hand_in(session_id, ("../a", b"1")))
        await self.refuses(16, self.hand_in(session_id + 1, ("a", b"1")))
        await self.refuses(70, self.hand_in(session_id, ("a", b"1"), application="nosuchapp"))


class OverloadTests(SubmitCase):
    """More requests at once than the server takes."""

    changes = "[limits]\nrequests = 1\nback_off = 13\n"

    async def test_back_off(self) -> None:
        """All but one are told when to come back, before anything is done for them."""
        answers = await gatherResults([self.submit(("a", b"x")) for _ in range(4)])
        self.assertEqual([answer.number() for answer in answers], [None, 1, 1, 1])
        for answer in answers[1:]:
            self.assertEqual((answer.code, answer.value("timeout")), (200, "13"))
        self.assertEqual(len(list(self.root.glob("*/JOB_*"))), 1)
        self.assertEqual(self.spooled(), [])
        # Also for whom it would not have been done.
        asking = [self.server.resource("signup_resource", who=who) for who in (RESOURCE, "stranger@localhost; LGI")]
        self.assertEqual([answer.number() for answer in await gatherResults(asking)], [None, 1])
        self.assertIsNone((await self.submit()).number())


class SizeTests(SubmitCase):
    """The smallest limits."""

    edits: ClassVar[dict[str, object]] = {"max_file_size": 1}

    async def test_one_byte(self) -> None:
        self.assertEqual(self.files_of(await self.submit(("a", b"1"), ("b", b""))), {"a": b"1", "b": b""})
        await self.freeze()
        await self.refuses(64, self.submit(("a", b"12")))
