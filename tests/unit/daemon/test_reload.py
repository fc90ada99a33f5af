"""A configuration that is read again while the daemon works."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from lgi.daemon.config import DaemonConfig, read_config
from lgi.daemon.jobdir import INPUT, OUTPUT
from lgi.daemon.papers import copies
from lgi.daemon.reload import changes, obstacles
from lgi.identity import Identity
from lgi.states import JobState
from tests.unit.daemon.rig import Rig, make_resource, write_script
from tests.unit.daemon.server import FakeServer
from tests.unit.daemon.test_daemon import DaemonTestCase


def second_application(text: str, name: str = "lj_md") -> str:
    """The configuration with its application once more, under another name."""
    (application,) = re.findall(r"\n *<application number.*?</application>", text, re.DOTALL)
    text = text.replace(application, application + application.replace("hello_world", name))
    return text.replace("_applications> 1", "_applications> 2")


class WordsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.file = make_resource(Path(self.mktemp()).absolute())
        self.text = self.file.read_text()
        self.old = read_config(self.file)

    def read(self, *replaced: tuple[str, str]) -> DaemonConfig:
        text = self.text
        for old, new in replaced:
            self.assertIn(old, text)
            text = text.replace(old, new)
        self.file.write_text(text)
        return read_config(self.file)

    def test_nothing(self) -> None:
        self.assertEqual(changes(self.old, self.read()), [])

    def test_table(self) -> None:
        here = "of application hello_world of project LGI"
        for old, new, said in (
            ("<job_limit> 20", "<job_limit> 7", "job_limit: 7"),
            ("<job_limit> 10", "<job_limit> 7", "job_limit of project LGI: 7"),
            ("<job_limit> 4", "<job_limit> 7", f"job_limit {here}: 7"),
            ("<any> 3 </any>", "<mark> 2 </mark> <any> 1 </any>", f"owner_allow {here}: mark 2 any 1"),
            ("<any> 3 </any>", "", f"owner_allow {here}: empty"),
            ("> 4096 <", "> 5 <", f"max_output_size {here}: 5"),
            ("> nothing special <", "> <", f"capabilities {here}: empty"),
            ("https://grid", "https://other", "project_master_server of project LGI: https://other.example/LGI"),
            ("resource.key", "ca.crt", f"resource_key_file: {self.file.parent}/ca.crt"),
            (
                "./scripts/job_run_script",
                "./scripts/job_epilogue_script",
                f"job_run_script {here}: {self.file.parent}/scripts/job_epilogue_script",
            ),
        ):
            self.assertEqual(changes(self.old, self.read((old, new))), [said])

    def test_applications_and_projects_come_and_go(self) -> None:
        self.text = second_application(self.text)
        new = self.read()
        self.assertEqual(changes(self.old, new), ["application lj_md of project LGI added"])
        self.assertEqual(changes(new, self.old), ["application lj_md of project LGI removed"])
        renamed = self.read(("> LGI <", "> GRID <"))
        self.assertEqual(changes(new, renamed), ["project LGI removed", "project GRID added"])

    def test_obstacles(self) -> None:
        here, there = Identity(name="here@example"), Identity(name="there@example")
        self.assertEqual(obstacles(self.old, self.old, here, attrs.evolve(here, projects=("LGI",))), [])
        self.assertIn("there@example", obstacles(self.old, self.old, here, there)[0])
        moved = self.read(("./run <", "./walk <"))
        self.assertIn("run_directory", obstacles(self.old, moved, here, here)[0])


class ReloadTests(DaemonTestCase):
    def reload(self, rig: Rig, *replaced: tuple[str, str]) -> None:
        text = rig.file.read_text()
        for old, new in replaced:
            self.assertIn(old, text)
            text = text.replace(old, new)
        rig.file.write_text(text)
        rig.daemon.reconfigure(rig.config, copies(rig.config))

    async def test_new_limits_count_from_then_on(self) -> None:
        server, tap = FakeServer(), self.tap()
        for number in (12, 13, 14):
            server.submit(number, owners=(f"owner{number}",))
        rig = self.waiting_rig(server, tap)
        self.reload(rig, ("<job_limit> 4", "<job_limit> 1"))
        await rig.go()
        self.assertEqual(len(rig.jobs()), 1)
        self.reload(rig, ("<job_limit> 1 ", "<job_limit> 2 "))
        await rig.turn()
        self.assertEqual(len(rig.jobs()), 2)
        self.reload(rig, ("<job_limit> 20", "<job_limit> 0"))
        await rig.turn(2)
        self.assertEqual(len(rig.jobs()), 2, "held jobs stay, above whatever limit")

    async def test_the_jobs_of_a_removed_application_are_finished(self) -> None:
        server, tap = FakeServer(), self.tap()
        server.submit(12)
        rig = self.waiting_rig(server, tap)
        await rig.go()
        text = second_application(rig.file.read_text()).replace("hello_world", "other")
        rig.file.write_text(text)
        self.reload(rig)
        server.submit(13, owners=("anna",))
        await rig.turn(2)
        self.assertEqual(server.jobs[13].state, JobState.QUEUED)
        self.assertIn("<lj_md>", server.capabilities)
        self.assertNotIn("hello_world", server.capabilities)
        tap.open()
        await server.becomes(12, JobState.FINISHED)
        self.assertEqual(server.jobs[12].output, b"21 \x00 \xff")
        self.assertEqual(self.number_of_runs(), 1)

    async def test_a_job_that_is_held_keeps_its_scripts(self) -> None:
        server, tap = FakeServer(), self.tap()
        server.submit(12)
        rig = self.waiting_rig(server, tap)
        await rig.go()
        write_script(rig.scripts / "other", "echo other >LGI_output")
        self.reload(rig, ("./scripts/job_epilogue_script", "./scripts/other"), ("> 4096 <", "> 3 <"))
        tap.open()
        await server.becomes(12, JobState.FINISHED)
        self.assertEqual(server.jobs[12].output, b"21 \x00 \xff")

    async def test_an_application_that_is_added_is_offered_at_the_next_cycle(self) -> None:
        server = FakeServer()
        server.submit(12, application="lj_md")
        rig = self.rig(server)
        await rig.go()
        self.assertEqual(server.jobs[12].state, JobState.QUEUED)
        rig.file.write_text(second_application(rig.file.read_text()))
        self.reload(rig)
        await rig.turn()
        self.assertIn("<lj_md>", server.capabilities)
        await self.finish(rig, server)

    async def test_an_offer_under_way_is_judged_by_the_new_one(self) -> None:
        for replaced in (("hello_world", "other"), ("<owner_deny> </owner_deny>", "<owner_deny> mark </owner_deny>")):
            server = FakeServer()
            server.submit(12)
            rig = self.rig(server)
            server.hold["request_work"] = Deferred()
            signed_up = server.called("signup")
            rig.daemon.start()
            await signed_up
            self.reload(rig, replaced)
            server.hold.pop("request_work").callback(None)
            await rig.tasks.idle()
            await rig.turn()
            self.assertEqual((server.jobs[12].state, rig.jobs()), (JobState.QUEUED, []))
            self.assertEqual((server.sessions, server.locks), ({}, {}))

    async def test_a_job_being_accepted_is_accepted_once(self) -> None:
        server, tap = FakeServer(), self.tap()
        server.submit(12)
        rig = self.rig(server, job_check_limits_script=tap.wait)
        asked = server.called("request_work")
        rig.daemon.start()
        await asked
        for _ in range(3):
            self.reload(rig, ("<job_limit> 20", "<job_limit> 19"), ("<job_limit> 19", "<job_limit> 20"))
            rig.clock.advance(5)
        tap.open()
        await self.finish(rig, server)
        self.assertEqual(server.said.count("signup"), server.said.count("signoff"))

    async def test_another_server_of_a_project(self) -> None:
        first, second = FakeServer(), FakeServer(url="https://other.example/LGI")
        second.submit(12)
        rig = self.rig(first, second)
        await rig.go()
        self.reload(rig, ("https://grid.example/LGI", second.url))
        await rig.turn()
        await self.finish(rig, second)

    async def test_a_project_is_removed_and_comes_back(self) -> None:
        server = FakeServer()
        rig = self.rig(server)
        await rig.go()
        self.reload(rig, ("> LGI <", "> GRID <"), (server.url, "https://nobody.example/LGI"))
        rig.servers["https://nobody.example/LGI"] = FakeServer(url="https://nobody.example/LGI")
        rig.servers["https://nobody.example/LGI"].down()
        self.patch(rig.daemon._links, "_make_calls", lambda project, url: rig._connect("LGI", url))
        server.submit(12)
        server.said.clear()
        await rig.turn(2)
        self.assertEqual(server.said, [])
        self.reload(rig, ("> GRID <", "> LGI <"), ("https://nobody.example/LGI", server.url))
        await rig.turn()
        await self.finish(rig, server)

    async def test_held_jobs_get_the_renewed_certificate(self) -> None:
        server, tap = FakeServer(), self.tap()
        server.submit(12)
        rig = self.waiting_rig(server, tap, job_epilogue_script="cat LGI_certificate_file LGI_key_file >>LGI_output")
        await rig.go()
        directory = rig.job
        for name in ("resource.crt", "resource.key", "ca.crt"):
            (rig.file.parent / name).write_text(f"new {name}\n")
        self.reload(rig)
        self.assertEqual((directory / "LGI_certificate_file").read_text(), "new resource.crt\n")
        self.assertEqual((directory / "LGI_ca_certificate_file").read_text(), "new ca.crt\n")
        tap.open()
        await server.becomes(12, JobState.FINISHED)
        self.assertEqual(server.jobs[12].output, b"21 \x00 \xffnew resource.crt\nnew resource.key\n")

    async def test_a_daemon_that_starts_renews_them_too(self) -> None:
        server, tap = FakeServer(), self.tap()
        server.submit(12)
        rig = self.waiting_rig(server, tap)
        await rig.go()
        (rig.file.parent / "resource.crt").write_text("new\n")
        await rig.restart()
        self.assertEqual((rig.job / "LGI_certificate_file").read_text(), "new\n")
        tap.open()
        await self.finish(rig, server)

    async def test_a_directory_that_was_tampered_with_is_refused_and_the_reload_goes_on(self) -> None:
        server, tap = FakeServer(), self.tap()
        server.submit(12)
        rig = self.waiting_rig(server, tap)
        await rig.go()
        (rig.job / "LGI_certificate_file").write_text("mine\n")
        (rig.file.parent / "resource.crt").write_text("new\n")
        self.reload(rig, ("<job_limit> 4", "<job_limit> 3"))
        self.assertEqual((rig.job / "LGI_certificate_file").read_text(), "mine\n")
        tap.open()
        await rig.turn(2)
        self.assertEqual(server.jobs[12].state, JobState.RUNNING)
        self.assertTrue((rig.job / INPUT).exists() and (rig.job / OUTPUT))
