"""What no-op jobs cost elsewhere: Slurm and Celery, private, on this machine, tuned as their guides say.

Slurm is Debian's package and Celery comes with the extra `bench`; its Redis is Debian's `redis-server`.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs

from tests.integration.grid import free_port, until
from tests.integration.slurm import PrivateSlurm

SLOTS, AT_ONCE, WORKERS, PROCESSES = 128, 16, 2, 8
LOOK_SECONDS = 0.5
# As Slurm's High Throughput Computing Administration Guide has it; nothing is accounted or run beside a job.
TUNED = {
    "SchedulerType": "sched/builtin",
    "SchedulerParameters": "defer,batch_sched_delay=1,sched_min_interval=50000,sched_max_job_start=0,"
    "default_queue_depth=1000,max_rpc_cnt=150",
    "SlurmctldParameters": "enable_rpc_queue",
    "JobCompType": "jobcomp/none",
    "MaxJobCount": "100000",
    # Ended jobs weigh on the controller; these are remembered for as long as a run needs to see them end.
    "MinJobAge": "5",
    "SlurmctldDebug": "error",
    "SlurmdDebug": "error",
    "TCPTimeout": "10",
}
SLURM_PROMISE = (
    "a submission is answered from the controller's memory, whose state goes to disk up to 5 seconds later: a crash "
    "may forget the jobs and the ends of that time; a job whose node fails is queued again and runs a second time"
)
CELERY_PROMISE = (
    "a message is on disk before it is acknowledged (appendfsync always); a task whose worker dies is delivered "
    "again, so that it may run twice, also at a time where it takes longer than the visibility timeout; results "
    "expire in a day"
)


@attrs.frozen(kw_only=True)
class Rate:
    """A row of the table; `rate` in jobs a second."""

    name: str
    jobs: int
    rate: float
    promise: str


class TunedSlurm(PrivateSlurm):
    """With as many slots as the daemons have together, on processors that the node claims to have."""

    def install(self) -> None:
        """As that of the tests, with other values."""
        super().install()
        file = self.folder / "slurm.conf"
        replaced = (*TUNED, "JobCompLoc")
        lines = [line for line in file.read_text().splitlines() if line.partition("=")[0] not in replaced]
        text = "\n".join([*lines, *(f"{name}={value}" for name, value in TUNED.items())])
        file.write_text(re.sub(r" CPUs=\d+ ", f" CPUs={SLOTS} ", text) + "\n")

    def counted(self, what: str) -> int:
        """How many jobs have been submitted, started, completed, by the controller's own count."""
        found = re.search(rf"(?m)^Jobs {what}:\s*(\d+)", self.ask("sdiag"))
        assert found, f"sdiag does not say how many jobs are {what}"
        return int(found[1])


def slurm(jobs: int) -> Rate:
    """Submit so many with sbatch, some at a time, and wait until all have completed."""
    folder = Path(tempfile.mkdtemp(prefix="lgi-slurm-", dir="/tmp"))
    folder.chmod(0o755)
    cluster = TunedSlurm(folder)
    script = folder / "noop"
    script.write_text("#!/bin/sh\ntrue\n")
    cluster.install()
    try:
        cluster.start()
        command = [shutil.which("sbatch") or "sbatch", "--quiet", "--output=/dev/null", "--chdir=/", str(script)]

        def submit(_: int) -> None:
            subprocess.run(command, env=cluster.environment, check=True, stdout=subprocess.DEVNULL)

        submit(0)
        until(lambda: cluster.counted("completed") == 1, "the first job has ended")
        begun = time.monotonic()
        with ThreadPoolExecutor(AT_ONCE) as threads:
            for _ in threads.map(submit, range(jobs)):
                pass
        print(f"# Slurm: {jobs} submitted after {time.monotonic() - begun:.1f} s", flush=True)
        deadline = begun + 600
        while cluster.counted("completed") < jobs + 1:
            if time.monotonic() > deadline:
                raise AssertionError("Slurm has not completed all jobs within 600 seconds")
            # Seldom, as each look is a process and a call of the controller that is being measured.
            time.sleep(LOOK_SECONDS)
        seconds = time.monotonic() - begun
        version = cluster.ask("sbatch", "--version").split()[-1]
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)
    return Rate(name=f"Slurm {version}, sbatch", jobs=jobs, rate=jobs / seconds, promise=SLURM_PROMISE)


def celery(folder: Path, jobs: int) -> list[Rate]:
    """Send tasks, some at a time, and wait until the results of all are there: one that starts a process, one not."""
    port = free_port()
    data = folder / "redis"
    data.mkdir()
    os.environ["LGI_BENCH_REDIS"] = f"redis://127.0.0.1:{port}/0"
    redis = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", str(data), "--save", ""]
    redis += ["--appendonly", "yes", "--appendfsync", "always", "--logfile", str(data / "log")]
    worker = [sys.executable, "-m", "celery", "-A", "bench.tasks", "worker", "-O", "fair", "-l", "error"]
    worker += [f"--concurrency={PROCESSES}", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    environment = {**os.environ, "C_FORCE_ROOT": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    running: list[subprocess.Popen[bytes]] = []
    try:
        running.append(subprocess.Popen(redis, stdout=subprocess.DEVNULL))
        until(lambda: _answers(port), "Redis answers")
        with (data / "workers").open("wb") as said:
            for number in range(WORKERS):
                name = ["-n", f"worker{number}@localhost"]
                running.append(
                    subprocess.Popen(
                        [*worker, *name], cwd=data, env=environment, stdout=said, stderr=subprocess.STDOUT
                    )
                )
        return _celery(jobs)
    finally:
        for process in reversed(running):
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def _answers(port: int) -> bool:
    command = ["redis-cli", "-p", str(port), "ping"]
    return subprocess.run(command, capture_output=True, check=False).stdout == b"PONG\n"


def _celery(jobs: int) -> list[Rate]:
    from bench import tasks  # not before the environment says where Redis is

    rows = []
    for what, task in (("a process for each", tasks.process), ("a Python function", tasks.function)):
        # As many as there are processes, so that each has been started.
        for result in [task.apply_async() for _ in range(WORKERS * PROCESSES)]:
            result.get(timeout=60)
        begun = time.monotonic()
        with ThreadPoolExecutor(AT_ONCE) as threads:
            results = list(threads.map(lambda _, task=task: task.apply_async(), range(jobs)))
        for result in results:
            result.get(timeout=600)
        rate = jobs / (time.monotonic() - begun)
        rows.append(Rate(name=f"Celery with Redis, acks_late, {what}", jobs=jobs, rate=rate, promise=CELERY_PROMISE))
    return rows
