"""A job directory whose files are not what the daemon wrote: nothing of it is run or reported."""

from __future__ import annotations

from pathlib import Path

from lgi.daemon.jobdir import EXIT_STATUS, OUTPUT, RUN_PID
from lgi.states import JobState
from tests.unit.daemon.rig import Rig, Tap
from tests.unit.daemon.server import FakeServer
from tests.unit.daemon.test_daemon import DaemonTestCase


class TamperedTests(DaemonTestCase):
    async def running(self) -> tuple[FakeServer, Rig, Tap]:
        server, tap = FakeServer(), self.tap()
        server.submit()
        rig = self.waiting_rig(server, tap)
        await rig.go()
        return server, rig, tap

    async def refused(self, server: FakeServer, rig: Rig) -> None:
        """Nothing is said to the server about the job, and the directory stays."""
        said = [name for name in server.said if name not in ("signup", "signoff", "request_work")]
        before = self.names(rig)
        await rig.turn(3)
        self.assertEqual([name for name in server.said if name not in ("signup", "signoff", "request_work")], said)
        self.assertEqual(self.names(rig), before)
        self.assertEqual(server.jobs[12].state, JobState.RUNNING)

    def names(self, rig: Rig) -> list[str]:
        own = (EXIT_STATUS, OUTPUT)  # which the job may still write
        return sorted(path.name for path in rig.job.glob("LGI_*") if path.name not in own)

    async def test_changed_while_it_runs(self) -> None:
        server, rig, tap = await self.running()
        (rig.job / "LGI_job_epilogue_script").write_text("#!/bin/sh\ntouch evil\n")
        await rig.turn()
        tap.open()
        await self.refused(server, rig)
        self.assertFalse((rig.job / "evil").exists())

    async def test_changed_while_the_daemon_was_away(self) -> None:
        for name in ("LGI_input", "LGI_job_id", "LGI_owners", RUN_PID, "LGI_job_run_script"):
            server, rig, _tap = await self.running()
            rig.kill()
            path = rig.job / name
            path.write_bytes(path.read_bytes() + b"1")
            rig.start()
            await rig.go()
            await self.refused(server, rig)
            self.assertEqual(rig.daemon.holdings.keepers, [], name)
            self.assertEqual(len(rig.daemon.holdings.taken), 1, "it keeps its place")

    async def test_not_taken_anew_beside_the_refused_one(self) -> None:
        server, rig, _tap = await self.running()
        rig.kill()
        (rig.job / "LGI_input").write_bytes(b"other")
        server.lose_pulse(12)
        rig.start()
        await rig.go()
        await rig.turn(2)
        self.assertEqual(len(rig.jobs()), 1)
        self.assertEqual(server.jobs[12].state, JobState.QUEUED)
        self.assertEqual(server.locks, {})

    async def test_a_hash_with_the_right_form_but_another_key(self) -> None:
        server, rig, _tap = await self.running()
        (rig.job / "LGI_owners").write_bytes(b"root")
        (rig.job / "LGI_owners.hash").write_text("0" * 64)
        await rig.turn()
        await self.refused(server, rig)

    async def test_output_may_be_changed(self) -> None:
        server, rig, tap = await self.running()
        (rig.job / OUTPUT).write_bytes(b"anything")
        await rig.turn()
        tap.open()
        await self.finish(rig, server)

    async def test_output_that_is_no_file_is_none(self) -> None:
        server = FakeServer()
        server.submit()
        rig = self.rig(server, job_run_script="mkfifo LGI_output")
        await rig.go()
        await self.finish(rig, server)
        self.assertEqual(server.jobs[12].output, b"")

    async def test_a_directory_that_is_gone_is_given_up(self) -> None:
        _server, rig, _tap = await self.running()
        job: Path = rig.job
        job.rename(job.with_name("elsewhere"))
        await rig.turn(2)
        self.assertEqual(rig.daemon.holdings.keepers, [])
