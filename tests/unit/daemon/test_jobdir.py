from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from lgi import durable
from lgi.daemon import jobdir, quick
from lgi.daemon.config import read_config
from lgi.daemon.flocks import flocked, is_flocked
from lgi.daemon.jobdir import EXIT_STATUS, FILES, INPUT, OUTPUT, RUN_PID, SCRIPTS, JobDirectory, Tampered
from lgi.daemon.jobfiles import job_files
from lgi.daemon.seal import Seal
from lgi.states import JobState
from tests.unit.daemon.rig import make_resource
from tests.unit.daemon.server import URL, FakeServer, Killed

SEAL = Seal(key=b"k" * 32)


class JobDirectoryTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        directory = Path(self.mktemp()).absolute()
        config = read_config(make_resource(directory))
        self.run_directory = config.run_directory
        application = config.projects[0].applications[0]
        self.contents = job_files(config, application, "https://m.example", URL, FakeServer().submit(input=None))

    def prepare(self) -> JobDirectory:
        return jobdir.prepare(self.run_directory, SEAL, "LGI", "hello_world", self.contents)

    def complete(self) -> JobDirectory:
        directory = self.prepare().publish()
        directory.write(INPUT, b"in \x00")
        directory.write("LGI_state", b"running")
        return directory

    def scan(self) -> list[JobDirectory]:
        return list(jobdir.scan(self.run_directory, SEAL))


class ContentTests(JobDirectoryTestCase):
    def test_the_documents_files(self) -> None:
        directory = self.complete()
        self.assertRegex(directory.path.name, "^JOB_[0-9A-F]{32}$")
        self.assertEqual(directory.path.parent, self.run_directory / "LGI" / "hello_world")
        names = {path.name for path in directory.path.iterdir()}
        self.assertEqual(names, {name + end for name in (*FILES, INPUT) for end in ("", ".hash")})
        self.assertEqual(len(FILES | {INPUT, OUTPUT, RUN_PID}), 28, "as many as the document lists")
        for name, text in {
            "LGI_project": "LGI",
            "LGI_application": "hello_world",
            "LGI_job_id": "12",
            "LGI_owners": "mark, physics",
            "LGI_state_time_stamp": "1000",
            "LGI_this_project_server": URL,
            "LGI_project_master_server": "https://m.example",
            "LGI_max_output_size": "4096",
            "LGI_job_sandbox_uid": "",
            "LGI_daemon_reference": directory.reference,
            "LGI_key_file": "the resource.key\n",
        }.items():
            self.assertEqual((directory.path / name).read_text(), text, name)

    def test_modes(self) -> None:
        directory = self.complete()
        self.assertEqual(os.stat(directory.path).st_mode & 0o777, 0o700)
        for path in directory.path.iterdir():
            wanted = 0o700 if path.name in SCRIPTS else 0o600
            self.assertEqual(os.stat(path).st_mode & 0o777, wanted, path.name)

    def test_load(self) -> None:
        record = self.complete().load()
        self.assertEqual((record.job_id, record.project, record.server), (12, "LGI", URL))
        self.assertEqual((record.owners, record.max_output_size), (("mark", "physics"), 4096))

    def test_output(self) -> None:
        directory = self.complete()
        self.assertEqual(directory.output(100), b"")
        (directory.path / OUTPUT).write_bytes(b"x" * 100)
        self.assertEqual(directory.output(100), b"x" * 100)
        (directory.path / OUTPUT).write_bytes(b"x" * 200)
        self.assertRegex(directory.output(100), b"^x+\n\\[LGI: .* 200 bytes and 100 may be sent\\]\n$")
        self.assertEqual(len(directory.output(100)), 100)
        self.assertEqual(directory.output(3), b"xxx")
        self.assertEqual(directory.output(0), b"")

    def test_report_of_a_run_that_failed_without_output(self) -> None:
        directory = self.complete()
        printed = directory.path / "job_run_script.log"
        printed.write_bytes(b"early " * 2000 + b"No module named nosuchmodule\n")
        self.assertEqual(directory.report(9000, directory.exit_status()), b"")
        (directory.path / EXIT_STATUS).write_text("0\n")
        self.assertEqual(directory.report(9000, directory.exit_status()), b"")
        (directory.path / EXIT_STATUS).write_text("1\n")
        report = directory.report(9000, directory.exit_status())
        self.assertTrue(report.startswith(b"[LGI: the run script ended with status 1"), report[:80])
        self.assertTrue(report.endswith(b"No module named nosuchmodule\n"))
        self.assertLess(len(report), 4300)
        self.assertEqual(len(directory.report(50, directory.exit_status())), 50)
        (directory.path / OUTPUT).write_bytes(b"its own words")
        self.assertEqual(directory.report(9000, directory.exit_status()), b"its own words")

    def test_output_that_is_a_link(self) -> None:
        directory = self.complete()
        (directory.path / OUTPUT).symlink_to("/etc/passwd")
        self.assertEqual(directory.output(100), b"")

    def test_exit_status(self) -> None:
        directory = self.complete()
        self.assertIsNone(directory.exit_status())
        for text, status in (("0\n", 0), ("137\n", 137), ("", None), ("x", None)):
            (directory.path / EXIT_STATUS).write_text(text)
            self.assertEqual(directory.exit_status(), status)


