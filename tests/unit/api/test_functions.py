"""Functions as files, and the scripts of python_function, run for real."""

from __future__ import annotations

import functools
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from lgi.api.calls import CALL, PYTHON, RESULT, Outcome, RemoteTraceback, ResultUnusable, read_result, write_call

SCRIPTS = Path(__file__).resolve().parents[3] / "etc" / "applications" / "python_function"
LGI = """#!/bin/sh
# What answers in place of the program: a listing, and what a transfer ends with.
case $2 in ls) cat listing ;; *) echo "$2 said (error $(cat number))" >&2; exit "$(cat transfer)" ;; esac
"""


class FunctionTests(SynchronousTestCase):
    """A job directory without a daemon."""

    def setUp(self) -> None:
        self.job = Path(self.mktemp())
        self.job.mkdir()
        program = self.job / "lgi"
        program.write_text(LGI)
        program.chmod(0o755)

    def status(self, script: str, **more: str) -> int:
        path = f"{self.job.absolute()}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        environ = {"PATH": path, "HOME": str(self.job.absolute()), **more}
        done = subprocess.run(
            [str(SCRIPTS / script)],
            cwd=self.job,
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.said = done.stderr
        return done.returncode

    def send(self, function: Callable[..., Any], *calls: tuple[Any, ...]) -> None:
        write_call(self.job / CALL, function, [(arguments, {}) for arguments in calls])

    def back(self) -> Outcome:
        return read_result(self.job / RESULT)

    @property
    def output(self) -> str:
        return (self.job / "LGI_output").read_text()

    def test_values_come_back_and_prints_are_the_output(self) -> None:
        def speak(number: int) -> Any:
            print("number", number)
            return {number: functools.reduce(lambda a, b: a * b, range(1, number + 1))}

        self.send(speak, (3,), (5,))
        self.assertEqual(self.status("job_run_script"), 0)
        self.assertEqual(self.back(), Outcome(values=[{3: 6}, {5: 120}]))
        self.assertEqual(self.output, "number 3\nnumber 5\n")

    def test_an_exception_comes_back_with_its_traceback(self) -> None:
        def fail() -> None:
            raise LookupError("not there")

        self.send(fail, ())
        self.assertEqual(self.status("job_run_script"), 1)
        problem = self.back().problem
        self.assertEqual(repr(problem), "LookupError('not there')")
        assert problem is not None
        self.assertIsInstance(problem.__cause__, RemoteTraceback)
        self.assertIn("in fail", str(problem.__cause__))
        self.assertNotIn("runner.py", str(problem.__cause__))
        self.assertIn("not there", self.output)

    def test_what_cannot_be_sent_back_is_said(self) -> None:
        class Odd(Exception):
            def __reduce__(self) -> Any:
                raise TypeError("never")

        def odd() -> None:
            raise Odd

        def generator() -> Any:
            return (number for number in range(3))

        for function, text in ((odd, "raised Odd"), (generator, "cannot be pickled")):
            self.send(function, ())
            self.assertNotEqual(self.status("job_run_script"), 0)
            problem = self.assertRaises(ResultUnusable, self.back)
            self.assertIn(text, str(problem))
            self.assertIsInstance(problem.__cause__, RemoteTraceback)

    def test_a_function_from_another_python_is_refused(self) -> None:
        self.send(len, ("abc",))
        head, _, rest = (self.job / CALL).read_bytes().partition(b"\n")
        changed = json.dumps(json.loads(head) | {"python": "2.7"}).encode()
        (self.job / CALL).write_bytes(changed + b"\n" + rest)
        self.assertEqual(self.status("job_run_script"), 2)
        text = str(self.assertRaises(ResultUnusable, self.back))
        self.assertIn("sent by Python 2.7", text)
        self.assertIn(f"Python {PYTHON}", text)

    def test_jobs_that_are_no_functions(self) -> None:
        for content, text in (
            (None, "no function to run"),
            (b"hello", "not what lgi.Executor sends"),
            (b'{"format": 9, "python": "3"}\n', "another form"),
            (json.dumps({"format": 1, "python": PYTHON}).encode() + b"\n\x80nonsense", "cannot be unpickled"),
        ):
            if content is not None:
                (self.job / CALL).write_bytes(content)
            self.assertEqual(self.status("job_run_script"), 2)
            self.assertIn(text, str(self.assertRaises(ResultUnusable, self.back)))
            self.assertIn(text, self.output)
        (self.job / RESULT).write_bytes(b"nothing\n")
        self.assertIn("another version", str(self.assertRaises(ResultUnusable, self.back)))

    def test_what_cannot_be_sent_is_refused_at_once(self) -> None:
        with (self.job / "open").open("w") as stream:
            problem = self.assertRaises(pickle.PicklingError, self.send, print, (stream,))
        self.assertIn("print", str(problem))

    def test_a_resource_without_cloudpickle_asks_for_nothing(self) -> None:
        self.assertEqual(self.status("check_system_limits_script"), 0)
        bare = self.job / "bare"
        bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
        bare.chmod(0o755)
        for python, text in ((str(bare.absolute()), "No module named 'cloudpickle'"), ("/no/python", "not found")):
            self.assertEqual(self.status("check_system_limits_script", LGI_PYTHON=python), 1)
            self.assertIn(text, self.said)
            self.assertIn("pip install cloudpickle", self.said)
        self.send(len, ("abc",))
        self.assertEqual(self.status("job_run_script", LGI_PYTHON=str(bare.absolute())), 2)
        self.assertIn("has no cloudpickle", str(self.assertRaises(ResultUnusable, self.back)))
        self.assertEqual(self.status("job_run_script", LGI_PYTHON="/no/python"), 2)
        self.assertIn("no /no/python", self.output)

    def transfers(self, script: str, *, transfer: int, listing: str = "", number: int = 500) -> int:
        for name, text in (("transfer", transfer), ("listing", listing), ("number", number)):
            (self.job / name).write_text(f"{text}\n" if text != "" else "")
        return self.status(script)

    def test_transfers_that_fail_are_tried_again_where_that_may_help(self) -> None:
        self.assertEqual(self.transfers("job_prologue_script", transfer=0), 0)
        self.assertEqual(self.transfers("job_prologue_script", transfer=1, listing="call 20 bytes"), 1)
        self.assertEqual(self.transfers("job_prologue_script", transfer=1, listing="LGI_input 20 bytes"), 0)
        self.assertEqual(self.status("job_run_script"), 2)
        self.assertIn("begins with LGI_", self.output)
        self.assertEqual(self.transfers("job_epilogue_script", transfer=1), 0)  # there is no result
        (self.job / RESULT).write_bytes(b"x")
        self.assertEqual(self.transfers("job_epilogue_script", transfer=1), 1)
        self.assertEqual(self.transfers("job_epilogue_script", transfer=0), 0)
        self.assertEqual(self.transfers("job_epilogue_script", transfer=1, number=413), 0)
        self.assertIn("the result cannot be uploaded: put said (error 413)", self.output)
