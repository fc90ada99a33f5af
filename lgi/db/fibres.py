"""Transactions that wait without a thread: on MariaDB and MySQL with the compiled driver.

A transaction is a plain function that sends one statement after the other and waits for each. Here it runs in a
greenlet of the reactor's thread, which gives way to the reactor while the server works on a statement. Threads cost
more than most statements do: each has to be woken, and to get Python's lock from whoever has it, after each wait.

What is still waited for without giving way is the rest of a result of which the beginning has come. Connections are
opened in a thread.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from operator import methodcaller
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet
from MySQLdb import Error, OperationalError
from MySQLdb.connections import Connection as DriverConnection
from sqlalchemy import Connection, Engine, event
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from zope.interface import implementer

from lgi.db.connections import Connections
from lgi.model import Changes

R = TypeVar("R")

LOST = 2013
"""The driver's number of a connection that was lost while waiting for an answer."""
WATCH_SECONDS = 1.0
PATIENCE_SECONDS = 60


_IS_SELECT = methodcaller("startswith", b"SELECT")

_Task = tuple[Deferred[Any], bool, Callable[[Connection], Any]]


class _Fibre(greenlet):
    """Carries out one transaction after the other, on connections of its own.

    Without a `task` it has ended one, with this `result`. A `problem` is raised in it where it waits. It is kept for
    the next one, since each new one has to be given memory for its frames.
    """

    problem: Exception | None = None
    since = 0.0

    def __init__(self, owner: Fibres, connections: Connections) -> None:
        super().__init__()
        self.owner = owner
        self.connections = connections
        self.task: _Task | None = None
        self.result: object = None

    def run(self) -> None:
        """Begin with the first."""
        while self.task is not None:
            _deferred, reading, function = self.task
            try:
                self.result = self.connections.do(reading, function)
            except BaseException:
                self.result = Failure()
            self.task = None
            assert self.parent is not None
            self.parent.switch()


