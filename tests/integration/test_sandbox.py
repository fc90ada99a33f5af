"""A daemon that runs as root, and jobs of a stranger who may do whatever the daemon lets him."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from lgi.daemon.sandbox import FIRST_UID, LAST_UID, living
from tests.integration.grid import GridCase, until

REFUSED = "refused"
ATTEMPTS = f"""
try() {{ name=$1; shift; if "$@" >/dev/null 2>&1; then echo "done: $name"; else echo "{REFUSED}: $name"; fi; }}
pid=$(pgrep -f 'sleep 61[3]')
id
grep -E '^(NoNewPrivs|CapEff|CapBnd|Groups):' /proc/self/status
try 'list jobs' ls ..
try 'seal' cat ../../../.lgi-daemon.key
try 'shadow' cat /etc/shadow
for victim in $pid; do
    try 'kill' kill "$victim"
    try 'its directory' ls "/proc/$victim/cwd/"
    try 'its environment' cat "/proc/$victim/environ"
    try 'its memory' dd "if=/proc/$victim/mem" count=0
done
try 'own script' sh -c 'echo evil >LGI_job_epilogue_script'
try 'own name' mv LGI_owners x
lgi files --help >/dev/null && echo 'lgi runs'
"""


class SandboxTests(GridCase):
    def setUp(self) -> None:
        if os.geteuid() != 0:
            self.skipTest("only root can give a job another uid")

    def test_jobs_are_kept_from_each_other_and_from_the_daemon(self) -> None:
        grid = self.make_grid()
        application = grid.cfg.parent / "applications" / "hello_world"
        (application / "job_run_script").write_text("#!/bin/sh\nsh ./LGI_input >LGI_output 2>&1\n")
        grid.start_server()
        daemon = grid.start_daemon()
        daemon.wait_for("jobs are sandboxed")
        waits = grid.submit("-a", "hello_world", "--input", "setsid sleep 613 & sleep 613")
        grid.wait_for_state(waits, "running")
        directory = until(grid.job_directories, "a job directory")[0]
        uid = int((directory / "LGI_job_sandbox_uid").read_text())
        self.assertTrue(FIRST_UID <= uid <= LAST_UID)
        until(lambda: len(living((uid,)).get(uid, ())) >= 4, "the first job runs")

        attacks = grid.submit("-a", "hello_world", "--input", ATTEMPTS)
        job = grid.wait_for_state(attacks, "finished", "aborted")
        lines = job["output"].splitlines()
        self.assertEqual([line for line in lines if line.startswith("done")], [], job["output"])
        self.assertGreaterEqual(sum(line.startswith(REFUSED) for line in lines), 5 + 4 * 2, job["output"])
        self.assertIn("lgi runs", lines)
        self.assertIn("NoNewPrivs:\t1", lines)
        self.assertIn("CapEff:\t0000000000000000", lines)
        self.assertIn("CapBnd:\t0000000000000000", lines)
        self.assertNotIn(f"uid={uid} ", job["output"])
        self.assertNotIn("uid=0", job["output"])

        daemon.stop(signal.SIGKILL)
        again = grid.start_daemon()
        again.wait_for("is still running")
        self.assertEqual(int((directory / "LGI_job_sandbox_uid").read_text()), uid)
        grid.user("delete", str(waits))
        until(lambda: not grid.job_directories(), "the job is gone")
        until(lambda: uid not in living(), "what it left in the background is gone too")

    def test_what_keeps_it_from_starting(self) -> None:
        grid = self.make_grid()
        grid.run.chmod(0o777)
        status, said = grid.start("lgi-daemon", grid.cfg).ended()
        self.assertEqual(status, 1)
        self.assertIn(f"{grid.run} belongs to uid 0 and has mode 0777", said)
        grid.run.chmod(0o700)
        grid.run.parent.chmod(0o700)
        status, said = grid.start("lgi-daemon", grid.cfg).ended()
        self.assertEqual(status, 1)
        self.assertIn(f"the uids of jobs cannot enter {grid.run.parent}", said)
        grid.start_daemon("--no-sandbox").wait_for("they run as root")
        self.assertTrue(Path(grid.run).is_dir())
