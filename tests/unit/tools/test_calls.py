"""What LGI_qstat, LGI_qsub and LGI_qdel ask a server, and what they do with its answers."""

from __future__ import annotations

import re
from pathlib import Path

from lgi.client.answers import ServerRefused, ServerUnreachable
from lgi.tools import qstat, qsub
from lgi.tools.account import JobAccount, Papers, UserAccount
from lgi.tools.calls import Calls
from lgi.tools.connection import explained
from lgi.tools.notes import Notes
from tests.unit.client.fakes import STATE, SUBMIT, cut, job, listed, refusal
from tests.unit.tools.case import DATA, CallsTestCase, recorded

PAPERS = Papers(key=Path("k"), certificate=Path("c"), authorities=Path("a"), strict=True)
RESOURCE = JobAccount(
    papers=PAPERS,
    server="https://grid.example/LGI",
    project="LGI",
    owners="mark@localhost, theor",
    read_access="admin, mark@localhost",
    write_access="admin",
)
SIGN_UP, SUBMIT_AS_RESOURCE, SIGN_OFF = qsub.SIGN_UP, qsub.SUBMIT_AS_RESOURCE, qsub.SIGN_OFF


def of(name: str) -> bytes:
    return (DATA / f"{name}.answer").read_bytes()


class QstatTests(CallsTestCase):
    """Lists, details and counts."""

    async def show(self, *words: str) -> str:
        await qstat.answer(self.ask, qstat.TOOL.parse(list(words)))
        return self.out.text

    async def test_pages_until_one_is_empty(self) -> None:
        self.fake.script[STATE] = [of("qstat_list"), listed(job(7), job(8)), of("qstat_empty")]
        text = await self.show("-s", "queued", "-a", "!lj_md")
        self.assertIn("    5 |      8 |       queued |", text)
        self.assertIn("Number of jobs listed : 5\n", text)
        self.assertEqual([fields["start"] for _, fields in self.fake.calls], ["0", "3", "5"])
        self.assertEqual({fields["limit"] for _, fields in self.fake.calls}, {"1024"})
        self.assertEqual(
            {(fields["state"], fields["application"]) for _, fields in self.fake.calls}, {("queued", "!lj_md")}
        )

    async def test_the_list_as_recorded(self) -> None:
        for words, name in (((), "qstat_list.txt"), (("-x",), "qstat_list.xml")):
            self.fake.script[STATE] = [of("qstat_list"), of("qstat_empty")]
            before = len(self.out.text)
            await self.show(*words)
            self.assertEqual(self.out.text[before:], recorded(name))
        self.assertNotIn("state", self.fake.calls[0][1])

    async def test_the_numbers_go_on_in_xml(self) -> None:
        self.fake.script[STATE] = [of("qstat_list"), listed(job(7)), of("qstat_empty")]
        text = await self.show("-x")
        self.assertEqual(re.findall(r"<job number='(\d+)'>", text), ["1", "2", "3", "4"])
        self.assertIn("<number_of_jobs> 4 </number_of_jobs> \n", text)

    async def test_nothing_is_printed_of_a_list_that_is_refused(self) -> None:
        self.fake.script[STATE] = [refusal(35, "no")]
        with self.assertRaises(ServerRefused):
            await self.show()
        self.assertEqual(self.out.text, "")

    async def test_a_count(self) -> None:
        self.fake.script[STATE] = [of("qstat_count")]
        self.assertEqual(await self.show("-cnt"), recorded("qstat_count.txt"))
        self.assertEqual(self.fake.calls[0][1]["limit"], "0")

    async def test_one_job(self) -> None:
        self.fake.script[STATE] = [of("qstat_detail_finished")]
        self.assertEqual(await self.show("2"), recorded("qstat_detail_finished.txt"))
        self.assertEqual(
            self.fake.calls[0][1],
            {"project": "LGI", "user": "mark@localhost", "groups": "theor", "job_id": "2"},
        )

    async def test_servers_and_resources(self) -> None:
        self.fake.script[qstat.SERVERS] = [of("qstat_servers")]
        self.fake.script[qstat.RESOURCES] = [of("qstat_resources")]
        for words, expected in (
            (("-l",), recorded("qstat_servers.txt")),
            (("-L",), recorded("qstat_resources.txt")),
            (("-l", "-L"), recorded("qstat_resources.txt")),
            (("-l", "-x"), recorded("qstat_servers.xml")),
            (("-L", "-l", "-x"), recorded("qstat_servers.xml") + recorded("qstat_resources.xml")),
        ):
            before = len(self.out.text)
            await self.show(*words)
            self.assertEqual(self.out.text[before:], expected, words)

    async def test_a_busy_server_is_asked_again(self) -> None:
        self.fake.script[STATE] = [refusal(1, "busy", 0), of("qstat_count")]
        self.assertEqual(await self.show("-cnt"), recorded("qstat_count.txt"))

    async def test_what_makes_no_sense_together(self) -> None:
        for words in (["1", "2"], ["x"], ["1", "-cnt"], ["-L", "1"], ["-cnt", "-l"], ["-1"], ["1234567890"]):
            with self.assertRaises(SystemExit) as end:
                qstat.status(words)
            self.assertEqual(end.exception.code, 2, words)

    async def test_notes_tell_no_contents(self) -> None:
        self.fake.script[SUBMIT] = [of("qsub")]
        ask = Calls(server=self.server, patience=self.ask.patience, notes=Notes(level=2, err=self.err.stream))
        await ask.ask(SUBMIT, {"application": "hello_world", "input": b"secret words".hex()})
        self.assertIn("application=hello_world, input=(12 bytes)", self.err.text)
        self.assertNotIn(b"secret".hex(), self.err.text)


