"""lgi status and resources."""

from __future__ import annotations

from lgi.cli.jobs import show_jobs
from lgi.cli.resources import list_resources
from lgi.client.answers import ServerRefused
from lgi.client.reference import JobReference
from tests.unit.cli.sessions import CommandTestCase
from tests.unit.client import fakes
from tests.unit.client.fakes import RESOURCES, STATE


def refs(*jobs: int) -> list[JobReference]:
    return [JobReference(job_id=job_id) for job_id in jobs]


class Details(CommandTestCase):
    async def test_one_and_several(self) -> None:
        self.fake.script[STATE] = [fakes.detail(7), fakes.detail(8), fakes.detail(7)]
        self.assertEqual(await show_jobs(self.open(), refs(7, 8, 7)), 0)
        self.assertEqual([line for line in self.said if line.startswith("Job")], ["Job 7", "Job 8"])
        self.assertEqual(await show_jobs(self.open(json=True), refs(7)), 0)
        self.assertEqual(self.value["job_id"], 7)

    async def test_one_that_is_missing_does_not_hide_the_others(self) -> None:
        self.fake.script[STATE] = [fakes.refusal(15, "there is no such job"), fakes.detail(8)]
        self.assertEqual(await show_jobs(self.open(json=True), refs(7, 8)), 1)
        self.assertEqual([job["job_id"] for job in self.value], [8])
        self.assertEqual(len(self.complaints), 1)
        self.assertRegex(self.complaints[0], "^lgi: job 7: there is no such job.*lgi list shows your jobs")

    async def test_what_is_wrong_with_the_user_ends_it(self) -> None:
        self.fake.script[STATE] = [fakes.refusal(2)]
        try:
            await show_jobs(self.open(), refs(7, 8))
        except ServerRefused as problem:
            self.assertEqual((problem.number, len(self.fake.calls)), (2, 1))
        else:
            self.fail("went on")

    async def test_locked_job(self) -> None:
        self.fake.script[STATE] = [fakes.refusal(1, "busy", timeout=0), fakes.detail(7)]
        self.assertEqual(await show_jobs(self.open(), refs(7)), 0)
        self.assertEqual(self.complaints, ["lgi: busy (error 1); still trying for 5 s"])


class Resources(CommandTestCase):
    async def test_table(self) -> None:
        self.fake.script[RESOURCES] = [fakes.resources(one="hello_world lj_md", two="")]
        self.assertEqual(await list_resources(self.open(), now=1795167065), 0)
        rows = [line.split("  ") for line in self.said]
        self.assertIn("hello_world, lj_md", rows[1])
        self.assertIn("1 min 5 s ago", rows[1])
        self.assertIn("never", rows[2])

    async def test_json(self) -> None:
        self.fake.script[RESOURCES] = [fakes.resources(one="a", two="")]
        await list_resources(self.open(json=True), now=0)
        self.assertEqual([row["applications"] for row in self.value], [["a"], []])
        self.assertEqual([row["last_call_time"] for row in self.value], [1795167000, None])
