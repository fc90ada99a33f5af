"""Python programs on a real grid: the document's script, `lgi.Client`, `lgi.AsyncClient`, `lgi.Executor`."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any, ClassVar
from unittest import TestCase

from tests.integration.grid import EXAMPLES, Grid, until

# Each call of the script in LGI 1.41, Python class interface, in its form and order.
DOCUMENT = """
import LGI;
import sys;

Where = sys.argv[ 1 ];
Client = LGI.LGI_Client();
JOB = Client.SubmitJob( Application = "hello_world", Input = "haydihay", FileList = [ Where + "/resolv.conf" ] );
job_id = JOB[ 'LGI' ][ 'response' ][ 'job' ][ 'job_id' ];
repository_url = JOB[ 'LGI' ][ 'response' ][ 'job' ][ 'job_specifics' ][ 'repository_url' ];
FileClient = LGI.LGI_Client( URL = repository_url );
print( JOB );
print( Client.GetJobList( State = '!finished' ) );
print( Client.GetJobState( job_id ) );
print( Client.GetResourceList() );
print( Client.GetServerList() );
print( FileClient.ListRepository() );
FileClient.DownloadFiles( [ "resolv.conf" ], Where + "/down" );
FileClient.UploadFiles( [ Where + "/hosts", Where + "/fstab" ] );
print( FileClient.ListRepository() );
FileClient.DeleteFiles( [ "hosts" ] );
print( FileClient.ListRepository() );
print( Client.DeleteJob( job_id ) );
"""
MORE = """
print( Client.GetJobState( 123456 ) );
print( Client.SubmitJob( "hello_world", JobSpecifics = "<keep> 7 </keep>", Input = b"bytes" ) );
try:
    FileClient.DownloadFiles( [ "hosts" ], Where );
except LGI.LGI_Error as problem:
    print( repr( str( problem ) ) );
