"""The requests that transfers consist of, at names of one repository."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import attrs
from twisted.web.iweb import IBodyProducer

from lgi.client.attempts import Patience
from lgi.client.exchange import SUCCESS, Exchange, Reply, read_digest
from lgi.client.sending import Tally

# Bytes a second that a server at least reads for a digest.
_SLOW_DISK = 20_000_000
LISTING = "repository_content.php"
MAX_SEGMENTS = 32
MAX_PATH = 1024


def checked_name(name: str) -> str:
    """`name` if it can be a file in a repository: a relative path; raises ValueError that says what is wrong."""
    for segment in name.split("/"):
        if (
            not segment
            or segment.startswith(".")
            or segment == LISTING
            or "\\" in segment
            or not segment.isprintable()
            or len(segment.encode()) > 255
        ):
            raise ValueError(f"{name!r} cannot be the name of a file in a repository")
    if name.count("/") >= MAX_SEGMENTS or len(name.encode()) > MAX_PATH:
        raise ValueError(f"{name!r} is too long or too deep for a repository")
    return name


@attrs.frozen(kw_only=True)
class Wire:
    """How a repository is asked; `timeout` is in seconds, in which nothing is sent or received."""

    agent: Any
    reactor: Any
    url: str
    timeout: float
    patience: Patience

    def file(self, name: str) -> str:
        """The address of a file; raises ValueError."""
        return f"{self.url.rstrip('/')}/{quote(checked_name(name), safe='/')}"

    def exchange(self, url: str, more_time: float = 0) -> Exchange:
        """A request to come."""
        return Exchange(self.agent, self.reactor, url, self.timeout + more_time)

    async def ask(
        self,
        method: str,
        name: str,
        headers: Mapping[str, str] | None = None,
        *,
        body: IBodyProducer | None = None,
        tally: Tally | None = None,
        success: Sequence[int] = SUCCESS,
        more_time: float = 0,
    ) -> Reply:
        """A request about a file whose answer is no file; raises Refusal. `tally` counts the body."""
        exchange = self.exchange(self.file(name), more_time)
        if tally is not None:
            tally.moved = exchange.stall.moved
        response = await exchange.begin(method, headers or {}, body)
        if response.code not in success:
            raise await exchange.refusal(response)
        return await exchange.whole(response)

    async def digest(self, name: str, mark: str = "", size: int = 0) -> bytes | None:
        """SHA-256 of a file as the server has it, of the version `mark` if given; None where it does not tell.

        Raises Refusal: 404, 412.
        """
        headers = {"Want-Repr-Digest": "sha-256=1"} | ({"If-Match": mark} if mark else {})
        exchange = self.exchange(self.file(name), size / _SLOW_DISK)
        response = await exchange.begin("HEAD", headers)
        if response.code not in SUCCESS:
            raise await exchange.refusal(response)
        reply = await exchange.whole(response)
        return read_digest(reply.field("Repr-Digest"))
