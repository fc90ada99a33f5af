"""Bringing a server up to the others, whatever those do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from lxml import etree
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent

from lgi import sync
from lgi.client.answers import ServerUnreachable
from lgi.client.peers import Calls
from lgi.config import SchedulerSection
from lgi.db.events import UPDATE_CYCLE, UPDATE_SERVERS
from lgi.model import ServerFlag
from lgi.scheduler.updates import Updates
from lgi.sync import CALL_SECONDS, Neighbours, UpdateCycle
from tests.http.memory import PROJECT, SERVER
from tests.http.servers import GET, OWN, RUN, SLAVE_URL, Peer, ServersCase, statement

THIRD_URL = "https://third.example/LGI"


class Told:
    """A peer that answers what it is told to."""

    def __init__(self, answer: Callable[[str, Mapping[str, str | int]], Any]) -> None:
        self.asked = 0
        self._answer = answer

    async def call(self, path: str, fields: Mapping[str, str | int]) -> etree._Element:
        """As `lgi.client.post.Server.call`."""
        self.asked += 1
        answer = self._answer(path, fields)
        if isinstance(answer, Deferred):
            answer = await answer
        if isinstance(answer, Exception):
            raise answer
        root: etree._Element = etree.fromstring(f"<response>{answer}</response>")
        return root


def _always(answer: str, _path: str, _fields: object) -> str:
    return answer


def offer(version: int, text: str) -> str:
    """An answer that has an update."""
    query = text.encode().hex()
    return (
        f"<update><updates>1</updates><update_version>{version}</update_version><target_servers>any</target_servers>"
        f"<update_query>{query}</update_query></update>"
    )


class SyncCase(ServersCase):
    """A server with a good peer, which has two updates, and another one."""

    def setUp(self) -> None:
        super().setUp()
        self.know(self.server, "LGI@third; LGI", THIRD_URL, ServerFlag.SLAVE)
        self.clock = Clock()
        self.good = self.another()
        self.others: dict[str, Calls] = {SLAVE_URL: Peer(self.good, SERVER)}
        self.cycle = self.make_cycle()

    def make_cycle(self) -> UpdateCycle:
        """The cycle of one process."""
        neighbours = Neighbours(name=OWN, server=lambda url, _project: self.others[url], close=self.server.turn)
        return UpdateCycle(self.clock, PROJECT, self.server.database, neighbours)

    async def prepare(self) -> None:
        for name in ("one", "two"):
            await self.record(self.good, statement(name))

    async def with_third(self, answer: Callable[[str, Mapping[str, str | int]], Any]) -> list[str]:
        """Run a cycle with a third server that answers so; the good one's updates arrive. What is logged as error."""
        await self.prepare()
        self.others[THIRD_URL] = Told(answer)
        with capturedLogs() as logs:
            self.assertEqual(await self.cycle.run(), 2)
        self.assertEqual(await self.denied(), {"one", "two"})
        return [str(formatEvent(event)) for event in logs if event["log_level"] >= LogLevel.error]


