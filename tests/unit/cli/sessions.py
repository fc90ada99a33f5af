"""What the tests of commands share: a session with a fake server, and screens that remember."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from lgi.cli.screen import Screen
from lgi.cli.session import Session
from lgi.client.patience import Patience
from lgi.client.settings import UserSettings
from tests.unit.client.fakes import ServerTestCase, reactor


class Stream(io.StringIO):
    """A stream that may claim to be a terminal."""

    def __init__(self, *, terminal: bool = False) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


class CommandTestCase(ServerTestCase):
    """`open()` gives a session, whose output `out` and `err` have."""

    out: Stream
    err: Stream

    def screen(self, *, json: bool = False, terminal: bool = False, verbose: bool = False) -> Screen:
        self.out, self.err = Stream(terminal=terminal), Stream(terminal=terminal)
        return Screen(self.out, self.err, json=json, verbose=verbose)

    def open(self, *, application: str = "", **kind: bool) -> Session:
        screen = self.screen(**kind)
        return Session(
            reactor=reactor,
            screen=screen,
            http=self.http,
            settings=UserSettings(
                directory=Path("conf"),
                certificate=Path("conf/certificate"),
                privatekey=Path("conf/privatekey"),
                ca_chain=Path("conf/ca_chain"),
                server=self.url,
                project="LGI",
                user="mark@localhost",
                groups=("theor",),
                application=application,
            ),
            patience=Patience(reactor, busy=5, note=screen.note),
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
