"""A private Grid Engine for tests: sge_qmaster and sge_execd on loopback, with all their files in a temporary folder.

Nothing of a Grid Engine that the machine itself may run is read or touched. It is made by root only: its execution
daemon starts jobs in the name of users, and refuses to be anybody else's.
"""

from __future__ import annotations

import atexit
import os
import platform
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

START_SECONDS = 60
STOP_SECONDS = 30
QUEUE = "lgi.q"
SLOTS = 4
_ROOT = Path("/var/lib/gridengine")
_PROGRAMS = Path("/usr/lib/gridengine")
_SHARE = Path("/usr/share/gridengine")
_PACKAGES = "gridengine-master gridengine-exec gridengine-client"
_NONE = (
    "load_thresholds suspend_thresholds ckpt_list prolog epilog starter_method suspend_method resume_method "
    "terminate_method owner_list user_lists xuser_lists subordinate_list complex_values projects xprojects calendar"
)
_LIMITS = "rt cpu fsize data stack core rss vmem"


class GridEngineMissing(AssertionError):
    """There is no Grid Engine to test with; the message says what to install."""


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


class PrivateGridEngine:
    """A Grid Engine of one host with `SLOTS` slots."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        master, execution = _free_ports(2)
        self.environment: Mapping[str, str] = {
            **os.environ,
            "SGE_ROOT": str(folder),
            "SGE_CELL": "lgi",
            "SGE_QMASTER_PORT": str(master),
            "SGE_EXECD_PORT": str(execution),
            "SGE_ND": "1",  # stay in the foreground
        }

    def install(self) -> None:
        """Write the cell's configuration and its empty databases."""
        common, spool = self.folder / "lgi" / "common", self.folder / "spool"
        for path in (common, spool / "qmaster" / "job_scripts", spool / "execd"):
            path.mkdir(parents=True)
        for name in ("bin", "lib", "util", "utilbin"):
            shutil.copytree(_ROOT / name, self.folder / name, symlinks=True)
        (common / "act_qmaster").write_text("localhost\n")
        (common / "host_aliases").write_text(f"localhost {platform.node()}\n")
        bootstrap = {
            "admin_user": "none",
            "default_domain": "none",
            "ignore_fqdn": "false",
            "spooling_method": "classic",
            "spooling_lib": "libspoolc",
            "spooling_params": f"{common};{spool / 'qmaster'}",
            "binary_path": "/usr/sbin",
            "qmaster_spool_dir": spool / "qmaster",
            "security_mode": "none",
            "listener_threads": 2,
            "worker_threads": 2,
            "scheduler_threads": 1,
        }
        (common / "bootstrap").write_text("".join(f"{name} {value}\n" for name, value in bootstrap.items()))
        changes = {
            "execd_spool_dir": spool / "execd",
            "min_uid": 0,
            "min_gid": 0,
            "load_report_time": "00:00:02",
            "reporting_params": "accounting=true reporting=false flush_time=00:00:01 joblog=false sharelog=00:00:00",
        }
        lines = (_SHARE / "default-configuration").read_text().splitlines()
        kept = [line for line in lines if line.split() and line.split()[0] not in changes]
        kept += [f"{name} {value}" for name, value in changes.items()]
        configuration = self.folder / "configuration"
        configuration.write_text("".join(f"{line}\n" for line in kept if not line.startswith("#")))
        resources = _SHARE / "util" / "resources"
        self._do(_PROGRAMS / "spoolinit", "classic", "libspoolc", str(bootstrap["spooling_params"]), "init")
        for what, source in (
            ("configuration", configuration),
            ("complexes", resources / "centry"),
            ("usersets", resources / "usersets"),
            ("managers", "root"),
        ):
            self._do(_PROGRAMS / "spooldefaults", what, str(source))

    def start(self) -> None:
        """Start it and return when its queue takes jobs; for the main thread, whose end would end the processes."""
        self._spawn("sge_qmaster")
        self._until("sge_qmaster", lambda: self.ask("qconf", "-sm").strip() == "root")
        self.ask("qconf", "-as", "localhost")
        self._spawn("sge_execd")
        self._until("sge_execd", lambda: "lx-" in self.ask("qhost", "-h", "localhost"))
        queue = {
            "qname": QUEUE,
            "hostlist": "localhost",
            "seq_no": 0,
            "nsuspend": 1,
            "suspend_interval": "00:05:00",
            "priority": 0,
            "min_cpu_interval": "00:05:00",
            "processors": "UNDEFINED",
            "qtype": "BATCH",
            "pe_list": "NONE",
            "rerun": "TRUE",
            "slots": SLOTS,
            "tmpdir": "/tmp",
            "shell": "/bin/sh",
            "shell_start_mode": "unix_behavior",
            "notify": "00:00:60",
            "initial_state": "default",
            **dict.fromkeys(_NONE.split(), "NONE"),
            **{f"{kind}_{name}": "INFINITY" for kind in "sh" for name in _LIMITS.split()},
        }
        file = self.folder / "queue"
        file.write_text("".join(f"{name} {value}\n" for name, value in queue.items()))
        self._do("qconf", "-Aq", str(file))
        schedule = self.folder / "schedule"
        wanted = {"schedule_interval": "0:0:1", "flush_submit_sec": "1", "flush_finish_sec": "1"}
        text = "".join(
            f"{line.split()[0]} {wanted.get(line.split()[0], line.split(maxsplit=1)[1])}\n"
            for line in self.ask("qconf", "-ssconf").splitlines()
            if len(line.split()) > 1
        )
        schedule.write_text(text)
        self._do("qconf", "-Msconf", str(schedule))

    def ask(self, *command: str) -> str:
        """What a command of Grid Engine says, whether or not it succeeds."""
        return self._run(*command).stdout

    def _run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            list(map(str, command)),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            text=True,
            timeout=START_SECONDS,
            cwd=self.folder,
        )

    def _do(self, *command: str | Path) -> None:
        done = self._run(*command)
        if done.returncode:
            raise AssertionError(f"{' '.join(map(str, command))} exited with {done.returncode}:\n{done.stdout}")

    def _spawn(self, name: str) -> None:
        guard = shutil.which("setpriv")
        command = [str(_PROGRAMS / name)]
        with (self.folder / f"{name}.out").open("ab") as said:
            self._processes[name] = subprocess.Popen(
                [guard, "--pdeathsig", "TERM", *command] if guard else command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env=self.environment,
                cwd=self.folder,
                process_group=0,
            )

    def _until(self, name: str, ready: object) -> None:
        assert callable(ready)
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if self._processes[name].poll() is not None or time.monotonic() > deadline:
                said = (self.folder / f"{name}.out").read_text(errors="replace")
                raise AssertionError(f"{name} does not start; it said:\n{said}")
            # Nothing tells when it is there: ask again.
            time.sleep(0.1)

    def stop(self) -> None:
        """End jobs and daemons, and wait for their end."""
        if "sge_qmaster" in self._processes:
            self.ask("qdel", "-u", "*")
            deadline = time.monotonic() + 20
            while self.ask("qstat", "-u", "*").strip() and time.monotonic() < deadline:
                time.sleep(0.2)
        for name in ("sge_execd", "sge_qmaster"):
            process = self._processes.pop(name, None)
            if process is None:
                continue
            # The master takes seconds to save what is thrown away with its folder.
            process.send_signal(signal.SIGKILL if name == "sge_qmaster" else signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


_running: PrivateGridEngine | None = None


def cluster() -> PrivateGridEngine:
    """The Grid Engine of this test run, started when it is first asked for; raises GridEngineMissing."""
    global _running  # noqa: PLW0603 -- one for each process, whichever runner and test comes first
    if _running is None:
        if not (_PROGRAMS / "sge_execd").exists() or shutil.which("qsub") is None:
            raise GridEngineMissing(
                f"Grid Engine is not installed (its services need not run): "
                f"apt-get install --no-install-recommends {_PACKAGES}"
            )
        folder = Path(tempfile.mkdtemp(prefix="lgi-gridengine-", dir="/tmp"))
        folder.chmod(0o755)
        made = PrivateGridEngine(folder)
        atexit.register(_remove, made, folder)
        made.install()
        made.start()
        _running = made
    return _running


def _remove(made: PrivateGridEngine, folder: Path) -> None:
    made.stop()
    shutil.rmtree(folder, ignore_errors=True)
