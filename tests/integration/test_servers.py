"""Three servers of one project on two kinds of database, which become alike whatever happens to them."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection

from lgi.admin.changes import list_rows
from lgi.admin.store import in_transaction
from lgi.config import load_config
from lgi.db.managed import TABLES
from lgi.db.updates import highest_version, list_updates
from tests import mariadb
from tests.integration.grid import Grid, GridCase, Program, free_port, until

HOSTILE = (
    "DROP TABLE job_queue",
    "DELETE FROM users_allowed; DELETE FROM job_queue",
    "UPDATE job_queue SET owners='LGI@localhost'",
    "INSERT INTO users_allowed SELECT url, url, 0 FROM active_resources",
    "UPDATE active_resources SET url=LOAD_FILE('/etc/passwd')",
)
R = TypeVar("R")


class ProjectServer:
    """A server with its scheduler."""

    def __init__(self, grid: Grid, root: Path, port: int) -> None:
        self.grid = grid
        self.root = root
        self.url = f"https://localhost:{port}/LGI"
        self.config = root / "etc" / "lgi-server.toml"
        self.requests = root / "log" / "requests.log"
        text = self.config.read_text().replace("# interval = 60 ", "interval = 2 ")
        self.config.write_text(f'{text}\n[log]\naccess = "{self.requests}"\n')
        self.running: list[Program] = []

    def start(self) -> None:
        """Start both programs and wait until the server listens."""
        (self.root / "log").mkdir(exist_ok=True)
        for name in ("lgi-server", "lgi-scheduler"):
            program = Program(name, self.config, self.root / "log" / f"{name}.log")
            self.running.append(program)
            self.grid.programs.append(program)
        self.running[-2].wait_for("listens on port")

    def kill(self) -> None:
        """End both at once."""
        for program in self.running:
            program.stop(signal.SIGKILL)
        self.running.clear()

    def log(self, name: str = "lgi-server") -> str:
        """All that one of its programs has logged."""
        return (self.root / "log" / f"{name}.log").read_text(errors="replace")

    def read(self, function: Callable[[Connection], R]) -> R:
        """Look into its database."""
        return in_transaction(load_config(self.config).projects["LGI"].database, function)

    def admin(self, *arguments: str, status: int = 0) -> Any:
        """Run `lgi admin` on this server."""
        out = self.grid.lgi("--json", "admin", "--config", str(self.config), *arguments, status=status)
        return json.loads(out) if status == 0 else out

    def version(self) -> int:
        """The last update it knows."""
        return self.read(highest_version)

    def has(self, version: int) -> bool:
        """Whether this is the last update it knows."""
        return self.version() == version

    def rows(self) -> dict[str, Any]:
        """All that the servers have in common; when a resource has called is each server's own."""

        def rows(connection: Connection) -> dict[str, Any]:
            own = ("resource_id", "last_call_time")
            return {
                name: list_rows(connection, name, [column.name for column in table.c if column.name not in own])
                for name, table in TABLES.items()
            }

        return self.read(rows)

    def post(self, to: ProjectServer, path: str, pair: Path | None = None, **fields: str) -> str:
        """Call another server with this one's certificate, or that of `pair`."""
        pair = pair or self.root / "server" / "scheduler"
        form = [text for name, value in fields.items() for text in ("--data-urlencode", f"{name}={value}")]
        credentials = ["--cert", f"{pair}.crt", "--key", f"{pair}.key", "--cacert", str(self.root / "ca" / "ca.crt")]
        return subprocess.run(
            ["curl", "-sS", *credentials, "-d", "project=LGI", *form, f"{to.url}/{path}"],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout

    def push(self, to: ProjectServer, version: int, statement: str) -> str:
        """Push an update to another server."""
        update = statement.encode().hex()
        return self.post(to, "servers/server_run_update.php", version=str(version), servers="any", update=update)


class ServersTests(GridCase):
    """A master and two slaves."""

    def setUp(self) -> None:
        self.grid = self.make_grid()
        self.master = ProjectServer(self.grid, self.grid.root, self.grid.port)
        self.first = self.slave("first")
        self.second = self.slave("second", "--database", mariadb.server().create_database())
        self.all = (self.master, self.first, self.second)
        for server in self.all:
            server.start()

    def slave(self, name: str, *more: str) -> ProjectServer:
        root, port = self.grid.root.parent / name, free_port()
        self.grid.lgi(
            *("init", str(root), "--slave-of", str(self.grid.root), "--host", "localhost"),
            *("--port", str(port), "--server-name", f"{name}@localhost", *more),
        )
        return ProjectServer(self.grid, root, port)

    def wait_for_version(self, version: int, *servers: ProjectServer) -> None:
        for server in servers or self.all:
            until(partial(server.has, version), f"{server.root.name} has version {version}", 30)

    def test_they_become_alike(self) -> None:
        add, whole = ("add", "users"), ("--application", "hello_world")
        # Registering the grid's resource and the two slaves made the first updates.
        version = self.master.admin(*add, "denied", "--name", "early", *whole)["version"]
        self.wait_for_version(version)
        self.second.kill()
        self.grid.ca("issue", "resource", "late@localhost")
        self.master.admin("add", "groups", "allowed", "--name", 'it\'s \\ "late"', *whole, "--limit", "-7")
        self.master.admin("del", "users", "denied", "--name", "early", *whole)
        self.master.admin(*add, "denied", "--name", "elsewhere", *whole, "--servers", "first@localhost")
        self.wait_for_version(version + 4, self.master, self.first)
        self.second.start()
        self.wait_for_version(version + 4)
        self.assertEqual(self.master.rows(), self.second.rows())
        only = self.first.rows()
        self.assertEqual(only.pop("users_denied"), [{"user_name": "elsewhere", "application": "hello_world"}])
        self.assertEqual(only, {key: rows for key, rows in self.master.rows().items() if key != "users_denied"})
        lists = [server.read(list_updates) for server in self.all]
        self.assertEqual(lists, [lists[0]] * 3)
        # The new resource is known everywhere.
        pair = self.grid.root / "resources" / "late@localhost" / "resource"
        for server in self.all:
            answer = server.post(server, "resources/resource_signup_resource.php", pair)
            self.assertIn("<session_id>", answer)
            self.assertIn("<number_of_slave_servers> 2 ", answer)
        # The slaves have asked, and have told nobody.
        asked = self.master.requests.read_text()
        self.assertIn("servers/server_get_update.php", asked)
        self.assertNotIn("servers/server_run_update.php", asked)
        for slave in (self.first, self.second):
            refusal = slave.admin(*add, "denied", "--name", "x", *whole, status=1)
            self.assertIn("changes are made there: LGI@localhost", refusal)

    def test_hostile_updates(self) -> None:
        """What a registered slave pushes is refused everywhere, and stops nothing."""
        version = self.master.version()
        self.wait_for_version(version)
        before = [server.rows() for server in self.all]
        for statement in HOSTILE:
            for server in (self.master, self.first):
                self.assertIn("<number> 41 </number>", self.second.push(server, version + 1, statement))
        pair = self.grid.root / "resources" / "resource1@localhost" / "resource"
        answer = self.second.post(self.master, "servers/server_run_update.php", pair)
        self.assertIn("<number> 39 </number>", answer)
        for server in (self.master, self.first):
            self.assertIn(f"update {version + 1} pushed by second@localhost", server.log())
        self.assertEqual([server.rows() for server in self.all], before)
        self.assertEqual([server.version() for server in self.all], [version] * 3)
        made = self.master.admin("add", "users", "denied", "--name", "after", "--application", "any")
        self.assertEqual(made["version"], version + 1)
        self.wait_for_version(version + 1)
        # One that is acceptable, pushed by a slave to a slave, and fetched from there by all.
        good = "INSERT INTO users_denied SET user_name='more', application='any'"
        self.assertIn("<did_update_cyle> 0 ", self.second.push(self.first, version + 2, good))
        answer = self.second.post(self.master, "servers/server_run_update.php")
        self.assertIn(f"<did_update_cyle> 1 </did_update_cyle> <update_version> {version + 2} ", answer)
        self.wait_for_version(version + 2)
        self.assertEqual(self.master.rows(), self.second.rows())
