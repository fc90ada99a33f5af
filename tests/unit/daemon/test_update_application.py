"""The application `update`, with which a resource is managed through jobs (LGI 1.41, Resource management)."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from lgi.admin.layout import AdminError
from lgi.admin.resourcedir import check_examples
from lgi.daemon.config import ConfigErrors, read_config
from lgi.states import JobState
from lgi.wire.specifics import read_tag
from tests.unit.daemon.rig import Rig, make_resource
from tests.unit.daemon.server import FakeServer
from tests.unit.daemon.test_daemon import DaemonTestCase

APPLICATIONS = Path(__file__).resolve().parents[3] / "etc" / "applications"
ALLOWED = "<owner_allow> <mark@laptop> 1 </mark@laptop> </owner_allow>"


def update(file: Path, allow: str = ALLOWED) -> None:
    """Make the resource's one application `update`."""
    text = file.read_text().replace("hello_world", "update")
    text = text.replace("<owner_allow> <any> 3 </any> </owner_allow>", allow)
    text = text.replace("./scripts/job_run_script", str(APPLICATIONS / "update" / "job_run_script"))
    for name in ("job_check_running_script", "job_check_finished_script", "job_abort_script"):
        text = text.replace(f"./scripts/{name}", str(APPLICATIONS / "hello_world" / name))
    file.write_text(text)


class ConfigTests(SynchronousTestCase):
    def mistakes(self, allow: str) -> tuple[str, ...]:
        file = make_resource(Path(self.mktemp()).absolute())
        update(file, allow)
        try:
            read_config(file)
        except ConfigErrors as errors:
            return errors.mistakes
        return ()

    def test_its_owners_have_to_be_named(self) -> None:
        self.assertEqual(self.mistakes(ALLOWED), ())
        for allow in (
            "<owner_allow> </owner_allow>",
            "<owner_allow> <any> 1 </any> </owner_allow>",
            "<owner_allow> <mark@laptop> 1 </mark@laptop> <any> 0 </any> </owner_allow>",
        ):
            (line,) = self.mistakes(allow)
            self.assertIn("project 1 / application 1 / owner_allow: the application update runs", line)
            self.assertIn("have to be named", line)

    def test_nobody_gets_it_without_asking(self) -> None:
        self.assertRaises(AdminError, check_examples, ["update"])


class UpdateTests(DaemonTestCase):
    def update_rig(self, server: FakeServer) -> Rig:
        rig = self.rig(server)
        update(rig.file)
        rig.start()
        return rig

    def submit(self, server: FakeServer, script: str, *owners: str) -> None:
        server.submit(12, application="update", owners=owners or ("mark@laptop",), input=script.encode())

    async def test_output_and_exit_status(self) -> None:
        server = FakeServer()
        self.submit(server, "a=(one two); echo ${a[1]}; echo wrong >&2; cat; exit 3")
        rig = self.update_rig(server)
        await rig.go()
        await self.finish(rig, server)
        self.assertEqual(server.jobs[12].output, b"exit status 3\ntwo\nwrong\n")
        self.assertEqual(read_tag(server.jobs[12].job_specifics, "exit_status"), "3")

    async def test_the_status_is_told_of_long_output_too(self) -> None:
        server = FakeServer()
        self.submit(server, "seq 10000")
        rig = self.update_rig(server)
        await rig.go()
        await self.finish(rig, server)
        output = server.jobs[12].output or b""
        self.assertTrue(output.startswith(b"exit status 0\n1\n2\n"))
        self.assertEqual(len(output), 4096)

    async def test_what_is_no_script(self) -> None:
        server = FakeServer()
        self.submit(server, "if\n")
        rig = self.update_rig(server)
        await rig.go()
        await self.finish(rig, server)
        self.assertIn(b"syntax error", server.jobs[12].output or b"")

    async def test_aborted(self) -> None:
        server = FakeServer()
        marks = Path(self.mktemp()).absolute()
        tap = self.tap()
        self.submit(server, f"echo begun; {tap.wait}; touch '{marks}'")
        rig = self.update_rig(server)
        await rig.go()
        server.delete(12)
        await rig.turn()
        await self.finish(rig, server, JobState.ABORTED)
        self.assertFalse(marks.exists())

    async def test_an_owner_who_is_not_named(self) -> None:
        server = FakeServer()
        marks = Path(self.mktemp()).absolute()
        self.submit(server, f"touch '{marks}'", "otto@laptop", "physics")
        rig = self.update_rig(server)
        await rig.go()
        self.assertEqual(server.owners, ("mark@laptop",), "the server need not even offer it")
        # A server that lies offers it all the same.
        server.careless = True
        await rig.turn(2)
        self.assertEqual((server.jobs[12].state, rig.jobs(), marks.exists()), (JobState.QUEUED, [], False))

    async def test_the_daemon_is_reached_by_its_number(self) -> None:
        server = FakeServer()
        rig = self.update_rig(server)
        (rig.run / ".lgi-daemon.lock").write_text("4711\n")
        self.submit(server, 'cat "$LGI_job_directory/../../../.lgi-daemon.lock"')
        await rig.go()
        await self.finish(rig, server)
        self.assertEqual(server.jobs[12].output, b"exit status 0\n4711\n")
