"""lgi logs: what is printed once, and what is added while a job runs."""

from __future__ import annotations

import io
from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.server import Request

from lgi.cli import logs as module
from lgi.cli.complaint import Complaint
from lgi.cli.logs import Logs
from lgi.client.answers import ServerRefused
from lgi.client.reference import JobReference
from tests.unit.cli.sessions import CommandTestCase
from tests.unit.client import fakes
from tests.unit.client.fakes import STATE


class LogsTests(CommandTestCase):
    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.patch(module, "PAUSE", 0.01)
        # The fake server speaks no TLS, without which no repository is spoken to.
        self.patch(module, "repository_of", lambda _session, _job: self.store)

    def job(self, state: str = "finished", output: bytes = b"", **files: bytes) -> bytes:
        """The answer about a job with these files, "_" for ".", which are in the repository from now on."""
        content = {name.replace("_", "."): data for name, data in files.items()}
        self.fake.files.update(content)
        return fakes.detail(7, state, output=output, files={name: len(data) for name, data in content.items()})

    async def logs(self, *names: str, follow: bool = False, lines: int | None = None, **kind: Any) -> int:
        opened = self.open(**kind)
        return await Logs(opened, JobReference(job_id=7), names, follow=follow, lines=lines).show()

    async def test_output_alone_has_no_heading(self) -> None:
        self.fake.script[STATE] = [self.job(output=b"hello\n", data_csv=b"1,2\n")]
        self.assertEqual(await self.logs(), 0)
        self.assertEqual(self.out.getvalue(), "hello\n")

    async def test_several(self) -> None:
        self.fake.script[STATE] = [self.job(output=b"no end", a_log=b"A\n", b_err=b"B\n", data_csv=b"1\n")]
        self.assertEqual(await self.logs(), 0)
        text = "==> LGI_output <==\nno end\n\n==> a.log <==\nA\n\n==> b.err <==\nB\n"
        self.assertEqual(self.out.getvalue(), text)

    async def test_names_and_patterns(self) -> None:
        self.fake.script[STATE] = [self.job(output=b"hello\n", a_log=b"A\n", data_csv=b"1\n")]
        for names, text in ((["data.csv"], "1\n"), (["LGI_output"], "hello\n"), (["*.c*"], "1\n")):
            self.assertEqual(await self.logs(*names), 0)
            self.assertEqual(self.out.getvalue(), text)
        self.assertEqual(await self.logs("data.csv", "no.log"), 1)
        self.assertRegex(self.complaints[0], "no.log: there is no such file")

    async def test_logs_in_directories(self) -> None:
        for name in ("run1/out/a.log", "run1/LGI_x", "run1/x.csv"):
            self.fake.script[f"repository/b07/{fakes.STORE}/{name}"] = [name.encode() + b"\n"]
        files = dict.fromkeys(("run1/out/a.log", "run1/LGI_x", "run1/x.csv"), 20)
        self.fake.script[STATE] = [fakes.detail(7, "finished", files=files)]
        await self.logs()
        self.assertEqual([line for line in self.said if line and "=" not in line], ["run1/LGI_x", "run1/out/a.log"])

    async def test_last_lines(self) -> None:
        self.fake.script[STATE] = [self.job(output=b"1\n2\n3\n", a_log=b"A\nB\nC\n")]
        await self.logs(lines=1)
        self.assertEqual([line for line in self.said if "=" not in line and line], ["3", "C"])

    async def test_nothing(self) -> None:
        self.fake.script[STATE] = [self.job("queued")]
        self.assertEqual(await self.logs(), 0)
        self.assertEqual(self.complaints, ["lgi: job 7 (queued) has no output and no log files"])

    async def test_json(self) -> None:
        self.fake.script[STATE] = [self.job(output=b"hello\xff\n", a_log=b"A\n")]
        self.assertEqual(await self.logs(json=True), 0)
        logs = [(one["name"], one["text"]) for one in self.value["logs"]]
        self.assertEqual(
            (logs, self.value["state"]), ([("LGI_output", "hello\\xff\n"), ("a.log", "A\n")], "finished")
        )

    async def test_nothing_steers_a_terminal_but_a_pipe_gets_all(self) -> None:
        self.fake.script[STATE] = [self.job(output=b"\x1b[2J\xc3\xa9\xff")]
        await self.logs(terminal=True)
        self.assertEqual(self.out.getvalue(), "\\x1b[2Jé\\xff\n")
        opened = self.open()
        opened.screen.out = io.TextIOWrapper(io.BytesIO())
        await Logs(opened, JobReference(job_id=7), (), follow=False, lines=None).show()
        self.assertEqual(opened.screen.out.buffer.getvalue(), b"\x1b[2J\xc3\xa9\xff")

    async def test_followed_until_the_job_is_over(self) -> None:
        steps: list[Any] = [
            lambda: self.job("queued"),
            lambda: self.job("running", output=b"1\n"),
            lambda: self.job("running", output=b"1\n2\n", a_log=b"A\n"),
            lambda: self.job("running", output=b"1\n2\n", a_log=b"A\nB\n"),
            lambda: self.job("finished", output=b"1\n2\n3\n", a_log=b"A\nB\nC\n"),
        ]

        def say(_request: Request) -> Any:
            return steps.pop(0)()

        self.fake.script[STATE] = [say]
        self.assertEqual(await self.logs(follow=True), 0)
        lines = [line for line in self.said if line]
        output, log = "==> LGI_output <==", "==> a.log <=="
        self.assertEqual(lines, [output, "1", "2", log, "A", "B", output, "3", log, "C"])

    async def test_what_is_written_anew(self) -> None:
        answers = [
            self.job("running", output=b"step 1\n", a_log=b"long enough\n"),
            self.job("finished", output=b"done\n", a_log=b"short\n"),
        ]
        contents = [b"long enough\n", b"short\n"]

        def say(_request: Request) -> Any:
            self.fake.files["a.log"] = contents.pop(0)
            return answers.pop(0)

        self.fake.script[STATE] = [say]
        await self.logs(follow=True)
        self.assertIn("done", self.said)
        self.assertIn("short", self.said)
        self.assertEqual(len(self.complaints), 2)

    async def test_deleted_meanwhile(self) -> None:
        self.fake.script[STATE] = [self.job("running", output=b"1\n"), fakes.refusal(15)]
        problem = await self.assertFailure(Deferred.fromCoroutine(self.logs(follow=True)), Complaint)
        self.assertIn("has been deleted", str(problem))

    async def test_one_that_never_was(self) -> None:
        self.fake.script[STATE] = [fakes.refusal(15)]
        await self.assertFailure(Deferred.fromCoroutine(self.logs(follow=True)), ServerRefused)
