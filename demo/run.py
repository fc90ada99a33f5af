"""A whole grid on this machine: a project with its services, a hello_world job, a calculation, and their results.

Everything here is done with the programs that people use; each command is shown as it is run.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

DEMO = Path(__file__).resolve().parent
GRID = DEMO / "grid"
RESULTS = DEMO / "results"
EXAMPLE = DEMO.parent / "etc" / "applications" / "lj_md"
PROGRAMS = Path(sys.executable).parent
USER, RESOURCE = "ada@localhost", "laptop@localhost"
PATIENCE_SECONDS = 300
PIDS = GRID / "pids"


class DemoFailed(Exception):
    """What did not work."""


def say(text: str) -> None:
    """A line about what happens."""
    bold = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    print(f"\n{bold[0]}{text}{bold[1]}", flush=True)


def run(*command: str | Path, capture: bool = False) -> str:
    """Run one of our programs in sight; raises DemoFailed when it fails. Returns its standard output if captured."""
    words = [str(word) for word in command]
    print(f"$ {shlex.join(words)}", flush=True)
    result = subprocess.run(
        [str(PROGRAMS / words[0]), *words[1:]],
        stdout=subprocess.PIPE if capture else None,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    if result.returncode:
        raise DemoFailed(f"`{words[0]}` ended with status {result.returncode}")
    return result.stdout or ""


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Services:
    """The programs that stay: started with twistd, stopped by their numbers."""

    def __init__(self) -> None:
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, config: Path, *options: str) -> None:
        """Start a service in the foreground of its own process, with its log in grid/log."""
        log = GRID / "log" / f"{name}.log"
        log.parent.mkdir(exist_ok=True)
        command = ["twistd", "-n", "--pidfile=", f"--logfile={log}", name, "--config", str(config), *options]
        print(f"$ {shlex.join(command)} &", flush=True)
        # A session of its own, so that Ctrl-C reaches this script alone, which then stops it in order.
        self._processes[name] = subprocess.Popen(
            [str(PROGRAMS / command[0]), *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(log.parent / f"{name}.err").open("wb"),
            start_new_session=True,
        )

    def check(self) -> None:
        """Raise DemoFailed if one has ended."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise DemoFailed(f"{name} has ended with status {process.returncode}")

    def write_pids(self) -> None:
        """Leave the numbers for whoever stops them later."""
        PIDS.write_text("".join(f"{process.pid}\n" for process in self._processes.values()))

    def stop(self) -> None:
        """Stop them, the daemon first, and wait until they are gone."""
        for process in reversed(self._processes.values()):
            process.terminate()
        for process in reversed(self._processes.values()):
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for_server(services: Services, home: Path) -> None:
    """Wait until the project answers and the resource has called."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        services.check()
        answer = subprocess.run(
            [str(PROGRAMS / "lgi"), "--config", str(home), "resources", "--json"],
            capture_output=True,
            check=False,
        )
        if not answer.returncode and any(row["last_call_time"] for row in json.loads(answer.stdout)):
            return
        time.sleep(0.2)
    raise DemoFailed("the resource did not sign up within a minute")


def submit(home: Path, *arguments: str | Path) -> str:
    """Submit a job and return its number."""
    answer = json.loads(run("lgi", "--config", home, "submit", "--json", *arguments, capture=True))
    print(f"Job {answer['job_id']} is {answer['state']} for {answer['application']}", flush=True)
    return str(answer["job_id"])


def check_results(home: Path, job: str) -> None:
    """Compare the downloaded table with what the job said of it when it wrote it."""
    output = json.loads(run("lgi", "--config", home, "status", "--json", job, capture=True))["output"]
    wanted = {line.split()[2]: line.split()[1] for line in output.splitlines() if line.startswith("sha256 ")}
    for name in ("energies.csv", "trajectory.xyz", "final.xyz"):
        found = hashlib.sha256((RESULTS / name).read_bytes()).hexdigest()
        if wanted.get(name) != found:
            raise DemoFailed(f"{name} is not the file that the job wrote: {found}, not {wanted.get(name)}")
        print(f"{RESULTS / name}: sha256 {found}, as the job wrote it")


def show_logs() -> None:
    """The lines of the logs that say what went wrong."""
    for log in sorted((GRID / "log").glob("*.[el][ro][rg]")):
        lines = log.read_text(errors="replace").splitlines()
        telling = [line for line in lines if any(word in line for word in ("#warn", "#error", "#critical"))]
        print(f"\n--- {log}", file=sys.stderr)
        for line in (telling or lines)[-20:]:
            print(line, file=sys.stderr)
    for log in sorted(GRID.glob("resources/*/run/*/*/JOB_*/*.log")):
        print(f"\n--- {log}", file=sys.stderr)
        print(log.read_text(errors="replace")[-2000:], file=sys.stderr)


def stop_earlier() -> None:
    """Stop what an earlier demonstration left running, if it is still that, and say so."""
    if not PIDS.exists():
        return
    for pid in map(int, PIDS.read_text().split()):
        with contextlib.suppress(OSError):
            if str(GRID).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGTERM)
                while Path(f"/proc/{pid}").exists():
                    time.sleep(0.1)
    PIDS.unlink()
    print("Stopped the grid that an earlier demonstration had left running.", flush=True)


def let_jobs_in(resource: Path) -> list[str]:
    """Let others pass through the resource's directories, as root's daemon needs; returns options of the daemon.

    Each job of a daemon that runs as root has a uid of its own. Where others can enter neither this directory nor
    Python's, jobs could not run anything here, and there is no sandbox.
    """
    if os.geteuid() != 0:
        return []
    for wanted in (Path(sys.executable), Path(sys.executable).resolve(), DEMO):
        for path in (wanted, *wanted.parents):
            if not path.stat().st_mode & 0o001:
                what = "The demonstration" if wanted == DEMO else "The Python that it runs with"
                print(
                    f"{what} is below {path}, which only root can enter: jobs, which have uids of their own where "
                    "root starts the daemon, could not run it. It is started with --no-sandbox, and they run as root."
                )
                return ["--no-sandbox"]
    for path in (resource, *resource.parents):
        if path.is_relative_to(GRID):
            path.chmod(path.stat().st_mode | 0o011)
    return []


def demonstrate(services: Services) -> Path:
    """The whole story; returns the user's configuration directory."""
    say("1. A project: certificate authority, server, database, administrator")
    run("lgi", "init", GRID, "--host", "localhost", "--port", str(free_port()))
    say("2. A resource that offers two applications, and a user")
    run("lgi", "ca", "--dir", GRID, "issue", "resource", RESOURCE, "--applications", "hello_world,lj_md")
    run("lgi", "ca", "--dir", GRID, "issue", "user", USER, "--groups", "chemistry")
    say("3. The services: project server, scheduler, resource daemon")
    config = GRID / "etc" / "lgi-server.toml"
    services.start("lgi-server", config)
    services.start("lgi-scheduler", config)
    resource = GRID / "resources" / RESOURCE
    cycles = ("--slow-cycle=1", "--fast-cycle=1")
    services.start("lgi-daemon", resource / "LGI.cfg", *cycles, *let_jobs_in(resource))
    home = GRID / "users" / USER
    wait_for_server(services, home)
    run("lgi", "--config", home, "resources")
    say("4. Two jobs: a greeting, and molecular dynamics of an argon cluster with its structure file")
    hello = submit(home, "-a", "hello_world", "--input", "Hello from the demonstration")
    argon = submit(home, "-a", "lj_md", "-i", EXAMPLE / "example.input", EXAMPLE / "argon38.xyz")
    run("lgi", "--config", home, "wait", hello, argon, "--timeout", str(PATIENCE_SECONDS - 20))
    say("5. What they say")
    run("lgi", "--config", home, "status", hello)
    run("lgi", "--config", home, "status", argon)
    run("lgi", "--config", home, "status")
    say("6. The results")
    RESULTS.mkdir(parents=True, exist_ok=True)
    run("lgi", "--config", home, "files", "get", argon, "--to", RESULTS)
    check_results(home, argon)
    return home