class FibreConnection(DriverConnection):
    """A connection on which a fibre waits by giving way, and everybody else as usual."""

    _line: _Line | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._later: list[bytes] = []
        self._finished = self._numbered = False
        self._number = 0
        super().__init__(*arguments, **options)
        self._gathers = "MariaDB" in self.get_server_info()

    def later(self, query: bytes) -> None:
        """Send a statement of which nothing is asked but that it is carried out, before the next one or with it.

        Those that come before the end of a transaction are sent in one piece with it: each wait costs more than most
        statements do. Only MariaDB takes several as one of which there is one answer.
        """
        if self.gathers:
            self._later.append(query)
        else:
            self.query(query)

    @property
    def gathers(self) -> bool:
        """Whether statements are sent together."""
        return self._gathers and not self.get_autocommit()

    def later_number(self, query: bytes) -> None:
        """As `later`, on a connection that gathers, with an INSERT whose number those that follow call @lgi_number.

        `finish_number` tells it; there is one in a transaction.
        """
        self._later += (query, b"SET @lgi_number = LAST_INSERT_ID()")
        self._numbered = True

    def finish_number(self) -> int:
        """Commit, unless `finish` has done so; returns the number of what was inserted by `later_number`."""
        if not self._finished:
            self._send_later(b"COMMIT", b"SELECT @lgi_number")
            [found] = self._results(1)
            [[self._number]] = found.fetch_row(0)
            self._finished = True
        return int(self._number)

    def finish(self, query: bytes, question: bytes = b"") -> tuple[list[str], list[Any]]:
        """Send the last statement of a transaction; returns the names of fields and the rows of what it has done.

        The one row has how many rows were changed, and the insert id, or that of what was inserted by `later_number`.
        If any was changed, all is committed with it, and what is committed afterwards is nothing. A question, which
        begins with SELECT, is asked after that: there are as many rows as it has, and its fields come behind those
        two.
        """
        question = question.removeprefix(b"SELECT")
        if not self.gathers:
            self.query(query)
            done = b"SELECT %d, %d" % (self.affected_rows(), self.insert_id())
            self.query(b"%s,%s" % (done, question) if question else done)
            found = self.store_result()
            return [field[0] for field in found.describe()], list(found.fetch_row(0))
        done = b"SELECT @lgi_changed, %s" % (b"@lgi_number" if self._numbered else b"LAST_INSERT_ID()")
        self._send_later(
            query,
            b"SET @lgi_changed = ROW_COUNT()",
            b"IF @lgi_changed > 0 THEN COMMIT; END IF",
            b"%s,%s" % (done, question) if question else done,
        )
        [found] = self._results(1)
        rows = list(found.fetch_row(0))
        self._finished = bool(rows) and int(rows[0][0]) > 0
        if self._finished and self._numbered:
            self._number = rows[0][1]
        return [field[0] for field in found.describe()], rows

    def _send_later(self, *last: bytes) -> None:
        statements = [*self._later, *last]
        self._later.clear()
        if len(statements) == 1:
            self._query(statements[0])
        elif statements:
            self._query(b"BEGIN NOT ATOMIC %s; END" % b"; ".join(statements))

    def ask(self, *queries: bytes) -> list[Any]:
        """Send statements as `query` does, together with what was to be sent before; returns the result of each.

        A result has all its rows, and is None where there is none. Several are for statements that take no time after
        the first: who waits for the first has to wait for the others too, without giving way.
        """
        together = self.gathers and all(map(_IS_SELECT, queries))
        if together and (self._later or len(queries) > 1):
            self._send_later(*queries)
            return self._results(len(queries))
        found = []
        for query in queries:
            self.query(query)
            found.append(self.store_result())
        return found

    def _results(self, number: int) -> list[Any]:
        """The results of a block, whose end has an answer of its own."""
        found = []
        for _ in range(number):
            found.append(self.store_result())
            self.next_result()
        return found

    def query(self, query: bytes | bytearray) -> None:
        """Send a statement and wait for the beginning of its result; raises the driver's errors."""
        if self._later:
            self._send_later()
        self._query(query)

    def _query(self, query: bytes | bytearray) -> None:
        self._finished = False
        fibre = getcurrent()
        if not isinstance(fibre, _Fibre) or fibre.owner.stopped:
            super().query(query)
            return
        self.send_query(bytes(query))
        if self._line is None:
            self._line = _Line(self.fileno())
        self._line.wait(fibre)
        self.read_query_result()

    def commit(self) -> None:
        """Commit; waits as a statement does. What cannot be carried out before it leaves nothing behind."""
        self._numbered = False
        if not self._later:
            if not self._finished:
                self._query(b"COMMIT")
            return
        try:
            self._send_later(b"COMMIT")
        except Error:
            # Nobody else does: a commit that fails counts as the end. Where the connection is lost, so is all of it.
            with suppress(Error):
                self._query(b"ROLLBACK")
            raise

    def rollback(self) -> None:
        """Undo; waits as a statement does."""
        self._later.clear()
        self._numbered = False
        self._query(b"ROLLBACK")

    def close(self) -> None:
        """Close the connection."""
        line, self._line = self._line, None
        if line is not None:
            line.close()
        super().close()


