"""Functions that run on the grid: `lgi.Executor`, a `concurrent.futures.Executor`."""

from __future__ import annotations

import concurrent.futures
import itertools
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python import threadable

from lgi.api.calls import CALL, RESULT, ResultUnusable, name_of, read_result, write_call
from lgi.api.core import Core, settings_of
from lgi.api.errors import ClientClosed, NoReactor
from lgi.api.reactor import Work, spawn
from lgi.api.values import Files, Found, Seen, as_files, as_names
from lgi.client.answers import ServerRefused
from lgi.client.post import CONNECTIONS
from lgi.states import JobState

P = ParamSpec("P")
T = TypeVar("T")

APPLICATION = "python_function"
DAEMONS_OWN = "LGI_"
HURRY = 10.0  # seconds in which what an interruption leaves on the grid is cancelled
_log = Logger()


class GridFuture(concurrent.futures.Future[T]):
    """What comes of a function on the grid.

    `job` is the reference of its job, None until there is one; `output` what it has printed, once it is done.
    """

    def __init__(self, executor: Executor, name: str) -> None:
        super().__init__()
        self.name = name
        self.job: str | None = None
        self.output = b""
        self._executor = executor
        self._found: Found | None = None
        self._over = False
        self._following: Deferred[Any] | None = None
        self._ours: bool | None = None

    def cancel(self) -> bool:
        """Have it not run: its job, which waits, is deleted. False where it is known to run, or done.

        One that has begun in this very moment is aborted.
        """
        cancelled = super().cancel()
        if cancelled:
            spawn(self._interrupted)
        return cancelled

    def abort(self) -> None:
        """End it, also where it runs: it fails with JobFailed then, unless it is done before."""
        if not self.cancel() and not self.done():
            spawn(self._executor._abort, self)

    async def _interrupted(self) -> None:
        self._claim()
        # A submission under way is not cut off, which would leave a job that nobody knows of.
        if self._following is not None:
            self._following.cancel()

    def _claim(self) -> bool:
        """Whether it is to have a result, and cannot be cancelled any more; in the reactor only."""
        if self._ours is None:
            self._ours = self.set_running_or_notify_cancel()
        return self._ours


