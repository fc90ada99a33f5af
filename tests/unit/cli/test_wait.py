"""lgi wait: what it says, when it ends, and with what."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.web.server import NOT_DONE_YET, Request

from lgi.cli.follow import crowd, picture
from lgi.cli.references import Naming
from lgi.cli.wait import TIMED_OUT, wait_for
from lgi.client.answers import ServerRefused, read_job, read_response
from lgi.client.watch import Followed
from tests.unit.cli.sessions import CommandTestCase
from tests.unit.client import fakes
from tests.unit.client.fakes import STATE

DONE = "<exit_status> 0 </exit_status>"
FAILED = "<exit_status> 3 </exit_status>"


class Wait(CommandTestCase):
    async def wait(self, *jobs: int, timeout: float | None = None, first: bool = False, **kind: Any) -> int:
        places = [(self.url, job_id) for job_id in jobs]
        return await wait_for(self.open(**kind), places, timeout=timeout, interval=0.01, first=first)

    def changes(self, *answers: bytes) -> None:
        """Have a server that tells of changes say these in turn; a look at a job in full says that it is finished."""
        given = list(answers)

        def say(request: Request) -> Any:
            if b"jobs" in request.args:
                return given.pop(0) if given else NOT_DONE_YET
            return fakes.detail(int(request.args[b"job_id"][0]), "finished", output=b"result")

        self.is_new()
        self.fake.script[STATE] = [say]

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
        self.assertEqual((self.value["job_id"], self.value["state"]), (7, "deleted"))

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
        self.assertEqual((self.value["reference"], self.value["state"]), ("7", None))

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
        self.assertEqual(self.complaints, ["lgi: 2 jobs go on; follow them again with: lgi wait 7 8"])

    async def test_timeout_of_a_job_that_is_over(self) -> None:
        self.by_job(j7=[fakes.detail(7, "finished")], j8=[fakes.detail(8, "running")])
        self.assertEqual(await self.wait(7, timeout=0), 0)
        self.assertEqual(await self.wait(7, 8, timeout=0), TIMED_OUT)
        self.assertEqual(self.complaints, ["lgi: not over yet: job 8 (running on any)"])
        self.assertEqual(len(self.asked(STATE)), 3)

    async def test_any_of_several(self) -> None:
        for specifics, status in ((DONE, 0), (FAILED, 1)):
            self.by_job(
                j7=[fakes.detail(7, "running")],
                j8=[fakes.detail(8, "running"), fakes.detail(8, "finished", specifics=specifics)],
            )
            self.assertEqual(await self.wait(7, 8, first=True, json=True), status)
            self.assertEqual(self.value["job_id"], 8)

    async def test_any_of_several_that_are_not_there(self) -> None:
        self.fake.script[STATE] = [fakes.refusal(15)]
        self.assertEqual(await self.wait(7, 8, first=True), 1)
        self.assertEqual(len(self.complaints), 2)

    async def test_told_by_the_server(self) -> None:
        self.changes(
            fakes.answer(f"<gone>  </gone> {fakes.job(7, input=None)} {fakes.job(8, 'running', input=None)}"),
            fakes.answer("<gone>  </gone>"),
            fakes.answer(f"<gone>  </gone> {fakes.job(7, 'finished', input=None)}"),
            fakes.answer(f"<gone>  </gone> {fakes.job(8, 'finished', input=None)}"),
        )
        self.assertEqual(await self.wait(7, 8, json=True), 0)
        self.assertEqual([job["output"] for job in self.value], ["result", "result"])
        known = [fields["jobs"] for fields in self.asked(STATE) if "jobs" in fields]
        self.assertEqual(known, ["7:?, 8:?", "7:queued, 8:running", "7:queued, 8:running", "8:running"])

    async def test_a_crowd_on_a_terminal(self) -> None:
        jobs = range(1, 31)
        self.changes(
            fakes.answer("<gone>  </gone> " + " ".join(fakes.job(n, "running", input=None) for n in jobs)),
            fakes.answer("<gone>  </gone> " + " ".join(fakes.job(n, "finished", input=None) for n in jobs)),
        )
        self.assertEqual(await self.wait(*jobs, terminal=True), 0)
        self.assertIn("30 of 30 are over", self.out.getvalue())

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
        jobs = [Followed(server="a", job_id=7, answer=answer), Followed(server="b", job_id=8)]
        console.print(picture(jobs, Naming({"a": "one", "b": "two"}), now=1065))
        text = console.export_text()
        self.assertIn("for 1 min 5 s", text)
        self.assertIn("job 7@one", text)
        self.assertIn("job 8@two", text)
        self.assertIn("b\\x1b[2J", text)

    def test_crowd(self) -> None:
        from rich.console import Console

        def followed(state: str, count: int, specifics: str = "") -> list[Followed]:
            answer = read_job(read_response(fakes.detail(7, state, specifics=specifics)).find("job"))
            return [Followed(server="a", job_id=7, answer=answer) for _ in range(count)]

        jobs = followed("queued", 12) + followed("running", 5) + followed("finished", 3, DONE)
        jobs += followed("finished", 1, FAILED) + [Followed(server="a", job_id=7) for _ in range(4)]
        console = Console(width=80, record=True, file=self.screen().out)
        console.print(crowd(jobs, ["job 3: finished\x1b[2J"]))
        text = console.export_text()
        for part in ("not known 4", "queued 12", "running 5", "finished 4 (1 with a failure)", "4 of 25 are over"):
            self.assertIn(part, text)
        self.assertIn("\\x1b[2J", text)