class QsubTests(CallsTestCase):
    """Submissions."""

    def job(self, *files: Path, **fields: str | int) -> qsub.Submission:
        posted: dict[str, str | int] = {"application": "hello_world", "target_resources": "any", **fields}
        account = UserAccount(
            papers=PAPERS,
            server="https://grid.example/LGI",
            project="LGI",
            user="mark@localhost",
            groups=("theor",),
            application="",
            target_resources="any",
            job_specifics="",
        )
        return qsub.Submission(account=account, fields=posted, files=files)

    async def test_a_user_submits_with_a_key_and_files(self) -> None:
        self.fake.script[SUBMIT] = [of("qsub")]
        Path("a b").write_text("two\n")
        Path("empty").write_text("")
        response = await qsub.submit_as_user(self.ask, self.job(Path("a b"), Path("empty"), input="6869"))
        self.assertEqual(f"{response.text}\n", recorded("qsub.xml"))
        fields = self.fake.calls[0][1]
        self.assertRegex(fields["submission_key"], r"\A[0-9a-f]{32}\Z")
        self.assertEqual((fields["input"], fields["number_of_uploaded_files"]), ("6869", "2"))
        self.assertEqual(fields["uploaded_file_1"], "two\n")

    async def test_it_is_said_where_nobody_knows(self) -> None:
        self.fake.script[SUBMIT] = [cut]
        with self.assertRaises(ServerUnreachable):
            await qsub.submit_as_user(self.ask, self.job())
        self.assertIn("it is not known whether the job has been submitted", self.err.text)

    async def test_a_resource_submits_in_a_session(self) -> None:
        self.fake.script[SIGN_UP] = [of("qsub_resource")]
        self.fake.script[SUBMIT_AS_RESOURCE] = [of("qsub_resource")]
        self.fake.script[SIGN_OFF] = [of("qsub_resource")]
        ask = Calls(server=self.server, patience=self.ask.patience, notes=Notes())
        response = await qsub.submit_as_resource(ask, RESOURCE, self.job(read_access="admin, mark@localhost"))
        self.assertEqual(f"{response.text}\n", recorded("qsub_resource.xml"))
        self.assertEqual([path for path, _ in self.fake.calls], [SIGN_UP, SUBMIT_AS_RESOURCE, SIGN_OFF])
        self.assertEqual(
            self.fake.calls[1][1],
            {
                "project": "LGI",
                "session_id": "2",
                "application": "hello_world",
                "target_resources": "any",
                "read_access": "admin, mark@localhost",
                "state": "queued",
                "owners": "mark@localhost, theor",
            },
        )
        self.assertEqual(self.fake.calls[2][1], {"project": "LGI", "session_id": "2"})

    async def test_the_session_ends_where_the_job_is_refused(self) -> None:
        self.fake.script[SIGN_UP] = [of("qsub_resource")]
        self.fake.script[SUBMIT_AS_RESOURCE] = [refusal(70)]
        self.fake.script[SIGN_OFF] = [of("qsub_resource")]
        with self.assertRaises(ServerRefused):
            await qsub.submit_as_resource(self.ask, RESOURCE, self.job())
        self.assertEqual(self.fake.calls[-1][0], SIGN_OFF)

    async def test_a_job_is_submitted_also_where_the_session_does_not_end(self) -> None:
        self.fake.script[SIGN_UP] = [of("qsub_resource")]
        self.fake.script[SUBMIT_AS_RESOURCE] = [of("qsub_resource")]
        self.fake.script[SIGN_OFF] = [refusal(5, "no")]
        response = await qsub.submit_as_resource(self.ask, RESOURCE, self.job())
        self.assertEqual(response.one("job").value("job_id"), "4")
        self.assertIn("session 2 goes on", self.err.text)

    async def test_how_failures_are_said(self) -> None:
        url = "https://grid.example/LGI"
        for problem, expected in (
            (
                ServerRefused(70, "no such\napplication"),
                f"\nError message returned by server {url} : no such?application\n\n",
            ),
            (
                ServerUnreachable(f"{url}: connection refused"),
                f"\nError posting to server {url}. connection refused\n\n",
            ),
            (OSError(28, "No space left", "dl/x"), "LGI_qsub: dl/x: No space left\n"),
        ):
            before = len(self.err.text)
            self.assertEqual(explained(qsub.TOOL, problem, url), 1)
            self.assertEqual(self.err.text[before:], expected)
        with self.assertRaises(ZeroDivisionError):
            explained(qsub.TOOL, ZeroDivisionError(), url)
