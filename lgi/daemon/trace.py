"""A line in the log for each call of a server, for those who want to know it all (`-vv`)."""

from __future__ import annotations

from typing import Any

from twisted.logger import Logger

from lgi.daemon.logs import CALLS

_log = Logger(namespace=CALLS)


class Traced:
    """What speaks to a server, with a message about the end of each call: which, about which numbers, how long."""

    def __init__(self, calls: Any, url: str, clock: Any) -> None:
        self._calls = calls
        self._url = url
        self._clock = clock

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._calls, name)

        async def traced(*arguments: Any, **named: Any) -> Any:
            began = self._clock.seconds()
            outcome = "answered"
            try:
                return await call(*arguments, **named)
            except BaseException as problem:
                outcome = f"{type(problem).__name__}: {problem}"
                raise
            finally:
                _log.debug(
                    "{url}: {name}{numbers}: {outcome} after {seconds:.3f} s",
                    url=self._url,
                    name=name,
                    numbers=tuple(value for value in arguments if isinstance(value, int)),
                    outcome=outcome,
                    seconds=self._clock.seconds() - began,
                )

        return traced