class TamperedTests(JobDirectoryTestCase):
    def test_each_file(self) -> None:
        directory = self.complete()
        directory.write(RUN_PID, b"123")
        directory.verify()
        for name in (*FILES, INPUT, RUN_PID):
            for ending in ("", ".hash"):
                path = directory.path / f"{name}{ending}"
                before = path.read_bytes()
                path.write_bytes(before[:-2] + b"?" if ending else before + b" ")
                error = self.assertRaises(Tampered, directory.verify)
                self.assertIn(name, str(error))
                path.unlink()
                if (name, ending) != (RUN_PID, ""):  # without it, there is no process to know of
                    self.assertRaises(Tampered, directory.verify)
                durable.write_new(path, before)
        directory.verify()

    def test_what_was_verified_is_read_again_once_it_changes(self) -> None:
        """Also where size and time of modification are as before, and the file is another one."""
        self.patch(jobdir, "_SETTLED", 0)
        directory = self.complete()
        directory.verify()
        reads: list[str] = []
        read = durable.read_regular

        def counting(path: str, *args: Any, **more: Any) -> bytes:
            reads.append(Path(path).name)
            return read(path, *args, **more)

        self.patch(jobdir, "read_regular", counting)
        directory.verify()
        self.assertNotIn("LGI_owners", reads)
        file = directory.path / "LGI_owners"
        content, status = file.read_bytes(), file.stat()
        file.write_bytes(content.swapcase())
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        self.assertRaises(Tampered, directory.verify)
        file.write_bytes(content)
        directory.verify()
        other = file.with_name("other")
        other.write_bytes(content.swapcase())
        other.replace(file)
        self.assertRaises(Tampered, directory.verify)
        file.unlink()
        self.assertRaises(Tampered, directory.verify)

    def test_what_has_just_been_written_is_read_again(self) -> None:
        self.patch(jobdir, "_SETTLED", 3600 * 10**9)
        directory = self.complete()
        directory.verify()
        self.assertEqual(directory._verified, {})

    def test_a_link_to_the_right_content(self) -> None:
        directory = self.complete()
        path = directory.path / "LGI_owners"
        path.rename(directory.path / "elsewhere")
        path.symlink_to("elsewhere")
        self.assertRaises(Tampered, directory.verify)

    def test_a_file_of_another_job(self) -> None:
        one, other = self.complete(), self.complete()
        for ending in ("", ".hash"):
            content = (other.path / f"LGI_job_run_script{ending}").read_bytes()
            (one.path / f"LGI_job_run_script{ending}").write_bytes(content)
        self.assertRaises(Tampered, one.verify)

    def test_a_directory_that_has_been_moved(self) -> None:
        directory = self.complete()
        other = self.run_directory / "LGI" / "other"
        other.mkdir()
        directory.path.rename(other / directory.path.name)
        (moved,) = self.scan()
        self.assertIn("moved", str(self.assertRaises(Tampered, moved.verify)))

    def test_input_may_be_missing_only_before_the_claim(self) -> None:
        directory = self.prepare().publish()
        directory.verify()
        directory.write("LGI_state", b"running")
        self.assertIn(INPUT, str(self.assertRaises(Tampered, directory.verify)))

    def test_a_changed_file_is_not_replaced(self) -> None:
        directory = self.complete()
        (directory.path / "LGI_state").write_bytes(b"aborting")
        self.assertRaises(Tampered, directory.write, "LGI_state", b"running")
        self.assertEqual((directory.path / "LGI_state").read_bytes(), b"aborting")