class CycleTests(SyncCase):
    """One cycle."""

    async def test_unreachable(self) -> None:
        """A server that is down is named once, not in every cycle, and again when it has answered in between."""

        def down(_path: str, _fields: object) -> Any:
            return ServerUnreachable("connection refused")

        (line,) = await self.with_third(down)
        self.assertIn("LGI@third", line)
        self.assertIn("connection refused", line)
        with capturedLogs() as logs:
            await self.cycle.run()
            self.assertEqual([event for event in logs if event["log_level"] >= LogLevel.error], [])
            self.others[THIRD_URL] = Peer(self.good, SERVER)
            await self.cycle.run()
            self.others[THIRD_URL] = Told(down)
            await self.cycle.run()
        self.assertEqual(len([event for event in logs if event["log_level"] >= LogLevel.error]), 1)

    async def test_slow(self) -> None:
        """A server that does not answer costs CALL_SECONDS, and nobody else waits for it."""
        await self.prepare()
        silent: Deferred[Any] = Deferred()
        self.others[THIRD_URL] = third = Told(lambda _path, _fields: silent)
        running = Deferred.fromCoroutine(self.cycle.run())
        while not third.asked or len(await self.known()) < 2 or len(self.clock.getDelayedCalls()) > 1:
            await self.server.turn()
        self.assertFalse(running.called)
        with capturedLogs() as logs:
            self.clock.advance(CALL_SECONDS)
            self.assertEqual(await running, 2)
        self.assertIn("no answer in time", str([formatEvent(event) for event in logs]))

    async def test_stop(self) -> None:
        """Stopping waits for no peer."""
        self.others[THIRD_URL] = third = Told(lambda _path, _fields: Deferred())
        running = Deferred.fromCoroutine(self.cycle.run())
        while not third.asked:
            await self.server.turn()
        self.cycle.stop()
        await running

    async def test_wrong_version(self) -> None:
        def skip(_path: str, fields: Mapping[str, Any]) -> str:
            return offer(int(fields["version"]) + 2, statement("bad"))

        (line,) = await self.with_third(skip)
        self.assertRegex(line, r"LGI@third.*update \d was offered where \d comes next")

    async def test_refused_update(self) -> None:
        """The line names version and peer; nothing later is taken from there."""
        third: list[int] = []

        def hostile(_path: str, fields: Mapping[str, Any]) -> str:
            third.append(int(fields["version"]))
            return offer(int(fields["version"]) + 1, "DROP TABLE job_queue")

        (line,) = await self.with_third(hostile)
        self.assertRegex(line, r"LGI@third.*update \d: .*'DROP'")
        self.assertEqual(len(third), 1)

    async def test_nonsense(self) -> None:
        for answer in (
            "",
            "<update></update>",
            "<update><updates>many</updates></update>",
            "<update><updates>1</updates><update_version>x</update_version></update>",
            "<update><updates>1</updates><update_version>1</update_version><update_query>zz</update_query></update>",
        ):
            lying = Told(partial(_always, answer))
            self.others = {SLAVE_URL: lying, THIRD_URL: Told(lambda _path, _fields: ValueError("a fault"))}
            with capturedLogs() as logs:
                self.assertEqual(await self.make_cycle().run(), 0)
            self.assertEqual(lying.asked, 1)
            self.assertIn("LGI@slave", str([formatEvent(event) for event in logs]))
            self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    async def test_endless(self) -> None:
        """A server that always has one more is left after MOST_UPDATES; the next cycle goes on."""
        self.patch(sync, "MOST_UPDATES", 5)

        def more(_path: str, fields: Mapping[str, Any]) -> str:
            return offer(int(fields["version"]) + 1, statement(f"user{fields['version']}"))

        self.others = {SLAVE_URL: Told(more), THIRD_URL: Told(lambda _p, _f: "<update><updates>0</updates></update>")}
        self.assertEqual(await self.cycle.run(), 5)
        self.assertEqual(await self.cycle.run(), 10)

    async def test_two_have_the_same(self) -> None:
        """Servers that are alike are asked at the same time, and each update is taken once."""
        for number in range(10):
            await self.record(self.good, statement(f"user{number}"))
        self.others[THIRD_URL] = Peer(self.good, SERVER)
        both = await gatherResults([Deferred.fromCoroutine(self.make_cycle().run()) for _ in range(2)])
        self.assertEqual(both, [10, 10])
        self.assertEqual(await self.known(), await self.known(self.good))

    async def test_cycles_are_shared(self) -> None:
        """Many who ask for one while another is under way share the next."""
        await self.prepare()
        self.others[THIRD_URL] = third = Told(lambda _path, _fields: "<update><updates>0</updates></update>")
        runs = [Deferred.fromCoroutine(self.cycle.run()) for _ in range(20)]
        self.assertEqual(await gatherResults(runs), [2] * 20)
        self.assertLessEqual(third.asked, 6)

    async def test_tell(self) -> None:
        """The others are told to look for updates, and one that is down does not matter."""
        paths: list[str] = []

        def hear(path: str, _fields: object) -> Any:
            paths.append(path)
            return ""

        self.others = {SLAVE_URL: Told(hear), THIRD_URL: Told(lambda _path, _fields: ServerUnreachable("down"))}
        await self.cycle.tell()
        self.assertEqual(paths, [RUN])


class SchedulerTests(SyncCase):
    """When cycles are run."""

    async def test_interval_and_events(self) -> None:
        paths: list[str] = []

        def hear(path: str, _fields: object) -> str:
            paths.append(path)
            return "<update><updates>0</updates></update>"

        self.others = {SLAVE_URL: Told(hear), THIRD_URL: Told(lambda _p, _f: "<update><updates>0</updates></update>")}
        section: SchedulerSection = self.server.config.scheduler
        updates = Updates(self.clock, PROJECT, self.cycle, section.interval)
        updates.service.startService()

        async def heard(number: int) -> None:
            while len(paths) < number or not self.clock.getDelayedCalls():
                await self.server.turn()

        await heard(1)
        self.clock.advance(section.interval)
        await heard(2)
        updates.take({"schedule_cycle"})
        updates.take({UPDATE_CYCLE})
        await heard(3)
        updates.take({UPDATE_SERVERS})
        await heard(4)
        self.clock.advance(section.interval)
        await heard(5)
        self.assertEqual(paths, [GET, GET, GET, RUN, GET])
        updates.stop()
        await (updates.service.stopService() or self.server.turn())
