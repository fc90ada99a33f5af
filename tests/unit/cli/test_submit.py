"""lgi submit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from lgi.cli.complaint import Complaint
from lgi.cli.submit import Submission, announce, checked_files, submit_job
from lgi.client.answers import ServerRefused, ServerUnreachable
from tests.unit.cli.sessions import CommandTestCase
from tests.unit.client import fakes
from tests.unit.client.fakes import RESOURCES, SUBMIT


class Submit(CommandTestCase):
    async def refused(self, kind: type[Exception], pattern: str, submission: Submission) -> Any:
        problem = await self.assertFailure(Deferred.fromCoroutine(submit_job(self.open(), submission)), kind)
        self.assertRegex(str(problem), pattern)
        return problem

    def file(self, name: str, folder: Path | None = None) -> Path:
        folder = folder or Path(self.mktemp())
        folder.mkdir(exist_ok=True)
        path = folder / name
        path.write_text(name)
        return path

    async def test_everything_posted(self) -> None:
        self.fake.script[SUBMIT] = [fakes.submitted(12)]
        session = self.open()
        answer = await submit_job(
            session,
            Submission(
                application="lj_md",
                target_resources=("a", "b"),
                input=b"\xff",
                job_specifics="<n> 1 </n>",
                read_access=("piet", "chem"),
                write_access=("piet",),
                files=(self.file("x.xyz"),),
            ),
        )
        [(_, fields)] = self.fake.calls
        expected = {
            "project": "LGI",
            "user": "mark@localhost",
            "groups": "theor",
            "application": "lj_md",
            "target_resources": "a, b",
            "input": "ff",
            "job_specifics": "<n> 1 </n>",
            "read_access": "piet, chem",
            "write_access": "piet",
            "number_of_uploaded_files": "1",
            "uploaded_file_1": "x.xyz",
        }
        self.assertEqual(fields, expected)
        announce(session.screen, answer)
        self.assertEqual(self.said, ["Job 12 queued for hello_world (any)", "Follow it with: lgi wait 12"])

    async def test_application_of_the_configuration(self) -> None:
        self.fake.script[SUBMIT] = [fakes.submitted(12)]
        await submit_job(self.open(application="hello_world"), Submission())
        self.assertEqual(self.fake.calls[0][1]["application"], "hello_world")
        self.assertEqual(self.fake.calls[0][1]["target_resources"], "any")

    async def test_no_application(self) -> None:
        await self.refused(Complaint, "-a.*conf/defaultapplication", Submission())
        self.assertEqual(self.fake.seen, [])

    async def test_unknown_application_names_those_there_are(self) -> None:
        self.fake.script[SUBMIT] = [fakes.refusal(70, "no known resource has the application")]
        self.fake.script[RESOURCES] = [fakes.resources(one="hello_world", two="lj_md hello_world")]
        await self.refused(
            Complaint, "no known resource.*offer hello_world, lj_md$", Submission(application="nosuchapp")
        )

    async def test_other_refusals(self) -> None:
        self.fake.script[SUBMIT] = [fakes.refusal(33)]
        await self.refused(ServerRefused, "error 33", Submission(application="x"))
        self.assertEqual(len(self.fake.seen), 1)

    async def test_lost_answer_is_not_taken_for_a_failure(self) -> None:
        for lost in (fakes.cut, b"<html>gateway</html>", fakes.submitted(12)[:-20]):
            self.fake.script[SUBMIT] = [lost]
            await self.refused(Complaint, "may or may not.*lgi status", Submission(application="x"))

    async def test_never_sent(self) -> None:
        await self.stop_listening()
        await self.refused(ServerUnreachable, "connection refused", Submission(application="x"))

    async def test_back_off_is_repeated(self) -> None:
        self.fake.script[SUBMIT] = [fakes.refusal(1, "busy", timeout=0), fakes.submitted(12)]
        answer = await submit_job(self.open(), Submission(application="x", files=(self.file("x"),)))
        self.assertEqual((answer.job.job_id, len(self.fake.calls)), (12, 2))
        self.assertEqual(self.fake.calls[1][1]["uploaded_file_1"], "x")


class Files(CommandTestCase):
    def test_every_file_that_cannot_go_is_named(self) -> None:
        folder = Path(self.mktemp())
        (folder / "sub").mkdir(parents=True)
        for name in ("good", "sub/good", ".hidden"):
            (folder / name).write_text("x")
        problem = self.assertRaises(
            Complaint,
            checked_files,
            [folder / "good", folder / "sub" / "good", folder / "nothere", folder / "sub", folder / ".hidden"],
        )
        for part in (
            f"{folder / 'good'} and {folder / 'sub/good'} have the same name",
            f"{folder / 'nothere'}: there is no such file",
            f"{folder / 'sub'}: it is not a file",
            f"{folder / '.hidden'}: '.hidden' cannot be the name",
            "nothing was sent",
        ):
            self.assertIn(part, str(problem))

    def test_good_ones(self) -> None:
        path = Path(self.mktemp())
        path.touch()
        self.assertEqual(checked_files([path]), (path,))
