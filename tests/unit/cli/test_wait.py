"""lgi wait: what it says, when it ends, and with what."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.web.server import NOT_DONE_YET, Request

from lgi.cli.wait import TIMED_OUT, Followed, picture, wait_for
from lgi.client.answers import ServerRefused, read_job, read_response
from tests.unit.cli.sessions import CommandTestCase
from tests.unit.client import fakes
from tests.unit.client.fakes import STATE

DONE = "<exit_status> 0 </exit_status>"
FAILED = "<exit_status> 3 </exit_status>"


class Wait(CommandTestCase):
    async def wait(self, *jobs: int, timeout: float | None = None, **kind: Any) -> int:
        return await wait_for(self.open(**kind), jobs, timeout=timeout, interval=0.01)

    def by_job(self, **answers: list[bytes]) -> None:
        """Script the answers for each job by itself."""
        rest = {int(name[1:]): list(given) for name, given in answers.items()}

        def say(request: Request) -> Any:
            given = rest[int(request.args[b"job_id"][0])]
            return given.pop(0) if len(given) > 1 else given[0]

        self.fake.script[STATE] = [say]

    async def test_one_line_for_each_change(self) -> None:
        self.fake.script[STATE] = [
            fakes.detail(7),
            fakes.detail(7),
            fakes.detail(7, "running", target="node@localhost"),
            fakes.detail(7, "running", target="node@localhost"),
            fakes.detail(7, "finished", specifics=DONE),
        ]
        self.assertEqual(await self.wait(7), 0)
        lines = ["job 7: queued", "job 7: running on node@localhost", "job 7: finished (exit status 0)"]
        self.assertEqual((self.said, self.complaints), (lines, []))

    async def test_exit_status(self) -> None:
        for state, specifics, status in (
            ("finished", "", 0),
            ("finished", DONE, 0),
            ("finished", FAILED, 1),
            ("aborted", "", 1),
        ):
            self.fake.script[STATE] = [fakes.detail(7, state, specifics=specifics)]
            self.assertEqual(await self.wait(7), status, (state, specifics))

    async def test_deleted_meanwhile(self) -> None:
        self.fake.script[STATE] = [fakes.detail(7), fakes.refusal(15)]
        self.assertEqual(await self.wait(7), 1)
        self.assertEqual(self.said, ["job 7: queued", "job 7: deleted"])
        self.fake.script[STATE] = [fakes.detail(7), fakes.refusal(15)]
        self.assertEqual(await self.wait(7, json=True), 1)
        self.assertEqual(self.value, {"job_id": 7, "state": "deleted"})

    async def test_several(self) -> None:
        self.by_job(
            j7=[fakes.detail(7), fakes.detail(7, "finished")],
            j8=[fakes.detail(8, "running"), fakes.detail(8, "running"), fakes.detail(8, "aborted")],
        )
        self.assertEqual(await self.wait(7, 8, 7, json=True), 1)
        self.assertEqual([(job["job_id"], job["state"]) for job in self.value], [(7, "finished"), (8, "aborted")])

    async def test_one_that_never_was_does_not_stop_the_others(self) -> None:
        self.by_job(j7=[fakes.refusal(15, "there is no such job")], j8=[fakes.detail(8), fakes.detail(8, "finished")])
        self.assertEqual(await self.wait(7, 8), 1)
        self.assertEqual(self.said, ["job 8: queued", "job 8: finished"])
        self.assertEqual(len(self.complaints), 1)
        self.assertIn("job 7: there is no such job", self.complaints[0])

    async def test_refused_altogether(self) -> None:
        self.by_job(j7=[fakes.refusal(2, "not you")], j8=[fakes.detail(8)])
        problem: Any = await self.assertFailure(Deferred.fromCoroutine(self.wait(7, 8)), ServerRefused)
        self.assertEqual(problem.number, 2)

    async def test_timeout(self) -> None:
        self.by_job(j7=[fakes.detail(7, "running")], j8=[fakes.detail(8, "finished")])
        self.assertEqual(await self.wait(7, 8, timeout=0.3), TIMED_OUT)
        self.assertEqual(self.complaints, ["lgi: not over after 0.3 s: job 7 (running on any)"])

    async def test_timeout_while_the_server_says_nothing(self) -> None:
        self.fake.script[STATE] = [fakes.never]
        self.assertEqual(await self.wait(7, timeout=0.1, json=True), TIMED_OUT)
        self.assertEqual(self.value, {"job_id": 7, "state": None})

    async def test_short_outage(self) -> None:
        self.fake.script[STATE] = [fakes.detail(7), fakes.cut, fakes.detail(7, "finished")]
        self.assertEqual(await self.wait(7), 0)
        self.assertEqual(len(self.complaints), 1)
        self.assertIn("still trying", self.complaints[0])

    async def test_locked_job(self) -> None:
        self.fake.script[STATE] = [fakes.refusal(1, "busy", timeout=0), fakes.detail(7, "finished")]
        self.assertEqual(await self.wait(7), 0)

    async def test_cancelling_ends_everything(self) -> None:
        asked: Deferred[None] = Deferred()

        def silent(_request: Request) -> Any:
            if not asked.called:
                asked.callback(None)
            return NOT_DONE_YET

        self.fake.script[STATE] = [silent]
        waiting = Deferred.fromCoroutine(self.wait(7, 8))
        await asked
        waiting.cancel()
        await self.assertFailure(waiting, CancelledError)

    async def test_picture_on_a_terminal(self) -> None:
        self.fake.script[STATE] = [
            fakes.detail(7, "running", output=b"step 1\nstep 2\n", target="node"),
            fakes.detail(7, "finished", specifics=DONE),
        ]
        self.assertEqual(await self.wait(7, terminal=True), 0)
        shown = self.out.getvalue()
        for part in ("running on node", "step 2", "finished (exit status 0)"):
            self.assertIn(part, shown)

    def test_picture(self) -> None:
        from rich.console import Console

        answer = read_job(read_response(fakes.detail(7, "running", output=b"a\nb\x1b[2J\n", stamp=1000)).find("job"))
        console = Console(width=80, record=True, file=self.screen().out)
        console.print(picture([Followed(job_id=7, answer=answer), Followed(job_id=8)], now=1065))
        text = console.export_text()
        self.assertIn("for 1 min 5 s", text)
        self.assertIn("job 8", text)
        self.assertIn("b\\x1b[2J", text)
