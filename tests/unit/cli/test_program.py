"""The program itself, in its own process, against a server that asks for certificates."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import click
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.protocols.policies import WrappingFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.server import NOT_DONE_YET, Request, Site

from lgi import __version__
from lgi.ca import CertificateAuthority, Issued
from lgi.cli.main import COMMANDS, _ended, lgi
from lgi.cli.options import Options
from lgi.tls import load_credentials, server_context_factory
from tests.unit.cli.sessions import SERVERS, servers
from tests.unit.client import fakes
from tests.unit.client.fakes import DELETE, RESOURCES, STATE, SUBMIT, FakeServer, reactor

PROGRAM = Path(sys.executable).with_name("lgi")


class Process(ProcessProtocol):
    """A process, and what it wrote."""

    def __init__(self) -> None:
        self.ended: Deferred[int] = Deferred()
        self.written = {1: b"", 2: b""}

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self.written[childFD] += data

    def processExited(self, reason: Failure) -> None:
        pass

    def processEnded(self, reason: Failure) -> None:
        done: Any = reason.value
        signalled = getattr(done, "signal", None)
        self.ended.callback(0 if isinstance(done, ProcessDone) else -signalled if signalled else done.exitCode)


@attrs.frozen(kw_only=True)
class Ran:
    """How it ended."""

    status: int
    out: str
    err: str

    @property
    def value(self) -> Any:
        return json.loads(self.out)


class ProgramTestCase(TestCase):
    """`run()` runs the program with `self.home` as the home directory."""

    timeout = 60

    def setUp(self) -> None:
        self.home = Path(self.mktemp()).absolute()
        self.home.mkdir()
        self.process: Any = None

    def start(self, *arguments: str, terminal: bool = False, input: bytes = b"", **environment: str) -> Process:
        protocol = Process()
        env = {
            "HOME": str(self.home),
            "PATH": os.environ["PATH"],
            "LC_ALL": "C.UTF-8",
            "TERM": "xterm",
            **environment,
        }
        self.process = reactor.spawnProcess(
            protocol, str(PROGRAM), [str(PROGRAM), *arguments], env=env, path=str(self.home), usePTY=terminal
        )
        if not terminal:
            self.process.write(input)
            self.process.closeStdin()
        return protocol

    async def end(self, protocol: Process) -> Ran:
        status = await protocol.ended
        return Ran(status=status, out=protocol.written[1].decode(), err=protocol.written[2].decode())

    async def run_program(self, *arguments: str, **more: Any) -> Ran:
        return await self.end(self.start(*arguments, **more))

    async def run_all(self, *commands: tuple[str, ...]) -> list[Ran]:
        """Several at a time."""
        return await gatherResults([Deferred.fromCoroutine(self.run_program(*command)) for command in commands])

    def assertOneLine(self, text: str, pattern: str) -> None:
        self.assertRegex(text, pattern)
        self.assertRegex(text, r"\Algi: [^\n]+\n\Z")


class Table(SynchronousTestCase):
    def test_every_command_is_there(self) -> None:
        context = click.Context(lgi)
        for name in COMMANDS:
            command = lgi.get_command(context, name)
            assert command is not None
            self.assertEqual(command.name, name)
        self.assertIsNone(lgi.get_command(context, "nosuch"))


class Mistakes(SynchronousTestCase):
    """What ends before anything is asked, in this process: others take their time to start."""

    def ended(self, *arguments: str) -> int:
        """The exit status; `out` and `err` have what was said."""
        self.out, self.err = io.StringIO(), io.StringIO()
        self.patch(sys, "stdout", self.out)
        self.patch(sys, "stderr", self.err)
        return _ended(list(arguments), Options())

    def test_usage_errors(self) -> None:
        mistakes = (
            (("nosuch",), "nosuch.*lgi --help"),
            (("status", "--nosuch"), "--nosuch.*lgi status --help"),
            (("status", "x"), "'x' is not the number of a job"),
            (("status", "12@"), "names no server"),
            (("list", "--state", "queued,!running"), "!running"),
            (("list", "--columns", "id,colour"), "colour.*id, state"),
            (("list", "--since", "yesterday"), "'yesterday' is no time"),
            (("list", "--count", "-q"), "--count or --quiet"),
            (("logs",), "JOB"),
            (("logs", "7", "-f", "--json"), "--follow or --json"),
            (("completion", "cmd"), "bash"),
            (("submit", "-a", "x", "--key", "a b"), "letters, digits"),
            (("submit", "-a", "x", "--each"), "FILES"),
            (("submit", "-a", "x", "--each", "-i", "-", "f"), "--input-file"),
            (("status", "7", "--state", "queued"), "--state.*for the list"),
            (("status", "--state", "asleep"), "asleep.*queued"),
            (("wait", "7", "--interval", "0"), "interval"),
            (("submit", "-a", "x", "-s", "<a>"), "not well-formed XML"),
            (("submit", "-a", "x", "-i", "-", "--input", "y"), "--input"),
            (("files", "put", "7"), "FILE"),
            (("files", "rm", "7"), "NAME"),
        )
        # What a list of jobs gives when there are none is no mistake.
        for command in ("cancel", "wait", "delete"):
            self.assertEqual(self.ended(command), 0, command)
            self.assertIn("nothing to do", self.err.getvalue())
        for arguments, pattern in mistakes:
            self.assertEqual(self.ended(*arguments), 2, arguments)
            self.assertEqual(self.out.getvalue(), "", arguments)
            self.assertRegex(self.err.getvalue(), rf"\Algi: [^\n]*{pattern}[^\n]*\n\Z")

    def test_help_has_examples(self) -> None:
        for name in list(COMMANDS)[: list(COMMANDS).index("init")]:
            self.assertEqual(self.ended(name, "--help"), 0)
            if name != "files":
                self.assertRegex(self.out.getvalue(), rf"(?s)Examples:\n +.*lgi (--\S+ \S+ )?{name}", name)


class Usage(ProgramTestCase):
    async def test_help_names_every_command(self) -> None:
        ran = await self.run_program("--help")
        self.assertEqual((ran.status, ran.err), (0, ""))
        for name in COMMANDS:
            self.assertRegex(ran.out, rf"(?m)^  {name} ")

    async def test_version(self) -> None:
        self.assertEqual((await self.run_program("--version")).out, f"lgi {__version__}\n")

    async def test_no_configuration(self) -> None:
        commands = (("status",), ("files", "ls", "7"), ("whoami",))
        for ran in await self.run_all(*commands):
            self.assertEqual((ran.status, ran.out), (1, ""))
            self.assertOneLine(ran.err, rf"no configuration directory {re.escape(str(self.home))}/.LGI.*lgi ca issue")

    async def test_configuration_of_the_environment(self) -> None:
        ran = await self.run_program("status", LGI_CONFIG="/nonexistent/conf")
        self.assertOneLine(ran.err, "no configuration directory /nonexistent/conf")

    async def test_nobody_reads_the_output(self) -> None:
        with open("/dev/full", "wb") as full:
            ended = subprocess.run([PROGRAM, "--help"], stdout=full, stderr=subprocess.PIPE, check=False)
        self.assertEqual(ended.returncode, 1)
        self.assertNotIn(b"Traceback", ended.stderr)

    async def test_verbose_shows_where(self) -> None:
        ran = await self.run_program("status", "--verbose")
        self.assertEqual(ran.status, 1)
        self.assertIn("Traceback (most recent call last)", ran.err)

    async def test_files_that_cannot_be_sent(self) -> None:
        (self.home / "a").mkdir()
        for name in ("x", "a/x"):
            (self.home / name).touch()
        ran = await self.run_program("submit", "-a", "hello_world", "x", "a/x", "nothere")
        self.assertEqual(ran.status, 1)
        self.assertOneLine(ran.err, "same name.*nothere: No such file or directory; nothing was sent")

    async def test_input_that_cannot_be_read(self) -> None:
        ran = await self.run_program("submit", "-a", "hello_world", "-i", "nothere")
        self.assertEqual(ran.status, 1)
        self.assertOneLine(ran.err, "nothere: No such file")

    async def test_completion(self) -> None:
        for shell in ("bash", "zsh", "fish"):
            ran = await self.run_program("completion", shell)
            self.assertEqual((ran.status, ran.err), (0, ""))
            self.assertIn("_LGI_COMPLETE", ran.out)
        words = {"_LGI_COMPLETE": "bash_complete", "COMP_CWORD": "1"}
        self.assertIn("plain,whoami\n", (await self.run_program(**words, COMP_WORDS="lgi wh")).out)
        words["COMP_CWORD"] = "2"
        self.assertIn("plain,--columns\n", (await self.run_program(**words, COMP_WORDS="lgi list --co")).out)


class Connected(ProgramTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.authority = CertificateAuthority.create(self.home / "ca", organisation="Test")
        issued = self.authority.issue_server("localhost", hosts=["localhost"], projects=["LGI"])
        credentials = load_credentials(
            self.file("server.crt", issued.certificate_pem), self.file("server.key", issued.key_pem)
        )
        self.fake = FakeServer()
        self.factory = WrappingFactory(Site(self.fake))
        self.context = server_context_factory(credentials, self.authority.certificate_file)
        self.port = reactor.listenSSL(0, self.factory, self.context, interface="127.0.0.1")
        self.url = f"https://localhost:{self.port.getHost().port}/LGI"
        self.configure(self.authority.issue_user("mark@localhost", groups=["theor"], projects=["LGI"]))
        self.fake.script[SERVERS] = [servers(self.url)]

    async def tearDown(self) -> None:  # type: ignore[override]
        if self.process is not None and self.process.pid is not None:
            self.process.signalProcess(signal.SIGKILL)
        stopped = self.port.stopListening()
        if stopped is not None:
            await stopped

    def file(self, name: str, data: bytes) -> Path:
        path = self.home / name
        path.write_bytes(data)
        path.chmod(0o600)
        return path

    def configure(self, issued: Issued, **changes: str) -> None:
        (self.home / ".LGI").mkdir(exist_ok=True)
        self.file(".LGI/certificate", issued.certificate_pem)
        self.file(".LGI/privatekey", issued.key_pem)
        self.file(".LGI/ca_chain", self.authority.certificate_pem)
        values = {"defaultserver": self.url, "defaultproject": "LGI", "user": "mark@localhost", "groups": "theor"}
        for name, value in {**values, **changes}.items():
            self.file(f".LGI/{name}", value.encode())

    async def test_submit_with_input_from_a_pipe(self) -> None:
        self.fake.script[SUBMIT] = [fakes.submitted(12)]
        ran = await self.run_program("submit", "-a", "hello_world", "-i", "-", input=b"\x00\xff")
        self.assertEqual((ran.status, ran.err), (0, ""))
        self.assertEqual(ran.out, "Job 12 queued for hello_world (any)\nFollow it with: lgi wait 12\n")
        self.assertEqual(dict(self.fake.calls)[SUBMIT]["input"], "00ff")

    async def test_submit_and_wait_gives_one_value(self) -> None:
        self.fake.script[SUBMIT] = [fakes.submitted(12)]
        self.fake.script[STATE] = [fakes.detail(12), fakes.detail(12, "finished", output=b"hello\n")]
        ran = await self.run_program("--json", "submit", "-a", "hello_world", "--wait")
        self.assertEqual((ran.status, ran.err), (0, ""))
        self.assertEqual((ran.value["state"], ran.value["output"]), ("finished", "hello\n"))

    async def test_json_before_and_after_the_command(self) -> None:
        self.fake.script[RESOURCES] = [fakes.resources(one="a")]
        before = await self.run_program("--json", "resources")
        after = await self.run_program("resources", "--json")
        self.assertEqual(before.value, after.value)
        self.assertEqual(before.value[0]["applications"], ["a"])

    async def test_wait_on_a_terminal(self) -> None:
        self.fake.script[STATE] = [fakes.detail(7, "running", output=b"step 1\n"), fakes.detail(7, "finished")]
        ran = await self.run_program("wait", "7", terminal=True)
        self.assertEqual(ran.status, 0)
        self.assertIn("step 1", ran.out)
        self.assertIn("\x1b[", ran.out)

    async def test_delete_asks_a_person_before_many_jobs_go(self) -> None:
        self.fake.script[DELETE] = [lambda request: fakes.detail(int(request.args[b"job_id"][0]), "deleted")]
        numbers = ("1", "2", "3", "4")
        for answer, status, deleted in ((b"n\n", 1, 0), (b"y\n", 0, 4)):
            process = self.start("delete", *numbers, terminal=True)
            while b"Delete 4 jobs" not in process.written[1]:
                await deferLater(reactor, 0.05)
            self.process.write(answer)
            ran = await self.end(process)
            self.assertEqual(
                (ran.status, len([path for path, _ in self.fake.calls if path == DELETE])), (status, deleted)
            )
        self.assertEqual((await self.run_program("delete", *numbers)).status, 0)

    async def test_files_with_the_credentials_of_a_job_directory(self) -> None:
        issued = self.authority.issue_resource("node@localhost", projects=["LGI"])
        folder = self.home / "JOB_1"
        folder.mkdir()
        self.file("JOB_1/LGI_certificate_file", issued.certificate_pem)
        self.file("JOB_1/LGI_key_file", issued.key_pem)
        self.file("JOB_1/LGI_ca_certificate_file", self.authority.certificate_pem)
        url = f"{self.url}/repository/b07/{fakes.STORE}"
        self.file("JOB_1/LGI_job_specifics", f"<repository_url> {url} </repository_url>".encode())
        self.file("JOB_1/out.csv", b"1,2\n")
        for path in (self.home / ".LGI").iterdir():
            path.unlink()
        put = await self.run_program("files", "put", "JOB_1", "JOB_1/out.csv")
        self.assertEqual((put.status, put.out, put.err), (0, "out.csv 4 bytes\n", ""))
        got = await self.run_program("files", "get", "JOB_1", "--to", "down", "*.csv", "no.csv")
        self.assertEqual((got.status, got.out), (1, "out.csv 4 bytes\n"))
        self.assertOneLine(got.err, "no.csv: no such file")
        self.assertEqual((self.home / "down/out.csv").read_bytes(), b"1,2\n")

    async def test_server_that_is_down_for_good(self) -> None:
        await self.port.stopListening()
        ran = await self.run_program("whoami", "--json")
        self.assertEqual((ran.status, ran.value["server_answers"]), (0, False))
        self.assertEqual(ran.value["name"], "mark@localhost")
        self.assertOneLine(ran.err, rf"the server was not asked: {self.url}: connection refused")

    async def test_server_that_is_started_anew(self) -> None:
        number = self.port.getHost().port
        await self.port.stopListening()
        self.fake.script[STATE] = [fakes.listed()]
        process = self.start("list")
        while not process.written[2]:
            await deferLater(reactor, 0.05)
        self.port = reactor.listenSSL(number, self.factory, self.context, interface="127.0.0.1")
        ran = await self.end(process)
        self.assertEqual((ran.status, ran.out), (0, "no jobs\n"))
        self.assertOneLine(ran.err, rf"{self.url}: connection refused; still trying for 10 s")

    async def test_wrong_path(self) -> None:
        ran = await self.run_program("--server", f"{self.url}/wrong", "list")
        self.assertEqual(ran.status, 1)
        self.assertOneLine(ran.err, "no project server at this address.*404.*defaultserver")

    async def test_server_that_the_project_has_not(self) -> None:
        ran = await self.run_program("status", "7@elsewhere")
        self.assertEqual(ran.status, 1)
        self.assertOneLine(ran.err, "elsewhere is none of the project's servers, which are localhost; lgi list")

    async def test_servers_are_remembered_outside_of_the_configuration(self) -> None:
        self.fake.script[STATE] = [fakes.listed()]
        await self.run_program("list")
        [known] = (self.home / ".cache/lgi").iterdir()
        self.assertEqual(known.read_text(), f"{self.url}\n")
        await self.run_program("--server", self.url, "list", XDG_CACHE_HOME=str(self.home / "other"))
        self.assertFalse((self.home / "other").exists())

    async def test_server_of_another_authority(self) -> None:
        other = CertificateAuthority.create(self.home / "other", organisation="Other")
        self.file(".LGI/ca_chain", other.certificate_pem)
        ran = await self.run_program("status")
        self.assertEqual(ran.status, 1)
        self.assertOneLine(ran.err, "TLS: the server's certificate is not of the authority")

    async def test_user_of_another_authority(self) -> None:
        other = CertificateAuthority.create(self.home / "other", organisation="Other")
        self.configure(other.issue_user("mark@localhost", groups=["theor"], projects=["LGI"]))
        ran = await self.run_program("status")
        self.assertEqual(ran.status, 1)
        self.assertOneLine(ran.err, "TLS: the server refuses the certificate")

    async def test_another_host_name(self) -> None:
        ran = await self.run_program("--server", self.url.replace("localhost", "127.0.0.1"), "status")
        self.assertEqual(ran.status, 1)
        self.assertOneLine(ran.err, "TLS: the server's certificate is not for this host name or address")

    async def test_expired_certificate(self) -> None:
        long_ago = CertificateAuthority.open(self.home / "ca", clock=lambda: datetime.now(UTC) - timedelta(days=30))
        self.configure(long_ago.issue_user("mark@localhost", groups=["theor"], projects=["LGI"], days=1))
        ran = await self.run_program("status")
        self.assertEqual(ran.status, 1)
        self.assertOneLine(ran.err, "expired since.*ask your project's administrator")

    async def test_answer_of_something_else(self) -> None:
        self.fake.script[STATE] = [b"not XML"]
        ran = await self.run_program("status", "--json")
        self.assertEqual((ran.status, ran.out), (1, ""))
        self.assertOneLine(ran.err, "the server's answer cannot be read")

    async def test_interrupted(self) -> None:
        asked: Deferred[None] = Deferred()

        def silent(_request: Request) -> Any:
            asked.callback(None)
            return NOT_DONE_YET

        self.fake.script[STATE] = [silent]
        process = self.start("wait", "7")
        await asked
        self.process.signalProcess(signal.SIGINT)
        ran = await self.end(process)
        self.assertEqual((ran.status, ran.out), (130, ""))
        self.assertOneLine(ran.err, "the job goes on; follow it again with: lgi wait 7")
