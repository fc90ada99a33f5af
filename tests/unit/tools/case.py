"""What the tests of the tools share: recorded layouts, what was printed, and calls of a fake server.

`tests/data/cli/` has, for a call of a deployed tool, the server's answer, what the tool printed as text and as XML;
names, addresses and times are made up.
"""

from __future__ import annotations

import io
import os
import sys
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from lgi.client.patience import Patience
from lgi.tools.calls import Calls, Response, read
from lgi.tools.notes import Notes
from tests.unit.client.fakes import ServerTestCase, reactor

DATA = Path(__file__).parents[2] / "data" / "cli"
HOST = "https://grid.example/LGI"


def recorded(name: str) -> str:
    """A recorded text, as `qstat_list.txt`."""
    return (DATA / name).read_bytes().decode()


def answered(name: str) -> Response:
    """A recorded answer."""
    return read((DATA / f"{name}.answer").read_bytes())


class Printed:
    """Stands for standard output and standard error."""

    def __init__(self) -> None:
        self.stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)

    @property
    def text(self) -> str:
        """What has been printed."""
        data: bytes = self.stream.buffer.getvalue()
        return data.decode("utf-8", "surrogateescape")


class ToolTestCase(SynchronousTestCase):
    """In the time zone of the recordings, with what is printed in `out` and `err`."""

    def setUp(self) -> None:
        listen(self)


def listen(case: ServerTestCase | ToolTestCase) -> None:
    """Set up `out` and `err`, and the time zone, until the test ends."""
    out, err = Printed(), Printed()
    case.out, case.err = out, err  # type: ignore[union-attr]
    case.patch(sys, "stdout", out.stream)
    case.patch(sys, "stderr", err.stream)
    zone = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"
    time.tzset()

    def back() -> None:
        os.environ.pop("TZ")
        if zone is not None:
            os.environ["TZ"] = zone
        time.tzset()

    case.addCleanup(back)


class CallsTestCase(ServerTestCase):
    """`ask` asks a FakeServer in the name of a user."""

    out: Printed
    err: Printed

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        listen(self)
        self.ask = Calls(
            server=self.server,
            patience=Patience(reactor, busy=5),
            notes=Notes(),
            own={"user": "mark@localhost", "groups": "theor"},
        )
