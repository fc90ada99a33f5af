"""lgi status, delete and resources."""

from __future__ import annotations

from typing import Any

from lgi.cli.jobs import delete_jobs, list_jobs, show_jobs
from lgi.cli.resources import list_resources
from lgi.client.answers import AnswerMalformed, ServerRefused
from lgi.lists import ANY
from tests.unit.cli.sessions import CommandTestCase
from tests.unit.client import fakes
from tests.unit.client.fakes import DELETE, RESOURCES, STATE


def page(*jobs: int) -> bytes:
    return fakes.listed(*(fakes.job(job_id, input=None) for job_id in jobs))


class List(CommandTestCase):
    async def list(self, *, limit: int | None = None, **kind: Any) -> int:
        return await list_jobs(self.open(**kind), state=ANY, application=ANY, limit=limit)

    async def test_pages_until_one_is_empty(self) -> None:
        # A server may give less than it is asked for.
        self.fake.script[STATE] = [page(1, 2), page(3), page()]
        self.assertEqual(await self.list(), 0)
        asked = [(fields["start"], fields["limit"]) for _, fields in self.fake.calls]
        self.assertEqual(asked, [("0", "1024"), ("2", "1024"), ("3", "1024")])
        self.assertEqual([line.split()[0] for line in self.said], ["Job", "1", "2", "3"])

    async def test_limit(self) -> None:
        self.fake.script[STATE] = [page(1, 2), page(3)]
        await self.list(limit=3, json=True)
        self.assertEqual([fields["limit"] for _, fields in self.fake.calls], ["3", "1"])
        self.assertEqual([job["job_id"] for job in self.value], [1, 2, 3])

    async def test_filters_go_to_the_server(self) -> None:
        self.fake.script[STATE] = [page()]
        await list_jobs(self.open(), state="!finished", application="lj_md", limit=5)
        [(_, fields)] = self.fake.calls
        self.assertEqual((fields["state"], fields["application"]), ("!finished", "lj_md"))

    async def test_no_jobs(self) -> None:
        self.fake.script[STATE] = [page()]
        await self.list()
        self.assertEqual(self.said, ["no jobs"])
        await self.list(json=True)
        self.assertEqual(self.value, [])

    async def test_a_server_that_ignores_the_start(self) -> None:
        self.fake.script[STATE] = [page(1, 2)]
        try:
            await self.list()
        except AnswerMalformed as problem:
            self.assertIn("again and again", str(problem))
        else:
            self.fail("believed it")

    async def test_plain_columns_in_a_pipe_lose_nothing(self) -> None:
        target = "a-very-long-resource-name@" + "x" * 200
        self.fake.script[STATE] = [fakes.listed(fakes.job(12, input=None, target=target)), page()]
        await self.list()
        self.assertIn(target, self.said[1])
        self.assertNotIn("\x1b", self.out.getvalue())

    async def test_drawn_on_a_terminal(self) -> None:
        self.fake.script[STATE] = [page(12), page()]
        await self.list(terminal=True)
        self.assertIn("─", self.out.getvalue())


class Details(CommandTestCase):
    async def test_one_and_several(self) -> None:
        self.fake.script[STATE] = [fakes.detail(7), fakes.detail(8), fakes.detail(7)]
        self.assertEqual(await show_jobs(self.open(), (7, 8, 7)), 0)
        self.assertEqual([line for line in self.said if line.startswith("Job")], ["Job 7", "Job 8"])
        self.assertEqual(await show_jobs(self.open(json=True), (7,)), 0)
        self.assertEqual(self.value["job_id"], 7)

    async def test_one_that_is_missing_does_not_hide_the_others(self) -> None:
        self.fake.script[STATE] = [fakes.refusal(15, "there is no such job"), fakes.detail(8)]
        self.assertEqual(await show_jobs(self.open(json=True), (7, 8)), 1)
        self.assertEqual([job["job_id"] for job in self.value], [8])
        self.assertEqual(len(self.complaints), 1)
        self.assertRegex(self.complaints[0], "^lgi: job 7: there is no such job.*lgi status lists your jobs")

    async def test_what_is_wrong_with_the_user_ends_it(self) -> None:
        self.fake.script[STATE] = [fakes.refusal(2)]
        try:
            await show_jobs(self.open(), (7, 8))
        except ServerRefused as problem:
            self.assertEqual((problem.number, len(self.fake.calls)), (2, 1))
        else:
            self.fail("went on")

    async def test_locked_job(self) -> None:
        self.fake.script[STATE] = [fakes.refusal(1, "busy", timeout=0), fakes.detail(7)]
        self.assertEqual(await show_jobs(self.open(), (7,)), 0)
        self.assertEqual(self.complaints, ["lgi: busy (error 1); still trying"])


class Delete(CommandTestCase):
    async def test_what_became_of_each(self) -> None:
        self.fake.script[DELETE] = [
            fakes.detail(6, "deleted", input=None),
            fakes.refusal(35, "not yours"),
            fakes.detail(8, "aborting", input=None),
        ]
        self.assertEqual(await delete_jobs(self.open(), (6, 7, 8)), 1)
        self.assertEqual(self.said, ["job 6: deleted", "job 8: aborting"])
        self.assertEqual(len(self.complaints), 1)
        self.assertIn("job 7: not yours", self.complaints[0])

    async def test_json(self) -> None:
        self.fake.script[DELETE] = [fakes.detail(6, "deleted", input=None)]
        self.assertEqual(await delete_jobs(self.open(json=True), (6,)), 0)
        self.assertEqual(self.value, [{"job_id": 6, "state": "deleted"}])


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
