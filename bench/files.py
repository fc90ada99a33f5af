"""Many small files and one large one, to and from a repository: how fast, beside rsync, and how much memory.

    python -m bench.files [--files 10000] [--megabytes 512]

A real server under twistd, TLS with client certificates, the program `lgi`; and in the same run `rsync -a -e ssh` to
and from an sshd of our own on loopback. Here all files are on disk before they are acknowledged or reported; rsync
leaves that to the system, so its row has a `sync` in it, of what it wrote. 0 leaves a part out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import attrs

from tests.contract.sshd import PrivateSshd, private_key, public_line, write_key
from tests.integration.burst import most_memory, seconds_of_cpu
from tests.integration.grid import PROGRAMS, Grid

MIB = 1 << 20
SSH_FILE = "sshd_config"


@attrs.frozen(kw_only=True)
class Run:
    """A program that has ended: seconds, seconds of CPU, most memory in bytes, and its output."""

    seconds: float
    cpu: float
    memory: int
    output: str


def timed(*command: str | Path, sync: Path | None = None) -> Run:
    """Run a program to its end, and bring what it wrote to the disk if that is not its habit."""
    begun = time.monotonic()
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen([str(part) for part in command], stdout=out, stdin=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{command} ended with {process.returncode}")
        if sync is not None:
            subprocess.run(["sync", "--file-system", str(sync)], check=True)
        seconds = time.monotonic() - begun
        out.seek(0)
        return Run(
            seconds=seconds,
            cpu=usage.ru_utime + usage.ru_stime,
            memory=usage.ru_maxrss * 1024,
            output=out.read().decode(),
        )


def resident(pid: int) -> int:
    """The memory that a process has now, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return 1024 * int(line.split()[1])
    raise SystemExit("no VmRSS")


def make_files(folder: Path, number: int) -> int:
    """Files of 1 to 4 KiB, a hundred to a directory; returns their size in all."""
    chance = random.Random(1)  # noqa: S311, the same files each time
    total = 0
    for index in range(number):
        path = folder / f"d{index // 100:03}" / f"f{index:06}.dat"
        path.parent.mkdir(parents=True, exist_ok=True)
        total += path.write_bytes(chance.randbytes(chance.randrange(1024, 4097)))
    return total


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


