"""From a configuration, or a job directory, to clients that can ask; and a reactor to ask with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import click
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.task import react
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogBeginner

from lgi.cli.options import Options
from lgi.cli.screen import Screen, standard_screen
from lgi.client.grid import Grid
from lgi.client.patience import Patience
from lgi.client.post import Server, connect
from lgi.client.repository import RepositoryClient
from lgi.client.servers import KnownServers
from lgi.client.settings import UserSettings, read_settings
from lgi.client.user import UserClient
from lgi.tls import ClientPolicy, load_credentials

BUSY = 90.0  # seconds for which a command goes on asking a server that says back-off
RESTART = 10.0  # seconds that a server may be away without a command failing that only looks
GOODBYE = 1.0


@attrs.frozen(kw_only=True)
class Session:
    """What the coroutine of a command works with; `grid` and `user` ask in the name of `settings`.

    With `patience` calls may be repeated that do no harm when they are done twice.
    """

    reactor: Any
    screen: Screen
    http: HTTPClient
    settings: UserSettings
    patience: Patience
    grid: Grid

    @property
    def user(self) -> UserClient:
        """The calls of the configured server."""
        return self.grid.user()


def opened_grid(
    reactor: Any,
    http: HTTPClient,
    settings: UserSettings,
    patience: Patience,
    *,
    alone: bool = False,
    known: KnownServers | None = None,
) -> Grid:
    """The project of these settings; `alone` takes their server for the only one."""

    def calls(url: str) -> UserClient:
        server = Server(http=http, reactor=reactor, url=url, project=settings.project)
        return UserClient(server=server, user=settings.user, groups=settings.groups)

    return Grid(connect=calls, server=settings.server, patience=patience, known=known, alone=alone)


@asynccontextmanager
async def connected(reactor: Any, certificate: Path, key: Path, ca_chain: Path) -> AsyncIterator[HTTPClient]:
    """An HTTP client with these credentials; raises TLSFileError."""
    policy: Any = ClientPolicy(load_credentials(certificate, key), ca_chain)
    http, pool = connect(reactor, policy)
    try:
        yield http
    finally:
        closing: Deferred[None] = pool.closeCachedConnections()
        with suppress(TimeoutError, CancelledError):  # a server that does not say goodbye is not waited for
            await closing.addTimeout(GOODBYE, reactor)


@asynccontextmanager
async def session(reactor: Any, screen: Screen, options: Options) -> AsyncIterator[Session]:
    """A session of the user whose configuration directory the options name; raises SettingsError, TLSFileError.

    A server that the options name is used alone.
    """
    settings = read_settings(options.directory, server=options.server, project=options.project)
    async with connected(reactor, settings.certificate, settings.privatekey, settings.ca_chain) as http:
        patience = Patience(reactor, busy=BUSY, unreachable=RESTART, note=screen.note)
        known = KnownServers.of(settings.server, settings.project)
        grid = opened_grid(reactor, http, settings, patience, alone=bool(options.server), known=known)
        yield Session(reactor=reactor, screen=screen, http=http, settings=settings, patience=patience, grid=grid)


def repository(reactor: Any, http: HTTPClient, url: str) -> RepositoryClient:
    """The repository at `url`."""
    return RepositoryClient(http=http, reactor=reactor, url=url)


def run(options: Options, work: Callable[[Any, Screen], Awaitable[int]]) -> int:
    """Run a command's coroutine in a reactor; returns the exit status, or raises what the coroutine raises.

    Ctrl-C cancels it, waits for what it still has to tidy up, and raises click.Abort.
    """
    screen = standard_screen(json=options.json, verbose=options.verbose)
    observers: Any = [_observer(screen)]
    globalLogBeginner.beginLoggingTo(observers, redirectStandardIO=False, discardBuffer=True)
    outcome: list[int | BaseException] = []

    async def whole(reactor: Any) -> None:
        working = Deferred.fromCoroutine(_awaited(work(reactor, screen)))
        reactor.addSystemEventTrigger("before", "shutdown", working.cancel)
        try:
            outcome.append(await working)
        except CancelledError:
            outcome.append(click.Abort())
        except Exception as problem:
            outcome.append(problem)

    with suppress(SystemExit):
        react(whole)
    result = outcome[0] if outcome else click.Abort()
    if isinstance(result, BaseException):
        raise result
    return result


async def _awaited(work: Awaitable[int]) -> int:
    return await work


def _observer(screen: Screen) -> Callable[[LogEvent], None]:
    def observe(event: LogEvent) -> None:
        """Show what the libraries have to warn of; the rest is for --verbose."""
        level = event.get("log_level", LogLevel.info)
        if screen.verbose or (level is LogLevel.warn and str(event.get("log_namespace", "")).startswith("lgi.")):
            screen.note(formatEvent(event))
            if "log_failure" in event:
                print(event["log_failure"].getTraceback(), file=screen.err)

    return observe
