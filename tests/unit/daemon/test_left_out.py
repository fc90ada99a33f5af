"""Jobs whose configuration names a run script and no other: few calls, few syncs, the same promises."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.task import deferLater

from lgi import durable
from lgi.client.answers import ServerUnreachable
from lgi.daemon import intake, quick, spares
from lgi.daemon.flocks import flocked
from lgi.daemon.jobdir import EXIT_STATUS, HASHES, INPUT, RUN_LOCK, RUN_PID, JobDirectory
from lgi.daemon.kept import KEPT_FOR
from lgi.daemon.seal import load_seal
from lgi.errors import ErrorNumber
from lgi.states import JobState
from lgi.wire.specifics import read_tag, with_tags
from tests.unit.daemon.rig import NONE_BUT_RUN, Rig, Tap, lives, write_script
from tests.unit.daemon.server import FakeServer, Killed, refused
from tests.unit.daemon.test_daemon import FOREIGN, DaemonTestCase


class LeftOutTestCase(DaemonTestCase):
    def prepared(self, jobs: int = 1) -> tuple[FakeServer, Rig, Tap]:
        server, tap = FakeServer(), self.tap()
        for number in range(12, 12 + jobs):
            server.submit(number, owners=(f"user{number}",))
        return server, self.waiting_rig(server, tap, **NONE_BUT_RUN), tap

    async def all_over(self, server: FakeServer, rig: Rig, state: JobState = JobState.FINISHED) -> None:
        await gatherResults([server.becomes(number, state) for number in server.jobs])
        await deferLater(reactor, 0)  # not from within the server's answer
        await rig.tasks.idle()
        self.nothing_left(server, rig)

    def nothing_left(self, server: FakeServer, rig: Rig) -> None:
        self.assertEqual(rig.jobs() + rig.leftovers(), [])
        self.assertEqual((server.sessions, server.locks), ({}, {}))
        self.assertEqual(list((rig.run / intake.DIRECTORY).iterdir()), [])

    async def until(self, true: Callable[[], object]) -> None:
        while not true():
            await deferLater(reactor, 0)


class LifeTests(LeftOutTestCase):
    async def test_several_at_once_with_two_calls_each(self) -> None:
        server, rig, tap = self.prepared(3)
        tap.open()
        tap.open()
        tap.open()
        await rig.go()
        await self.all_over(server, rig)
        for job in server.jobs.values():
            self.assertEqual(job.output, b"21 \x00 \xff")
            self.assertEqual(read_tag(job.job_specifics, "exit_status"), "0")
        self.assertEqual(sorted(server.said), ["request_work", "signoff", "signup", *["update"] * 6])

    async def test_with_a_server_that_takes_several_changes_in_a_call(self) -> None:
        server, rig, tap = self.prepared(4)
        server.update_jobs = 2
        for _ in server.jobs:
            tap.open()
        await rig.go()
        await self.all_over(server, rig)
        self.assertNotIn("update", server.said)
        self.assertLessEqual(server.said.count("update_jobs"), 2 + 4)
        self.assertEqual({job.output for job in server.jobs.values()}, {b"21 \x00 \xff"})

    async def test_one_of_several_changes_is_refused(self) -> None:
        server, rig, tap = self.prepared(3)
        server.update_jobs = 32

        def before(name: str) -> None:
            if name == "update_jobs":
                server.locks.pop(13, None)  # an administrator has cleared it
                server.up()

        server.before = before
        for _ in range(4):
            tap.open()
        await rig.go()
        await gatherResults([server.becomes(number, JobState.FINISHED) for number in (12, 14)])
        await rig.tasks.idle()
        while server.jobs[13].state is not JobState.FINISHED:
            await rig.turn()
        await self.all_over(server, rig)

    async def test_a_status_that_is_not_0_and_what_the_script_printed(self) -> None:
        server = FakeServer()
        server.submit()
        rig = self.rig(server, **{**NONE_BUT_RUN, "job_run_script": "echo no; exit 7"})
        await rig.go()
        await self.all_over(server, rig)
        self.assertEqual(read_tag(server.jobs[12].job_specifics, "exit_status"), "7")
        self.assertIn(b"ended with status 7 and left no output; it printed:]\nno\n", server.jobs[12].output or b"")

    async def test_the_directory(self) -> None:
        server, rig, tap = self.prepared()
        await rig.go()
        names = {path.name for path in rig.job.iterdir()}
        self.assertLessEqual({INPUT, HASHES, "LGI_job_run_script", "LGI_job_specifics"}, names)
        self.assertEqual([name for name in names if name.endswith(".hash")], [f"{RUN_PID}.hash"])
        self.assertEqual((rig.job / "LGI_state").read_text(), "running")
        specifics = (rig.job / "LGI_job_specifics").read_text()
        self.assertEqual(f"JOB_{read_tag(specifics, 'daemon_reference')}", rig.job.name)
        tap.open()
        await self.all_over(server, rig)

    async def test_a_file_that_was_changed(self) -> None:
        server, rig, tap = self.prepared()
        await rig.go()
        (rig.job / "LGI_owners").write_text("somebody else")
        tap.open()
        await self.until(lambda: (rig.job / EXIT_STATUS).read_text().strip())
        await rig.turn()
        self.assertEqual(server.jobs[12].state, JobState.RUNNING)
        self.assertEqual(len(rig.jobs()), 1)

    async def test_limits_hold_within_a_round(self) -> None:
        server, tap = FakeServer(), self.tap()
        for number in range(12, 18):
            server.submit(number, owners=("mark",))
        rig = self.waiting_rig(server, tap, **NONE_BUT_RUN)
        await rig.go()
        self.assertEqual(len(rig.jobs()), 3)
        self.assertEqual(sum(job.state is JobState.QUEUED for job in server.jobs.values()), 3)
        self.assertEqual(len(server.locks), 3)
        rig.clock.advance(KEPT_FOR)
        await rig.tasks.idle()
        self.assertEqual(server.locks, {})
        for _ in server.jobs:
            tap.open()
        while any(job.state is not JobState.FINISHED for job in server.jobs.values()):
            await rig.turn()
        await self.all_over(server, rig)

    async def test_longer_than_locks_are_kept(self) -> None:
        server, rig, tap = self.prepared()
        await rig.go()
        self.assertEqual(list(server.locks), [12])
        rig.clock.advance(KEPT_FOR)
        self.assertEqual((server.locks, server.sessions), ({}, {}))
        tap.open()
        await self.all_over(server, rig)
        self.assertEqual(server.said[-6:], ["signup", "lock", "state", "update", "unlock", "signoff"])

    async def test_the_lock_was_lost(self) -> None:
        server, rig, tap = self.prepared()
        await rig.go()
        server.expire()
        server.change(12, job_specifics=with_tags(server.jobs[12].job_specifics, daemon_reference=FOREIGN))
        tap.open()
        await self.until(lambda: not rig.jobs())
        await rig.tasks.idle()
        self.assertEqual((server.jobs[12].state, server.jobs[12].output), (JobState.RUNNING, b""))

    async def test_stopped_while_locks_are_kept(self) -> None:
        server, rig, _tap = self.prepared()
        await rig.go()
        await rig.daemon.stop()
        self.assertEqual((server.locks, server.sessions), ({}, {}))


class AbortTests(LeftOutTestCase):
    async def aborted(self, run: str) -> None:
        server = FakeServer()
        server.submit()
        rig = self.rig(server, **{**NONE_BUT_RUN, "job_run_script": run})
        await rig.go()
        await self.until((rig.job / "begun").exists)
        pid = int((rig.job / RUN_PID).read_text())
        rig.clock.advance(KEPT_FOR)
        server.delete(12)
        rig.clock.advance(5.0)
        while server.jobs[12].state is not JobState.ABORTED:
            rig.clock.advance(0.5)
            await deferLater(reactor, 0.01)
        await rig.tasks.idle()
        self.nothing_left(server, rig)
        self.assertFalse(lives(pid))

    async def test_term(self) -> None:
        await self.aborted("touch begun; exec sleep 60")

    async def test_kill(self) -> None:
        await self.aborted("trap '' TERM; touch begun; sleep 60; sleep 60")


class CrashTests(LeftOutTestCase):
    async def survives(self, server: FakeServer, rig: Rig) -> None:
        """Restart a daemon that was killed in a hook, and see the job to its end, run once."""
        rig.kill()
        self.flushLoggedErrors(Killed)
        server.up()
        server.expire()
        rig.start()
        await rig.go()
        while server.jobs[12].state is not JobState.FINISHED or rig.jobs():
            await rig.turn()
        await rig.tasks.idle()
        self.nothing_left(server, rig)
        self.assertEqual(self.number_of_runs(), 1)
        self.assertEqual(server.jobs[12].output, b"21 \x00 \xff")

    async def test_killed_around_any_call(self) -> None:
        for name, number in (("request_work", 1), ("update", 1), ("update", 2), ("signoff", 1)):
            for moment in ("before", "after"):
                server, rig, tap = self.prepared()
                tap.open()
                count = [0]

                def hook(called: str) -> None:
                    if called == name:  # noqa: B023
                        count[0] += 1  # noqa: B023
                        if count[0] == number:  # noqa: B023
                            raise Killed

                setattr(server, moment, hook)
                await rig.go()
                await self.until(lambda: count[0] >= number)  # noqa: B023
                await rig.tasks.idle()
                await self.survives(server, rig)

    async def test_killed_at_any_file_that_is_made(self) -> None:
        real, counter = quick.make, [0, 0]

        def dying(path: str, *arguments: object, **named: object) -> None:
            counter[0] += 1
            if counter[0] >= counter[1]:
                raise Killed
            real(path, *arguments, **named)  # type: ignore[arg-type]

        for number in (1, 9, 28, 29, 30, 31, 32, 33):
            server, rig, tap = self.prepared()
            tap.open()
            counter[:] = [0, number]
            self.patch(quick, "make", dying)
            rig.daemon.start()
            await self.until(lambda: counter[0] >= number or server.jobs[12].state is JobState.FINISHED)  # noqa: B023
            await rig.tasks.idle()
            self.patch(quick, "make", real)
            await self.survives(server, rig)

    async def after_a_crash_of_the_machine(self, harm: Callable[[Path], None]) -> None:
        server, rig, tap = self.prepared()
        await rig.go()
        group = int((rig.job / RUN_PID).read_text())
        await self.until(self.number_of_runs)
        rig.kill()
        await self.gone(group, rig)
        server.expire()
        harm(rig.job)
        self.patch(intake, "boot", lambda: "another")
        tap.open()
        rig.start()
        await rig.go()
        while server.jobs[12].state is not JobState.FINISHED or rig.jobs():
            await rig.turn()
        await rig.tasks.idle()
        self.nothing_left(server, rig)
        self.assertEqual(self.number_of_runs(), 2)
        self.assertEqual(server.jobs[12].output, b"21 \x00 \xff")

    async def gone(self, group: int, rig: Rig) -> None:
        os.killpg(group, 9)
        await self.until(lambda: not lives(group))

    async def test_the_machine_went_down_and_nothing_of_the_directory_was_on_disk(self) -> None:
        await self.after_a_crash_of_the_machine(lambda job: quick.remove(str(job)))

    async def test_the_machine_went_down_and_files_are_empty(self) -> None:
        def empty(job: Path) -> None:
            for name in (HASHES, "LGI_owners", "LGI_job_run_script"):
                (job / name).write_bytes(b"")

        await self.after_a_crash_of_the_machine(empty)

    async def test_files_that_are_empty_without_a_crash_are_tampered_with(self) -> None:
        _, rig, tap = self.prepared()
        await rig.go()
        rig.kill()
        (rig.job / "LGI_owners").write_bytes(b"")
        rig.start()
        await rig.go()
        self.assertEqual(rig.daemon.holdings.keepers, [])
        self.assertEqual(len(rig.jobs()), 1)
        tap.open()

    async def test_what_is_about_to_be_claimed_is_sealed(self) -> None:
        _, rig, tap = self.prepared()
        await rig.go()
        rig.kill()
        [file] = (rig.run / intake.DIRECTORY).iterdir()
        file.write_bytes(file.read_bytes().replace(b'"noop"', b'"other"') + b" ")
        self.assertEqual(
            intake.Intake(rig.run, rig.daemon._seal, spares.Spares(rig.run, rig.daemon._seal)).missing(), []
        )
        rig.start()
        tap.open()


class TroubleTests(LeftOutTestCase):
    async def test_a_full_disk_before_the_claim(self) -> None:
        server, rig, tap = self.prepared()

        def full(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        self.patch(intake, "write_new", full)
        await rig.go()
        self.assertEqual((server.jobs[12].state, server.locks, rig.jobs()), (JobState.QUEUED, {}, []))
        self.assertEqual(rig.daemon.holdings.taken, ())
        self.patch(intake, "write_new", durable.write_new)
        tap.open()
        await rig.turn()
        await self.all_over(server, rig)

    async def test_a_full_disk_after_the_claim(self) -> None:
        server, rig, tap = self.prepared()
        real = quick.make

        def full(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        self.patch(quick, "make", full)
        await rig.go()
        self.assertEqual((server.jobs[12].state, rig.jobs() + rig.leftovers()), (JobState.RUNNING, []))
        self.assertEqual(len(rig.daemon.holdings.taken), 1)
        await rig.turn()
        self.patch(quick, "make", real)
        tap.open()
        while server.jobs[12].state is not JobState.FINISHED or rig.jobs():
            await rig.turn()
        await rig.tasks.idle()
        self.nothing_left(server, rig)
        self.assertEqual(self.number_of_runs(), 1)

    async def test_no_answer_to_the_claim(self) -> None:
        for moment in ("before", "after"):
            server, rig, tap = self.prepared()
            tap.open()

            def lost(name: str) -> None:
                if name == "update":
                    server.up()  # noqa: B023
                    raise ServerUnreachable("the connection was lost", maybe_done=True)

            setattr(server, moment, lost)
            await rig.go()
            while server.jobs[12].state is not JobState.FINISHED or rig.jobs():
                await rig.turn()
            await rig.tasks.idle()
            self.nothing_left(server, rig)
            self.assertEqual(self.number_of_runs(), 1)

    async def test_refused_claims_are_given_up(self) -> None:
        server, rig, _tap = self.prepared()

        def before(name: str) -> None:
            if name == "update":
                server.expire()
                server.change(12, target_resources=("other@example",))
                raise refused(ErrorNumber.SESSION_ENDED)

        server.before = before
        await rig.go()
        server.up()
        while rig.jobs():
            await rig.turn()
        self.assertEqual(rig.daemon.holdings.taken, ())
        self.assertEqual(self.number_of_runs(), 0)

    async def test_a_script_for_limits_comes_with_a_new_configuration(self) -> None:
        server, rig, tap = self.prepared()
        write_script(rig.scripts / "job_check_limits_script", "exit 1")
        text = rig.file.read_text()
        tag = "job_check_limits_script"
        rig.file.write_text(text.replace(f"<{tag}> </{tag}>", f"<{tag}> scripts/{tag} </{tag}>"))
        rig.daemon.reconfigure(rig.config, {})
        await rig.go()
        self.assertEqual((server.jobs[12].state, rig.jobs(), server.locks), (JobState.QUEUED, [], {}))
        tap.open()


class SpareTests(LeftOutTestCase):
    """The directory of a job that is over becomes that of the next."""

    async def second(self, meanwhile: Callable[[Path], object] = lambda spare: None) -> dict[str, bool]:
        """Run a second job; returns the names of its files, and whether they have the inodes of the first one's."""
        server, rig, tap = self.prepared()
        await rig.go()
        first = {path.name: path.stat().st_ino for path in rig.job.iterdir()}
        for path in rig.job.iterdir():
            # No new file gets an inode that somebody has open.
            self.addCleanup(path.open("rb").close)
        tap.open()
        await self.all_over(server, rig)
        [spare] = (rig.run / spares.DIRECTORY).iterdir()
        meanwhile(spare)
        server.submit(13, owners=("somebody", "else"), input=b"")
        await rig.turn()
        job = rig.job
        self.assertEqual({path.name for path in job.iterdir()}, set(first))
        texts = [
            (job / f"LGI_{name}").read_text() for name in ("job_id", "owners", "application", "project", "input")
        ]
        self.assertEqual(texts, ["13", "somebody, else", "hello_world", "LGI", ""])
        self.assertEqual({path.stat().st_mode & 0o777 for path in job.glob("LGI_[!j]*")}, {0o600})
        found = {path.name: path.stat().st_ino == first[path.name] for path in job.iterdir()}
        tap.open()
        await self.all_over(server, rig)
        self.assertEqual(server.jobs[13].output, b"")
        return found

    async def test_files_are_used_again(self) -> None:
        found = await self.second()
        # What it says itself may be in the hands of some process that has gone astray.
        self.assertEqual({name for name, same in found.items() if not same}, {"job_run_script.log"})

    async def test_whatever_was_done_to_them(self) -> None:
        outside = Path(self.mktemp()).absolute()

        def other_words(spare: Path) -> None:
            (spare / "LGI_application").write_text("hello_World")

        def longer(spare: Path) -> None:
            (spare / "LGI_owners").write_text("x" * 10_000)

        def link(spare: Path) -> None:
            (spare / "LGI_project").unlink()
            (spare / "LGI_project").symlink_to(outside)

        def other_name(spare: Path) -> None:
            (spare / "LGI_owners").unlink()
            (spare / "LGI_owners").hardlink_to(outside)

        def open_to_all(spare: Path) -> None:
            (spare / "LGI_application").chmod(0o666)

        def gone(spare: Path) -> None:
            (spare / "LGI_owners").unlink()

        def all_gone(spare: Path) -> None:
            spare.rename(outside.with_name("away"))

        for meanwhile in (other_words, longer, link, other_name, open_to_all, gone, all_gone):
            outside.write_text("mine")
            await self.second(meanwhile)
            self.assertEqual(outside.read_text(), "mine", meanwhile)

    def test_not_of_one_whose_lock_is_held(self) -> None:
        """By some process that has gone astray: the next job could not begin."""
        run = Path(self.mktemp()).absolute()
        path = run / "LGI" / "hello_world" / f"JOB_{'A' * 32}"
        path.mkdir(parents=True)
        seal = load_seal(run)
        kept, directory = spares.Spares(run, seal), JobDirectory(path=path, seal=seal, synced=False)
        with flocked(path / RUN_LOCK):
            self.assertFalse(kept.keep(directory))
        self.assertTrue((path / RUN_LOCK).exists())
        self.assertTrue(kept.keep(directory))
        self.assertFalse(path.exists())