class Bench:
    """A server with one repository, and an sshd."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.grid = Grid(root / "grid")
        self.server = self.grid.start_server()
        job = json.loads(self.grid.user("submit", "--json", "-a", "hello_world", "--input", "x"))
        self.job = str(job["job_id"])
        self.sshd = PrivateSshd(root / "sshd")
        self.sshd.folder.mkdir(mode=0o700)
        self.sshd.install()
        config = self.sshd.folder / SSH_FILE
        lines = config.read_text().splitlines(keepends=True)
        config.write_text("".join(line for line in lines if not line.startswith("ForceCommand")))
        key = private_key()
        self.sshd.authorized_keys.write_text(public_line(key) + "\n")
        self.shell = (
            f"ssh -p {self.sshd.port} -i {write_key(key, self.sshd.folder / 'key')} -o BatchMode=yes "
            f"-o UserKnownHostsFile={self.sshd.known_hosts} -o IdentitiesOnly=yes"
        )
        self.sshd.start()

    def stop(self) -> None:
        """End what was started."""
        self.sshd.stop()
        self.grid.stop()

    def lgi(self, *arguments: str | Path) -> Run:
        """Time `lgi files`."""
        return timed(PROGRAMS / "lgi", "--config", self.grid.home, "files", *arguments)

    def rsync(self, source: str | Path, target: str | Path, written: Path) -> Run:
        """Time rsync over ssh."""
        return timed("rsync", "-a", "-e", self.shell, source, target, sync=written)

    def far(self, path: Path) -> str:
        """A path on the other side of ssh."""
        return f"{self.sshd.user}@127.0.0.1:{path}"

    def small(self, number: int) -> None:
        """The table of the small files."""
        here, back, there = self.root / "many", self.root / "back", self.root / "there"
        there.mkdir()
        size = make_files(here, number)
        server = self.server.process.pid
        before = seconds_of_cpu(server)
        rows: list[tuple[str, Run]] = []
        rows.append(("lgi files put -r", self.lgi("put", self.job, "-r", here)))
        rows.append(("lgi files ls", self.lgi("ls", self.job)))
        assert len(rows[-1][1].output.splitlines()) == number
        rows.append(("lgi files get", self.lgi("get", self.job, "--to", back)))
        cpu = seconds_of_cpu(server) - before
        rows.append(("rsync -a -e ssh, there, and sync", self.rsync(here, self.far(there), there)))
        shutil.rmtree(here.with_name("again"), ignore_errors=True)
        rows.append(
            ("rsync -a -e ssh, back, and sync", self.rsync(self.far(there / "many"), self.root / "again", self.root))
        )
        assert digests(here) == digests(back / "many") == digests(self.root / "again" / "many")
        print(f"\n{number} files of 1 to 4 KiB, {size / 1e6:.1f} MB, compared by SHA-256:\n")
        print("| what | seconds | files/s | MB/s | client's CPU s | client's most MiB |\n|---|---|---|---|---|---|")
        for what, run in rows:
            print(
                f"| {what} | {run.seconds:.1f} | {number / run.seconds:.0f} | {size / 1e6 / run.seconds:.1f} "
                f"| {run.cpu:.1f} | {run.memory / MIB:.0f} |"
            )
        print(f"\nServer: {cpu:.1f} s of CPU, at most {most_memory(server) / MIB:.0f} MiB in memory.", flush=True)

    def large(self, megabytes: int) -> None:
        """The table of the large file."""
        here, back, there = self.root / "big", self.root / "bigback", self.root / "bigthere"
        there.mkdir()
        piece = random.Random(1).randbytes(MIB)  # noqa: S311
        with here.open("wb") as file:
            for index in range(megabytes):
                file.write(index.to_bytes(8, "big") + piece[8:])
        server = self.server.process.pid
        small = self.root / "one"
        small.write_bytes(b"x")
        nothing = self.lgi("put", self.job, small).memory
        rows: list[tuple[str, Run, float, int]] = []

        def measured(what: str, *arguments: str | Path) -> None:
            cpu, memory = seconds_of_cpu(server), resident(server)
            run = self.lgi(*arguments)
            # The most since it was started: of what came before too, so that this is an upper bound.
            rows.append((what, run, seconds_of_cpu(server) - cpu, most_memory(server) - memory))

        measured("lgi files put", "put", self.job, here)
        measured("lgi files get", "get", self.job, "big", "--to", back)
        rsync = [
            ("rsync -a -e ssh, there, and sync", self.rsync(here, self.far(there), there)),
            ("rsync -a -e ssh, back, and sync", self.rsync(self.far(there / "big"), self.root / "bigagain", there)),
        ]
        with here.open("rb") as one, (back / "big").open("rb") as other:
            assert hashlib.file_digest(one, "sha256").digest() == hashlib.file_digest(other, "sha256").digest()
        print(f"\nOne file of {megabytes} MiB, compared by SHA-256; growth of memory is above what one byte takes:\n")
        print("| what | seconds | MB/s | client's CPU s | client grows MiB | server's CPU s | server grows MiB |")
        print("|---|---|---|---|---|---|---|")
        rate = megabytes * MIB / 1e6
        for what, run, cpu, grown in rows:
            print(
                f"| {what} | {run.seconds:.1f} | {rate / run.seconds:.0f} | {run.cpu:.1f} "
                f"| {(run.memory - nothing) / MIB:.0f} | {cpu:.1f} | {grown / MIB:.0f} |"
            )
        for what, run in rsync:
            print(f"| {what} | {run.seconds:.1f} | {rate / run.seconds:.0f} | {run.cpu:.1f} | | | |", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000, help="how many small files")
    parser.add_argument("--megabytes", type=int, default=512, help="size of the large file")
    wanted = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="lgi-bench-") as name:
        Path(name).chmod(0o755)
        os.chdir(name)
        bench = Bench(Path(name))
        try:
            if wanted.files:
                bench.small(wanted.files)
            if wanted.megabytes:
                bench.large(wanted.megabytes)
        finally:
            bench.stop()
            os.chdir("/")


if __name__ == "__main__":
    main()
