"""The end of a file in a repository, and what is added to it."""

from __future__ import annotations

import re
from collections.abc import Callable

from lgi.client.exchange import field
from lgi.client.wire import Wire

_PART, _ALL, _NOTHING_THERE = 206, 200, 416
_SPAN = re.compile(r"bytes ([0-9]{1,19})-")
# What lines of a log have on average, generously, so that the first look is enough.
_LINE = 256


class Tail:
    """The file `name` from `offset` on; `sink` gets what has come, `offset` is behind it."""

    def __init__(self, wire: Wire, name: str, sink: Callable[[bytes], None]) -> None:
        self._wire = wire
        self._name = name
        self._sink = sink
        self.offset = 0

    async def read_on(self) -> None:
        """Read to the end; nothing where there is no more. May be asked again after a failure, and then goes on.

        Raises what requests raise.
        """
        await self._read(self.offset, self._take)

    async def last_lines(self, size: int, lines: int) -> None:
        """Skip to the last lines of a file that has `size` bytes, and give them to the sink."""
        reach = _LINE * (lines + 1)
        while True:
            start = max(0, size - reach)
            read = bytearray()
            if lines:
                await self._read(start, read.extend)
            found = last(bytes(read), lines)
            if start == 0 or len(found) < len(read) or not lines:
                self.offset = start + len(read) if lines else size
                if found:
                    self._sink(found)
                return
            reach *= 4

    def _take(self, data: bytes) -> None:
        self.offset += len(data)
        self._sink(data)

    async def _read(self, offset: int, sink: Callable[[bytes], object]) -> None:
        exchange = self._wire.exchange(self._wire.file(self._name))
        response = await exchange.begin("GET", {"Range": f"bytes={offset}-"} if offset else {})
        skip = 0
        if response.code == _NOTHING_THERE:
            await exchange.whole(response)
            return
        if response.code == _ALL:
            skip = offset  # from a server that gives no parts
        elif response.code != _PART or not _begins_at(field(response, "Content-Range"), offset):
            raise await exchange.refusal(response)

        def write(data: bytes) -> None:
            nonlocal skip
            more = data[skip:]
            skip -= len(data) - len(more)
            if more:
                sink(more)

        await exchange.take(response, write)


def _begins_at(text: str, offset: int) -> bool:
    found = _SPAN.match(text)
    return found is not None and int(found[1]) == offset


def last(data: bytes, lines: int) -> bytes:
    """The last lines of what has come, the last of which need not have an end."""
    if not lines:
        return b""
    start = len(data) - 1 if data.endswith(b"\n") else len(data)
    for _ in range(lines):
        start = data.rfind(b"\n", 0, start)
        if start < 0:
            return data
    return data[start + 1 :]
