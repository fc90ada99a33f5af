"""`lgi admin` and `lgi init --slave-of`, on real projects."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from sqlalchemy import select
from twisted.trial.unittest import SynchronousTestCase

from lgi.admin.project import NewProject, make_project
from lgi.admin.store import in_transaction
from lgi.ca import CertificateAuthority
from lgi.cli.complaint import worded
from lgi.cli.main import lgi
from lgi.cli.options import Options
from lgi.config import load_config
from lgi.db.events import UPDATE_SERVERS
from lgi.db.grants import fetch_grants
from lgi.db.resources import fetch_resource
from lgi.db.schema import event_queue, updates, users_allowed
from lgi.db.statements import understand
from lgi.model import Resource

PROGRAM = Path(sys.executable).with_name("lgi")


class AdminCase(SynchronousTestCase):
    """With a project whose server is the master."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.master = make_project(
            NewProject(directory=self.root / "master", project="LGI", host="localhost", port=8443)
        )
        self.config = self.master.config
        self.patch(os, "environ", {**os.environ, "LGI_SERVER_CONFIG": str(self.config)})

    def run_lgi(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command in this process: its status, what it wrote, and what went wrong."""
        result = CliRunner().invoke(lgi, list(arguments), obj=Options(), catch_exceptions=True)
        problem = result.exception
        if problem is None or isinstance(problem, SystemExit):
            return result.exit_code, result.stdout, result.stderr
        said = worded(problem)
        assert said is not None, repr(problem)
        return result.exit_code, result.stdout, said

    def admin(self, *arguments: str) -> Any:
        """The JSON of a command that has to work."""
        status, out, err = self.run_lgi("--json", "admin", *arguments)
        self.assertEqual(status, 0, err)
        return json.loads(out)

    def fails(self, *arguments: str, saying: str) -> None:
        """A command that is refused and changes nothing."""
        before = self.admin("updates", "list")
        status, out, err = self.run_lgi(*arguments)
        self.assertNotEqual(status, 0, out)
        self.assertIn(saying, err)
        self.assertEqual(self.admin("updates", "list"), before)

    def resource(self, name: str, config: Path | None = None) -> Resource | None:
        """A registered resource."""
        database = load_config(config or self.config).projects["LGI"].database
        return in_transaction(database, lambda connection: fetch_resource(connection, name))

    def slave(self, name: str = "slave", **more: str) -> Path:
        """Make a slave; its configuration file."""
        options = [text for key, value in more.items() for text in (f"--{key.replace('_', '-')}", value)]
        status, out, err = self.run_lgi(
            *("--json", "init", str(self.root / name), "--slave-of", str(self.master.root)),
            *("--host", "localhost", "--server-name", f"{name}@localhost", *options),
        )
        self.assertEqual(status, 0, err)
        made = json.loads(out)
        self.assertEqual(made["database"], f"sqlite:///{self.root}/{name}/db/LGI.sqlite")
        return Path(made["config"])


class RuleTests(AdminCase):
    """Who may submit what."""

    def test_each_table(self) -> None:
        """Added, listed, deleted; each change is an update that deployed servers understand."""
        self.assertEqual(
            self.admin("list", "users", "allowed"), [{"user_name": "any", "application": "any", "job_limit": 0}]
        )
        for version, (kind, rule, limit) in enumerate(
            (
                ("users", "allowed", "-3"),
                ("groups", "allowed", "0"),
                ("users", "denied", ""),
                ("groups", "denied", ""),
            ),
            start=1,
        ):
            name = f"{kind[:-1]}_name"
            key = ["--name", "it's; a \\name", "--application", "hello_world"]
            made = self.admin("add", kind, rule, *key, *(["--limit", limit] if limit else []))
            self.assertEqual((made["version"], made["servers"]), (2 * version - 1, ["any"]))
            self.assertTrue(made["carried_out_here"])
            row = {name: "it's; a \\name", "application": "hello_world"} | (
                {"job_limit": int(limit)} if limit else {}
            )
            self.assertIn(row, self.admin("list", kind, rule))
            self.assertEqual(understand(made["update"], "mysql").rows, (row,))
            self.assertTrue(made["update"].startswith(f"INSERT INTO {kind}_{rule} SET {name}='"))
            gone = self.admin("del", kind, rule, *key)
            self.assertTrue(gone["update"].startswith(f"DELETE FROM {kind}_{rule} WHERE {name}='"))
            self.assertNotIn(row, self.admin("list", kind, rule))
        database = load_config(self.config).projects["LGI"].database
        events = in_transaction(database, lambda c: list(c.scalars(select(event_queue.c.event))))
        self.assertIn(UPDATE_SERVERS, events)
        status, out, _ = self.run_lgi("admin", "updates", "list", "--after", "7")
        self.assertEqual((status, len(out.splitlines())), (0, 2))

    def test_refused(self) -> None:
        whole = ["--name", "a", "--application", "b", "--limit", "1"]
        self.admin("add", "users", "allowed", *whole)
        for arguments, saying in (
            (["add", "users", "allowed", *whole], "is there already"),
            (["del", "users", "allowed", "--name", "x", "--application", "b"], "is not there"),
            (["add", "users", "allowed", "--application", "b", "--limit", "1"], "--name is missing"),
            (["add", "users", "allowed", "--name", "b", "--limit", "1"], "--application is missing"),
            (["add", "users", "allowed", "--name", "b", "--application", "b"], "--limit is missing"),
            (["add", "users", "denied", *whole], "--limit has no meaning"),
            (["add", "users", "allowed", *whole, "--url", "x"], "--url has no meaning"),
            (["add", "users", "allowed", "--name", "c", *whole[2:-1], "many"], "--limit is a whole number"),
            (["add", "users", "allowed", "--name", "c", *whole[2:-1], "99999999999"], "too big"),
            (["add", "users", "allowed", *whole, "--servers", "nobody"], "nobody is not a server of the project"),
            (["add", "users", "allowed", *whole, "--servers", " , "], "--servers"),
            (["add", "groups", "denied", "--name", "x" * 255, "--application", "b"], "at most 254 bytes"),
            (["add", "groups", "denied", "--name", "x\ny", "--application", "b"], "control characters"),
            (["add", "groups", "denied", "--name", " ", "--application", "b"], "empty"),
            (["add", "resources", "denied"], "resources denied"),
            (["add", "users", "allowed", *whole, "--project", "other"], "there is no project other"),
            (["list", "users", "--config", "/nowhere"], "/nowhere"),
        ):
            self.fails("admin", *arguments, saying=saying)
        del os.environ["LGI_SERVER_CONFIG"]
        self.assertIn("--config is missing", self.run_lgi("admin", "list", "users")[2])
        self.assertEqual(self.run_lgi("admin", "--config", str(self.config), "list", "users")[0], 0)
        self.assertEqual(self.run_lgi("admin", "list", "users", "--config", str(self.config))[0], 0)

    def test_asked_on_a_terminal(self) -> None:
        """What is not said is asked for, as the deployed tool asks."""
        ours, theirs = pty.openpty()
        self.addCleanup(os.close, ours)
        process = subprocess.Popen(
            [str(PROGRAM), "admin", "add", "groups", "allowed"],
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(os.environ),
        )
        os.close(theirs)
        os.write(ours, b"theor\nany\n-10\n")
        out, err = process.communicate(timeout=30)
        self.assertEqual((process.returncode, out), (0, b"Update 1 for any\n"))
        for question in (b"Enter group name", b"Enter application", b"Enter job limit"):
            self.assertIn(question, err)
        self.assertEqual(
            self.admin("list", "groups"), [{"group_name": "theor", "application": "any", "job_limit": -10}]
        )


class ResourceTests(AdminCase):
    """Resources, and certificates of the authority."""

    def test_resource(self) -> None:
        issued = CertificateAuthority.open(self.master.authority).issue_resource("r@x", projects=["LGI"])
        pem = self.root / "r.crt"
        pem.write_bytes(b"Certificate:\n  Data: for people\n" + issued.certificate_pem)
        for arguments, saying in (
            (["--name", "r@y", "--url", "r@x", "--certificate", str(pem)], "is that of r@x, not of r@y"),
            (["--name", "r@x", "--url", "r@x", "--certificate", str(self.config)], "cannot be used"),
            (["--name", "r@x", "--url", "r@x", "--certificate", "/nowhere"], "/nowhere"),
            (["--name", "r@x", "--url", "r@x"], "--certificate is missing"),
            (["--name", "r@x", "--url", "r@x", "--certificate", str(pem), "--limit", "1"], "--limit has no meaning"),
            (["--name", "r@x", "--url", "r@x", "--certificate", str(pem), "--server", "slave"], "https://"),
        ):
            self.fails("admin", "add", "resources", "allowed", *arguments, saying=saying)
        self.admin("add", "resources", "allowed", "--name", "r@x", "--url", "r@x", "--certificate", str(pem))
        found = self.resource("r@x")
        assert found is not None
        self.assertEqual(found.client_certificate, issued.certificate_pem.decode(), "without what is for people")
        self.assertIn("r@x", [row["resource_name"] for row in self.admin("list", "resources")])
        self.assertEqual(self.run_lgi("admin", "list", "resources")[0], 0)
        self.admin("del", "resources", "--name", "r@x")
        self.assertIsNone(self.resource("r@x"))
        self.fails("admin", "del", "resources", "--name", "LGI@localhost", saying="0 master servers")

    def test_what_a_server_offers(self) -> None:
        """Its capabilities are an update like others, and let jobs in that only it can take."""
        database = load_config(self.config).projects["LGI"].database

        def offered() -> set[str]:
            names = ("file_storage", "archive")
            grants = [
                in_transaction(database, partial(fetch_grants, users=[], groups=[], application=name))
                for name in names
            ]
            return {name for name, found in zip(names, grants, strict=True) if found.offered_by}

        storage = "<file_storage>  </file_storage> <archive> it's 1 TB </archive>"
        made = self.admin("set-capabilities", "LGI@localhost", storage)
        self.assertTrue(made["carried_out_here"])
        self.assertTrue(made["update"].startswith("UPDATE active_resources SET resource_capabilities="))
        self.assertEqual(offered(), {"file_storage", "archive"})
        server = self.resource("LGI@localhost")
        assert server is not None
        self.assertEqual((server.resource_capabilities, int(server.project_server)), (storage, 1))
        for name, capabilities, saying in (
            ("nobody@localhost", storage, "is not registered"),
            ("LGI@localhost", "<file_storage>", "capabilities"),
            ("LGI@localhost", "<error> 1 </error>", "capabilities"),
        ):
            self.fails("admin", "set-capabilities", name, capabilities, saying=saying)
        self.assertEqual(offered(), {"file_storage", "archive"})
        self.admin("set-capabilities", "LGI@localhost", "")
        self.assertEqual(offered(), set())

    def test_issued_certificates_are_updates(self) -> None:
        """`lgi ca issue resource` registers on the other servers too, also when it renews."""
        ca = ["ca", "--dir", str(self.master.root)]
        self.assertEqual(self.run_lgi(*ca, "issue", "resource", "r@x", "--applications", "lj_md")[0], 0)
        first = self.resource("r@x")
        self.assertEqual(self.run_lgi(*ca, "issue", "resource", "r@x", "--renew")[0], 0)
        second = self.resource("r@x")
        assert first is not None
        assert second is not None
        self.assertNotEqual(first.client_certificate, second.client_certificate)
        self.assertEqual(second.resource_capabilities, "<lj_md>  </lj_md>")
        self.assertEqual(
            [update["update"].split()[0] for update in self.admin("updates", "list")], ["INSERT", "UPDATE"]
        )


class ServerTests(AdminCase):
    """Slaves."""

    def test_slave(self) -> None:
        """It knows what the master knows, the master knows it, and it makes no changes itself."""
        self.admin("add", "users", "denied", "--name", "bad", "--application", "any")
        config = self.slave()
        self.assertFalse((self.root / "slave" / "ca" / "ca.key").exists())
        on_slave = ["--config", str(config)]
        self.assertEqual(self.admin("updates", "list"), self.admin("updates", "list", *on_slave))
        self.assertEqual(self.admin("list", "users", "denied", *on_slave), self.admin("list", "users", "denied"))
        roles = {server["name"]: (server["role"], server["this"]) for server in self.admin("servers", "list")}
        self.assertEqual(roles, {"LGI@localhost": ("master", True), "slave@localhost": ("slave", False)})
        self.assertEqual(self.run_lgi("admin", "servers", "list")[0], 0)
        ca = ["ca", "--dir", str(self.master.root)]
        self.fails(*ca, "issue", "resource", "slave@localhost", saying="is a project server")
        status, _, err = self.run_lgi(
            "admin", "add", "users", "denied", "--name", "a", "--application", "b", *on_slave
        )
        self.assertEqual(status, 1)
        self.assertIn("changes are made there: LGI@localhost at https://localhost:8443/LGI", err)
        for file in (self.config, config):
            self.assertEqual(self.admin("check-config", "--config", str(file))["problems"], [])
        made = self.admin(
            "add", "users", "denied", "--name", "a", "--application", "b", "--servers", "slave@localhost"
        )
        self.assertFalse(made["carried_out_here"])
        self.assertEqual(made["servers"], ["slave@localhost"])
        self.assertEqual([row["user_name"] for row in self.admin("list", "users", "denied")], ["bad"])

    def test_refused(self) -> None:
        slave = ["init", str(self.root / "s"), "--slave-of", str(self.master.root), "--host", "localhost"]
        self.fails(*slave, saying="LGI@localhost is registered already")
        self.fails(*slave, "--project", "other", "--server-name", "s@x", saying="no project other")
        self.fails(*slave[:3], str(self.root), saying="is not the directory of a project")
        self.fails(*slave, "--server-name", "s@x", "--database", "oracle://x/y", saying="oracle")
        self.assertFalse((self.root / "s").exists())
        config = self.slave()
        self.fails(
            *("init", str(self.root / "t"), "--slave-of", str(config.parents[1]), "--server-name", "t@x"),
            saying="without ca.key",
        )

    def test_check_config(self) -> None:
        """Each mistake has a line."""
        config = self.slave()
        text = config.read_text()
        other = config.with_name("other.toml")
        for old, new, saying in (
            ("port = ", "prot = ", "port is missing"),
            ("scheduler.key", "nowhere.key", "nowhere.key: no such file"),
            ("server.key", "scheduler.key", "does not belong to the certificate"),
            ("crl.pem", "ca.crt", "not a whole revocation list"),
            ('"../repository"', '"../nowhere"', "nowhere: no such directory"),
            ("db/LGI.sqlite", "db/other.sqlite", "no LGI schema"),
            ("localhost:8443/LGI", "localhost:1/LGI", "is registered as https://localhost:8443/LGI"),
            ("scheduler.crt", "server.crt", "is not a registered server"),
            (
                "[server]\n",
                '[log]\naccess = "../none/here/access.log"\n[server]\n',
                "access.log: it cannot be written",
            ),
            ("[server]\n", '[log]\naccess = "../etc"\n[server]\n', "etc: it cannot be written"),
            ("[server]\n", '[log]\naccess = "lgi-server.toml/log"\n[server]\n', "log: it cannot be written"),
        ):
            other.write_text(text.replace(old, new))
            status, out, _ = self.run_lgi("--json", "admin", "check-config", "--config", str(other))
            self.assertEqual(status, 1, new)
            self.assertIn(saying, "\n".join(json.loads(out)["problems"]))

    def test_upgrade_db(self) -> None:
        """An empty database gets the schema, one that has it stays."""
        self.admin("upgrade-db")
        other = self.config.with_name("other.toml")
        other.write_text(self.config.read_text().replace("db/LGI.sqlite", "db/new.sqlite"))
        status, _, err = self.run_lgi("admin", "list", "users", "--config", str(other))
        self.assertEqual(status, 1)
        self.assertIn("lgi admin upgrade-db", err)
        self.admin("upgrade-db", "--config", str(other))
        self.assertEqual(self.admin("list", "users", "--config", str(other)), [])

    def test_columns_of_other_programs(self) -> None:
        """Rows that a deployed tool has written, with bytes that are no text, are listed and do no harm."""
        database = load_config(self.config).projects["LGI"].database

        def write(connection: Any) -> None:
            connection.execute(
                updates.insert().values(version=1, servers=" any,, x ", update_query=b"INSERT \xff\x00 'x'")
            )
            connection.execute(users_allowed.insert().values(user_name="a\x1b[2J", application="b", job_limit=0))

        in_transaction(database, write)
        self.assertEqual(self.admin("updates", "list")[0]["servers"], ["any", "x"])
        for command in (["updates", "list"], ["list", "users"]):
            status, out, _ = self.run_lgi("admin", *command)
            self.assertEqual(status, 0)
            self.assertNotIn("\x1b", out)
            self.assertNotIn("\x00", out)
