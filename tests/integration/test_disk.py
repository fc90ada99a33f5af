"""A server whose disk is full refuses clearly, keeps what it has, and goes on when there is room again."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import Any
from unittest import SkipTest

from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from lgi.admin.store import in_transaction
from lgi.client.answers import JobAnswer, ServerRefused
from lgi.client.repository import RepositoryClient
from lgi.client.resource import ResourceClient
from lgi.client.user import UserClient
from lgi.config import load_config
from lgi.db.jobs import fetch_job
from lgi.errors import ErrorNumber
from lgi.states import JobState
from tests.integration.grid import Grid
from tests.integration.load import APPLICATION, as_resource, as_user

SIZE = 4 << 20
FILE = "data.bin"
MANY = 2000


class _Case(TestCase):
    """With a small file system at one of the directories of a project."""

    timeout = 120
    folder: str

    def setUp(self) -> None:
        self.grid = grid = Grid(Path.cwd() / "-".join(self.id().split(".")[-2:]))
        self.disk = grid.root / self.folder
        aside = grid.root / "aside"
        self.disk.rename(aside)
        self.disk.mkdir()
        self.mount()
        self.addCleanup(grid.stop)
        shutil.copytree(aside, self.disk, dirs_exist_ok=True)
        self.filler = self.disk / ".filler"
        self.server = grid.start_server()

    def mount(self) -> None:
        """Put the small file system there; skips the test where that may not be."""
        if os.geteuid() != 0:
            raise SkipTest("only root may mount a small file system to fill")
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(self.disk)], capture_output=True, check=False
        )
        if done.returncode:
            raise SkipTest(f"no file system can be mounted here: {done.stderr.decode(errors='replace').strip()}")
        self.addCleanup(subprocess.run, ["umount", "--lazy", str(self.disk)], check=True)

    def fill(self, leave: int = 0) -> None:
        """Take all room but `leave` bytes."""
        piece = b"x" * 4096
        with self.filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(piece)
            except OSError as problem:
                assert problem.errno == errno.ENOSPC
            file.truncate(max(0, file.tell() - leave))

    def repositories(self) -> list[str]:
        """What is in the repository."""
        return sorted(path.name for path in (self.grid.root / "repository").glob("*/JOB_*"))

    async def jobs(self) -> list[int]:
        """The jobs there are."""
        answers = await as_user(reactor, self.grid, lambda user: user.jobs(limit=MANY))
        return [answer.job.job_id for answer in answers]

    async def submit(self, input: bytes = b"x", *files: Path) -> JobAnswer:
        """Submit a job."""
        return await as_user(
            reactor,
            self.grid,
            lambda user: user.submit(application=APPLICATION, input=input, uploads=files),
        )

    async def refused(self, call: Any, number: int, text: str) -> None:
        """Assert that a call is refused so, and that this changes neither jobs nor repositories."""
        before = await self.jobs(), self.repositories()
        try:
            answer = await call
        except ServerRefused as problem:
            self.assertEqual(problem.number, number, problem.message)
            self.assertIn(text, problem.message)
        else:
            self.fail(f"answered: {answer}")
        self.assertEqual((await self.jobs(), self.repositories()), before)

    async def in_order(self) -> None:
        """Assert that the server is the one that was started, and that everything agrees."""
        self.assertIsNone(self.server.process.poll())
        self.assertNotIn("Traceback", self.server.logged())
        report = await deferToThread(self.grid.lgi, "admin", "--config", str(self.grid.config), "check-db")
        self.assertIn("in order", report)


class RepositoryTests(_Case):
    """The files of jobs."""

    folder = "repository"

    async def put(self, url: str, file: Path) -> None:
        async def call(user: UserClient) -> None:
            await RepositoryClient(http=user.server.http, reactor=reactor, url=url).put(file, FILE)

        await as_user(reactor, self.grid, call)

    async def test_full(self) -> None:
        small, large = Path(FILE).absolute(), Path("large.bin").absolute()
        small.write_bytes(os.urandom(50_000))
        large.write_bytes(os.urandom(1 << 20))
        first = await self.submit(b"first", small)
        [repository] = self.repositories()
        url = f"{self.grid.url}/repository/{repository[-3:]}/{repository}"
        stored = self.disk / repository[-3:] / repository / FILE
        full = ErrorNumber.UPLOAD_FAILED
        self.fill(leave=300_000)
        await self.refused(self.submit(b"x", large), full, "No space left")
        await self.refused(self.put(url, large), 507, "No space left")
        await self.submit(b"second", small)
        self.filler.unlink()
        self.fill()
        await self.refused(self.submit(b"x", small), full, "No space left")
        # Without files it takes no room there.
        await self.submit(b"x")
        await self.refused(self.put(url, small), 507, "No space left")
        self.assertEqual(list((self.disk / ".spool").iterdir()), [])
        self.assertEqual(stored.read_bytes(), small.read_bytes())
        found = await as_user(reactor, self.grid, lambda user: user.job(first.job.job_id))
        self.assertEqual(found.job.input, b"first")
        self.filler.unlink()
        await self.submit(b"third", large)
        await self.put(url, large)
        self.assertEqual(stored.read_bytes(), large.read_bytes())
        self.assertEqual((len(await self.jobs()), len(self.repositories())), (4, 3))
        await self.in_order()


class DatabaseTests(_Case):
    """The embedded database."""

    folder = "db"

    async def test_full(self) -> None:
        taken = (await self.submit(b"taken")).job.job_id

        async def lock(resource: ResourceClient) -> int:
            session_id = (await resource.signup()).session_id
            await resource.lock(session_id, taken)
            await resource.update(session_id, taken, state=JobState.RUNNING)
            return session_id

        async def finish(resource: ResourceClient) -> None:
            await resource.update(session_id, taken, state=JobState.FINISHED, output=b"done" * 10_000)

        session_id = await as_resource(reactor, self.grid, lock)
        acknowledged = {taken: b"taken"}
        self.fill()
        busy, text = ErrorNumber.OVERLOADED, "no room left on the disk of the database"
        # The write-ahead log may have room in itself for some.
        for number in range(MANY):
            data = f"{number} ".encode() * 10_000
            try:
                acknowledged[(await self.submit(data)).job.job_id] = data
            except ServerRefused:
                break
        else:
            self.fail("the disk is full, and everything is taken all the same")
        await self.refused(self.submit(b"x" * 60_000), busy, text)
        await self.refused(as_resource(reactor, self.grid, finish), busy, text)
        self.assertEqual(await self.jobs(), sorted(acknowledged))
        self.filler.unlink()
        after = (await self.submit(b"after")).job.job_id
        await as_resource(reactor, self.grid, finish)
        database = load_config(self.grid.config).projects["LGI"].database
        for job_id, data in (acknowledged | {after: b"after"}).items():
            job = in_transaction(database, partial(fetch_job, job_id=job_id, blobs=True))
            assert job is not None
            self.assertEqual(job.input, data)
            self.assertEqual(job.output, b"done" * 10_000 if job_id == taken else b"")
        await self.in_order()


del _Case