class Executor(concurrent.futures.Executor):
    """Runs functions as jobs of the application `python_function`, on resources that offer it.

    `config`, `server` and `project` are as of `lgi.Client`; `targets`, `specifics` and `application` as of its
    `submit`. `files` are in the working directory of each function. Jobs whose futures are done are deleted, unless
    `keep`. Raises SettingsError, and ValueError about files.
    """

    def __init__(
        self,
        config: str | Path | None = None,
        *,
        server: str = "",
        project: str = "",
        targets: str | Iterable[str] = (),
        specifics: str = "",
        application: str = APPLICATION,
        files: Files = (),
        keep: bool = False,
    ) -> None:
        self._files = as_files(files)
        for name, _ in self._files:
            if name.startswith(DAEMONS_OWN) or name in (CALL, RESULT, "runner.py"):
                raise ValueError(f"a file for a function cannot be named {name}")
        self._core = Core(settings_of(config, server, project))
        self._targets = as_names(targets)
        self._specifics = specifics
        self._application = application
        self._keep = keep
        self._directory = Path(tempfile.mkdtemp(prefix="lgi-calls-"))
        self._numbers = itertools.count()
        self._gate = DeferredSemaphore(CONNECTIONS)
        self._remove = weakref.finalize(self, shutil.rmtree, self._directory, ignore_errors=True)
        self._lock = threading.Condition()
        self._work: dict[GridFuture[Any], Work[None]] = {}
        self._shut = False
        self._ended = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> GridFuture[T]:
        """Have a function run; raises pickle.PicklingError where it cannot be sent.

        The future's result is the function's, its exception the function's too, with the traceback of the resource as
        its cause; or JobFailed where the job was aborted or killed, ResultUnusable, ServerRefused, ServerUnreachable.
        """
        future: GridFuture[T] = GridFuture(self, name_of(fn))
        self._start(future, fn, [(args, kwargs)], lambda values: values[0])
        return future

    def map(
        self, fn: Callable[..., T], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[T]:
        """The results in the order of the arguments; `chunksize` calls go into one job.

        Raises TimeoutError where a result is not there `timeout` seconds after this call.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be at least 1")
        end = None if timeout is None else time.monotonic() + timeout
        arguments = iter(zip(*iterables, strict=False))
        futures: list[GridFuture[list[T]]] = []
        try:
            while chunk := list(itertools.islice(arguments, chunksize)):
                future: GridFuture[list[T]] = GridFuture(self, name_of(fn))
                self._start(future, fn, [(one, {}) for one in chunk], list)
                futures.append(future)
        except BaseException:
            for future in futures:
                future.cancel()
            raise

        def results() -> Iterator[T]:
            futures.reverse()
            try:
                while futures:
                    left = None if end is None else end - time.monotonic()
                    chunk = futures[-1].result(left)
                    futures.pop()
                    yield from chunk
            finally:
                for future in futures:
                    future.cancel()

        return results()

    def _start(
        self,
        future: GridFuture[Any],
        function: Callable[..., Any],
        calls: Sequence[tuple[tuple[Any, ...], dict[str, Any]]],
        value: Callable[[list[Any]], Any],
    ) -> None:
        if self._shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        path = self._directory / f"{next(self._numbers)}"
        try:
            write_call(path, function, calls)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        with self._lock:
            if self._shut:
                raise RuntimeError("cannot schedule new futures after shutdown")
            work = self._work[future] = spawn(self._carry, future, path, value, len(calls))
        work.add_done_callback(lambda _: self._gone(future))

    def _gone(self, future: GridFuture[Any]) -> None:
        with self._lock:
            self._work.pop(future, None)
            self._lock.notify_all()
        self._end_if_idle()

    async def _carry(
        self, future: GridFuture[Any], path: Path, value: Callable[[list[Any]], Any], calls: int
    ) -> None:
        """The life of one call, from its file to its result; its future is done in any case."""
        try:
            result = value(await self._run(future, path, calls))
        except CancelledError:
            if future._claim():
                future.set_exception(ClientClosed(f"the executor was closed before {future.name} was done"))
        except BaseException as problem:
            if future._claim():
                future.set_exception(problem)
        else:
            if future._claim():
                future.set_result(result)
        finally:
            path.unlink(missing_ok=True)
        if future._found is not None and (future.cancelled() or (future._over and not self._keep)):
            await self._tidy(future, future._found)

    async def _run(self, future: GridFuture[Any], path: Path, calls: int) -> list[Any]:
        async with self._gate:
            if future.cancelled():
                raise CancelledError
            found = future._found = await self._core.submit(
                self._application,
                files=((CALL, path), *self._files),
                input=f"{future.name}{f' ({calls} calls)' if calls > 1 else ''}\n".encode(),
                targets=self._targets,
                specifics=self._specifics,
                read_access=(),
                write_access=(),
                key="",
                progress=None,
            )
        future.job = found.reference
        path.unlink(missing_ok=True)
        if future.cancelled():
            raise CancelledError
        last = await self._end(future, found)
        with tempfile.TemporaryDirectory(dir=self._directory) as directory:
            result = Path(directory) / RESULT
            try:
                await self._core.fetch(last.found, RESULT, result)
            except ServerRefused as problem:
                if problem.number != 404:
                    raise
                raise last.failure("has left no result") from None
            outcome = await deferToThread(read_result, result)
        if outcome.problem is not None:
            raise outcome.problem
        if outcome.values is None or len(outcome.values) != calls:
            raise ResultUnusable("the resource sent another number of results than of calls")
        return outcome.values

    async def _end(self, future: GridFuture[Any], found: Found) -> Seen:
        """The job of a future when it has finished; raises JobFailed where it has ended otherwise."""

        def seen(state: JobState) -> None:
            if state is JobState.RUNNING:
                future._claim()

        future._following = Deferred.fromCoroutine(self._core.over(found, seen=seen))
        try:
            over = await future._following
        finally:
            future._following = None
        if not future._claim():
            raise CancelledError
        future._over = over is not None
        last = Seen(found)
        last.settle(over)
        future.output = last.found.answer.job.output or b""
        if last.state is not JobState.FINISHED:
            raise last.failure()
        return last

    async def _tidy(self, future: GridFuture[Any], found: Found) -> None:
        """Delete the job; one that had begun to run is aborted, and deleted then."""
        try:
            deleted = await self._core.delete(found.place)
            if deleted.answer.job.state is JobState.ABORTING and await self._core.over(found) is not None:
                await self._core.delete(found.place)
        except (CancelledError, ClientClosed):
            return
        except Exception as problem:
            _log.warn("job {job} of {name} stays: {problem}", job=found.reference, name=future.name, problem=problem)

    async def _abort(self, future: GridFuture[Any]) -> None:
        if future._found is None or future.done():
            return
        try:
            await self._core.delete(future._found.place, cancel=True)
        except Exception as problem:
            _log.warn("job {job} goes on: {problem}", job=future.job, problem=problem)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more, and with `wait` return when all that was taken is done; as `concurrent.futures` has it.

        With `cancel_futures`, those that do not run yet are cancelled. Raises NoReactor in the reactor's thread.
        """
        if wait and threadable.isInIOThread():
            raise NoReactor("shutdown() would block the reactor, in whose thread it is called: use wait=False")
        with self._lock:
            self._shut = True
            pending = list(self._work)
        if cancel_futures:
            for future in pending:
                future.cancel()
        if wait:
            self._wait(None)
        self._end_if_idle()

    def _wait(self, seconds: float | None) -> None:
        with self._lock:
            self._lock.wait_for(lambda: not self._work, seconds)

    def _end_if_idle(self, *, now: bool = False) -> None:
        with self._lock:
            if self._ended or not self._shut or (self._work and not now):
                return
            self._ended = True
        spawn(self._core.close)
        self._remove()

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for all that was taken; after Ctrl-C leave nothing on the grid: cancel what waits, abort what runs."""
        try:
            if problem is None or isinstance(problem, Exception):
                self.shutdown(wait=True)
        except BaseException:
            self._hurry()
            raise
        if problem is not None and not isinstance(problem, Exception):
            self._hurry()

    def _hurry(self) -> None:
        self.shutdown(wait=False)
        with self._lock:
            pending = list(self._work)
        for future in pending:
            future.abort()
        self._wait(HURRY)
        self._end_if_idle(now=True)
