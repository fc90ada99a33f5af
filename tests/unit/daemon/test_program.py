"""`LGI_daemon`, the old name with the old options."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from lgi.ca import CertificateAuthority
from lgi.daemon.place import in_use, lock_run_directory, process_of
from lgi.daemon.program import twistd_arguments
from lgi.daemon.runscript import watch
from lgi.daemon.tap import Options
from tests.unit.daemon.rig import make_resource, reactor_runs


class ArgumentsTests(SynchronousTestCase):
    def own(self, *arguments: str) -> list[str]:
        """What follows the name of the service."""
        found = twistd_arguments([*arguments, "LGI.cfg"])
        return found[found.index("lgi-daemon") + 1 :]

    def test_the_documents_defaults(self) -> None:
        self.assertEqual(
            twistd_arguments(["LGI.cfg"]),
            [
                *("--nodaemon", "--pidfile=", "--logfile=-", "lgi-daemon", "--config=LGI.cfg"),
                *("--fast-cycle=120.0", "--slow-cycle=600.0"),
            ],
        )

    def test_all_options(self) -> None:
        found = twistd_arguments(["-d", "-vv", "-ft", "5", "-st", "10", "-W", "-l", "log", "LGI.cfg"])
        self.assertNotIn("--nodaemon", found)
        self.assertIn(f"--logfile={Path('log').absolute()}", found)
        self.assertEqual(
            self.own("-vv", "-ft", "5", "-st", "10", "-W"),
            ["--config=LGI.cfg", "--fast-cycle=5.0", "--slow-cycle=10.0", "--verbose", "--verbose", "--any-hostname"],
        )

    def test_levels(self) -> None:
        for given, said in (
            (["-q"], ["--quiet"]),
            (["-n"], []),
            (["-v"], ["--verbose"]),
            (["-vv"], ["--verbose", "--verbose"]),
            (["-q", "-v"], ["--verbose"]),
            (["-vv", "-n"], []),
        ):
            self.assertEqual(self.own(*given)[3:], said, given)

    def test_the_daemon_understands_them(self) -> None:
        file = make_resource(Path(self.mktemp()).absolute())
        for given, verbosity in (("-q", -1), ("-n", 0), ("-v", 1), ("-vv", 2)):
            options = Options()
            found = twistd_arguments([given, "-ft", "0.5", "-W", str(file)])
            options.parseOptions(found[found.index("lgi-daemon") + 1 :])
            self.assertEqual((options["verbosity"], options["fast-cycle"]), (verbosity, 0.5))
            self.assertTrue(options["any-hostname"])


class ProgramTests(TestCase):
    timeout = 30

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        await reactor_runs()
        self.directory = Path(self.mktemp()).absolute()
        self.file = make_resource(self.directory)
        self.run_directory = self.directory / "run"
        self.visits = _Visits()
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(self.visits)
        self.addCleanup(port.stopListening)
        url = f"https://127.0.0.1:{port.getHost().port}/LGI"
        self.file.write_text(self.file.read_text().replace("https://grid.example/LGI", url))
        authority = CertificateAuthority.create(self.directory / "ca", organisation="Test")
        issued = authority.issue_resource("here@example", projects=("LGI",))
        (self.directory / "ca.crt").write_bytes(authority.certificate_pem)
        (self.directory / "resource.crt").write_bytes(issued.certificate_pem)
        (self.directory / "resource.key").write_bytes(issued.key_pem)
        (self.directory / "resource.key").chmod(0o600)

    def call(self, *arguments: str) -> _Called:
        called = _Called()
        command = [sys.executable, "-c", "from lgi.daemon.program import main; main()", *arguments]
        process = reactor.spawnProcess(
            called, command[0], command, env={"PATH": os.environ["PATH"]}, path=str(self.directory)
        )

        def end() -> None:
            if process.pid is not None:
                os.kill(process.pid, signal.SIGKILL)

        self.addCleanup(end)
        self.addCleanup(process.loseConnection)
        self.addCleanup(self.end_daemon)
        return called

    def end_daemon(self) -> None:
        pid = process_of(self.run_directory)
        if pid not in (None, os.getpid()) and in_use(self.run_directory):
            assert pid is not None
            os.kill(pid, signal.SIGKILL)

    async def stop_daemon(self, *before: signal.Signals) -> None:
        await self.visits.visited  # so that it has begun, and heeds signals
        pid = process_of(self.run_directory)
        assert pid is not None and in_use(self.run_directory)
        ended: Deferred[None] = Deferred()
        self.assertIsNotNone(watch(reactor, pid, lambda: ended.callback(None)))
        for number in (*before, signal.SIGTERM):
            os.kill(pid, number)
        await ended

    async def test_help(self) -> None:
        called = self.call("-h")
        self.assertEqual(await called.closed, 0)
        for option in ("-d ", "-q ", "-n ", "-v ", "-vv ", "-l FILE", "-ft TIME", "-st TIME", "-W "):
            self.assertIn(f"\n  {option}", called.said)

    async def test_wrong_options(self) -> None:
        for arguments, part in (
            ([], "LGI.cfg"),
            (["-x", "LGI.cfg"], "-x"),
            (["-ft", "soon", "LGI.cfg"], "'soon'"),
            (["-st", "0", "LGI.cfg"], "-st"),
            (["a", "b"], "b"),
        ):
            called = self.call(*arguments)
            self.assertEqual(await called.closed, 2)
            self.assertIn(part, called.said)
            self.assertEqual(called.said.count("\n"), 1)

    async def test_a_wrong_configuration(self) -> None:
        for options in ([], ["-d"]):
            called = self.call(*options, "none.cfg")
            self.assertEqual(await called.closed, 1)
            self.assertIn(f"{self.directory}/none.cfg: cannot be read", called.said)

    async def test_in_the_background_with_a_log_file(self) -> None:
        called = self.call("--no-sandbox", "-d", "-l", "log", "LGI.cfg")
        self.assertEqual(await called.exited, 0)
        log, moved = self.directory / "log", self.directory / "log.1"
        self.assertIn("works in", log.read_text())
        log.rename(moved)
        self.file.write_text(self.file.read_text().replace("<job_limit> 4", "<job_limit> 3"))
        await self.stop_daemon(signal.SIGHUP)
        self.assertNotIn("read again", moved.read_text())
        self.assertIn("read again: job_limit of application", log.read_text())
        self.assertIn("stopped, what jobs run goes on", log.read_text())
        self.assertFalse(in_use(self.run_directory))

    async def test_in_the_background_on_standard_output(self) -> None:
        called = self.call("--no-sandbox", "-d", "LGI.cfg")
        self.assertEqual(await called.exited, 0)
        ended = called.closed
        await self.stop_daemon()
        await ended
        self.assertIn("works in", called.said)
        self.assertIn("stopped, what jobs run goes on", called.said)

    async def test_the_exit_status_says_that_it_has_not_started(self) -> None:
        lock = lock_run_directory(self.run_directory)
        self.addCleanup(os.close, lock)
        called = self.call("--no-sandbox", "-d", "-l", "log", "LGI.cfg")
        self.assertEqual(await called.closed, 1)
        self.assertIn("another daemon", (self.directory / "log").read_text())

    async def test_a_log_file_that_cannot_be_opened(self) -> None:
        called = self.call("--no-sandbox", "-d", "-l", "nowhere/log", "LGI.cfg")
        self.assertEqual(await called.closed, 1)
        self.assertIn(f"{self.directory}/nowhere/log cannot be opened: No such file", called.said)
        self.assertFalse(in_use(self.run_directory))


class _Called(ProcessProtocol):
    """What was called: `exited` fires with its exit status, `closed` too, when nobody has its output any more."""

    def __init__(self) -> None:
        self.said = ""
        self.exited: Deferred[int | None] = Deferred()
        self.closed: Deferred[int | None] = Deferred()

    def _received(self, data: bytes) -> None:
        self.said += data.decode()

    outReceived = errReceived = _received

    def processExited(self, reason: Failure) -> None:
        self.exited.callback(getattr(reason.value, "exitCode", None))

    def processEnded(self, reason: Failure) -> None:
        self.closed.callback(getattr(reason.value, "exitCode", None))


class _Visited(Protocol):
    """A server that hangs up on whoever comes."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()
        assert isinstance(self.factory, _Visits)
        if not self.factory.visited.called:
            self.factory.visited.callback(None)


class _Visits(Factory):
    protocol = _Visited

    def __init__(self) -> None:
        self.visited: Deferred[None] = Deferred()
