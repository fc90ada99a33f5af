"""Locks between processes, here between two files that are open at once, which is the same to the system."""

from __future__ import annotations

import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lgi.repository.locks import LONGEST_PAUSE, FileLocks

HOLD = """
import asyncio, sys
from pathlib import Path
from lgi.repository.locks import FileLocks
async def hold():
    async with FileLocks(None, Path(sys.argv[1])).held("repository", "file"):
        print("held", flush=True)
        sys.stdin.read()
asyncio.run(hold())
"""


class LockTests(SynchronousTestCase):
    """One file of locks."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.file = Path(self.mktemp()).absolute()

    def taken(self, locks: FileLocks, *name: str) -> tuple[Deferred[None], AsyncExitStack]:
        """A deferred that fires when the name is had, and what lets go of it."""
        stack = AsyncExitStack()
        return Deferred.fromCoroutine(stack.enter_async_context(locks.held(*name))), stack

    def test_one_at_a_time(self) -> None:
        one, other = FileLocks(self.clock, self.file), FileLocks(self.clock, self.file)
        first, held = self.taken(one, "repository", "file")
        self.successResultOf(first)
        waiting, _ = self.taken(other, "repository", "file")
        self.clock.pump([LONGEST_PAUSE] * 10)
        self.assertNoResult(waiting)
        self.successResultOf(self.taken(other, "repository", "another")[0])
        self.successResultOf(Deferred.fromCoroutine(held.aclose()))
        self.clock.advance(LONGEST_PAUSE)
        self.successResultOf(waiting)

    def test_killed(self) -> None:
        """What a process had is free when it is killed."""
        with subprocess.Popen(
            [sys.executable, "-c", HOLD, str(self.file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as holder:
            assert holder.stdout is not None
            self.assertEqual(holder.stdout.readline(), b"held\n")
            waiting, _ = self.taken(FileLocks(self.clock, self.file), "repository", "file")
            self.clock.advance(LONGEST_PAUSE)
            self.assertNoResult(waiting)
            holder.kill()
            holder.wait()
        self.clock.advance(LONGEST_PAUSE)
        self.successResultOf(waiting)

    def test_nowhere(self) -> None:
        taken, _ = self.taken(FileLocks(self.clock, self.file / "none"), "repository", "file")
        self.failureResultOf(taken, FileNotFoundError)
