"""lgi delete and lgi cancel."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.server import Request

from lgi.cli.complaint import Complaint
from lgi.cli.delete import cancel_jobs, delete_jobs
from lgi.client.reference import JobReference
from tests.unit.cli.sessions import CommandTestCase
from tests.unit.client import fakes
from tests.unit.client.fakes import DELETE, STATE


def refs(*jobs: int) -> list[JobReference]:
    return [JobReference(job_id=job_id) for job_id in jobs]


class Delete(CommandTestCase):
    async def test_what_became_of_each(self) -> None:
        self.fake.script[DELETE] = [
            fakes.detail(6, "deleted", input=None),
            fakes.refusal(35, "not yours"),
            fakes.detail(8, "aborting", input=None),
        ]
        self.assertEqual(await delete_jobs(self.open(), refs(6, 7, 8, 6)), 1)
        self.assertEqual(self.said, ["job 6: deleted", "job 8: aborting"])
        self.assertEqual(len(self.complaints), 2)
        self.assertIn("job 7: not yours", self.complaints[0])
        self.assertRegex(self.complaints[1], "aborted first, and stays with its files; then lgi delete 8$")

    async def test_json(self) -> None:
        self.fake.script[DELETE] = [fakes.detail(6, "deleted", input=None)]
        self.assertEqual(await delete_jobs(self.open(json=True), refs(6)), 0)
        self.assertEqual([(job["job_id"], job["state"]) for job in self.value], [(6, "deleted")])

    async def test_waits_for_what_runs(self) -> None:
        self.fake.script[DELETE] = [
            fakes.detail(6, "deleted", input=None),
            fakes.detail(7, "aborting", input=None),
            fakes.detail(7, "deleted", input=None),
        ]
        self.fake.script[STATE] = [fakes.detail(7, "aborting"), fakes.detail(7, "aborted")]
        self.assertEqual(await delete_jobs(self.open(json=True), refs(6, 7), follow=True), 0)
        self.assertEqual([(job["job_id"], job["state"]) for job in self.value], [(6, "deleted"), (7, "deleted")])

    async def test_somebody_else_deletes_it_meanwhile(self) -> None:
        self.fake.script[DELETE] = [fakes.detail(7, "aborting", input=None)]
        self.fake.script[STATE] = [fakes.detail(7, "aborting"), fakes.refusal(15)]
        self.assertEqual(await delete_jobs(self.open(), refs(7), follow=True), 0)
        self.assertEqual(self.said[-1], "job 7: deleted")
        self.assertEqual(len(self.asked(DELETE)), 1)


class Cancel(CommandTestCase):
    def jobs(self, **states: str) -> None:
        """Jobs by their numbers, as a look finds them."""

        def say(request: Request) -> Any:
            job_id = int(request.args[b"job_id"][0])
            return fakes.detail(job_id, states[f"j{job_id}"])

        self.is_new()
        self.fake.script[STATE] = [say]

    async def test_what_is_over_is_left_alone(self) -> None:
        self.jobs(j6="queued", j7="running", j8="finished")
        self.fake.script[DELETE] = [
            fakes.detail(6, "aborted", input=None),
            fakes.detail(7, "aborting", input=None),
            fakes.detail(8, "finished", input=None),
        ]
        self.assertEqual(await cancel_jobs(self.open(), refs(6, 7, 8)), 0)
        lines = ["job 6: aborted", "job 7: aborting", "job 8: finished, was over already"]
        self.assertEqual((self.said, self.complaints), (lines, []))
        self.assertEqual([fields["cancel"] for fields in self.asked(DELETE)], ["1"] * 3)

    async def test_never_deletes_on_a_server_that_does_not_know_the_difference(self) -> None:
        problem = await self.assertFailure(Deferred.fromCoroutine(cancel_jobs(self.open(), refs(6))), Complaint)
        self.assertIn("too old to cancel", str(problem))
        self.assertEqual(self.asked(DELETE), [])

    async def test_waits_for_the_end(self) -> None:
        self.is_new()
        states = iter(("running", "aborted"))

        def say(request: Request) -> Any:
            if b"jobs" in request.args:
                return fakes.answer(f"<gone>  </gone> {fakes.job(7, 'aborted', input=None)}")
            return fakes.detail(7, next(states))

        self.fake.script[STATE] = [say]
        self.fake.script[DELETE] = [fakes.detail(7, "aborting", input=None)]
        self.assertEqual(await cancel_jobs(self.open(json=True), refs(7), follow=True), 0)
        self.assertEqual([job["state"] for job in self.value], ["aborted"])

    async def test_one_that_is_not_there(self) -> None:
        self.is_new()
        self.fake.script[STATE] = [fakes.refusal(15, "no such job")]
        self.assertEqual(await cancel_jobs(self.open(), refs(7)), 1)
        self.assertIn("job 7: no such job", self.complaints[0])
