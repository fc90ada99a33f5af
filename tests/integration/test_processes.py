"""Several processes on one port: all of them serve, and one may die or be renewed without anybody being refused."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import signal
import ssl
import tempfile
import threading
import time
import unittest
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlencode

from lgi.server.front import CHANNEL
from tests import mariadb
from tests.integration.grid import RESOURCE, USER, Grid, Program, until

PROCESSES = 2
APPLICATION = "hello_world"


def workers(front: Program) -> set[int]:
    """The processes that the front has started, and that are there."""
    pid = front.process.pid
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except FileNotFoundError:
        return set()
    return set(map(int, text.split()))


def alive(pid: int) -> bool:
    """Whether the process is there, and not as a memory of its parent's alone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Connection:
    """A connection to the server, with the certificate of a user or of a resource."""

    def __init__(self, grid: Grid, certificate: Path, key: Path) -> None:
        context = ssl.create_default_context(cafile=str(grid.root / "ca" / "ca.crt"))
        context.load_cert_chain(certificate, key)
        self._http = http.client.HTTPSConnection("localhost", grid.port, timeout=30, context=context)
        self._port = grid.port

    def call(self, path: str, **fields: object) -> str:
        """The answer to a call; raises OSError, HTTPException."""
        body = urlencode({"project": "LGI", **fields})
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        self._http.request("POST", f"/LGI/{path}.php", body, kind)
        answer = self._http.getresponse()
        text = answer.read().decode()
        if answer.status != 200:
            raise http.client.HTTPException(f"{answer.status}: {text}")
        return text

    def process(self, among: set[int]) -> int:
        """Which process has the other end."""
        if self._http.sock is None:
            self._http.connect()
        ours = self._http.sock.getsockname()[1]
        wanted = f":{self._port:04X}", f":{ours:04X}"
        sockets = set()
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            words = line.split()
            if (words[1][-5:], words[2][-5:]) == wanted:
                sockets.add(f"socket:[{words[9]}]")
        for pid in among:
            for link in Path(f"/proc/{pid}/fd").iterdir():
                try:
                    if os.readlink(link) in sockets:
                        return pid
                except FileNotFoundError:
                    continue
        return 0

    def serial(self) -> str:
        """The number of the certificate that the server shows."""
        if self._http.sock is None:
            self._http.connect()
        shown: Any = self._http.sock.getpeercert()
        return str(shown["serialNumber"])

    def close(self) -> None:
        """Hang up."""
        self._http.close()


class Stream:
    """Users who each make a new connection for every job that they submit, one after the other."""

    def __init__(self, grid: Grid, users: int = 2) -> None:
        self._grid = grid
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._submit) for _ in range(users)]
        self.accepted: list[int] = []
        self.problems: list[str] = []

    def __enter__(self) -> Stream:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _submit(self) -> None:
        while not self._over.is_set():
            connection = user_of(self._grid)
            try:
                self.accepted.append(submit(connection))
            except (OSError, http.client.HTTPException, AssertionError) as problem:
                self.problems.append(f"{type(problem).__name__}: {problem}")
            finally:
                connection.close()

    def further(self, jobs: int) -> None:
        """Wait until so many jobs more are accepted."""
        enough = len(self.accepted) + jobs
        until(lambda: len(self.accepted) >= enough, f"{enough} jobs are accepted, {self.problems[-3:]}", 30)


def user_of(grid: Grid) -> Connection:
    """A new connection of the user's."""
    return Connection(grid, grid.home / "certificate", grid.home / "privatekey")


def submit(connection: Connection) -> int:
    """Submit a job and return its number."""
    answer = connection.call(
        "interfaces/interface_submit_job",
        user=USER,
        groups="theor",
        application=APPLICATION,
        target_resources="any",
        input="",
    )
    found = re.search(r"<job_id>\s*(\d+)\s*</job_id>", answer)
    if found is None:
        raise AssertionError(answer)
    return int(found[1])


