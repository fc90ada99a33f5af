"""A private Slurm for tests: munged, slurmctld and slurmd of one node on loopback, made in a temporary folder.

Nothing of a Slurm or munge that the machine itself may run is read or touched: key, socket, configuration, ports and
state are the tests' own. Processes are started here and ended by their numbers.
"""

from __future__ import annotations

import atexit
import getpass
import os
import platform
import secrets
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
CPUS = 4
PARTITION = "lgi"
_PLACES = ("/usr/sbin", "/usr/local/sbin")
_PACKAGES = "slurmctld slurmd slurm-client munge"


class SlurmMissing(AssertionError):
    """There is no Slurm to test with; the message says what to install."""


def _program(name: str) -> str:
    found = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", os.defpath), *_PLACES)))
    if found is None:
        raise SlurmMissing(
            f"{name} is not installed, and these tests need a real Slurm (its own services need not run): "
            f"apt-get install --no-install-recommends {_PACKAGES}"
        )
    return found


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


class PrivateSlurm:
    """A Slurm of one node with `CPUS` processors; the controller may be stopped and started again in between."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def environment(self) -> Mapping[str, str]:
        """What a command needs to speak to this Slurm and no other."""
        return {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def install(self) -> None:
        """Write the key and the configuration."""
        controller, daemon = _free_ports(2)
        host, user = platform.node().partition(".")[0], getpass.getuser()
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(128))
        settings = {
            "ClusterName": "lgitest",
            "SlurmctldHost": f"{host}(127.0.0.1)",
            "SlurmctldPort": controller,
            "SlurmdPort": daemon,
            "SlurmUser": user,
            "SlurmdUser": user,
            "AuthType": "auth/munge",
            "AuthInfo": f"socket={self._socket}",
            "CredType": "cred/munge",
            "StateSaveLocation": self.folder / "state",
            "SlurmdSpoolDir": self.folder / "spool",
            "SlurmctldPidFile": self.folder / "slurmctld.pid",
            "SlurmdPidFile": self.folder / "slurmd.pid",
            "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/none",
            "SwitchType": "switch/none",
            "MpiDefault": "none",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_CPU",
            # The node claims more processors than the machine may have.
            "SlurmdParameters": "config_overrides",
            "SchedulerParameters": "batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1",
            "PriorityType": "priority/basic",
            "AccountingStorageType": "accounting_storage/none",
            "JobAcctGatherType": "jobacct_gather/none",
            "JobCompType": "jobcomp/filetxt",
            "JobCompLoc": self.folder / "jobcomp",
            "KillWait": 2,
            # Ended jobs leave the queue soon, so that absence is met here too.
            "MinJobAge": 8,
            "ReturnToService": 2,
            "MessageTimeout": 10,
        }
        lines = [f"{name}={value}" for name, value in settings.items()]
        lines += [
            f"NodeName={host} NodeAddr=127.0.0.1 CPUs={CPUS} RealMemory=1000 State=UNKNOWN",
            f"PartitionName={PARTITION} Nodes={host} Default=YES MaxTime=60 DefaultTime=10 State=UP OverSubscribe=NO",
        ]
        (self.folder / "slurm.conf").write_text("\n".join(lines) + "\n")

    @property
    def _socket(self) -> Path:
        return self.folder / "munge.socket"

    def start(self) -> None:
        """Start everything and return when the node is idle; for the main thread, whose end would end it all."""
        munged = [_program("munged"), "--foreground", "--force", f"--socket={self._socket}"]
        munged += [f"--key-file={self.folder / 'munge.key'}", f"--pid-file={self.folder / 'munged.pid'}"]
        munged += [f"--log-file={self.folder / 'munged.log'}", f"--seed-file={self.folder / 'munged.seed'}"]
        self._spawn("munged", munged)
        self._until("munged", self._socket.exists)
        self.start_controller()
        self._spawn("slurmd", [_program("slurmd"), "-D"])
        self._until("slurmd", lambda: self.ask("sinfo", "--noheader", "--format=%T").strip() in ("idle", "mixed"))

    def start_controller(self) -> None:
        """Start slurmctld and return when it answers."""
        self._spawn("slurmctld", [_program("slurmctld"), "-D"])
        self._until("slurmctld", lambda: "is UP" in self.ask("scontrol", "ping"))

    def stop_controller(self) -> None:
        """End slurmctld, which saves its state, and wait for its end."""
        self._end("slurmctld")

    def ask(self, *command: str) -> str:
        """What a command of Slurm says, whether or not it succeeds."""
        return subprocess.run(
            [_program(command[0]), *command[1:]],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            text=True,
            timeout=START_SECONDS,
        ).stdout

    def stop(self) -> None:
        """End everything that runs, jobs first."""
        if "slurmctld" in self._processes and "slurmd" in self._processes:
            self.ask("scancel", f"--user={getpass.getuser()}", "--signal=KILL", "--full")
            self.ask("scancel", f"--user={getpass.getuser()}")
            deadline = time.monotonic() + 10
            while self.ask("squeue", "--noheader").strip() and time.monotonic() < deadline:
                time.sleep(0.1)
        for name in ("slurmd", "slurmctld", "munged"):
            self._end(name)

    def _spawn(self, name: str, command: list[str]) -> None:
        # Where this is to be had, the daemon also goes when the tests are killed.
        guard = shutil.which("setpriv")
        with (self.folder / f"{name}.out").open("ab") as said:
            self._processes[name] = subprocess.Popen(
                [guard, "--pdeathsig", "TERM", *command] if guard else command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env=self.environment,
                cwd=self.folder,
                # A group of its own, so that Ctrl-C at the tests lets us end them in order.
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
            time.sleep(0.05)

    def _end(self, name: str) -> None:
        process = self._processes.pop(name, None)
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


_running: PrivateSlurm | None = None


def cluster() -> PrivateSlurm:
    """The Slurm of this test run, started when it is first asked for; raises SlurmMissing."""
    global _running  # noqa: PLW0603 -- one for each process, whichever runner and test comes first
    if _running is None:
        for name in ("munged", "slurmctld", "slurmd", "sbatch"):
            _program(name)
        # Not under TMPDIR, which may be too long for the path of a socket.
        folder = Path(tempfile.mkdtemp(prefix="lgi-slurm-", dir="/tmp"))
        folder.chmod(0o755)  # munge wants every directory above its socket to be open to all
        made = PrivateSlurm(folder)
        atexit.register(_remove, made, folder)
        made.install()
        made.start()
        _running = made
    return _running


def _remove(made: PrivateSlurm, folder: Path) -> None:
    made.stop()
    shutil.rmtree(folder, ignore_errors=True)