@implementer(IReadDescriptor)
class _Line:
    """The socket of a connection, as the reactor sees it.

    With a descriptor of its own: the driver closes its one when the connection is lost, and the next connection would
    get the same number while the reactor still takes it for this one.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = os.dup(descriptor)
        self._fibre: _Fibre | None = None
        self._reactor: Any = None

    def wait(self, fibre: _Fibre) -> None:
        """Give way until there is something to read."""
        if self._reactor is None:
            self._reactor = fibre.owner.reactor
            self._reactor.addReader(self)
        self._fibre = fibre
        fibre.owner.give_way(fibre)

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def logPrefix(self) -> str:
        """What the reactor calls it."""
        return "database"

    def doRead(self) -> None:
        """Something has come."""
        fibre, self._fibre = self._fibre, None
        if fibre is None:
            # Nobody has asked: the server closes it, and whoever uses it next will find out.
            self.end()
        else:
            fibre.owner.go_on(fibre)

    def connectionLost(self, _reason: Failure) -> None:
        """The reactor gives it up."""
        self._reactor = None
        fibre, self._fibre = self._fibre, None
        if fibre is not None:
            fibre.owner.go_on(fibre)

    def end(self) -> None:
        """Watch it no more; twice is once."""
        if self._reactor is not None:
            self._reactor.removeReader(self)
            self._reactor = None

    def close(self) -> None:
        """Watch it no more, ever."""
        self.end()
        os.close(self._descriptor)


def prepare_engine(engine: Engine) -> None:
    """Have an engine, of this driver, open connections on which fibres can wait."""

    def connect(_dialect: object, _record: object, arguments: list[Any], options: dict[str, Any]) -> FibreConnection:
        return FibreConnection(*arguments, **options)

    event.listen(engine, "do_connect", connect)


class Fibres:
    """Carries out so many transactions at a time, in the order in which they came.

    A server that has not answered a statement for `patience` seconds counts as lost.
    """

    def __init__(self, reactor: Any, engine: Engine, number: int, patience: int = PATIENCE_SECONDS) -> None:
        self.reactor = reactor
        self.stopped = False
        self._engine = engine
        self._patience = patience
        self._free = [_Fibre(self, Connections(engine)) for _ in range(number)]
        self._tasks: deque[_Task] = deque()
        self._running: set[_Fibre] = set()
        self._watch: Any = None

    def start(self) -> None:
        """Nothing needs a start."""

    def stop(self) -> None:
        """Carry out all that has been asked for, waiting for it, and close the connections; twice is once."""
        if self.stopped:
            return
        self.stopped = True
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        for fibre in list(self._running):
            self.go_on(fibre)
        while self._free:
            self._free.pop().connections.close()

    def do(self, reading: bool, function: Callable[[Connection], R]) -> Deferred[tuple[R, Changes]]:
        """Carry out `function` in a transaction; fails with what it raises, DBAPIError and CommitFailed among it."""
        deferred: Deferred[tuple[R, Changes]] = Deferred()
        self._tasks.append((deferred, reading, function))
        self._begin()
        return deferred

    def _begin(self) -> None:
        while self._tasks and self._free:
            task, fibre = self._tasks.popleft(), self._free.pop()
            if self.stopped or fibre.connections.is_open(task[1]):
                self._carry_out(task, fibre)
            else:
                deferToThread(fibre.connections.open, task[1]).addCallbacks(
                    lambda _none, task=task, fibre=fibre: self._carry_out(task, fibre),
                    lambda failure, task=task, fibre=fibre: self._end(task[0], fibre, failure),
                )

    def _carry_out(self, task: _Task, fibre: _Fibre) -> None:
        fibre.task = task
        self._running.add(fibre)
        self._go_on(fibre, task[0])

    def go_on(self, fibre: _Fibre) -> None:
        """Let a fibre run until it gives way or has ended its transaction."""
        assert fibre.task is not None
        self._go_on(fibre, fibre.task[0])

    def _go_on(self, fibre: _Fibre, deferred: Deferred[Any]) -> None:
        fibre.parent = getcurrent()
        fibre.switch()
        if fibre.task is None:
            self._running.discard(fibre)
            result, fibre.result = fibre.result, None
            self._end(deferred, fibre, result)

    def _end(self, deferred: Deferred[Any], fibre: _Fibre, result: object) -> None:
        if self.stopped and not self._tasks:
            fibre.connections.close()
        else:
            self._free.append(fibre)
        # First the next one, which the server can work on while this one's caller goes on.
        self._begin()
        deferred.callback(result)

    def give_way(self, fibre: _Fibre) -> None:
        """Return when the reactor has found something to read; raises what has gone wrong meanwhile."""
        fibre.since = self.reactor.seconds()
        if self._watch is None:
            self._watch = self.reactor.callLater(WATCH_SECONDS, self._look)
        assert fibre.parent is not None
        fibre.parent.switch()
        if fibre.problem is not None:
            problem, fibre.problem = fibre.problem, None
            raise problem

    def _look(self) -> None:
        """End the patience with servers that do not answer."""
        self._watch = self.reactor.callLater(WATCH_SECONDS, self._look) if self._running else None
        oldest = self.reactor.seconds() - self._patience
        for fibre in [fibre for fibre in self._running if fibre.since < oldest]:
            fibre.problem = OperationalError(LOST, f"no answer from the server for {self._patience} seconds")
            self.go_on(fibre)
