"""Bad input and faults: each is a clear error or a recovery, and nothing is lost."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

from tests import mariadb
from tests.integration.grid import EXAMPLES, RESOURCE, USER, GridCase, free_port, until

LONG_INPUT = "structure = argon38.xyz\nsteps = 8000\n"


class StartTests(GridCase):
    """What keeps a program from starting is said in one line, with a status that is not 0."""

    def refused(self, name: str, config: Path, *expected: str) -> None:
        status, said = self.grid.start(name, config).ended()
        self.assertNotEqual(status, 0, said)
        for text in expected:
            self.assertIn(text, said)
        self.assertNotIn("Traceback", said)

    def setUp(self) -> None:
        self.grid = self.make_grid()

    def test_server(self) -> None:
        grid = self.grid
        config = grid.config.read_text()
        other = grid.config.with_name("other.toml")
        grid.start_server()
        self.refused("lgi-server", grid.config, "cannot start", "another server", "works in this run directory")
        elsewhere = config.replace("[server]\n", '[server]\nrun_directory = "../elsewhere"\n')
        other.write_text(elsewhere)
        self.refused("lgi-server", other, "cannot start", str(grid.port), "in use")
        other.write_text(config.replace("port = ", "prot = "))
        self.refused("lgi-server", other, "other.toml", "server.port: port is missing", "unknown: prot")
        self.refused("lgi-scheduler", other, "unknown: prot")
        moved = elsewhere.replace(f"port = {grid.port}", f"port = {free_port()}")
        other.write_text(moved.replace("server.key", "nowhere.key"))
        self.refused("lgi-server", other, "cannot start", "nowhere.key")
        other.write_text(moved.replace("server.key", "scheduler.key"))
        self.refused("lgi-server", other, "cannot start", "scheduler.key")
        other.write_text(moved.replace("db/LGI.sqlite", "db/empty.sqlite"))
        self.refused("lgi-server", other, "cannot start", "no database file", "empty.sqlite")
        self.refused("lgi-scheduler", other, "cannot start", "no database file")
        other.write_text(moved.replace("sqlite:", "oracle:"))
        self.refused("lgi-server", other, "oracle")

    def test_daemon(self) -> None:
        grid = self.grid
        cfg = grid.cfg.read_text()
        other = grid.cfg.with_name("other.cfg")
        other.write_text(cfg.replace("job_limit>", "jobb_limit>", 2).replace("lj_md/lj_md.py", "lj_md/none"))
        self.refused("lgi-daemon", other, "jobb_limit", "lj_md/none")
        other.write_text(cfg.replace("resource.key", "nowhere.key"))
        self.refused("lgi-daemon", other, "nowhere.key")
        grid.start_server()
        grid.start_daemon()
        self.refused("lgi-daemon", grid.cfg, "run")


class CertificateTests(GridCase):
    """Certificates that are not accepted."""

    def test_refusals(self) -> None:
        grid = self.make_grid()
        grid.start_server()
        grid.user("status")
        self.assertIn("no such", grid.user("submit", "-a", "nonesuch", status=1).replace("no known", "no such"))
        self.assertIn("target", grid.user("submit", "-a", "hello_world", "-t", "nobody@nowhere", status=1))
        shutil.copytree(grid.home, "broken")
        Path("broken/privatekey").unlink()
        self.assertIn("privatekey", grid.lgi("--config", "broken", "status", status=1))
        grid.lgi("init", "elsewhere", "--host", "localhost", "--port", str(free_port()))
        grid.lgi("ca", "--dir", "elsewhere", "issue", "user", USER, "--groups", "theor")
        foreign = Path("elsewhere/users") / USER
        shutil.copy(grid.home / "ca_chain", foreign / "ca_chain")
        refusal = grid.lgi("--config", str(foreign), "--server", grid.url, "status", status=1)
        self.assertIn("TLS", refusal)
        grid.ca("revoke", USER)
        self.assertIn("revoked", grid.user("status", status=1))


class RecoveryTests(GridCase):
    """What goes away in the middle of work comes back, and work goes on."""

    def long_job(self) -> int:
        Path("long.input").write_text(LONG_INPUT)
        return self.grid.submit("-a", "lj_md", "-i", "long.input", str(EXAMPLES / "lj_md/argon38.xyz"))

    def test_daemon_killed_with_a_job_running(self) -> None:
        self.grid = grid = self.make_grid()
        grid.start_server()
        grid.start_scheduler()
        daemon = grid.start_daemon()
        job = self.long_job()
        grid.wait_for_state(job, "running")
        directory = until(grid.job_directories, "a job directory")[0]
        until((directory / "energies.csv").exists, "the calculation has begun")
        pid = int((directory / "LGI_job_run_script_pid").read_text())
        daemon.stop(signal.SIGKILL)
        self.assertTrue(Path(f"/proc/{pid}").exists(), "the job went with its daemon")
        again = grid.start_daemon()
        finished = grid.wait_for_state(job, "finished", "aborted")
        self.assertEqual(finished["state"], "finished")
        self.assertIn("step 8000 of 8000", finished["output"])
        self.assertNotIn("started (process", again.logged())
        until(lambda: not grid.job_directories(), "the job directory is gone")
        self.assertEqual(again.logged().count("reported finished"), 1)

    def test_server_down_while_the_daemon_runs(self) -> None:
        self.grid = grid = self.make_grid()
        server = grid.start_server()
        grid.start_scheduler()
        daemon = grid.start_daemon()
        job = grid.submit("-a", "hello_world", "--input", "before")
        grid.wait_for_state(job, "finished")
        long = self.long_job()
        grid.wait_for_state(long, "running")
        directory = until(grid.job_directories, "a job directory")[0]
        until((directory / "energies.csv").exists, "the calculation has begun")
        server.stop(signal.SIGKILL)
        self.assertIn("server", grid.user("status", status=1))
        daemon.wait_for("no answer")
        until((directory / "LGI_exit_status").exists, "the calculation ends without a server")
        grid.start_server()
        self.assertEqual(grid.wait_for_state(long, "finished")["exit_status"], 0)
        after = grid.submit("-a", "hello_world", "--input", "after")
        self.assertIn("after", grid.wait_for_state(after, "finished")["output"])

    def test_tampered_job_directory_is_never_run_nor_reported(self) -> None:
        self.grid = grid = self.make_grid()
        grid.start_server()
        daemon = grid.start_daemon()
        job = self.long_job()
        grid.wait_for_state(job, "running")
        directory = until(grid.job_directories, "a job directory")[0]
        until((directory / "energies.csv").exists, "the calculation has begun")
        daemon.stop()
        epilogue = directory / "LGI_job_epilogue_script"
        epilogue.chmod(0o700)
        epilogue.write_text("#!/bin/sh\ntouch /tmp/never\n")
        again = grid.start_daemon()
        again.wait_for("LGI_job_epilogue_script")
        until((directory / "LGI_exit_status").exists, "the calculation ends")
        hello = grid.submit("-a", "hello_world", "--input", "others go on")
        grid.wait_for_state(hello, "finished")
        self.assertEqual(grid.job(job)["state"], "running")
        self.assertTrue(directory.exists())

    def test_server_killed_under_submissions(self) -> None:
        self.grid = grid = self.make_grid()
        server = grid.start_server()
        jobs = [grid.submit("-a", "hello_world", "--input", f"job {number}") for number in range(5)]
        server.stop(signal.SIGKILL)
        grid.start_server()
        listed = {job["job_id"] for job in json.loads(grid.user("status", "--json"))}
        self.assertEqual(listed, set(jobs))


class MariaDBTests(GridCase):
    """The same thread on the production database."""

    def test_job_on_mariadb(self) -> None:
        grid = self.make_grid(database=mariadb.server().create_database())
        grid.start_all()
        job = grid.submit("-a", "hello_world", "--input", "on MariaDB")
        self.assertIn("on MariaDB", grid.wait_for_state(job, "finished")["output"])
        self.assertEqual(grid.job(job)["target_resources"], [RESOURCE])
