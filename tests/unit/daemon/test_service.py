"""The program's start and end: what is wrong is said in one line, with status 1."""

from __future__ import annotations

import os
import signal
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase, TestCase

from lgi.ca import CertificateAuthority
from lgi.daemon.place import LOCK_FILE, in_use, lock_run_directory, process_of
from lgi.daemon.service import DaemonService, steady
from lgi.daemon.tap import Options, makeService
from tests.unit.daemon.rig import make_resource, reactor_runs


class OptionsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.file = make_resource(self.directory)

    def parsed(self, *arguments: str) -> Options:
        options = Options()
        options.parseOptions(arguments)
        return options

    def test_defaults(self) -> None:
        options = self.parsed("--config", str(self.file))
        self.assertEqual((options["slow-cycle"], options["fast-cycle"]), (5.0, 5.0))
        self.assertIsInstance(makeService(options), DaemonService)
        self.assertEqual(list((self.directory / "run").iterdir()), [], "nothing is opened yet")

    def test_cycles(self) -> None:
        options = self.parsed("--config", str(self.file), "--slow-cycle", "600", "-f", "0.5")
        self.assertEqual((options["slow-cycle"], options["fast-cycle"]), (600.0, 0.5))
        for wrong in ("0", "-1", "often", "nan", "1e9"):
            error = self.assertRaises(UsageError, self.parsed, "--config", str(self.file), "--fast-cycle", wrong)
            self.assertIn("fast-cycle", str(error))

    def test_no_configuration(self) -> None:
        self.assertIn("--config", str(self.assertRaises(UsageError, self.parsed)))

    def test_every_mistake_of_the_configuration_is_told(self) -> None:
        self.file.write_text(self.file.read_text().replace("> 4 <", "> x <").replace("resource.key", "none.key"))
        error = str(self.assertRaises(SystemExit, self.parsed, "--config", str(self.file)))
        self.assertIn("job_limit", error)
        self.assertIn("none.key", error)


class LockTests(SynchronousTestCase):
    def test_one_daemon_to_a_directory(self) -> None:
        directory = Path(self.mktemp())
        lock = lock_run_directory(directory)
        self.assertEqual(os.stat(directory).st_mode & 0o777, 0o700)
        self.assertRaises(BlockingIOError, lock_run_directory, directory)
        self.assertEqual((in_use(directory), process_of(directory)), (True, os.getpid()))
        os.close(lock)
        self.assertFalse(in_use(directory))
        os.close(lock_run_directory(directory))
        self.assertTrue((directory / LOCK_FILE).exists())


class _Program(ProcessProtocol):
    def __init__(self) -> None:
        self.said = ""
        self.ended: Deferred[int | None] = Deferred()
        self._waiting: dict[str, Deferred[None]] = {}

    def says(self, text: str) -> Deferred[None]:
        self._waiting[text] = Deferred()
        return self._waiting[text]

    def _received(self, data: bytes) -> None:
        self.said += data.decode()
        for text in [text for text in self._waiting if text in self.said]:
            self._waiting.pop(text).callback(None)

    outReceived = errReceived = _received

    def processEnded(self, reason: Failure) -> None:
        for waiting in self._waiting.values():
            waiting.errback(RuntimeError(self.said))
        self.ended.callback(getattr(reason.value, "exitCode", None))


