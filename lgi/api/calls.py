"""Calls of functions as files: what is sent to a resource, and what comes back.

Such a file is one line of JSON, which can be read without running anything, and then a pickle. The other end of it is
the run script of the application `python_function`.
"""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import cloudpickle  # type: ignore[import-untyped]

FORMAT = 1
CALL, RESULT = "call", "result"  # the names in the repository
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
_LONGEST_HEAD = 1 << 24


class RemoteTraceback(Exception):
    """Where an exception was raised on the resource; the cause of the one that is raised here."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(text)

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class ResultUnusable(Exception):
    """The function has run, and what came of it cannot be brought here; the message says why."""


@attrs.frozen(kw_only=True)
class Outcome:
    """What came of a call: the values, or an exception."""

    values: list[Any] | None = None
    problem: BaseException | None = None


def write_call(
    path: Path, function: Callable[..., Any], calls: Sequence[tuple[tuple[Any, ...], dict[str, Any]]]
) -> None:
    """Write calls of a function, each with arguments of its own; raises pickle.PicklingError."""
    head = {"format": FORMAT, "python": PYTHON, "cloudpickle": cloudpickle.__version__}
    with path.open("wb") as stream:
        stream.write(json.dumps(head).encode() + b"\n")
        try:
            cloudpickle.CloudPickler(stream).dump((function, list(calls)))
        except RecursionError:
            raise pickle.PicklingError(f"{name_of(function)} or its arguments are nested too deeply") from None
        except Exception as problem:  # what cannot be pickled says so in many ways
            raise pickle.PicklingError(f"{name_of(function)} or its arguments cannot be sent: {problem}") from problem


def read_result(path: Path) -> Outcome:
    """What the run script left. Unpickling runs code that the resource chose. Raises ResultUnusable."""
    with path.open("rb") as stream:
        head = _head(stream.readline(_LONGEST_HEAD))
        trace = str(head.get("traceback", ""))
        kind = head.get("kind")
        if kind not in ("values", "exception"):
            raise _unusable(str(head.get("message", "the resource does not say what came of it")), trace)
        try:
            content = pickle.load(stream)  # noqa: S301, the resource is trusted with the calculation itself
        except Exception as problem:
            raise _unusable(f"the result cannot be unpickled here: {problem!r}", trace) from problem
    if kind == "values":
        if not isinstance(content, list):
            raise ResultUnusable("the resource sent no list of results")
        return Outcome(values=content)
    if not isinstance(content, BaseException):
        raise ResultUnusable("the resource sent no exception where there was one")
    content.__cause__ = RemoteTraceback(trace)
    return Outcome(problem=content)


def _unusable(message: str, trace: str) -> ResultUnusable:
    problem = ResultUnusable(message)
    if trace:
        problem.__cause__ = RemoteTraceback(trace)
    return problem


def _head(line: bytes) -> dict[str, Any]:
    try:
        head = json.loads(line)
    except ValueError:
        head = None
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise ResultUnusable("the resource sent a result of another form: its scripts are of another version")
    return head


def name_of(function: Callable[..., Any]) -> str:
    """What a function is called."""
    return str(getattr(function, "__qualname__", None) or repr(function))
