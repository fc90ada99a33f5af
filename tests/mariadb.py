"""A private MariaDB server for tests: one for a whole run, made in a temporary folder and gone with the run.

The server listens on a Unix socket only, so that it needs no free port and nobody else can reach it. Nothing of a
MariaDB that the machine itself may run is read or touched.
"""

from __future__ import annotations

import atexit
import itertools
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pymysql
from sqlalchemy.engine import URL

USER = "lgi_test"
START_SECONDS = 60
STOP_SECONDS = 30
_PLACES = ("/usr/sbin", "/usr/local/sbin", "/usr/libexec", "/usr/local/mysql/bin", "/usr/local/mysql/scripts")
_OPTIONS = (
    "--skip-networking",
    "--skip-log-bin",
    "--skip-name-resolve",
    "--performance-schema=OFF",
    "--max-connections=100",
    "--key-buffer-size=1M",
    "--aria-pagecache-buffer-size=8M",
    "--innodb-buffer-pool-size=32M",
    "--innodb-log-file-size=16M",
    # As in production: what is committed is on the disk.
    "--innodb-flush-log-at-trx-commit=1",
    "--innodb-fast-shutdown=2",
)


class MariaDBMissing(AssertionError):
    """There is no MariaDB to test with; the message says what to install."""


def _program(*names: str) -> str:
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *_PLACES))
    for name in names:
        found = shutil.which(name, path=path)
        if found:
            return found
    raise MariaDBMissing(
        f"{' or '.join(names)} is not installed, and these tests need a real MariaDB (its own service need not run): "
        "apt-get install --no-install-recommends mariadb-server"
    )


def _as_root() -> list[str]:
    # The server refuses to be root's unless it is told so.
    return ["--user=root"] if os.geteuid() == 0 else []


class PrivateMariaDB:
    """A MariaDB server with its data under `folder`; `start` and `stop` may alternate, the data stay.

    `options` are for the server, after those that are for all tests.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder = folder
        self._options = options
        self._data = folder / "data"
        # A server that starts removes the temporary tables of all others that have them in the same directory.
        self._temporary = folder / "tmp"
        self._log = folder / "error.log"
        # A Unix socket's path has at most 107 bytes.
        self.socket = folder / "s"
        self._password = secrets.token_urlsafe(16)
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)

    def install(self) -> None:
        """Make the data directory and the tests' user."""
        self._temporary.mkdir(exist_ok=True)
        done = subprocess.run(
            [
                _program("mariadb-install-db", "mysql_install_db"),
                "--no-defaults",
                f"--datadir={self._data}",
                f"--tmpdir={self._temporary}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                *_as_root(),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if done.returncode:
            raise AssertionError(
                f"MariaDB's data directory could not be made:\n{done.stdout.decode(errors='replace')}"
            )
        (self._folder / "users.sql").write_text(
            f"SET PASSWORD FOR root@localhost = PASSWORD('{secrets.token_urlsafe(16)}');\n"
            "DELETE FROM mysql.global_priv WHERE User = '';\n"
            f"CREATE OR REPLACE USER {USER}@localhost IDENTIFIED BY '{self._password}';\n"
            f"GRANT ALL PRIVILEGES ON *.* TO {USER}@localhost;\n"
            "FLUSH PRIVILEGES;\n"
        )

    def start(self) -> None:
        """Start the server and return when it answers; for the main thread, since the server ends with its thread."""
        server = [
            _program("mariadbd", "mysqld"),
            "--no-defaults",
            f"--datadir={self._data}",
            f"--tmpdir={self._temporary}",
            f"--socket={self.socket}",
            f"--pid-file={self._folder / 'pid'}",
            f"--log-error={self._log}",
            f"--init-file={self._folder / 'users.sql'}",
            *_OPTIONS,
            *self._options,
            *_as_root(),
        ]
        # Where this is to be had, the server also goes when the tests are killed.
        guard = shutil.which("setpriv")
        self._process = subprocess.Popen(
            [guard, "--pdeathsig", "TERM", *server] if guard else server,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._folder,
        )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.connect().close()
                return
            except pymysql.OperationalError as problem:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    log = self._log.read_text(errors="replace") if self._log.exists() else ""
                    raise AssertionError(f"MariaDB does not start ({problem}); its log:\n{log}") from None
            # Nothing tells when the socket is there: ask again.
            time.sleep(0.02)

    def connect(self, database: str | None = None) -> pymysql.Connection[pymysql.cursors.Cursor]:
        """A connection of the tests' user, which may do everything."""
        return pymysql.connect(
            unix_socket=str(self.socket), user=USER, password=self._password, database=database, autocommit=True
        )

    def execute(self, statement: str) -> list[tuple[object, ...]]:
        """Run one statement on a connection of its own and return its rows."""
        connection = self.connect()
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return list(cursor.fetchall())
        finally:
            connection.close()

    def create_database(self) -> str:
        """Make an empty database and return its URL, password included, as a configuration file would have it.

        Its default character set is the old one: our tables must not depend on it.
        """
        name = f"lgi_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} CHARACTER SET latin1")
        return self.url(name)

    def url(self, name: str) -> str:
        """The URL of a database on this server."""
        return URL.create(
            "mariadb",
            username=USER,
            password=self._password,
            host="localhost",
            database=name,
            query={"unix_socket": str(self.socket)},
        ).render_as_string(hide_password=False)

    def drop_database(self, url: str) -> None:
        """Remove a database that `create_database` made."""
        name = url.rpartition("?")[0].rpartition("/")[2]
        self.execute(f"DROP DATABASE {name}")

    def kill(self) -> None:
        """End the server as a loss of power does; `start` recovers what was committed."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def stop(self) -> None:
        """End the server, if it runs, and wait for its end."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


_running: PrivateMariaDB | None = None


def server() -> PrivateMariaDB:
    """The server of this test run, started when it is first asked for; raises MariaDBMissing."""
    global _running  # noqa: PLW0603 -- one for each process, whichever runner and test comes first
    if _running is None:
        # Not under TMPDIR, which may be too long for the path of a socket.
        folder = Path(tempfile.mkdtemp(prefix="lgi-mariadb-", dir="/tmp"))
        made = PrivateMariaDB(folder)
        atexit.register(_remove, made, folder)
        made.install()
        made.start()
        _running = made
    return _running


def stop() -> None:
    """End the server of this test run, if there is one; the next `server` makes a new one."""
    global _running  # noqa: PLW0603
    if _running is not None:
        _running.stop()
        _running = None


def _remove(made: PrivateMariaDB, folder: Path) -> None:
    made.stop()
    shutil.rmtree(folder, ignore_errors=True)
