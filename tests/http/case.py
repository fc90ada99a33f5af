"""A test case with a server in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import Connection, select
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from lgi.db.schema import metadata
from lgi.repository.files import SPOOL
from tests.http.memory import PROJECT, Answer, Fields, MemoryServer

# What a submission needs, and what any call of a user does.
JOB: Fields = {"application": "hello_world", "target_resources": "any"}
WHOLE: Fields = {"project": PROJECT, "user": "mark@localhost", "groups": "theor", **JOB}
# What a call that is refused may leave behind: that somebody called.
_VOLATILE = {("active_resources", "last_call_time"), ("running_sessions", "session_time_stamp")}


def without(fields: Fields, *names: str) -> Fields:
    """The fields without some of them."""
    return {name: value for name, value in fields.items() if name not in names}


def without_volatile(rows: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Rows without what a call that is refused may change."""
    return {
        table: [{column: value for column, value in row.items() if (table, column) not in _VOLATILE} for row in found]
        for table, found in rows.items()
    }


def _dump(connection: Connection) -> dict[str, list[tuple[Any, ...]]]:
    return {
        table.name: sorted(
            tuple(row)
            for row in connection.execute(
                select(*(column for column in table.c if (table.name, column.name) not in _VOLATILE))
            )
        )
        for table in metadata.sorted_tables
    }


class ServerCase(TestCase):
    """Each test has a server of its own; see MemoryServer for `changes` and `edits`."""

    timeout = 60
    changes = ""
    edits: ClassVar[dict[str, object]] = {}

    def setUp(self) -> None:
        """Start it."""
        self.server = MemoryServer(Path(self.mktemp()).absolute(), changes=self.changes, edits=self.edits)
        self.addCleanup(self.server.stop)
        # Signs of life are written then.
        self.addCleanup(lambda: self.run_now(self.server.site.drain()))
        self._frozen: Any = None

    def run_now(self, coroutine: object) -> Deferred[object]:
        """A coroutine as the Deferred that trial wants."""
        return Deferred.fromCoroutine(coroutine)  # type: ignore[arg-type]

    @property
    def root(self) -> Path:
        """The directory of all repositories."""
        return self.server.config.repository.directory

    def spooled(self) -> list[str]:
        """The files that are being received."""
        return [path.name for path in (self.root / SPOOL).iterdir()]

    def stored(self) -> dict[str, bytes]:
        """The files of all repositories, with their repository's directory as an entry of its own."""
        return {
            str(path.relative_to(self.root)): b"" if path.is_dir() else path.read_bytes()
            for path in self.root.glob("*/JOB_*/**/*")
        } | {str(path.relative_to(self.root)): b"" for path in self.root.glob("*/JOB_*")}

    async def state(self) -> tuple[Any, ...]:
        """Everything that the server keeps: the tables and the files."""
        return await self.server.database.read("dump", _dump), self.stored()

    async def change(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a function in a transaction."""
        return await self.server.database.run("test", function, *args, **kwargs)

    async def freeze(self) -> None:
        """From here on `refuses` wants nothing to change."""
        self._frozen = await self.state()

    async def refuses(self, number: int, answering: Deferred[Answer], saying: str = "") -> Answer:
        """Check that a call is refused with this error, and has changed nothing since `freeze`."""
        answer = await answering
        self.assertEqual((answer.code, answer.number()), (200, number), answer.text)
        self.assertIn(saying, answer.value("message"))
        self.assertEqual(answer.headers["content-length"], str(len(answer.body)))
        self.assertEqual(await self.state(), self._frozen)
        self.assertEqual(self.spooled(), [])
        return answer
