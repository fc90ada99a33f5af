"""lgi list: what is asked for, chosen, sorted and shown; and what becomes of a server that is down."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

from click import BadParameter
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from lgi.cli.list import Order, Selection, count_jobs, list_jobs
from lgi.cli.moments import MomentType
from lgi.client.answers import AnswerMalformed, ServerUnreachable
from tests.unit.cli.sessions import SERVERS, CommandTestCase, servers
from tests.unit.client import fakes
from tests.unit.client.fakes import STATE

EVERYTHING = Selection()
OTHER = f"/LGI2/{STATE}"


def job(job_id: int, state: str = "queued", **more: Any) -> str:
    return fakes.job(job_id, state, input=None, **more)


def page(*jobs: int) -> bytes:
    return fakes.listed(*map(job, jobs))


class List(CommandTestCase):
    async def show(
        self, selection: Selection = EVERYTHING, order: Order | None = None, *, kind: str = "", **how: Any
    ) -> int:
        opened = self.open(json=kind == "json", terminal=kind == "terminal")
        return await list_jobs(opened, selection, order or Order(), **how)

    async def chosen(self, selection: Selection = EVERYTHING, **order: Any) -> list[str]:
        """The numbers of the jobs in the order in which they are shown."""
        await self.show(selection, Order(**order), quiet=True)
        return self.said

    async def test_pages_until_one_is_empty(self) -> None:
        # A server may give less than it is asked for.
        self.fake.script[STATE] = [page(1, 2), page(3), page()]
        self.assertEqual(await self.show(), 0)
        asked = [(fields["start"], fields["limit"]) for fields in self.asked(STATE)]
        self.assertEqual(asked, [("0", "1024"), ("2", "1024"), ("3", "1024")])
        self.assertEqual([line.split()[0] for line in self.said], ["Job", "1", "2", "3"])

    async def test_limit_goes_to_a_server_that_can_choose(self) -> None:
        self.fake.script[STATE] = [page(1, 2), page(3)]
        await self.show(order=Order(limit=3), kind="json")
        self.assertEqual([fields["limit"] for fields in self.asked(STATE)], ["3", "1"])
        self.assertEqual([job["job_id"] for job in self.value], [1, 2, 3])
        self.assertEqual([job["reference"] for job in self.value], ["1", "2", "3"])

    async def test_filters_go_to_the_server(self) -> None:
        self.fake.script[STATE] = [page()]
        await self.show(Selection(states=("!finished",), application="lj_md"), Order(limit=5))
        [fields] = self.asked(STATE)
        self.assertEqual((fields["state"], fields["application"], fields["limit"]), ("!finished", "lj_md", "5"))

    async def test_what_servers_cannot_choose_by(self) -> None:
        jobs = fakes.listed(job(1, "queued", stamp=100), job(2, "running", stamp=200), job(3, "finished", stamp=300))
        for selection, expected in (
            (Selection(states=("queued", "running")), ["1", "2"]),
            (Selection(since=200), ["2", "3"]),
            (Selection(before=200), ["1"]),
            (Selection(since=150, before=250), ["2"]),
            (Selection(owner="theor"), ["1", "2", "3"]),
            (Selection(owner="piet"), []),
        ):
            self.fake.script[STATE] = [jobs, page()]
            # The limit is for what is left, so no server may be told of it.
            self.assertEqual(await self.chosen(selection, limit=2), expected[:2], selection)
            self.assertEqual(self.asked(STATE)[-1]["limit"], "1024")
            self.assertEqual(self.asked(STATE)[-1]["state"], "any")

    async def test_sorted_before_it_is_limited(self) -> None:
        jobs = fakes.listed(
            job(1, "running", stamp=300),
            job(2, "queued", stamp=100),
            job(3, "finished", stamp=200, specifics="<exit_status> 2 </exit_status>"),
        )
        for order, expected in (
            ({"sort": "since"}, ["2", "3", "1"]),
            ({"sort": "since", "reverse": True, "limit": 1}, ["1"]),
            ({"sort": "state"}, ["2", "1", "3"]),
            ({"sort": "exit", "limit": 1}, ["3"]),
            ({"sort": "id", "reverse": True}, ["3", "2", "1"]),
        ):
            self.fake.script[STATE] = [jobs, page()]
            self.assertEqual(await self.chosen(**order), expected, order)

    async def test_columns(self) -> None:
        done = job(3, "finished", specifics="<exit_status> 2 </exit_status>", url="https://x/y")
        self.fake.script[STATE] = [fakes.listed(done), page()]
        await self.show(columns=("exit", "id", "repository"))
        self.assertEqual(
            [line.split() for line in self.said], [["Exit", "Job", "Repository"], ["2", "3", "https://x/y"]]
        )

    async def test_no_jobs(self) -> None:
        self.fake.script[STATE] = [page()]
        await self.show()
        self.assertEqual(self.said, ["no jobs"])
        await self.show(kind="json")
        self.assertEqual(self.value, [])
        await self.show(quiet=True)
        self.assertEqual(self.said, [])

    async def test_a_server_that_ignores_the_start(self) -> None:
        self.fake.script[STATE] = [page(1, 2)]
        problem = await self.assertFailure(Deferred.fromCoroutine(self.show()), AnswerMalformed)
        self.assertIn("again and again", str(problem))

    async def test_plain_columns_in_a_pipe_lose_nothing(self) -> None:
        target = "a-very-long-resource-name@" + "x" * 200
        self.fake.script[STATE] = [fakes.listed(job(12, target=target)), page()]
        await self.show()
        self.assertIn(target, self.said[1])
        self.assertNotIn("\x1b", self.out.getvalue())

    async def test_drawn_on_a_terminal(self) -> None:
        self.fake.script[STATE] = [page(12), page()]
        await self.show(kind="terminal")
        self.assertIn("─", self.out.getvalue())

    async def test_count(self) -> None:
        self.fake.script[STATE] = [page(1, 2)]
        self.assertEqual(await count_jobs(self.open(), EVERYTHING, None), 0)
        self.assertEqual((self.said, self.asked(STATE)[0]["limit"]), (["2"], "0"))
        self.fake.script[STATE] = [fakes.listed(job(1), job(2, "running")), page()]
        await count_jobs(self.open(json=True), Selection(states=("queued", "aborted")), None)
        self.assertEqual(self.value, 1)


class SeveralServers(CommandTestCase):
    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.fake.script[SERVERS] = [servers(self.url, f"{self.url}2")]
        self.fake.script[STATE] = [page(1, 2), page()]
        self.fake.script[OTHER] = [page(2), page()]
        self.place = self.url.split("/")[2]

    async def test_all_are_listed_by_names_that_other_commands_take(self) -> None:
        self.assertEqual(await list_jobs(self.open(alone=False), EVERYTHING, Order(), quiet=True), 0)
        self.assertEqual(self.said, [f"1@{self.url}", f"2@{self.url}", f"2@{self.url}2"])

    async def test_one_that_is_down_is_named(self) -> None:
        self.fake.script[OTHER] = [fakes.cut]
        self.assertEqual(await list_jobs(self.open(alone=False), EVERYTHING, Order(), quiet=True), 1)
        self.assertEqual(len(self.said), 2)
        [complaint] = self.complaints
        self.assertIn(f"cannot be reached: {self.url}2", complaint)

    async def test_count_of_all(self) -> None:
        self.assertEqual(await count_jobs(self.open(alone=False), EVERYTHING, None), 0)
        self.assertEqual(self.said, ["3"])
        self.fake.script[OTHER] = [fakes.cut]
        self.assertEqual(await count_jobs(self.open(alone=False), EVERYTHING, None), 1)

    async def test_all_down(self) -> None:
        self.fake.script[STATE] = self.fake.script[OTHER] = [fakes.cut]
        for work in (
            list_jobs(self.open(alone=False), EVERYTHING, Order()),
            count_jobs(self.open(alone=False), EVERYTHING, None),
        ):
            await self.assertFailure(Deferred.fromCoroutine(work), ServerUnreachable)

    async def test_one_server_is_used_alone(self) -> None:
        await list_jobs(self.open(alone=True), EVERYTHING, Order(), quiet=True)
        self.assertEqual(self.said, ["1", "2"])


class Moments(SynchronousTestCase):
    def test_how_long_ago_and_dates(self) -> None:
        moment = MomentType(lambda: 1_000_000.0)
        local = datetime.fromisoformat("2026-12-31T23:59").timestamp()
        for text, expected in (
            ("90s", 999_910),
            ("1.5h", 994_600),
            ("2m", 999_880),
            ("2 min", 999_880),
            ("3d", 740_800),
            ("1w", 395_200),
            ("2026-12-31T23:59", local),
            ("1795167314", 1795167314),
        ):
            self.assertEqual(moment.convert(text, None, None), expected, text)
        self.assertLess(abs(MomentType().convert("0s", None, None) - time.time()), 60)

    def test_what_is_no_time(self) -> None:
        for text in ("", "soon", "3x", "h", "2026-13-01", "9" * 400, "-3d"):
            self.assertIn("is no time", str(self.assertRaises(BadParameter, MomentType().convert, text, None, None)))