"""

ROOT = Path(__file__).resolve().parents[2]
FUNCTIONS = EXAMPLES / "python_function"


def offer_functions(grid: Grid) -> None:
    """Have the resource offer python_function in place of lj_md."""
    text = grid.cfg.read_text()
    head, mark, rest = text.partition("<application_name> lj_md ")
    assert mark
    for script in ("check_system_limits_script", "job_prologue_script", "job_run_script", "job_epilogue_script"):
        rest, count = re.subn(rf"<{script}>.*?</{script}>", f"<{script}> {FUNCTIONS / script} </{script}>", rest)
        assert count == 1, script
    grid.cfg.write_text(f"{head}<application_name> python_function {rest}")


class PythonTests(TestCase):
    """Each program is a process of its own: the reactor of this one is that of other tests."""

    grid: ClassVar[Grid]
    home: ClassVar[Path]

    @classmethod
    def setUpClass(cls) -> None:
        cls.home = Path(tempfile.mkdtemp(prefix="lgi-python-"))
        cls.addClassCleanup(shutil.rmtree, cls.home, ignore_errors=True)
        cls.grid = Grid(cls.home / "grid")
        cls.addClassCleanup(cls.grid.stop)
        offer_functions(cls.grid)
        cls.grid.start_all()
        (cls.home / ".LGI").symlink_to(cls.grid.home)

    def start(self, program: str | Path, *arguments: str) -> subprocess.Popen[str]:
        """Start a program, text or a file."""
        what = [str(program)] if isinstance(program, Path) else ["-c", textwrap.dedent(program)]
        environment = {**os.environ, "HOME": str(self.home), "PYTHONPATH": str(ROOT), "PYTHONDEVMODE": "0"}
        environment.pop("LGI_CONFIG", None)
        return subprocess.Popen(
            [sys.executable, *what, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, process: subprocess.Popen[str], status: int = 0) -> str:
        """Wait for its end, and return what it printed."""
        try:
            out, err = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"does not end: {out}{err}") from None
        self.assertEqual(process.returncode, status, out + err)
        return out if status == 0 else out + err

    def run_program(self, program: str | Path, *arguments: str) -> str:
        """A program's output."""
        return self.end(self.start(program, *arguments))

    def test_the_document_s_script(self) -> None:
        where = self.home / "document"
        (where / "down").mkdir(parents=True)
        for name in ("resolv.conf", "hosts", "fstab"):
            (where / name).write_bytes(name.encode() + bytes(range(256)) * 1000)
        said = self.run_program(DOCUMENT + MORE, str(where))
        answers = [ast.literal_eval(line) for line in said.splitlines()]
        job, listed, state, resources, servers, *rest = answers
        self.assertEqual(job["LGI"]["response"]["job"]["input"], b"haydihay")
        self.assertEqual(job["LGI"]["response"]["job"]["state"], "queued")
        number = job["LGI"]["response"]["job"]["job_id"]
        jobs = listed["LGI"]["response"]["job"]
        jobs = jobs if isinstance(jobs, list) else [jobs]
        self.assertIn(number, [one["job"]["job_id"] for one in jobs])
        self.assertEqual(state["LGI"]["response"]["job"]["attributes"], {"number": 1})
        self.assertEqual(state["LGI"]["response"]["job"]["job"]["job_id"], number)
        resource = resources["LGI"]["response"]["resource"]["resource"]
        self.assertEqual(resource["resource_capabilities"], {"hello_world": "", "python_function": ""})
        self.assertEqual(servers["LGI"]["response"]["number_of_slave_servers"], 0)
        names = [[file["file"]["file_name"] for file in one["repository_content"]["file"]][1:] for one in rest[:3]]
        self.assertEqual(names, [["resolv.conf"], ["fstab", "hosts", "resolv.conf"], ["fstab", "resolv.conf"]])
        self.assertIn(rest[3]["LGI"]["response"]["job"]["job"]["state"], ("deleted", "aborting"))
        self.assertEqual((where / "down" / "resolv.conf").read_bytes(), (where / "resolv.conf").read_bytes())
        self.assertEqual(rest[4]["LGI"]["response"]["error"]["number"], 15)
        second = rest[5]["LGI"]["response"]["job"]
        self.assertEqual((second["input"], second["job_specifics"]["keep"]), (b"bytes", 7))
        self.assertIn("404", rest[6])
        self.assertFalse((where / "hosts.part").exists())

    def test_a_script(self) -> None:
        said = self.run_program(
            """
            import sys
            from pathlib import Path
            import lgi
            where = Path(sys.argv[1])
            (where / "a.txt").write_text("hello")
            with lgi.Client() as grid:
                print(grid.whoami().user, [row.applications for row in grid.resources()], len(grid.servers()))
                moved = []
                job = grid.submit("hello_world", files={"in/a.txt": where / "a.txt"}, input="hi",
                                  progress=lambda *all: moved.append(all))
                assert moved[-1] == ("hello_world", 5, 5), moved
                try:
                    job.wait(timeout=0.01)
                except TimeoutError:
                    print("not yet")
                print(job.wait(timeout=60, check=True).state, job.output.splitlines()[-1], job.exit_status)
                job.write("out/big", (bytes(1000) for _ in range(5000)))
                job.upload(where / "a.txt", into="out")
                print([(file.name, file.size) for file in job.files()])
                with job.open("out/big") as stream:
                    print(len(stream.read(7)), len(stream.read()), sum(map(len, job.stream("out/big"))))
                print([path.relative_to(where).as_posix() for path in job.download("out/*", to=where / "got")])
                job.remove("out/big")
                for wrong in (lambda: job.download("nothing"), lambda: job.upload("/nothing"),
                              lambda: job.open("../x"), lambda: job.open("nothing"), lambda: grid.job(123456),
                              lambda: grid.submit("nothing")):
                    try:
                        print("worked", wrong())
                    except (OSError, ValueError, lgi.ServerRefused) as problem:
                        print(getattr(problem, "number", None) or type(problem).__name__)
                jobs = [grid.submit("hello_world", input=str(n)) for n in range(3)]
                print(sorted(job.output.decode().splitlines()[-1] for job in grid.as_completed(jobs, timeout=60)))
                assert {job.id for job in jobs} <= {job.id for job in grid.jobs(state="finished")}
                failed = grid.submit("python_function").wait(60)
                try:
                    failed.wait(check=True)
                except lgi.JobFailed as problem:
                    print(problem.exit_status, "no function to run" in str(problem))
                print(failed.delete(), failed.state, failed.over, grid.job(jobs[0].reference).state)
            """,
            str(self.home),
        )
        self.assertEqual(
            said.splitlines(),
            [
                "mark@localhost [('hello_world', 'python_function')] 1",
                "not yet",
                "finished b'hi' 0",
                "[('in/a.txt', 5), ('out/a.txt', 5), ('out/big', 5000000)]",
                "7 4999993 5000000",
                "['got/out/a.txt', 'got/out/big']",
                "FileNotFoundError",
                "FileNotFoundError",
                "ValueError",
                "404",
                "15",
                "70",
                "['0', '1', '2']",
                "2 True",
                "deleted deleted True finished",
            ],
        )

    def test_asyncio_and_twisted(self) -> None:
        body = """
            import asyncio, sys, lgi
            async def work():
                async with lgi.AsyncClient() as grid:
                    jobs = [await grid.submit("hello_world", input=str(n)) for n in range(2)]
                    try:
                        await jobs[0].wait(0.01)
                    except TimeoutError:
                        print("not yet")
                    done = [job async for job in grid.as_completed(jobs, timeout=60)]
                    print(sorted(job.output.decode().splitlines()[-1] for job in done))
                    async def pieces():
                        for _ in range(300):
                            yield bytes(1000)
                    moved = []
                    await jobs[0].write("big", pieces(), progress=lambda *all: moved.append(all))
                    print(sum([len(piece) async for piece in jobs[0].stream("big")]))
                    async for piece in jobs[0].stream("big"):
                        break
                    print(moved[-1], [file.name for file in await jobs[0].files()])
                    try:
                        await jobs[1].download("nothing")
                    except FileNotFoundError:
                        print("not there")
                    print([await job.delete() for job in jobs])
            """
        asyncio = self.start(textwrap.dedent(body) + "asyncio.run(work())")
        ends = "from twisted.internet.defer import Deferred\nfrom twisted.internet.task import react\n"
        twisted = self.start(textwrap.dedent(body) + ends + "react(lambda reactor: Deferred.fromCoroutine(work()))")
        for process in (asyncio, twisted):
            self.assertEqual(
                self.end(process).splitlines(),
                [
                    "not yet",
                    "['0', '1']",
                    "300000",
                    "('big', 300000, 300000) ['big']",
                    "not there",
                    "[<JobState.DELETED: 'deleted'>, <JobState.DELETED: 'deleted'>]",
                ],
            )

    def test_functions(self) -> None:
        said = self.run_program(
            """
            import concurrent.futures, os, time
            import lgi
            def square(number):
                print("squaring", number)
                return number * number
            def fail(text):
                raise LookupError(text)
            with lgi.Executor() as grid:
                slow = grid.submit(time.sleep, 300)
                futures = [grid.submit(square, number) for number in range(4)]
                failing = grid.submit(fail, "not there")
                chunks = grid.map(pow, range(4), [2] * 4, chunksize=2, timeout=60)
                killed = grid.submit(lambda: os.kill(os.getpid(), 9))
                large = grid.submit(bytes, 3_000_000)
                waiting = grid.submit(square, 9)
                print(waiting.cancel(), waiting.cancelled())
                print(sorted(f.result() for f in concurrent.futures.as_completed(futures, timeout=60)))
                print(futures[3].output, all(f.job for f in futures))
                try:
                    failing.result(60)
                except LookupError as problem:
                    print(problem, "in fail" in str(problem.__cause__))
                print(list(chunks), len(large.result(60)))
                try:
                    killed.result(60)
                except lgi.JobFailed as problem:
                    print("killed")
                while not slow.running():
                    time.sleep(0.05)
                try:
                    slow.result(0.01)
                except TimeoutError:
                    print("late", slow.cancel())
                slow.abort()
                try:
                    slow.result(60)
                except lgi.JobFailed as problem:
                    print(problem.state)
            with lgi.Client() as client:
                print(client.jobs(application="python_function"))
            """
        )
        self.assertEqual(
            said.splitlines(),
            [
                "True True",
                "[0, 1, 4, 9]",
                "b'squaring 3\\n' True",
                "not there True",
                "[0, 1, 4, 9] 3000000",
                "killed",
                "late False",
                "aborted",
                "[]",
            ],
        )

    def test_ctrl_c_ends_what_runs(self) -> None:
        process = self.start(
            """
            import time, lgi
            with lgi.Executor() as grid:
                running = grid.submit(time.sleep, 300)
                while not running.running():
                    time.sleep(0.05)
                print("running", flush=True)
                running.result()
            """
        )
        assert process.stdout is not None
        self.assertEqual(process.stdout.readline(), "running\n")
        process.send_signal(signal.SIGINT)
        self.assertIn("KeyboardInterrupt", self.end(process, -signal.SIGINT))
        until(lambda: not self.jobs_of("python_function"), "no function is left on the grid", 20)

    def jobs_of(self, application: str) -> list[Any]:
        jobs: list[Any] = json.loads(self.grid.user("status", "--json"))
        return [job for job in jobs if job["application"] == application]
