"""Coroutines that nobody awaits: their end is seen to, and stopping waits for them."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

_log = Logger()


class Tasks:
    """The coroutines in flight; one that fails is logged with its traceback, as none of them is expected to."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._running: dict[Deferred[None], str] = {}
        self._waiting: list[Deferred[None]] = []

    def start(self, name: str, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run the coroutine; `name` says in the log what it was about."""
        task = Deferred.fromCoroutine(coroutine)
        self._running[task] = name
        task.addErrback(self._failed, name)
        task.addBoth(self._ended, task)

    def _failed(self, failure: Failure, name: str) -> None:
        if not isinstance(failure.value, CancelledError):
            _log.failure("{name} went wrong", failure, name=name)

    def _ended(self, result: None, task: Deferred[None]) -> None:
        self._running.pop(task, None)
        if not self._running:
            waiting, self._waiting = self._waiting, []
            for one in waiting:
                one.callback(None)

    async def idle(self) -> None:
        """Wait until none is in flight."""
        if self._running:
            await self._wait()

    async def finish(self, patience: float) -> None:
        """Wait until none is in flight; after `patience` seconds, and once more, what they wait for is cut short."""
        for _ in range(2):
            if self._running:
                waiting = self._wait()
                late = self._clock.callLater(patience, self._cancel)
                await waiting
                if late.active():
                    late.cancel()

    def _wait(self) -> Deferred[None]:
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        return waiting

    def _cancel(self) -> None:
        for task in list(self._running):
            task.cancel()
