"""The contract of batch systems on local processes, on a real Grid Engine, and on commands that play the others."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping

from lgi.batch.values import State
from tests.contract import batch
from tests.contract.batch import SLEEP
from tests.integration import gridengine


class LocalTests(batch.BatchContract):
    """Processes of this machine."""

    system = "local"

    def environment(self) -> Mapping[str, str]:
        return {"PATH": os.environ["PATH"]}

    async def test_killed_with_kill_is_lost_after_the_grace(self) -> None:
        job = await self.submit(SLEEP)
        pid = int(await self.file("pid"))
        os.killpg(os.getpgid(pid), 9)
        await self.gone(pid)
        self.batch = self.make(grace=1.0)
        await self.until(job, lambda status: status.state is State.LOST)


class FakeSlurmTests(batch.FakeCase):
    """Slurm, played."""

    system, kind = "slurm", "slurm"


class FakeTorqueTests(batch.FakeCase):
    """Torque, played."""

    system, kind = "pbs", "torque"


class FakeGridEngineTests(batch.FakeCase):
    """Grid Engine, played."""

    system, kind = "gridengine", "gridengine"


class FakeLSFTests(batch.FakeCase):
    """LSF, played."""

    system, kind = "lsf", "lsf"


class FakeLoadLevelerTests(batch.FakeCase):
    """LoadLeveler, played."""

    system, kind = "loadleveler", "loadleveler"


class GridEngineTests(batch.BatchContract):
    """A real Grid Engine."""

    system = "gridengine"

    def environment(self) -> Mapping[str, str]:
        if os.geteuid() != 0:
            self.skipTest("Grid Engine's execution daemon must be root's")
        return gridengine.cluster().environment

    async def test_deleted_behind_our_back(self) -> None:
        job = await self.submit(SLEEP)
        await self.file("pid")
        gridengine.cluster().ask("qdel", job.job)
        status = await self.over(job)
        self.assertEqual((status.state, status.signal), (State.FAILED, 9))

    async def test_rescheduled_job_runs_to_its_end(self) -> None:
        job = await self.submit("echo run >>runs; [ -e go ] && exit 0; " + SLEEP)
        await self.file("pid")
        (self.folder / "go").touch()
        subprocess.run(["qmod", "-rj", job.job], env=self.environment(), check=True, stdout=subprocess.DEVNULL)
        status = await self.over(job)
        self.assertEqual((status.state, status.exit_code), (State.FINISHED, 0))
        self.assertEqual((self.folder / "runs").read_text(), "run\nrun\n")