class CrashTests(JobDirectoryTestCase):
    def test_half_made_and_half_removed_directories_are_cleared_away(self) -> None:
        self.prepare()
        complete = self.complete()
        self.complete().retire()
        (self.run_directory / "LGI" / "hello_world" / "notes").mkdir()
        self.assertEqual([found.path for found in self.scan()], [complete.path])
        left = sorted(path.name for path in complete.path.parent.iterdir())
        self.assertEqual(left, [complete.path.name, "notes"])

    def test_killed_between_the_files_of_a_change(self) -> None:
        real = durable.write_atomically
        for name, old, new in (("LGI_state", b"running", b"aborting"), (RUN_PID, None, b"123")):
            for number in range(4):
                directory = self.complete()
                written: list[Path] = []

                def dying(path: Path, content: bytes, mode: int = 0o600, *, group: None = None) -> None:
                    if len(written) == number:  # noqa: B023
                        raise Killed
                    written.append(path)  # noqa: B023
                    real(path, content, mode)

                self.patch(jobdir, "write_atomically", dying)
                try:
                    directory.write(name, new)
                except Killed:
                    pass
                else:
                    self.assertEqual(directory.read(name), new)
                self.patch(jobdir, "write_atomically", real)
                directory.verify()
                content = directory.read(name) if directory.has(name) else None
                self.assertIn(content, (old, new))
                directory.write(name, b"77")
                self.assertEqual(directory.read(name), b"77")

    def test_a_disk_that_is_full_leaves_nothing_behind(self) -> None:
        real = quick.make

        def full(path: str, *arguments: object, **named: object) -> None:
            if path.endswith("/LGI_owners"):
                raise OSError(28, "No space left on device", path)
            real(path, *arguments, **named)  # type: ignore[arg-type]

        self.patch(quick, "make", full)
        self.assertRaises(OSError, self.prepare)
        self.assertEqual(list(self.run_directory.glob("*/*/*")), [])

    def test_the_former_content_is_no_longer_taken(self) -> None:
        directory = self.complete()
        former = directory.read("LGI_state")
        directory.write("LGI_state", b"aborting")
        (directory.path / "LGI_state").write_bytes(former)
        self.assertRaises(Tampered, directory.verify)
        self.assertEqual(former.decode(), JobState.RUNNING.value)


class LockTests(JobDirectoryTestCase):
    def test_flock(self) -> None:
        path = self.run_directory / "lock"
        self.assertFalse(is_flocked(path))
        self.assertFalse(path.exists())
        with flocked(path) as descriptor:
            self.assertTrue(is_flocked(path))
            self.assertRaises(BlockingIOError, flocked(path).__enter__)
            heir = os.dup(descriptor)
        self.assertTrue(is_flocked(path), "whoever has inherited it keeps it")
        os.close(heir)
        self.assertFalse(is_flocked(path))
