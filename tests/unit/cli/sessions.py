"""What the tests of commands share: a session with a fake server, and screens that remember."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from lgi.cli.screen import Screen
from lgi.cli.session import Session, opened_grid
from lgi.client.patience import Patience
from lgi.client.settings import UserSettings
from tests.unit.client.fakes import WHO, ServerTestCase, answer, reactor

SERVERS = "interfaces/interface_project_server_list.php"


def servers(this: str, *others: str, job_wait: int | None = None) -> bytes:
    """The project's servers, of which this one is the master; one that knows of waiting and keys says how long."""
    slaves = "".join(f"<project_server number='{n}'> {url} </project_server> " for n, url in enumerate(others, 1))
    who = WHO.replace("https://localhost:8443/LGI", this)
    waits = "" if job_wait is None else f"<job_wait> {job_wait} </job_wait> "
    return answer(f"{who}<number_of_slave_servers> {len(others)} </number_of_slave_servers> {slaves}{waits}")


class Stream(io.StringIO):
    """A stream that may claim to be a terminal."""

    def __init__(self, *, terminal: bool = False) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


class CommandTestCase(ServerTestCase):
    """`open()` gives a session, whose output `out` and `err` have.

    The server is an old one, which knows nothing of waiting and of submission keys, unless `is_new` says otherwise.
    """

    out: Stream
    err: Stream

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.fake.script[SERVERS] = [servers(self.url)]

    def is_new(self, *others: str) -> None:
        """Have the server say that it knows of waiting and of submission keys."""
        self.fake.script[SERVERS] = [servers(self.url, *others, job_wait=240)]

    def asked(self, path: str) -> list[dict[str, str]]:
        """What was posted there."""
        return [fields for called, fields in self.fake.calls if called == path]

    def screen(self, *, json: bool = False, terminal: bool = False, verbose: bool = False) -> Screen:
        self.out, self.err = Stream(terminal=terminal), Stream(terminal=terminal)
        return Screen(self.out, self.err, json=json, verbose=verbose)

    def open(self, *, application: str = "", alone: bool = True, unreachable: float = 0, **kind: bool) -> Session:
        screen = self.screen(**kind)
        settings = UserSettings(
            directory=Path("conf"),
            certificate=Path("conf/certificate"),
            privatekey=Path("conf/privatekey"),
            ca_chain=Path("conf/ca_chain"),
            server=self.url,
            project="LGI",
            user="mark@localhost",
            groups=("theor",),
            application=application,
        )
        patience = Patience(reactor, busy=5, unreachable=unreachable, note=screen.note)
        grid = opened_grid(reactor, self.http, settings, patience, alone=alone)
        return Session(
            reactor=reactor, screen=screen, http=self.http, settings=settings, patience=patience, grid=grid
        )

    @property
    def said(self) -> list[str]:
        """The lines on standard output."""
        return self.out.getvalue().splitlines()

    @property
    def value(self) -> Any:
        """The one JSON value on standard output."""
        return json.loads(self.out.getvalue())

    @property
    def complaints(self) -> list[str]:
        """The lines on standard error."""
        return self.err.getvalue().splitlines()