class ProcessesTests(unittest.TestCase):
    """Two processes on a MariaDB."""

    folder: ClassVar[Path]
    grid: ClassVar[Grid]
    server: ClassVar[Program]

    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = Path(tempfile.mkdtemp(prefix="lgi-processes-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        cls.grid = Grid(cls.folder / "grid", database=mariadb.server().create_database())
        text = cls.grid.config.read_text()
        cls.grid.config.write_text(text.replace("[server]\n", f"[server]\nprocesses = {PROCESSES}\n"))
        cls.addClassCleanup(cls.grid.stop)
        cls.server = cls.grid.start_server()

    def setUp(self) -> None:
        if self.server.process.poll() is not None:
            type(self).server = self.grid.start_server()
        self.begun = len(self.server.logged())
        self.workers = workers(self.server)
        self.assertEqual(len(self.workers), PROCESSES, self.server.logged())

    def logged(self) -> str:
        """What the server has logged in this test."""
        return self.server.logged()[self.begun :]

    def connection_to(self, pid: int) -> Connection:
        """A connection of the user's that this process has."""
        for _ in range(2 * PROCESSES):
            connection = user_of(self.grid)
            self.addCleanup(connection.close)
            if connection.process(self.workers) == pid:
                return connection
        raise AssertionError(f"no connection goes to process {pid}")

    def none_lost(self, accepted: list[int]) -> None:
        """Each accepted job is there, once."""
        self.assertEqual(len(set(accepted)), len(accepted))
        connection = user_of(self.grid)
        self.addCleanup(connection.close)
        for begin in range(0, len(accepted), 500):
            asked = ", ".join(f"{job}:queued" for job in accepted[begin : begin + 500])
            answer = connection.call("interfaces/interface_job_state", user=USER, groups="theor", jobs=asked, wait=0)
            self.assertNotIn("<job ", answer)
            self.assertNotIn("<job>", answer)
            self.assertNotRegex(answer, r"<gone>\s*\d")

    def ended(self, pids: set[int]) -> None:
        """Wait for the end of these processes."""
        until(lambda: not any(map(alive, pids)), f"none of {pids} is there", 15)

    def test_killed(self) -> None:
        """One process is killed: the other one goes on alone, another comes, and no job that was accepted is lost."""
        victim = min(self.workers)
        with Stream(self.grid) as stream:
            stream.further(10)
            self.assertEqual(stream.problems, [])
            os.kill(victim, signal.SIGKILL)
            stream.further(10)
            until(lambda: len(workers(self.server) - {victim}) == PROCESSES, "another process comes", 15)
            stream.further(10)
        # What it was doing, and had been given, is lost with it; nobody is refused.
        self.assertLessEqual(len(stream.problems), 10, stream.problems)
        self.assertEqual([problem for problem in stream.problems if "refused" in problem.lower()], [])
        self.assertIn("has ended (signal 9), another one is started in 0.5 s", self.logged())
        self.none_lost(stream.accepted)
        both = workers(self.server)
        until(lambda: {self._served(both) for _ in range(4)} == both, "both serve", 15)

    def _served(self, among: set[int]) -> int:
        connection = user_of(self.grid)
        try:
            return connection.process(among)
        finally:
            connection.close()

    def test_renewed(self) -> None:
        """SIGHUP replaces all processes under a stream of new connections, and of calls on one: none fails."""
        kept = self.connection_to(min(self.workers))
        before = kept.serial()
        self.grid.ca("issue", "server", "localhost", "--renew")
        with Stream(self.grid) as stream:
            stream.further(10)
            self.server.process.send_signal(signal.SIGHUP)
            while "renewal of the processes is over" not in self.logged():
                # One that is kept for call after call, and is opened anew where an answer says that it is the last.
                stream.accepted.append(submit(kept))
                time.sleep(0.02)
            for _ in range(20):
                stream.accepted.append(submit(kept))
            stream.further(30)
        self.assertEqual(stream.problems, [])
        self.ended(self.workers)
        self.assertEqual(len(workers(self.server)), PROCESSES)
        self.none_lost(stream.accepted)
        self.assertNotEqual(kept.serial(), before)
        self.assertNotIn("Traceback", self.logged())
        self.assertNotIn("has ended", self.logged())

    def test_renewal_with_a_mistake(self) -> None:
        """Where no new process starts, the old ones go on."""
        text = self.grid.config.read_text()
        self.addCleanup(self.grid.config.write_text, text)
        self.grid.config.write_text(text + "\n[mistake]\n")
        self.server.process.send_signal(signal.SIGHUP)
        until(lambda: "the renewal of the processes is over" in self.logged(), "the renewal ends", 15)
        self.assertIn("unknown: mistake", self.logged())
        self.assertEqual(workers(self.server), self.workers)
        submit(self.connection_to(max(self.workers)))

    def test_woken(self) -> None:
        """A resource that waits in one process hears of a job that is submitted in another."""
        home = self.grid.root / "resources" / RESOURCE
        resource = Connection(self.grid, home / "resource.crt", home / "resource.key")
        self.addCleanup(resource.close)
        here = resource.process(self.workers)
        there = self.connection_to((self.workers - {here}).pop())
        found = re.search(
            r"<session_id>\s*(\d+)\s*</session_id>", resource.call("resources/resource_signup_resource")
        )
        assert found is not None

        def wait() -> str:
            return resource.call(
                "resources/resource_request_work", session_id=found[1], wait=20, applications=APPLICATION
            )

        # The first time, it is to look.
        wait()
        times, answers = [], []
        for _ in range(5):

            def waiting() -> None:
                answers.append(wait())
                times.append(time.monotonic())

            thread = threading.Thread(target=waiting)
            thread.start()
            time.sleep(0.2)
            self.assertEqual(len(answers), len(times))
            begun = time.monotonic()
            submitted = submit(there)
            told = time.monotonic()
            thread.join()
            times[-1] -= begun
            print(f"submitted in {1000 * (told - begun):.1f} ms")
            self.assertGreater(submitted, 0)
            self.assertIn(APPLICATION, answers[-1])
        self.assertEqual(resource.process(self.workers), here)
        print("woken after the submission began (ms):", *(f"{1000 * seconds:.1f}" for seconds in times))
        self.assertLess(sorted(times)[len(times) // 2], 0.5)

    def test_ended(self) -> None:
        """SIGTERM ends all, after they have answered; and so does the death of the front."""
        first, second = self.workers
        for one, other in ((first, second), (second, first)):
            # Or a connection would not end with the process that has it.
            files = set(map(os.readlink, Path(f"/proc/{one}/fd").iterdir()))
            self.assertNotIn(os.readlink(f"/proc/{other}/fd/{CHANNEL}"), files)
        waiting = self.connection_to(min(self.workers))
        job = submit(waiting)
        answers: list[str] = []

        def wait() -> None:
            answers.append(
                waiting.call(
                    "interfaces/interface_job_state", user=USER, groups="theor", jobs=f"{job}:queued", wait=60
                )
            )

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.3)
        # As twistd ends.
        self.assertIn(self.server.stop(), (0, -signal.SIGTERM))
        thread.join(10)
        self.assertEqual(len(answers), 1)
        self.ended(self.workers)
        self.assertNotIn("Traceback", self.logged())
        again = self.grid.start_server()
        left = workers(again)
        self.assertEqual(len(left), PROCESSES)
        again.stop(signal.SIGKILL)
        self.ended(left)

    def test_ended_with_the_whole_group(self) -> None:
        """As by Ctrl-C on a terminal, or by what ends a service with all its processes."""
        for first in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(first.name):
                # More than once, as whoever sends it does not know what the front sends.
                for pid in sorted(self.workers) * 100:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, first)
                self.assertIn(self.server.stop(first), (0, -first))
                self.ended(self.workers)
                self.assertNotIn("Traceback", self.logged())
                self.setUp()


class StartTests(unittest.TestCase):
    """With SQLite."""

    def make_grid(self) -> Grid:
        """A new project; nothing runs yet."""
        folder = Path(tempfile.mkdtemp(prefix="lgi-processes-"))
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        grid = Grid(folder / "grid")
        self.addCleanup(grid.stop)
        return grid

    def test_one_process(self) -> None:
        """Nothing is started beside it, and SIGHUP has it take a renewed certificate."""
        grid = self.make_grid()
        server = grid.start_server()
        self.assertEqual(workers(server), set())
        kept, other = user_of(grid), user_of(grid)
        self.addCleanup(kept.close)
        self.addCleanup(other.close)
        before = kept.serial()
        grid.ca("issue", "server", "localhost", "--renew")
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("is shown from now on")
        self.assertNotEqual(other.serial(), before)
        submit(kept)
        self.assertEqual(kept.serial(), before)

    def test_second_server_of_the_same_project(self) -> None:
        """It is refused before it clears anything away, whatever port it would have."""
        for processes in (1, PROCESSES):
            with self.subTest(processes):
                grid = self.make_grid()
                text = grid.config.read_text()
                grid.config.write_text(text.replace("[server]\n", f"[server]\nprocesses = {processes}\n"))
                server = grid.start_server()
                kept = grid.root / "run" / "metrics" / "kept"
                kept.parent.mkdir(exist_ok=True)
                kept.touch()
                other = grid.config.with_name("other.toml")
                other.write_text(grid.config.read_text().replace(f"port = {grid.port}", "port = 0"))
                status, said = grid.start("lgi-server", other).ended()
                self.assertEqual(status, 1, said)
                self.assertIn(
                    f"lgi-server cannot start: {grid.root / 'run'}: another server (process {server.process.pid}) "
                    "works in this run directory",
                    said,
                )
                self.assertTrue(kept.exists())
                server.stop(signal.SIGKILL)
                grid.start_server().stop()

    def test_no_process_starts(self) -> None:
        """A server that cannot start says why, whichever process finds out."""
        grid = self.make_grid()
        text = grid.config.read_text()
        text = text.replace("[server]\n", f'[server]\nprocesses = {PROCESSES}\nrun_directory = "none/run"\n')
        grid.config.write_text(text)
        server = grid.start("lgi-server", grid.config)
        status, said = server.ended()
        self.assertEqual(status, 1)
        self.assertIn("lgi-server cannot start", said)
        self.assertIn("none/run: No such file or directory", said)
