"""`lgi daemon check`."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from lgi.ca import CertificateAuthority
from lgi.cli.main import lgi
from lgi.daemon.check import check
from lgi.daemon.place import LOCK_FILE, lock_run_directory
from tests.unit.daemon.rig import make_resource


class CheckTests(SynchronousTestCase):
    sandbox: tuple[str, ...] = ("--no-sandbox",)  # the directories of tests are nobody else's

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.file = make_resource(self.directory)
        self.authority = CertificateAuthority.create(self.directory / "ca", organisation="Test")
        self.write()

    def write(self, *, days: int = 100, projects: tuple[str, ...] = ("LGI",)) -> None:
        issued = self.authority.issue_resource("here@example", projects=projects, days=days)
        (self.directory / "ca.crt").write_bytes(self.authority.certificate_pem)
        (self.directory / "resource.crt").write_bytes(issued.certificate_pem)
        (self.directory / "resource.key").write_bytes(issued.key_pem)
        (self.directory / "resource.key").chmod(0o600)

    def change(self, old: str, new: str) -> None:
        text = self.file.read_text()
        self.assertIn(old, text)
        self.file.write_text(text.replace(old, new))

    def run_check(self, *options: str) -> tuple[int, str]:
        result = CliRunner().invoke(lgi, ["daemon", "check", *self.sandbox, *options, str(self.file)])
        self.assertIsInstance(result.exception, (SystemExit, type(None)), result.output)
        return result.exit_code, result.output

    def as_json(self, *options: str) -> tuple[int, dict[str, Any]]:
        status, output = self.run_check("--json", *options)
        return status, json.loads(output)

    def assert_mistakes(self, *parts: str) -> None:
        status, found = self.as_json()
        self.assertEqual((status, found["ok"], len(found["mistakes"])), (1, False, len(parts)), found["mistakes"])
        for line, part in zip(found["mistakes"], parts, strict=True):
            self.assertIn(part, line)

    def test_in_order(self) -> None:
        before = sorted((path, path.stat().st_mtime_ns, path.stat().st_mode) for path in self.directory.rglob("*"))
        status, output = self.run_check()
        self.assertEqual(status, 0, output)
        self.assertIn("certificate of here@example for LGI, valid until", output)
        self.assertIn("(99 days)", output)
        self.assertIn("project LGI at https://grid.example/LGI: hello_world", output)
        self.assertTrue(output.endswith("LGI.cfg: in order\n"))
        after = sorted((path, path.stat().st_mtime_ns, path.stat().st_mode) for path in self.directory.rglob("*"))
        self.assertEqual(after, before, "nothing on disk changes")

    def test_in_order_as_json(self) -> None:
        status, found = self.as_json()
        self.assertEqual((status, found["ok"], found["mistakes"], found["warnings"]), (0, True, [], []))
        self.assertEqual(found["certificate"]["days_left"], 99)
        self.assertEqual((found["certificate"]["name"], found["certificate"]["projects"]), ("here@example", ["LGI"]))
        self.assertEqual(found["run_directory"], {"path": str(self.directory / "run"), "daemon": None})
        self.assertEqual(found["sandbox"], {"uid": os.geteuid(), "used": False, "uids": []})
        (project,) = found["projects"]
        self.assertEqual(project["applications"][0]["limits"]["owner_allow"], {"any": 3})

    def test_all_mistakes_at_once(self) -> None:
        self.change("<job_limit> 4", "<job_limit> x")
        self.change("./scripts/job_run_script", "./nowhere")
        self.write(projects=("OTHER",))
        self.assert_mistakes(
            f"{self.file}: resource / project 1 / application 1 / job_limit: 'x'",
            f"there is no file {self.directory / 'nowhere'}",
            f"{self.directory / 'resource.crt'}: the certificate is not for project LGI",
        )

    def test_a_file_that_is_none(self) -> None:
        self.file.write_text("nothing")
        self.assert_mistakes("cannot be understood")
        self.file.unlink()
        self.assert_mistakes("cannot be read")

    def test_key_of_another(self) -> None:
        other = self.authority.issue_resource("other@example", projects=("LGI",))
        (self.directory / "resource.key").write_bytes(other.key_pem)
        self.assert_mistakes("resource.key: does not belong to the certificate")

    def test_expired(self) -> None:
        clock = lambda: datetime.now(UTC) - timedelta(days=3000)  # noqa: E731
        self.authority = CertificateAuthority.create(self.directory / "old", organisation="Old", clock=clock)
        self.write()
        self.assert_mistakes("resource.crt: expired since")

    def test_warnings(self) -> None:
        self.write(days=5)
        (self.directory / "resource.key").chmod(0o644)
        status, found = self.as_json()
        self.assertEqual(status, 0)
        soon, readable = found["warnings"]
        self.assertIn("resource.crt is valid until", soon)
        self.assertIn("4 days more", soon)
        self.assertIn("make its mode 0600", readable)

    def test_update_is_pointed_at(self) -> None:
        self.change("hello_world", "update")
        self.assert_mistakes("the application update runs whatever script")
        self.change("<any> 3 </any>", "<mark@laptop> 1 </mark@laptop>")
        status, output = self.run_check()
        self.assertEqual(status, 0)
        self.assertIn("warning: project LGI offers update: its owners run any script here", output)

    def test_a_broken_key_of_the_run_directory(self) -> None:
        (self.directory / "run" / ".lgi-daemon.key").write_text("no key")
        self.assert_mistakes(".lgi-daemon.key: is not a key")

    def test_a_daemon_that_works_there(self) -> None:
        self.assertIn("no daemon works", self.run_check("--reload")[1])
        lock = lock_run_directory(self.directory / "run")
        self.assert_mistakes(f"a daemon (process {os.getpid()}) works in this run directory; with --reload")
        status, found = self.as_json("--reload")
        self.assertEqual((status, found["run_directory"]["daemon"]), (0, os.getpid()))
        os.close(lock)
        self.assertEqual(self.as_json()[0], 0, f"{LOCK_FILE} is there, but nobody holds it")

    def test_a_run_directory_that_jobs_cannot_reach(self) -> None:
        if os.geteuid() != 0:
            raise SkipTest("only root can give jobs a uid of their own")
        self.sandbox = ()
        # Python and this package may be out of their reach, too, wherever the tests are.
        status, found = self.as_json()
        self.assertEqual((status, found["ok"]), (1, False))
        self.assertRegex(found["mistakes"][0], "cannot enter .*, so that jobs could not work there")
        for line in found["mistakes"][1:]:
            self.assertIn("so that jobs could not run `lgi`", line)
        self.assertEqual((self.directory / "run").stat().st_mode & 0o777, 0o755, "nothing is changed")

    def test_no_program_to_start_scripts_with(self) -> None:
        self.patch(os, "environ", {"PATH": str(self.directory)})
        self.assertIn("setsid is not in PATH", "".join(check(self.file).mistakes))
