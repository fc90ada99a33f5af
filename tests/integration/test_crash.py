"""The server killed again and again under load: what was acknowledged is there, and no job has two owners."""

from __future__ import annotations

import os
import random
import secrets
import signal
from pathlib import Path
from typing import ClassVar

from twisted.internet import reactor
from twisted.internet.task import TaskStopped, deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests import mariadb
from tests.integration.grid import Grid
from tests.integration.kept import verify
from tests.integration.load import Load


class _Crashes(TestCase):
    """Subclasses say on which database, and how often: `kills` times, or as often as LGI_TEST_KILLS says."""

    timeout = 400
    kills: ClassVar[int]

    def database(self) -> str:
        """The URL of an empty database, or nothing for the one that `lgi init` makes."""
        return ""

    def directory(self) -> Path:
        """Where the project is made."""
        return Path.cwd() / f"grid-{type(self).__name__}"

    async def test_killed_under_load(self) -> None:
        """LGI_TEST_KILLS=50 is for changes to what is stored when: a narrow window needs many kills to be hit."""
        rounds = int(os.environ.get("LGI_TEST_KILLS", self.kills))
        seed = int(os.environ.get("LGI_CRASH_SEED", secrets.randbelow(1 << 30)))
        try:
            await self.crash(seed, rounds)
        except AssertionError as problem:
            raise AssertionError(f"with LGI_CRASH_SEED={seed}: {problem}") from None
        finally:
            # treq's, of an upload that is cut off.
            self.flushLoggedErrors(TaskStopped)

    async def crash(self, seed: int, rounds: int) -> None:
        chance = random.Random(seed)
        grid = Grid(self.directory(), database=self.database())
        self.addCleanup(grid.stop)
        load = Load(reactor, grid, seed)
        ledger = load.ledger
        self.addCleanup(load.end)
        load.start()
        acknowledged = []
        for _ in range(rounds):
            server = await deferToThread(grid.start_server)
            await deferLater(reactor, chance.uniform(0.1, 1.3))
            await deferToThread(server.stop, signal.SIGKILL)
            acknowledged.append(len(ledger.submitted) + len(ledger.finished))
        server = await deferToThread(grid.start_server)
        await load.stop()
        self.assertEqual(ledger.problems, [])
        verify(self, grid, ledger)
        await deferToThread(server.stop)
        log = server.log.read_text(errors="replace")
        self.assertEqual(log.count("Traceback"), 0, log[log.find("Traceback") - 500 :][:3000])
        # The load was one: the clients got on in most of the rounds, and were cut off in most of them.
        self.assertGreater(len(set(acknowledged)), rounds / 2)
        self.assertGreater(ledger.lost_answers, 8 * rounds)


class SQLiteTests(_Crashes):
    """On the embedded database."""

    kills = 8


class MariaDBTests(_Crashes):
    """On the production database."""

    kills = 15

    def database(self) -> str:
        return mariadb.server().create_database()


del _Crashes
