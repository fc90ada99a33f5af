"""The list of a repository's files as the server sends it, hidden files and all."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from treq.client import HTTPClient
from twisted.web.http import PotentialDataLoss

from lgi.client.answers import AnswerMalformed, ServerRefused, ServerUnreachable, read_whole
from lgi.client.post import CALL_TIMEOUT
from lgi.client.transfer import TRANSPORT_FAILURES, Stall, explain, read_body
from lgi.wire.dialect import text_of

_LARGEST = 1 << 28  # bytes


def listing_address(url: str) -> str:
    """Where the server lists the repository at `url`: …/repository/<digits>/JOB_x, or without the digits."""
    base, found, _ = url.rpartition("/repository/")
    return f"{base}{found}repository_content.php" if found else f"{url.rpartition('/')[0]}/repository_content.php"


async def content_of_repository(http: HTTPClient, reactor: Any, url: str) -> bytes:
    """The answer that lists the repository; raises ServerUnreachable, ServerRefused or AnswerMalformed."""
    name = urlsplit(url).path.rpartition("/")[2]
    stall = Stall(reactor, CALL_TIMEOUT)
    body = bytearray()

    def received(piece: bytes) -> None:
        stall.moved()
        if len(body) + len(piece) > _LARGEST:
            raise AnswerMalformed(f"the server's list has more than {_LARGEST} bytes")
        body.extend(piece)

    try:
        request = http.get(
            listing_address(url),
            params={"repository": name},
            allow_redirects=False,
            unbuffered=True,
            reactor=reactor,
        )
        response = await stall.watch(request)
        with suppress(PotentialDataLoss):  # a list ends with its closing tag, which is looked for
            await stall.watch(read_body(response, received))
    except TRANSPORT_FAILURES as problem:
        raise ServerUnreachable(f"{url}: {explain(problem)}") from problem
    if response.code != 200:
        raise ServerRefused(response.code, _reason(bytes(body)) or f"HTTP status {response.code}")
    return bytes(body)


def _reason(body: bytes) -> str:
    try:
        return text_of(read_whole(body, "status"), "message")
    except AnswerMalformed:
        return ""
