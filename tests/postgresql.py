"""A private PostgreSQL server for tests: one for a whole run, made in a temporary folder and gone with the run.

It listens on a Unix socket only. PostgreSQL refuses to be root's, so that root lends it the user `nobody` here.
"""

from __future__ import annotations

import atexit
import itertools
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg
from sqlalchemy.engine import URL

USER = "lgi_test"
START_SECONDS = 60
STOP_SECONDS = 30
_OPTIONS = {
    "listen_addresses": "",
    "max_connections": "100",
    "shared_buffers": "32MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "off",
}


class PostgreSQLMissing(AssertionError):
    """There is no PostgreSQL to test with; the message says what to install."""


def _program(name: str) -> str:
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[-3]))
    found = shutil.which(name) or (str(versions[-1]) if versions else "")
    if not found:
        raise PostgreSQLMissing(
            f"{name} is not installed, and these tests need a real PostgreSQL (its own service need not run): "
            "apt-get install --no-install-recommends postgresql"
        )
    return found


def _unprivileged(command: list[str]) -> list[str]:
    if os.geteuid() != 0:
        return command
    return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *command]


class PrivatePostgreSQL:
    """A PostgreSQL server with its data under `folder`; `start` and `stop` may alternate, the data stay."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._log = folder / "log"
        self._password = secrets.token_urlsafe(16)
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)

    def install(self) -> None:
        """Make the data directory and the tests' user."""
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(self._folder, nobody.pw_uid, nobody.pw_gid)
        secret = self._folder / "password"
        secret.write_text(self._password)
        if os.geteuid() == 0:
            shutil.chown(secret, "nobody")
        done = subprocess.run(
            _unprivileged(
                [
                    _program("initdb"),
                    f"--pgdata={self._data}",
                    f"--username={USER}",
                    f"--pwfile={secret}",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    "--no-locale",
                    "--no-sync",
                ]
            ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self._folder,
            check=False,
        )
        secret.unlink()
        if done.returncode:
            raise AssertionError(f"PostgreSQL's data could not be made:\n{done.stdout.decode(errors='replace')}")

    def start(self) -> None:
        """Start the server and return when it answers; for the main thread, since the server ends with its thread."""
        settings = [part for name, value in _OPTIONS.items() for part in ("-c", f"{name}={value}")]
        server = _unprivileged([_program("postgres"), "-D", str(self._data), "-k", str(self._folder), *settings])
        guard = shutil.which("setpriv")
        if guard and os.geteuid() != 0:
            server = [guard, "--pdeathsig", "INT", *server]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                server, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._folder
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self._connect("postgres").close()
                return
            except psycopg.OperationalError as problem:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise AssertionError(
                        f"PostgreSQL does not start ({problem}); its log:\n{self._log.read_text(errors='replace')}"
                    ) from None
            # Nothing tells when the socket is there: ask again.
            time.sleep(0.02)

    def _connect(self, database: str) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(
            host=str(self._folder), user=USER, password=self._password, dbname=database, autocommit=True
        )

    def execute(self, statement: str) -> None:
        """Run one statement on a connection of its own."""
        with self._connect("postgres") as connection:
            connection.execute(statement.encode())

    def create_database(self) -> str:
        """Make an empty database and return its URL, password included, as a configuration file would have it."""
        name = f"lgi_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return URL.create(
            "postgresql",
            username=USER,
            password=self._password,
            database=name,
            query={"host": str(self._folder)},
        ).render_as_string(hide_password=False)

    def kill(self) -> None:
        """End the server as a crash does, its processes included, and write nothing; `start` recovers."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGQUIT)
            process.wait()

    def stop(self) -> None:
        """End the server, if it runs, and wait for its end."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGINT)  # fast: connections are closed, nothing is lost
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


_running: PrivatePostgreSQL | None = None


def server() -> PrivatePostgreSQL:
    """The server of this test run, started when it is first asked for; raises PostgreSQLMissing."""
    global _running  # noqa: PLW0603 -- one for each process, whichever runner and test comes first
    if _running is None:
        # Not under TMPDIR, which may be too long for the path of a socket.
        folder = Path(tempfile.mkdtemp(prefix="lgi-postgresql-", dir="/tmp"))
        made = PrivatePostgreSQL(folder)
        atexit.register(_remove, made, folder)
        made.install()
        made.start()
        _running = made
    return _running


def _remove(made: PrivatePostgreSQL, folder: Path) -> None:
    made.stop()
    shutil.rmtree(folder, ignore_errors=True)
