"""How fast a large file goes to and from the repository, beside nginx on the same certificates and the same disk.

    python -m bench.transfer [--size 4096] [--directory DIR] [--no-nginx]

Real processes on loopback ports: the project server under twistd, and an nginx of one worker with its PUT. curl sends
and gets over TLS with a client certificate. The server has a file on disk before it answers to a PUT; nginx does not,
so that its file is synced afterwards, and both times are given. Memory is by how much the highest that the process
ever held (VmHWM) grew. The processor time of the server tells more than the rates where other programs run too. A
file is read right after it was written, by both.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.integration.grid import Grid, free_port

MIB = 1 << 20
NGINX = "/usr/sbin/nginx"
CONFIG = """\
daemon off; master_process off; worker_processes 1; user root; pid {root}/nginx.pid; error_log {root}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off; client_max_body_size 0; client_body_temp_path {root}/body; sendfile on; tcp_nopush on;
    proxy_temp_path {root}/p; fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;
    server {{
        listen 127.0.0.1:{port} ssl; server_name localhost;
        ssl_certificate {certificate}; ssl_certificate_key {key};
        ssl_client_certificate {authority}; ssl_verify_client on; ssl_verify_depth 2;
        ssl_protocols TLSv1.2 TLSv1.3;
        location / {{ root {root}/files; dav_methods PUT DELETE; }}
    }}
}}
"""


def cpu(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def highest(pid: int) -> float:
    """The most memory that a process ever held, in MiB."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


class Curl:
    """curl with a user's certificate; `took` is in seconds."""

    def __init__(self, home: Path) -> None:
        self._command = ["curl", "-sS", "--fail", "--cert", str(home / "certificate"), "--key"]
        self._command += [str(home / "privatekey"), "--cacert", str(home / "ca_chain")]

    def took(self, *arguments: str) -> float:
        """Run it."""
        begun = time.monotonic()
        subprocess.run([*self._command, *arguments], check=True)
        return time.monotonic() - begun

    def put(self, file: Path, url: str) -> float:
        """Send a file."""
        return self.took("-o", "/dev/null", "-T", str(file), url)

    def get(self, url: str) -> float:
        """Get a file, and throw it away."""
        return self.took("-o", "/dev/null", url)


class Nginx:
    """A private nginx with the server's certificates, in a directory."""

    def __init__(self, root: Path, grid: Grid) -> None:
        self.root = root
        self.port = free_port()
        for name in ("body", "files"):
            (root / name).mkdir(parents=True)
        server = grid.root / "server"
        config = root / "nginx.conf"
        config.write_text(
            CONFIG.format(
                root=root,
                port=self.port,
                certificate=server / "server.crt",
                key=server / "server.key",
                authority=grid.home / "ca_chain",
            )
        )
        self.process = subprocess.Popen([NGINX, "-c", str(config), "-e", str(root / "start.log")])
        time.sleep(1)
        if self.process.poll() is not None:
            raise SystemExit(f"nginx does not start: {(root / 'start.log').read_text()}")

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait()


def row(what: str, size: int, seconds: float, durable: float | None, used: float, grown: float) -> str:
    """A line of the table."""
    there = "" if durable is None else f"{size / durable:.0f}"
    return f"| {what} | {size / seconds:.0f} | {there} | {used / size * 1024:.2f} | {grown:.1f} |"


def measure(what: str, curl: Curl, pid: int, url: str, file: Path, size: int, kept: Path | None) -> Sequence[str]:
    """Put a file and get it; `kept` is where it has to be synced by us."""
    before, begun_with = highest(pid), cpu(pid)
    put = durable = curl.put(file, url)
    if kept is not None:
        begun = time.monotonic()
        with kept.open("rb") as written:
            os.fsync(written.fileno())
        durable += time.monotonic() - begun
    middle, half = highest(pid), cpu(pid)
    get = curl.get(url)
    return (
        row(f"{what}, PUT", size, put, durable, half - begun_with, middle - before),
        row(f"{what}, GET", size, get, None, cpu(pid) - half, highest(pid) - middle),
    )


def run(root: Path, size: int, rounds: int, *, nginx: bool) -> None:
    """Print the table."""
    file = root / "file"
    block = os.urandom(MIB)
    with file.open("wb") as large:
        for _ in range(size):
            large.write(block)
        os.fsync(large.fileno())
    grid = Grid(root / "grid")
    other = None
    try:
        server = grid.start_server()
        job = grid.job(grid.submit("-a", "hello_world"))
        found = re.search(r"https://\S+/repository/\S+", str(job))
        assert found is not None
        address = found[0].rstrip("'\",")
        curl = Curl(grid.home)
        # What the first transfer of any size costs is no growth.
        small = root / "small"
        small.write_bytes(block)
        curl.put(small, f"{address}/small")
        curl.get(f"{address}/small")
        print(f"| {size} MiB | MiB/s until answered | MiB/s until on disk | CPU s for a GiB | memory grown by MiB |")
        print("|---|---|---|---|---|")
        if nginx:
            other = Nginx(root / "nginx", grid)
            curl.put(small, f"https://localhost:{other.port}/small")
        for _ in range(rounds):
            lines = list(measure("server", curl, server.process.pid, f"{address}/large", file, size, None))
            if other is not None:
                kept = other.root / "files" / "large"
                lines += measure(
                    "nginx", curl, other.process.pid, f"https://localhost:{other.port}/large", file, size, kept
                )
            print("\n".join(lines), flush=True)
    finally:
        if other is not None:
            other.stop()
        grid.stop()


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4096, help="of the file, in MiB")
    parser.add_argument("--rounds", type=int, default=1, help="how often everything is done")
    parser.add_argument("--directory", type=Path, help="on the disk that is wanted; else the one for temporary files")
    parser.add_argument("--no-nginx", action="store_true", help="the server alone")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=wanted.directory) as name:
        Path(name).chmod(0o755)
        os.chdir(name)
        run(Path(name), wanted.size, wanted.rounds, nginx=not wanted.no_nginx)


if __name__ == "__main__":
    main()