def keep(services: Services, home: Path) -> None:
    """Say how to go on with a grid that stays."""
    services.write_pids()
    say("The grid is still running. As its user:")
    print(f"  export PATH={PROGRAMS}:$PATH LGI_CONFIG={home}")
    print("  lgi submit -a hello_world --input 'Hello again' --wait")
    print("  lgi status")
    print(f"Its logs are in {GRID / 'log'}. To stop it:")
    print(f"  kill $(cat {PIDS})", flush=True)


def main(arguments: Sequence[str]) -> int:
    """Run the demonstration; 0 when everything in it worked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the grid running")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    stop_earlier()
    for leftover in (GRID, RESULTS):
        shutil.rmtree(leftover, ignore_errors=True)
    services = Services()
    kept = False
    try:
        home = demonstrate(services)
        services.check()
        say("Done: both jobs finished.")
        if options.keep:
            keep(services, home)
            kept = True
    except KeyboardInterrupt:
        print("\nInterrupted: everything is stopped.", file=sys.stderr)
        return 130
    except (DemoFailed, OSError, subprocess.SubprocessError, ValueError, LookupError) as problem:
        show_logs()
        print(f"\nThe demonstration failed: {problem}", file=sys.stderr)
        return 1
    finally:
        if not kept:
            services.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
