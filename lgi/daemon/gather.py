"""Things that are done together cost less: what comes while a round is under way waits for the next one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.python.failure import Failure

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Gathered(Generic[_Item, _Result]):
    """Does many things in rounds of at most `most`; `do` returns a result or an exception for each, in order.

    What `do` raises is raised to all of the round.
    """

    def __init__(
        self, do: Callable[[list[_Item]], Awaitable[Sequence[_Result | Exception]]], most: int = 1 << 30
    ) -> None:
        self.most = most
        self._do = do
        self._waiting: list[tuple[_Item, Deferred[_Result]]] = []
        self._busy = False
        self._held = False

    async def __call__(self, item: _Item) -> _Result:
        """Do it, in the next round."""
        done: Deferred[_Result] = Deferred()
        self._waiting.append((item, done))
        self._begin()
        return await done

    def _begin(self) -> None:
        if self._waiting and not self._busy and not self._held:
            self._busy = True
            Deferred.fromCoroutine(self._rounds())

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is asked for meanwhile, without waiting, goes into one round."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
            self._begin()

    async def _rounds(self) -> None:
        try:
            while self._waiting:
                taken, self._waiting = self._waiting[: self.most], self._waiting[self.most :]
                try:
                    results = await self._do([item for item, _ in taken])
                except BaseException as problem:
                    for _, done in taken:
                        done.errback(Failure(problem))
                else:
                    for (_, done), result in zip(taken, results, strict=True):
                        if isinstance(result, Exception):
                            done.errback(Failure(result))
                        else:
                            done.callback(result)
        finally:
            self._busy = False


async def side_by_side(
    coroutines: Iterable[Coroutine[Any, Any, _Result]], gathered: Gathered[Any, Any] | None = None
) -> list[_Result]:
    """The results of all, in order; what one of them raises is raised. What they ask of `gathered` goes together."""
    with nullcontext() if gathered is None else gathered.together():
        begun = [Deferred.fromCoroutine(one) for one in coroutines]
    try:
        return await gatherResults(begun, consumeErrors=True)
    except FirstError as first:
        first.subFailure.raiseException()
        raise AssertionError from first
