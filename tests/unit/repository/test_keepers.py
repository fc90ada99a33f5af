"""The keepers of two processes at one file."""

from __future__ import annotations

from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from lgi.httpd.refusal import Refused
from lgi.repository.conditions import Conditions
from lgi.repository.files import Repositories
from lgi.repository.keeper import Keeper
from lgi.repository.locks import FileLocks

NAME = "JOB_0123456789abcdef0123456789abcdef"
FILE = "results/energies.csv"


class KeepersTests(TestCase):
    """Each with its own descriptor of the locks, as in two processes."""

    timeout = 30

    def setUp(self) -> None:
        folder = Path(self.mktemp()).absolute()
        self.repositories = Repositories.local(
            root=folder / "repository", location="LGI@host", url="https://host/LGI"
        )
        self.repositories.prepare()
        self.repositories.create(NAME, ["mark@laptop"], [])
        self.locks = [FileLocks(reactor, folder / "locks") for _ in range(3)]
        self.keepers = [Keeper(self.repositories, others=locks) for locks in self.locks[:2]]

    async def put(self, keeper: Keeper, content: bytes) -> bytes:
        """Put a file where none may be; the content if that was done."""
        file = self.repositories.spool.create()
        file.write(content)
        try:
            await keeper.keep(NAME, FILE, file, Conditions(none_match="*"))
        except Refused:
            return b""
        finally:
            file.discard()
        return content

    async def test_one_of_both(self) -> None:
        """Of two that may only make the file if there is none, one does."""
        for turn in range(20):
            contents = [b"first %d" % turn, b"second %d" % turn]
            done = await gatherResults(
                [
                    Deferred.fromCoroutine(self.put(keeper, content))
                    for keeper, content in zip(self.keepers, contents, strict=True)
                ]
            )
            (kept,) = filter(None, done)
            state = await self.keepers[1].state(NAME, FILE)
            assert state is not None
            self.assertEqual(state.size, len(kept))
            await self.keepers[0].delete(NAME, FILE, Conditions())

    async def test_waits(self) -> None:
        """Who finds the file taken waits, and others do not."""
        async with self.locks[2].held(NAME, FILE):
            waiting = Deferred.fromCoroutine(self.put(self.keepers[0], b"x"))
            await self.keepers[1].state(NAME, FILE)
            await deferLater(reactor, 0.1)
            self.assertNoResult(waiting)
        self.assertEqual(await waiting, b"x")
