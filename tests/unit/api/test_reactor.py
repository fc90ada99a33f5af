"""The reactor behind the interfaces. Each program is a process: the reactor of this one is that of the tests."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time

from twisted.trial.unittest import SynchronousTestCase

HEAD = """
import asyncio, os, sys, threading, time
from lgi.api.errors import NoReactor
from lgi.api.reactor import begin, block, spawn
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

async def double(number):
    await deferLater(reactor, 0.01)
    return 2 * number

async def fail():
    raise ValueError("no")

async def forever(noted=[]):
    try:
        await Deferred()
    finally:
        noted.append("ended")
"""


class ReactorTests(SynchronousTestCase):
    """Blocking and awaiting."""

    def run_program(self, program: str, *options: str) -> str:
        done = subprocess.run(
            [sys.executable, *options, "-c", HEAD + textwrap.dedent(program)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(done.stderr, "")
        return done.stdout

    def test_a_thread_waits_and_is_interrupted_and_the_end_waits_for_nothing(self) -> None:
        started = time.monotonic()
        said = self.run_program("""
            print(block(double, 21), threading.active_count())
            try:
                block(fail)
            except ValueError as problem:
                print(problem)
            with __import__("concurrent.futures").futures.ThreadPoolExecutor(8) as pool:
                print(sorted(pool.map(lambda n: block(double, n), range(8))))
            import signal
            noted = []
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            try:
                block(forever, noted)
            except KeyboardInterrupt:
                block(double, 1)
                print(noted)
            async def thread():
                await deferToThread(time.sleep, 60)
            spawn(thread), spawn(forever)
            time.sleep(0.1)
            """)
        self.assertEqual(said.splitlines(), ["42 2", "no", str([2 * n for n in range(8)]), "['ended']"])
        self.assertLess(time.monotonic() - started, 20)

    def test_asyncio_awaits_and_cancels(self) -> None:
        said = self.run_program("""
            noted = []
            async def main():
                print(await asyncio.gather(*(begin(double, n) for n in range(3))))
                try:
                    await begin(fail)
                except ValueError as problem:
                    print(problem)
                try:
                    await asyncio.wait_for(begin(forever, noted), 0.05)
                except TimeoutError:
                    await begin(double, 1)
                    print(noted)
            asyncio.run(main())
            """)
        self.assertEqual(said, "[0, 2, 4]\nno\n['ended']\n")

    def test_tasks_and_coroutines_on_the_loop_of_asyncio_s_reactor(self) -> None:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "from twisted.internet import asyncioreactor; asyncioreactor.install()"
                + HEAD
                + textwrap.dedent("""
                from twisted.internet.task import react
                async def main(reactor):
                    print(await begin(double, 1))
                    async def task():
                        return await begin(double, 2)
                    print(await Deferred.fromFuture(asyncio.ensure_future(task())))
                    try:
                        block(double, 3)
                    except NoReactor as problem:
                        print("AsyncClient" in str(problem))
                    print(await deferToThread(block, double, 4))
                react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
                """),
            ],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        self.assertEqual((done.stdout, done.stderr), ("2\n4\nTrue\n8\n", ""))

    def test_a_reactor_that_is_not_run_by_us(self) -> None:
        said = self.run_program("""
            from twisted.internet.task import react
            async def main(reactor):
                print(await begin(double, 1), await deferToThread(block, double, 2))
                def awaiting():
                    try:
                        begin(double, 1)
                    except NoReactor as problem:
                        return "lgi.Client" in str(problem)
                print(await deferToThread(awaiting))
                async def elsewhere():
                    return await begin(double, 5)
                print(await deferToThread(lambda: asyncio.run(elsewhere())))
            try:
                react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
            except SystemExit:
                pass
            try:
                block(double, 1)
            except NoReactor as problem:
                print("cannot be started" in str(problem))
            """)
        self.assertEqual(said, "2 4\nTrue\n10\nTrue\n")

    def test_a_fork_has_no_half_of_a_reactor(self) -> None:
        said = self.run_program("""
            if os.fork() == 0:
                print(block(double, 1), flush=True)  # nothing ran before
                os._exit(0)
            os.wait()
            print(block(double, 2), flush=True)
            if os.fork() == 0:
                try:
                    block(double, 3)
                except NoReactor as problem:
                    print("forked" in str(problem), flush=True)
                sys.exit()
            os.wait()
            print(block(double, 4))
            """)
        self.assertEqual(said, "2\n4\nTrue\n8\n")

    def test_the_package_is_light_and_has_its_names(self) -> None:
        said = self.run_program("""
            import subprocess
            light = "import sys, lgi; print({'twisted', 'cloudpickle', 'lgi.api'} & set(sys.modules), dir(lgi)[:0])"
            print(subprocess.run([sys.executable, "-c", light], capture_output=True, text=True).stdout.strip())
            import lgi
            for name in lgi._WHERE:
                assert getattr(lgi, name).__name__ == name
            from pathlib import Path
            typed = Path(lgi.__file__).with_suffix(".pyi").read_text()
            assert {line.split()[-1] for line in typed.splitlines() if " as " in line} == set(lgi._WHERE)
            try:
                lgi.nothing
            except AttributeError as problem:
                print(problem)
            """)
        self.assertEqual(said, "set() []\nmodule 'lgi' has no attribute 'nothing'\n")
