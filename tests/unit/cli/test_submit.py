"""lgi submit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from lgi.cli.complaint import Complaint
from lgi.cli.references import Naming
from lgi.cli.results import fetch_results
from lgi.cli.submit import Submission, announce, submit_all, submit_job
from lgi.cli.uploads import checked_uploads
from lgi.client.answers import ServerRefused, ServerUnreachable
from tests.unit.cli.sessions import SERVERS, CommandTestCase
from tests.unit.client import fakes
from tests.unit.client.fakes import RESOURCES, STATE, SUBMIT


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
                files=(("x.xyz", self.file("x.xyz")),),
            ),
        )
        [fields] = self.asked(SUBMIT)
        key = fields.pop("submission_key")
        self.assertRegex(key, r"\A[A-Za-z0-9_-]{32}\Z")
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
        announce(session.screen, Naming({}), answer)
        self.assertEqual(self.said, ["Job 12 queued for hello_world (any)", "Follow it with: lgi wait 12"])

    async def test_application_of_the_configuration(self) -> None:
        self.fake.script[SUBMIT] = [fakes.submitted(12)]
        await submit_job(self.open(application="hello_world"), Submission())
        self.assertEqual(self.asked(SUBMIT)[0]["application"], "hello_world")
        self.assertEqual(self.asked(SUBMIT)[0]["target_resources"], "any")

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
        self.assertEqual(len(self.asked(SUBMIT)), 1)

    async def test_lost_answer_is_not_taken_for_a_failure(self) -> None:
        for lost in (fakes.cut, b"<html>gateway</html>", fakes.submitted(12)[:-20]):
            self.fake.script[SUBMIT] = [lost]
            # An old server would make a second job of a second submission.
            await self.refused(Complaint, "may or may not.*lgi list before you submit", Submission(application="x"))
        self.assertEqual(len(self.asked(SUBMIT)), 3)

    async def test_never_sent(self) -> None:
        await self.stop_listening()
        await self.refused(ServerUnreachable, "connection refused", Submission(application="x"))

    async def test_back_off_is_repeated(self) -> None:
        self.fake.script[SUBMIT] = [fakes.refusal(1, "busy", timeout=0), fakes.submitted(12)]
        placed = await submit_job(self.open(), Submission(application="x", files=(("x", self.file("x")),)))
        first, second = self.asked(SUBMIT)
        self.assertEqual((placed.answer.job.job_id, first), (12, second))
        self.assertEqual(second["uploaded_file_1"], "x")

    async def test_lost_answer_of_a_server_that_remembers(self) -> None:
        self.is_new()
        self.fake.script[SUBMIT] = [fakes.cut, fakes.submitted(12)]
        placed = await submit_job(self.open(unreachable=5), Submission(application="x"))
        first, second = self.asked(SUBMIT)
        self.assertEqual((placed.answer.job.job_id, first), (12, second))

    async def test_how_to_repeat_it(self) -> None:
        self.is_new()
        self.fake.script[SUBMIT] = [fakes.cut]
        problem = await self.refused(Complaint, "may or may not", Submission(application="x"))
        key = self.asked(SUBMIT)[0]["submission_key"]
        self.assertIn(f"lgi --server {self.url} submit --key {key} ", str(problem))

    async def test_key_of_the_user(self) -> None:
        self.is_new(f"{self.url}2", f"{self.url}3")
        answers = {"": SUBMIT, "2": f"/LGI2/{SUBMIT}", "3": f"/LGI3/{SUBMIT}"}
        for path in answers.values():
            self.fake.script[path] = [fakes.submitted(12)]
            self.fake.script[path.replace("submit_job", "project_server_list")] = self.fake.script[SERVERS]

        async def server_of(key: str) -> str:
            return (await submit_job(self.open(alone=False), Submission(application="x", key=key))).server

        self.assertEqual(len({await server_of("run7") for _ in range(8)}), 1)
        self.assertEqual(len({await server_of(f"run{n}") for n in range(30)}), 3)

    async def test_directories(self) -> None:
        submission = Submission(application="x", files=(("run1/out/x", self.file("x")), ("y", self.file("y"))))
        await self.refused(Complaint, "too old for directories: pack run1 into one file; nothing", submission)
        self.assertEqual(self.asked(SUBMIT), [])
        self.is_new()
        self.fake.script[SUBMIT] = [fakes.submitted(12)]
        await submit_job(self.open(), submission)
        self.assertIn(b'filename="run1/out/x"', self.fake.bodies[-1])

    async def test_several(self) -> None:
        self.fake.script[SUBMIT] = [fakes.submitted(12), fakes.submitted(13)]
        jobs = [Submission(application="x", input=text) for text in (b"a", b"b")]
        self.assertEqual(await submit_all(self.open(), jobs, several=True), 0)
        self.assertEqual([fields["input"] for fields in self.asked(SUBMIT)], ["61", "62"])
        self.assertEqual(self.said[-1], "Follow them with: lgi wait 12 13")
        self.assertEqual(len(self.said), 3)

    async def test_several_of_which_one_is_refused(self) -> None:
        self.fake.script[SUBMIT] = [fakes.submitted(12), fakes.refusal(33, "the limit is reached")]
        jobs = [Submission(application="x")] * 3
        self.assertEqual(await submit_all(self.open(json=True), jobs, several=True), 1)
        self.assertEqual([job["job_id"] for job in self.value], [12])
        self.assertRegex(self.complaints[0], "1 of 3 jobs were submitted, 2 were not: the limit is reached")

    async def test_quiet(self) -> None:
        self.fake.script[SUBMIT] = [fakes.submitted(12)]
        self.assertEqual(await submit_all(self.open(), [Submission(application="x")], quiet=True), 0)
        self.assertEqual(self.said, ["12"])

    async def test_followed(self) -> None:
        self.fake.script[SUBMIT] = [fakes.submitted(12)]
        self.fake.script[STATE] = [fakes.detail(12, "finished", specifics="<exit_status> 3 </exit_status>")]
        self.assertEqual(await submit_all(self.open(json=True), [Submission(application="x")], follow=True), 1)
        self.assertEqual((self.value["reference"], self.value["exit_status"]), ("12", 3))


class Results(CommandTestCase):
    async def test_all_files_with_their_directories(self) -> None:
        self.fake.files = {"a.csv": b"1,2", "run1/out/b.csv": b"3"}
        self.fake.script[f"repository/b07/{fakes.STORE}/run1/out/b.csv"] = [b"3"]
        target = Path(self.mktemp())
        fetched = await fetch_results(self.open(), self.store, target)
        self.assertEqual((fetched.failed, (target / "a.csv").read_bytes()), (False, b"1,2"))
        self.assertEqual(sorted(value["name"] for value in fetched.values), ["a.csv", "run1/out/b.csv"])
        self.assertIn(f"{target}/a.csv 3 bytes", self.said)

    async def test_one_that_cannot_be_written(self) -> None:
        self.fake.files = {"a.csv": b"1,2", "b.csv": b"3"}
        target = Path(self.mktemp())
        (target / "a.csv").mkdir(parents=True)
        fetched = await fetch_results(self.open(), self.store, target)
        self.assertEqual((fetched.failed, [value["name"] for value in fetched.values]), (True, ["b.csv"]))
        self.assertRegex(self.complaints[0], "a.csv")

    async def test_none(self) -> None:
        fetched = await fetch_results(self.open(), self.store, Path(self.mktemp()))
        self.assertEqual((fetched.failed, fetched.values), (False, []))
        self.assertIn("no files", self.complaints[0])


class Files(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.notes: list[str] = []

    def make(self, *names: str) -> None:
        for name in names:
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_text(name)

    def names(self, *given: str) -> list[str]:
        return [name for name, _path in checked_uploads([self.folder / name for name in given], self.notes.append)]

    def refused(self, *given: str) -> str:
        problem = self.assertRaises(Complaint, self.names, *given)
        self.assertIn("nothing was sent", str(problem))
        return str(problem)

    def test_names(self) -> None:
        self.make("x", "sub/y", "run1/out/a.csv", "run1/b")
        self.assertEqual(self.names("x", "sub/y", "run1"), ["x", "y", "run1/b", "run1/out/a.csv"])
        self.assertEqual(self.names("run1/", "x", "x"), ["run1/b", "run1/out/a.csv", "x"])
        self.assertEqual(self.notes, [])

    def test_every_file_that_cannot_go_is_named(self) -> None:
        self.make("good", "sub/good", ".hidden")
        (self.folder / "empty").mkdir()
        text = self.refused("good", "sub/good", "nothere", ".hidden", "empty")
        for part in (
            f"{self.folder / 'good'} gets the same name",
            f"{self.folder / 'nothere'}: No such file",
            f"{self.folder / '.hidden'}: '.hidden' cannot be the name",
            f"{self.folder / 'empty'}: there is no file in it",
        ):
            self.assertIn(part, text)

    def test_hidden_ones_in_a_directory_stay_here(self) -> None:
        self.make("run1/x", "run1/.git/config", "run1/.cache")
        self.assertEqual(self.names("run1"), ["run1/x"])
        self.assertRegex(self.notes[0], r"left out.*\.cache, .*\.git$")

    def test_links(self) -> None:
        self.make("x", "run1/y", "away/z")
        (self.folder / "run1/link").symlink_to(self.folder.absolute() / "x")
        self.assertEqual(self.names("run1"), ["run1/link", "run1/y"])
        (self.folder / "run1/loop").symlink_to(self.folder.absolute() / "run1")
        self.assertIn("link to a directory", self.refused("run1"))

    def test_file_in_the_way_of_a_directory(self) -> None:
        self.make("run1/x", "other/run1")
        self.assertIn("would be a file where the directory", self.refused("run1", "other/run1"))
