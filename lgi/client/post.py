"""One call of a project server: a form posted over mutual TLS, and the answer's `<response>`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import treq
from lxml import etree
from OpenSSL.SSL import Error as TLSError
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, TimeoutError
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.web.client import Agent, HTTPConnectionPool, ResponseFailed, ResponseNeverReceived
from twisted.web.iweb import IPolicyForHTTPS

from lgi.client.answers import ServerUnreachable, read_response

# The server holds a call on a locked job for up to 30 seconds before it answers.
CALL_TIMEOUT = 60.0
CONNECT_TIMEOUT = 15.0
KEEP_ALIVE = 10

TRANSPORT_FAILURES = (
    ConnectError,
    ConnectionClosed,
    ResponseFailed,
    ResponseNeverReceived,
    TLSError,
    CancelledError,
    TimeoutError,
    OSError,
)


def connect(reactor: Any, policy: IPolicyForHTTPS) -> tuple[HTTPClient, HTTPConnectionPool]:
    """An HTTP client that keeps its connections alive; close it with `await pool.closeCachedConnections()`."""
    pool = HTTPConnectionPool(reactor, persistent=True)  # type: ignore[no-untyped-call]
    # Well below the time after which servers close an idle connection: a post that meets such a close cannot be sent
    # again, as nobody knows whether it arrived.
    pool.cachedConnectionTimeout = KEEP_ALIVE
    agent = Agent(reactor, contextFactory=policy, connectTimeout=CONNECT_TIMEOUT, pool=pool)  # type: ignore[no-untyped-call]
    return HTTPClient(agent), pool  # type: ignore[arg-type]


def explain(problem: BaseException) -> str:
    """One line for people about why a connection or request failed."""
    reasons = getattr(problem, "reasons", None)
    if reasons:
        return explain(reasons[0].value)
    if isinstance(problem, (CancelledError, TimeoutError)):
        return "no answer in time"
    if isinstance(problem, TLSError):
        details = [": ".join(part for part in item if part) for item in (problem.args[0] if problem.args else [])]
        return "TLS: " + ("; ".join(details) or "the connection was closed")
    return str(problem) or type(problem).__name__


def _without_slash(url: str) -> str:
    return url.rstrip("/")


@attrs.frozen(kw_only=True)
class Server:
    """A project server as seen from a client: its URL without a trailing slash, and the project."""

    http: HTTPClient
    reactor: Any
    url: str = attrs.field(converter=_without_slash)
    project: str

    async def call(
        self, path: str, fields: Mapping[str, str | int], uploads: Sequence[Path] = (), timeout: float = CALL_TIMEOUT
    ) -> etree._Element:
        """Post `fields` and `uploads` to `path` (such as `interfaces/interface_job_state.php`).

        Returns the `<response>` element. Raises ServerRefused, ServerUnreachable or AnswerMalformed; OSError when a
        file to upload cannot be read. `timeout` is in seconds and counts until the answer begins, uploads excepted.
        """
        data = {"project": self.project} | {name: str(value) for name, value in fields.items()}
        files: list[tuple[str, tuple[str, str, Any]]] = []
        opened = []
        try:
            for number, upload in enumerate(uploads, start=1):
                stream = upload.open("rb")
                opened.append(stream)
                files.append((f"uploaded_file_{number}", (upload.name, "application/octet-stream", stream)))
            if files:
                data["number_of_uploaded_files"] = str(len(files))
            try:
                response = await self.http.post(
                    f"{self.url}/{path}",
                    data=list(data.items()),
                    files=files or None,
                    timeout=None if uploads else timeout,
                    reactor=self.reactor,
                )
                body = await treq.content(response)
            except TRANSPORT_FAILURES as problem:
                raise ServerUnreachable(f"{self.url}: {explain(problem)}") from problem
        finally:
            for stream in opened:
                stream.close()
        if response.code != 200:
            raise ServerUnreachable(f"{self.url}: HTTP status {response.code}")
        return read_response(body)
