"""One call of a project server: a form posted over mutual TLS, and the answer's `<response>`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import attrs
from lxml import etree
from treq.client import HTTPClient
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.web.client import URI, Agent, HTTPConnectionPool, _HTTP11ClientFactory
from twisted.web.error import SchemeNotSupported
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import implementer

from lgi.client.answers import AnswerMalformed, ServerUnreachable, read_response
from lgi.client.sending import Bytes
from lgi.client.transfer import (
    TRANSPORT_FAILURES,
    Progress,
    Stall,
    explain,
    file_body,
    never_sent,
    no_progress,
    read_body,
    will_last,
)

__all__ = ["CALL_TIMEOUT", "TRANSPORT_FAILURES", "Server", "connect", "explain"]

# The server holds a call on a locked job for up to 30 seconds before it answers.
CALL_TIMEOUT = 60.0
CONNECT_TIMEOUT = 15.0
KEEP_ALIVE = 10
CONNECTIONS = 4  # used at once by clients that ask one server about several jobs
_PASSING = (408, 425, 429)  # of the statuses that put the blame on us, those that time may mend
KEPT = 16  # at most to one server, as many as files go over at once


Upload = Path | tuple[str, Path]
"""A file to send under its own name, or under another, which may be a relative path."""


class _QuietFactory(_HTTP11ClientFactory):
    """Of connections that need no line in a log each time they are opened and closed."""

    noisy = False


class Client(HTTPClient):
    """treq's client, and the agent beneath, for files: nothing of theirs is to be unpacked, or redirected."""

    def __init__(self, agent: Agent) -> None:
        super().__init__(agent)
        self.agent = agent

    def post(self, url: str, data: Any = None, **options: Any) -> Any:  # type: ignore[override]  # as it is used here
        """As treq's; a form without files goes to the agent at once, which costs half as much."""
        if options.get("files") or not url.isascii():
            return super().post(url, data=data, **options)
        headers = Headers({b"Content-Type": [b"application/x-www-form-urlencoded"]})
        return self.agent.request(b"POST", url.encode(), headers, Bytes(urlencode(data).encode()))


@implementer(IAgentEndpointFactory)
class _Endpoints:
    """Ways to servers, each made once: looking at the name of a host takes as long as reading a short answer."""

    def __init__(self, reactor: Any, policy: IPolicyForHTTPS) -> None:
        self._reactor = reactor
        self._policy = policy
        self._made: dict[tuple[bytes, bytes, int], Any] = {}

    def endpointForURI(self, uri: URI) -> Any:
        """The endpoint; raises SchemeNotSupported."""
        key = (uri.scheme, uri.host, uri.port)
        if key not in self._made:
            self._made[key] = self._endpoint(*key)
        return self._made[key]

    def _endpoint(self, scheme: bytes, host: bytes, port: int) -> Any:
        if scheme not in (b"http", b"https"):
            raise SchemeNotSupported(f"{scheme.decode('ascii', 'replace')}: is not https")
        endpoint = HostnameEndpoint(self._reactor, host, port, timeout=CONNECT_TIMEOUT)
        return wrapClientTLS(self._policy.creatorForNetloc(host, port), endpoint) if scheme == b"https" else endpoint


def connect(reactor: Any, policy: IPolicyForHTTPS) -> tuple[Client, HTTPConnectionPool]:
    """An HTTP client that keeps its connections alive; close it with `await pool.closeCachedConnections()`."""
    pool = HTTPConnectionPool(reactor, persistent=True)
    pool._factory = _QuietFactory
    # Well below the time after which servers close an idle connection: a post that meets such a close cannot be sent
    # again, as nobody knows whether it arrived.
    pool.cachedConnectionTimeout = KEEP_ALIVE
    pool.maxPersistentPerHost = KEPT
    agent = Agent.usingEndpointFactory(reactor, _Endpoints(reactor, policy), pool=pool)
    return Client(agent), pool


def _without_slash(url: str) -> str:
    return url.rstrip("/")


@attrs.frozen(kw_only=True)
class Server:
    """A project server as seen from a client: its URL without a trailing slash, and the project.

    An answer of more than `largest` bytes is not read to its end.
    """

    http: HTTPClient
    reactor: Any
    url: str = attrs.field(converter=_without_slash)
    project: str
    largest: int = 1 << 30

    async def call(
        self,
        path: str,
        fields: Mapping[str, str | int],
        uploads: Sequence[Upload] = (),
        timeout: float = CALL_TIMEOUT,
        progress: Progress = no_progress,
    ) -> etree._Element:
        """Post `fields` and `uploads` to `path` (such as `interfaces/interface_job_state.php`).

        Returns the `<response>` element. Raises ServerRefused, ServerUnreachable or AnswerMalformed; OSError when a
        file to upload cannot be read. `timeout` is the time in seconds in which nothing is sent or received.
        """
        return _read(*await self._post(path, fields, uploads, timeout, progress), self.url)

    async def answer(self, path: str, fields: Mapping[str, str | int], uploads: Sequence[Upload] = ()) -> bytes:
        """The whole answer that `call` would have read, as it came; raises what `call` raises."""
        body, code = await self._post(path, fields, uploads, CALL_TIMEOUT, no_progress)
        _read(body, code, self.url)
        return body

    async def _post(
        self,
        path: str,
        fields: Mapping[str, str | int],
        uploads: Sequence[Upload],
        timeout: float,
        progress: Progress,
    ) -> tuple[bytes, int]:
        """The body and the HTTP status of the answer to a form; without a project, the server's only one is meant."""
        data = {"project": self.project} if self.project else {}
        data |= {name: str(value) for name, value in fields.items()}
        stall = Stall(self.reactor, timeout)
        files: list[tuple[str, tuple[str, str, Any]]] = []
        opened = []
        body = bytearray()

        def sent(size: int) -> None:
            stall.moved()
            progress(size)

        def received(piece: bytes) -> None:
            stall.moved()
            if len(body) + len(piece) > self.largest:
                raise AnswerMalformed(f"the server's answer has more than {self.largest} bytes")
            body.extend(piece)

        try:
            for number, upload in enumerate(uploads, start=1):
                name, file = (upload.name, upload) if isinstance(upload, Path) else upload
                stream = file.open("rb")
                opened.append(stream)
                part = (name, "application/octet-stream", file_body(stream, sent))
                files.append((f"uploaded_file_{number}", part))
            if files:
                data["number_of_uploaded_files"] = str(len(files))
            try:
                response = await stall.watch(
                    self.http.post(
                        f"{self.url}/{path}",
                        data=list(data.items()),
                        files=files or None,
                        allow_redirects=False,
                        unbuffered=True,
                        reactor=self.reactor,
                    )
                )
                with suppress(PotentialDataLoss):  # an answer ends with its closing tag, which is looked for
                    await stall.watch(read_body(response, received))
            except TRANSPORT_FAILURES as problem:
                raise ServerUnreachable(
                    f"{self.url}: {explain(problem)}",
                    maybe_done=not never_sent(problem),
                    lasting=will_last(problem),
                ) from problem
        finally:
            for stream in opened:
                stream.close()
        return bytes(body), response.code


def _read(body: bytes, code: int, url: str) -> etree._Element:
    try:
        return read_response(body)
    except AnswerMalformed:
        if code != 200:
            raise ServerUnreachable(
                f"{url}: HTTP status {code}", maybe_done=code >= 500, lasting=code < 500 and code not in _PASSING
            ) from None
        raise
