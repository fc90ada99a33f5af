"""From papers to a connection, a reactor to run it in, and what is said when something goes wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.task import react
from twisted.logger import globalLogBeginner

from lgi.client.answers import AnswerMalformed, ServerRefused, ServerUnreachable
from lgi.client.patience import Patience
from lgi.client.post import Client, Server, connect
from lgi.client.settings import SettingsError
from lgi.tls import ClientPolicy, TLSFileError, load_credentials
from lgi.tools.account import Papers
from lgi.tools.calls import Calls
from lgi.tools.layout import one_line
from lgi.tools.notes import Notes
from lgi.tools.options import Tool

BUSY = 90.0  # seconds for which a server that says back-off is asked again
GOODBYE = 1.0
INTERRUPTED = 130


class Failed(Exception):
    """Something did not work, and has been said already."""


@asynccontextmanager
async def connected(reactor: Any, papers: Papers, notes: Notes) -> AsyncIterator[Client]:
    """An HTTP client with these papers; raises TLSFileError."""
    notes.debug(
        f"shows {papers.certificate} with the key {papers.key}, trusts {papers.authorities}"
        f"{'' if papers.strict else ', checks no host names'}"
    )
    policy: Any = ClientPolicy(
        load_credentials(papers.certificate, papers.key), papers.authorities, strict_hostname=papers.strict
    )
    http, pool = connect(reactor, policy)
    try:
        yield http
    finally:
        closing: Deferred[None] = pool.closeCachedConnections()
        with suppress(TimeoutError, CancelledError):  # a server that does not say goodbye is not waited for
            await closing.addTimeout(GOODBYE, reactor)


def calls(reactor: Any, http: Client, url: str, project: str, own: dict[str, str | int], notes: Notes) -> Calls:
    """Calls of a server, each with the fields `own`."""
    return Calls(
        server=Server(http=http, reactor=reactor, url=url, project=project),
        patience=Patience(reactor, busy=BUSY, note=notes.say),
        notes=notes,
        own=own,
    )


def show(text: str) -> None:
    """Print a result; what could command a terminal is left out where it goes to one."""
    if sys.stdout.isatty():
        text = "".join(char if char.isprintable() or char in "\n\t" else "?" for char in text)
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
    sys.stdout.buffer.flush()


def complain(text: str) -> None:
    """Say on standard error what went wrong."""
    sys.stdout.flush()
    sys.stderr.buffer.write(text.encode("utf-8", "surrogateescape"))
    sys.stderr.buffer.flush()


def run(tool: Tool, notes: Notes, work: Callable[[Any], Awaitable[None]], server: str) -> int:
    """Run a tool's coroutine in a reactor; returns the exit status. `server` is its address for complaints."""
    observers: Any = [notes.observe]
    globalLogBeginner.beginLoggingTo(observers, redirectStandardIO=False, discardBuffer=True)
    outcome: list[BaseException | None] = []

    async def whole(reactor: Any) -> None:
        working = Deferred.fromCoroutine(_awaited(work(reactor)))
        reactor.addSystemEventTrigger("before", "shutdown", working.cancel)
        try:
            await working
            outcome.append(None)
        except Exception as problem:
            outcome.append(problem)

    with suppress(SystemExit):
        react(whole)
    problem = outcome[0] if outcome else CancelledError()
    return 0 if problem is None else explained(tool, problem, server)


async def _awaited(work: Awaitable[None]) -> None:
    await work


def explained(tool: Tool, problem: BaseException, server: str = "") -> int:
    """Say what went wrong and return the exit status; raises what is a fault of this program."""
    match problem:
        case CancelledError():
            return INTERRUPTED
        case BrokenPipeError():
            # Who read this has seen enough. What is still to be flushed at the end goes nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        case Failed():
            pass
        case ServerRefused():
            complain(f"\nError message returned by server {server} : {one_line(problem.message)}\n\n")
        case ServerUnreachable():
            reason = str(problem).removeprefix(f"{server}: ")
            complain(f"\nError posting to server {server}. {one_line(reason)}\n\n")
        case SettingsError() | TLSFileError() | AnswerMalformed():
            tool.complain(one_line(str(problem)))
        case OSError():
            where = f"{problem.filename}: " if problem.filename else ""
            tool.complain(f"{where}{problem.strerror or problem}")
        case _:
            raise problem
    return 1
