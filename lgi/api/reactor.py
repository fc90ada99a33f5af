"""Where the work is done: the Twisted reactor of this process, or one of ours in a thread that nobody waits for.

What is called here is a coroutine function; it runs in the reactor's thread, whoever calls, and its result comes back
to where it was called: to a thread that blocks, to an asyncio task, or to a Twisted coroutine.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.python import threadable
from twisted.python.failure import Failure

from lgi.api.errors import ClientClosed, NoReactor

P = ParamSpec("P")
T = TypeVar("T")

GOODBYE = 2.0  # seconds that the end of the interpreter waits for ours to stop


class _Thread(threading.Thread):
    """Of a pool whose threads do not keep the interpreter from ending."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs, daemon=True)


class _Background:
    """The reactor in a thread of ours, if there is one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._forked = False

    def running(self) -> Any:
        """The reactor, which runs; started here unless somebody has. Raises NoReactor."""
        if self._forked:
            raise NoReactor(
                "this process was forked from one in which the reactor runs, and has half of it; use the methods "
                "'spawn' or 'forkserver' of multiprocessing, or make the first call to the grid after the fork"
            )
        from twisted.internet import reactor

        the_reactor: Any = reactor
        with self._lock:
            if not the_reactor.running:
                self._start(the_reactor)
        return the_reactor

    def _start(self, reactor: Any) -> None:
        ready = threading.Event()
        problems: list[BaseException] = []

        def run() -> None:
            try:
                reactor.callWhenRunning(ready.set)
                reactor.run(installSignalHandlers=False)
            except BaseException as problem:
                problems.append(problem)
            finally:
                ready.set()

        # Threads that are no daemons would be waited for at the end, when nothing tells them to go.
        reactor.getThreadPool().threadFactory = _Thread
        thread = threading.Thread(target=run, name="lgi-reactor", daemon=True)
        thread.start()
        ready.wait()
        if problems:
            raise NoReactor(f"the Twisted reactor of this process cannot be started: {problems[0]!r}") from problems[
                0
            ]
        self._thread = thread
        atexit.register(self._stop, reactor)

    def _stop(self, reactor: Any) -> None:
        if self._thread is None or not self._thread.is_alive() or self._forked:
            return
        with suppress(Exception):
            reactor.callFromThread(reactor.stop)
            self._thread.join(GOODBYE)

    def in_child(self) -> None:
        """After a fork, where only the thread that forked goes on."""
        self._lock = threading.Lock()
        self._forked = self._forked or self._thread is not None


_background = _Background()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_background.in_child)


def _result(failure: Failure) -> BaseException:
    problem = failure.value
    assert problem is not None
    return ClientClosed("the client was closed") if isinstance(problem, CancelledError) else problem


def spawn(function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> Work[T]:
    """Begin in the reactor, from any thread; raises NoReactor."""
    return Work(_background.running(), function(*args, **kwargs))


class Work(concurrent.futures.Future[T]):
    """A coroutine that runs in the reactor, as seen from other threads."""

    def __init__(self, reactor: Any, coroutine: Coroutine[Any, Any, T]) -> None:
        super().__init__()
        self._reactor = reactor
        self._coroutine = coroutine
        self._deferred: Deferred[T] | None = None
        reactor.callFromThread(self._run)

    def _run(self) -> None:
        if not self.set_running_or_notify_cancel():
            self._coroutine.close()
            return
        self._deferred = Deferred.fromCoroutine(self._coroutine)
        self._deferred.addCallbacks(self.set_result, lambda failure: self.set_exception(_result(failure)))

    def give_up(self) -> None:
        """Cancel what goes on; it ends with ClientClosed, which is for nobody to see."""

        def cancel() -> None:
            if not self.cancel() and self._deferred is not None:
                self._deferred.cancel()

        self._reactor.callFromThread(cancel)


def block(function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run in the reactor and wait for the result; a KeyboardInterrupt here ends it there.

    Raises NoReactor in the reactor's own thread, which would wait for itself.
    """
    if threadable.isInIOThread() and _background.running():
        raise NoReactor(
            "lgi.Client would block the reactor, in whose thread it is called: use lgi.AsyncClient here, or call it "
            "from another thread (twisted.internet.threads.deferToThread)"
        )
    work = spawn(function, *args, **kwargs)
    try:
        return work.result()
    finally:
        if not work.done():
            work.give_up()


def begin(function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
    """Run in the reactor; what is returned can be awaited where this is called: in Twisted, or in asyncio.

    To cancel it cancels the work. Raises NoReactor.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        loop = None
    from twisted.internet import reactor

    the_reactor: Any = reactor
    if the_reactor.running and threadable.isInIOThread():
        deferred = Deferred.fromCoroutine(function(*args, **kwargs))
        if loop is not None and asyncio.current_task() is not None:
            return deferred.asFuture(loop)  # a task of asyncio on the reactor's own loop
        return deferred
    if loop is not None:
        return _in_asyncio(loop, spawn(function, *args, **kwargs))
    if the_reactor.running:
        raise NoReactor("lgi.AsyncClient is called in a thread without an event loop: use lgi.Client there")
    return Deferred.fromCoroutine(function(*args, **kwargs))  # the reactor is about to run, as in react()


def release(function: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run what lets go of something and waits for nothing, where nobody can wait: at the end of a generator."""
    from twisted.internet import reactor

    the_reactor: Any = reactor
    if the_reactor.running and not threadable.isInIOThread():
        spawn(function)
    else:
        Deferred.fromCoroutine(function())


def _in_asyncio(loop: asyncio.AbstractEventLoop, work: Work[T]) -> asyncio.Future[T]:
    future: asyncio.Future[T] = loop.create_future()

    def deliver() -> None:
        if future.done():
            return  # cancelled
        problem = work.exception()
        if problem is None:
            future.set_result(work.result())
        else:
            future.set_exception(problem)

    def done(_work: concurrent.futures.Future[T]) -> None:
        with suppress(RuntimeError):  # the loop has been closed, and with it all who wait
            loop.call_soon_threadsafe(deliver)

    def ended(ended: asyncio.Future[T]) -> None:
        if ended.cancelled():
            work.give_up()

    work.add_done_callback(done)
    future.add_done_callback(ended)
    return future
