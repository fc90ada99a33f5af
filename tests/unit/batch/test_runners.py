"""The commands that the adapters give, word for word, and how commands are run."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Any, ClassVar

from twisted.trial.unittest import TestCase

from lgi.batch.command import CommandFailed, Commands, Done
from lgi.batch.system import NAMES, key_of, marked_name, open_system
from lgi.batch.values import ArrayRange, BatchError, NotSupported, Request

KEY = "lgi0123456789ab"
ANSWERS = {
    "sbatch": "7\n",
    "qsub": "7\n",
    "bsub": "Job <7> is submitted to queue <a>.\n",
    "llsubmit": 'llsubmit: The job "host.7" has been submitted.\n',
    "qstat --version": "pbs_version = 20.0.1\n",
}


class Heard(Commands):
    """Commands that are written down."""

    def __init__(self) -> None:
        super().__init__(reactor=None, environment={})
        self.heard: list[list[str]] = []

    async def run(self, *command: str, **_: Any) -> Done:
        if command != ("qstat", "--version"):
            self.heard.append(list(command))
        out = ANSWERS.get(" ".join(command)) or ANSWERS.get(command[0], "")
        return Done(command=" ".join(command), status=0, out=out, err="")


class ArgumentTests(TestCase):
    async def submitted(self, system: str, **wanted: Any) -> str:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        commands = Heard()
        request = Request(script=Path("/s/script"), directory=Path("/d"), **wanted)
        await open_system(system, commands).submit(request, folder / "wrapper", KEY, 0)
        [words] = commands.heard
        return "|".join(words).replace(str(folder), "/w")

    full: ClassVar[dict[str, Any]] = {
        "name": "my job",
        "queue": "long",
        "account": "chem",
        "nodes": 2,
        "cpus": 4,
        "memory": 3 * 2**30,
        "wall_time": 90061,
        "output": Path("/d/out%"),
        "error": Path("/d/err"),
        "array": ArrayRange.parse("1-9%3"),
        "reservation": "res",
        "hold": True,
    }

    async def test_slurm(self) -> None:
        self.assertEqual(
            await self.submitted("slurm", **self.full, extra=("--exclusive",)),
            "sbatch|--parsable|--job-name=my job|--comment=lgi0123456789ab|--chdir=/d|--partition=long|--acc"
            "ount=chem|--nodes=2|--ntasks-per-node=4|--mem=3072M|--time=25:01:01|--output=/d/out%%|--error=/"
            "d/err|--array=1-9%3|--reservation=res|--hold|--exclusive|/w/wrapper",
        )

    async def test_grid_engine(self) -> None:
        self.assertEqual(
            await self.submitted("gridengine", **self.full, extra=("-pe", "smp", "8")),
            "qsub|-terse|-N|my_job.lgi0123456789ab|-wd|/d|-S|/bin/sh|-r|y|-q|long|-P|chem|-ar|res|-l|h_rt=90"
            "061,h_vmem=3221225472|-o|:/d/out%|-e|:/d/err|-t|1-9|-tc|3|-h|-pe|smp|8|/w/wrapper",
        )
        with self.assertRaises(BatchError):
            await self.submitted("gridengine", cpus=2)

    async def test_pbs_pro(self) -> None:
        self.assertEqual(
            await self.submitted("pbs", **self.full),
            "qsub|-N|lgi0123456789ab|-S|/bin/sh|-r|y|-q|res|-A|chem|-l|select=2:ncpus=4:mem=3221225472b|-l|w"
            "alltime=25:01:01|-o|/d/out%|-e|/d/err|-J|1-9%3|-h|/w/wrapper",
        )

    async def test_torque(self) -> None:
        self.patch(
            __import__(__name__, fromlist=["ANSWERS"]), "ANSWERS", {**ANSWERS, "qstat --version": "Version: 6.1.2"}
        )
        self.assertEqual(
            await self.submitted("pbs", **self.full),
            "qsub|-N|lgi0123456789ab|-S|/bin/sh|-r|y|-q|long|-A|chem|-l|nodes=2:ppn=4|-l|mem=6442450944b|-l|"
            "walltime=25:01:01|-W|x=FLAGS:ADVRES:res|-o|/d/out%|-e|/d/err|-t|1-9%3|-h|/w/wrapper",
        )

    async def test_lsf(self) -> None:
        self.assertEqual(
            await self.submitted("lsf", **self.full),
            "bsub|-J|my_job.lgi0123456789ab[1-9]%3|-cwd|/d|-n|8|-r|-R|span[ptile=4]|-q|long|-P|chem|-U|res|-"
            "W|1502|-M|3145728|-o|/d/out%%|-e|/d/err|-H|/w/wrapper",
        )

    async def test_loadleveler(self) -> None:
        wanted = {**self.full, "array": None}
        self.assertEqual(await self.submitted("loadleveler", **wanted), "llsubmit|/w/wrapper.cmd")
        with self.assertRaises(NotSupported):
            await self.submitted("loadleveler", array=ArrayRange.parse("1-2"))

    async def test_steering(self) -> None:
        for system, job, hold, suspend, cancel in (
            ("slurm", "7", "scontrol hold 7", "scontrol suspend 7", "scancel 7"),
            ("gridengine", "7", "qhold -h u 7", "qmod -sj 7", "qdel 7"),
            ("pbs", "7.host", "qhold -h u 7.host", "qsig -s suspend 7.host", "qdel 7.host"),
            ("lsf", "7", "bstop 7", "bstop 7", "bkill 7"),
            ("loadleveler", "host.7", "llhold host.7", "", "llcancel host.7"),
        ):
            commands = Heard()
            opened = open_system(system, commands)
            await opened.hold(job, running=False)
            if suspend:
                await opened.hold(job, running=True)
            await opened.cancel([job])
            heard = [" ".join(words) for words in commands.heard]
            self.assertEqual(heard, [word for word in (hold, suspend, cancel) if word], system)

    def test_names(self) -> None:
        request = Request(script=Path("/s"), directory=Path("/d"), name="1 my/job")
        self.assertEqual(marked_name(request, KEY, 60), f"my_job.{KEY}")
        self.assertEqual(marked_name(request, KEY, 15), KEY)
        self.assertEqual(marked_name(request, KEY, 18), f"my.{KEY}")
        self.assertEqual((key_of(f"a.b.{KEY}"), key_of(KEY), key_of("a"), key_of(f"{KEY}x")), (KEY, KEY, "", ""))

    def test_numbers(self) -> None:
        for system, good, parts in (
            ("slurm", "7_3", ("7", 3)),
            ("gridengine", "7.3", ("7", 3)),
            ("pbs", "48[1].torque01", ("48[].torque01", 1)),
            ("pbs", "48[].torque01", ("48[].torque01", None)),
            ("lsf", "7[3]", ("7", 3)),
            ("loadleveler", "a-b.c.7", ("a-b.c.7", None)),
            ("local", "12-345", ("12-345", None)),
        ):
            self.assertEqual(open_system(system, Heard()).split(good), parts)
        for system in NAMES:
            for bad in ("", "-7", "7;x", "7 8", "--all", "*"):
                self.assertRaises(BatchError, open_system(system, Heard()).split, bad)


class CommandTests(TestCase):
    timeout = 30

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.reactor: Any = reactor
        self.commands = self.make()

    def make(self, limit: float = 20.0) -> Commands:
        environment = {"PATH": f"{self.folder}:/usr/bin:/bin", "SEEN": "yes"}
        return Commands(reactor=self.reactor, environment=environment, limit=limit)

    def program(self, name: str, text: str) -> None:
        file = self.folder / name
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)

    async def failed(self, *command: str, limit: float = 20.0, **settings: Any) -> str:
        try:
            await self.make(limit).run(*command, **settings)
        except CommandFailed as problem:
            return str(problem)
        raise AssertionError("it did not fail")

    async def test_arguments_go_through_no_shell(self) -> None:
        self.program("say", 'for word in "$@"; do echo "<$word>"; done; echo "$SEEN $MORE" >&2; cat')
        done = await self.commands.run("say", "a b", "$HOME;", "*", settings={"MORE": "more"}, words=b"heard")
        self.assertEqual(done.out, "<a b>\n<$HOME;>\n<*>\nheard")
        self.assertEqual(done.err, "yes more\n")

    async def test_failure_names_command_and_complaint(self) -> None:
        self.program("fails", "echo out; echo 'it is  broken' >&2; exit 4")
        self.assertEqual(await self.failed("fails", "now"), "fails now exited with status 4: it is broken")
        self.assertEqual((await self.commands.run("fails", accept=(4,))).status, 4)
        self.program("dies", "kill -9 $$")
        self.assertEqual(await self.failed("dies", accept=None), "dies was killed by signal 9: it said nothing")

    async def test_missing(self) -> None:
        self.assertIn("is not installed", await self.failed("no-such-command"))

    async def test_too_slow_also_where_it_ignores_term(self) -> None:
        self.patch(__import__("lgi.batch.command", fromlist=["GRACE"]), "GRACE", 0.2)
        self.program("slow", "trap '' TERM; echo $$ >pid; while :; do sleep 0.1; done")
        started = time.monotonic()
        said = await self.failed("slow", limit=0.5, directory=self.folder)
        self.assertIn("did not answer within 0.5 seconds", said)
        self.assertLess(time.monotonic() - started, 10)
        self.assertRaises(ProcessLookupError, os.kill, int((self.folder / "pid").read_text()), 0)

    async def test_lock_lasts_as_long_as_the_command(self) -> None:
        self.program("waits", "while [ ! -e go ]; do sleep 0.05; done")
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            from twisted.internet.defer import Deferred

            waiting = Deferred.fromCoroutine(
                self.commands.run("waits", directory=self.folder, hold_open=(lock.fileno(),))
            )
        with (self.folder / "lock").open("w") as other:
            self.assertRaises(BlockingIOError, fcntl.flock, other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (self.folder / "go").touch()
            await waiting
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