class ProgramTestCase(TestCase):
    """A resource with a certificate, and the program."""

    timeout = 30

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        await reactor_runs()
        self.directory = Path(self.mktemp()).absolute()
        self.file = make_resource(self.directory)
        self.authority = CertificateAuthority.create(self.directory / "ca", organisation="Test")
        self.write(self.authority)

    def write(self, authority: CertificateAuthority, projects: tuple[str, ...] = ("LGI",)) -> None:
        issued = authority.issue_resource("here@example", projects=projects)
        (self.directory / "ca.crt").write_bytes(authority.certificate_pem)
        (self.directory / "resource.crt").write_bytes(issued.certificate_pem)
        (self.directory / "resource.key").write_bytes(issued.key_pem)
        (self.directory / "resource.key").chmod(0o600)

    def run_program(self, *options: str) -> _Program:
        program = _Program()
        twistd = str(Path(sys.executable).with_name("twistd"))
        process = reactor.spawnProcess(
            program,
            twistd,
            [twistd, "--nodaemon", "--pidfile=", "lgi-daemon", "--no-sandbox", *options, "--config", str(self.file)],
            env={"PATH": os.environ["PATH"], "HOME": str(self.directory)},
            path=str(self.directory),
        )

        def end() -> None:
            if process.pid is not None:
                os.kill(process.pid, signal.SIGKILL)

        self.addCleanup(end)
        self.process = process
        return program

    def without_server(self) -> None:
        self.change("https://grid.example/LGI", "https://127.0.0.1:1/LGI")

    def change(self, old: str, new: str) -> None:
        text = self.file.read_text()
        self.assertIn(old, text)
        self.file.write_text(text.replace(old, new))

    async def stop(self, program: _Program) -> None:
        """End the program as an administrator does."""
        os.kill(self.process.pid, signal.SIGTERM)
        self.assertIsNone(await program.ended, "twistd ends by the signal it got, once all is done")
        self.assertIn("stopped, what jobs run goes on", program.said)
        self.assertNotIn("Traceback", program.said)


class StartTests(ProgramTestCase):
    async def assert_refused(self, *parts: str) -> None:
        program = self.run_program()
        self.assertEqual(await program.ended, 1, program.said)
        lines = [line for line in program.said.splitlines() if "lgi-daemon cannot start: " in line]
        self.assertEqual(len(lines), 1, program.said)
        for part in parts:
            self.assertIn(part, lines[0])
        self.assertNotIn("Traceback", program.said)

    async def test_key_of_another(self) -> None:
        other = self.authority.issue_resource("other@example", projects=("LGI",))
        (self.directory / "resource.key").write_bytes(other.key_pem)
        await self.assert_refused("resource.key", "does not belong")

    async def test_expired(self) -> None:
        clock = lambda: datetime.now(UTC) - timedelta(days=3000)  # noqa: E731
        self.write(CertificateAuthority.create(self.directory / "old", organisation="Old", clock=clock))
        await self.assert_refused("resource.crt", "expired")

    async def test_certificate_for_another_project(self) -> None:
        self.write(self.authority, projects=("OTHER",))
        await self.assert_refused("resource.crt", "not for project LGI")

    async def test_a_second_daemon(self) -> None:
        lock = lock_run_directory(self.directory / "run")
        self.addCleanup(os.close, lock)
        await self.assert_refused(str(self.directory / "run"), "another daemon")

    async def test_a_broken_key_file(self) -> None:
        (self.directory / "run" / ".lgi-daemon.key").write_text("no key")
        await self.assert_refused(".lgi-daemon.key")

    async def test_start_without_a_server_and_stop(self) -> None:
        self.without_server()
        program = self.run_program()
        await program.says("no answer for project LGI: https://127.0.0.1:1/LGI")
        await self.stop(program)

    async def test_a_certificate_that_ends_soon(self) -> None:
        self.without_server()
        issued = self.authority.issue_resource("here@example", projects=("LGI",), days=7)
        (self.directory / "resource.crt").write_bytes(issued.certificate_pem)
        (self.directory / "resource.key").write_bytes(issued.key_pem)
        program = self.run_program()
        said = program.says("resource.crt is valid for 6 days more")
        await program.says("no answer for project LGI")
        await said
        await self.stop(program)

    async def test_quiet(self) -> None:
        self.without_server()
        (self.directory / "run" / "LGI" / "hello_world" / f"JOB_{'0' * 32}").mkdir(parents=True)
        program = self.run_program("-q")
        await program.says("refused, nothing of this job is run or reported")
        self.file.write_text("no configuration")
        refused = program.says("stays in force")
        os.kill(self.process.pid, signal.SIGHUP)
        await refused
        os.kill(self.process.pid, signal.SIGTERM)
        await program.ended
        self.assertEqual([line for line in program.said.splitlines() if "#critical] " not in line], [])

    async def test_everything(self) -> None:
        self.without_server()
        program = self.run_program("-vv")
        await program.says("https://127.0.0.1:1/LGI: signup(): ServerUnreachable")
        await self.stop(program)


class SignalTests(ProgramTestCase):
    async def started(self) -> _Program:
        self.without_server()
        program = self.run_program()
        # The handlers are there before anything is asked.
        await program.says("no answer for project LGI")
        return program

    async def reload(self, program: _Program, *says: str) -> None:
        waiting = [program.says(text) for text in says]
        program.said = ""
        os.kill(self.process.pid, signal.SIGHUP)
        for one in waiting:
            await one

    async def test_reload(self) -> None:
        program = await self.started()
        await self.reload(program, "LGI.cfg read again: nothing has changed")
        self.change("<job_limit> 4", "<job_limit> 3")
        await self.reload(program, "read again: job_limit of application hello_world of project LGI: 3")
        await self.stop(program)

    async def test_a_bad_configuration_is_refused_with_all_its_mistakes(self) -> None:
        program = await self.started()
        good = self.file.read_text()
        self.change("<job_limit> 4", "<job_limit> x")
        self.change("./scripts/job_run_script", "./nowhere")
        await self.reload(
            program,
            "not reloaded: " + str(self.file) + ": resource / project 1 / application 1 / job_limit",
            "there is no file " + str(self.directory / "nowhere"),
            "LGI.cfg is refused, the configuration of before stays in force",
        )
        self.file.unlink()
        await self.reload(program, "LGI.cfg: cannot be read", "stays in force")
        self.file.write_text(good)
        await self.reload(program, "LGI.cfg read again: nothing has changed")
        await self.stop(program)

    async def test_what_needs_a_restart(self) -> None:
        program = await self.started()
        self.change("./run <", "./walk <")
        await self.reload(program, "run_directory: ", "needs a restart", "stays in force")
        self.assertFalse((self.directory / "walk").exists())
        self.change("./walk <", "./run <")
        issued = self.authority.issue_resource("there@example", projects=("LGI",))
        (self.directory / "resource.crt").write_bytes(issued.certificate_pem)
        (self.directory / "resource.key").write_bytes(issued.key_pem)
        await self.reload(program, "it is the certificate of there@example", "stays in force")
        await self.stop(program)

    async def test_certificates(self) -> None:
        program = await self.started()
        (self.directory / "resource.crt").write_text("half of a")
        await self.reload(program, "not reloaded: " + str(self.directory / "resource.crt"), "stays in force")
        self.write(self.authority, projects=("OTHER",))
        await self.reload(program, "the certificate is not for project LGI", "stays in force")
        self.write(self.authority)
        await self.reload(program, "read again: the certificate is valid until")
        await self.stop(program)

    async def test_many_at_once(self) -> None:
        program = await self.started()
        for _ in range(50):
            os.kill(self.process.pid, signal.SIGHUP)
            os.kill(self.process.pid, signal.SIGUSR1)
        await self.reload(program, "nothing has changed")
        await self.stop(program)


class SteadyTests(SynchronousTestCase):
    def test_timers_do_not_follow_the_time_of_day(self) -> None:
        other = EPollReactor()
        steady(other)
        before = time.monotonic()
        call = other.callLater(10, lambda: None)
        self.assertTrue(before + 10 <= call.getTime() <= time.monotonic() + 10)
        call.cancel()
        for descriptor in other.removeAll():
            descriptor.connectionLost(Failure(ConnectionDone()))
