"""Connections that are made anew with another certificate, against a server that asks for one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import treq
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import SSL4ServerEndpoint
from twisted.internet.task import LoopingCall
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from lgi.ca import CertificateAuthority
from lgi.client.answers import AnswerMalformed, ServerUnreachable
from lgi.client.post import Server
from lgi.daemon.connections import Connections
from lgi.tls import ClientPolicy, load_credentials, peer_certificate, server_context_factory


class _WhoAreYou(Resource):
    """Answers with the serial number of the caller's certificate and the number of his connection's port."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.asked: Deferred[None] | None = None
        self.hold: Deferred[None] | None = None

    def render_POST(self, request: Any) -> Any:
        certificate = peer_certificate(request.transport)
        assert certificate is not None
        answer = f"{certificate.serial_number} {request.getClientAddress().port}".encode()
        if self.hold is None:
            return answer
        assert self.asked is not None
        self.asked.callback(None)
        hold, self.hold = self.hold, None
        hold.addCallback(lambda _: (request.write(answer), request.finish()))
        return NOT_DONE_YET


class _Liar(Resource):
    """Answers what no server should."""

    def __init__(self) -> None:
        super().__init__()
        self.gone: Deferred[None] = Deferred()

    def getChild(self, path: bytes, request: Any) -> Resource:
        return self

    def render_POST(self, request: Any) -> Any:
        kind = request.path.rpartition(b"/")[2]
        if kind == b"page":
            return b"<html><body>Welcome</body></html>"
        if kind == b"half":
            request.setHeader("Content-Length", "1000")
            request.write(b"<LGI> <response> <job>")
            request.channel.transport.abortConnection()
            return NOT_DONE_YET
        if kind == b"short":
            return b"<LGI> <response> <job> <job_id> 12 </job_id>"
        if kind == b"nothing":
            return b""
        stream = LoopingCall(request.write, b"<LGI> " * 4096)
        stream.start(0)

        def end(_: object) -> None:
            stream.stop()
            self.gone.callback(None)

        request.notifyFinish().addBoth(end)
        return NOT_DONE_YET


class ConnectionsTests(TestCase):
    timeout = 20

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.authority = CertificateAuthority.create(self.directory / "ca", organisation="Test")
        (self.directory / "ca.crt").write_bytes(self.authority.certificate_pem)
        self.write("server", self.authority.issue_server("localhost", hosts=("localhost",)))
        credentials = load_credentials(self.directory / "server.crt", self.directory / "server.key")
        factory = server_context_factory(credentials, self.directory / "ca.crt")
        self.resource, self.liar = _WhoAreYou(), _Liar()
        site = Site(Resource())
        site.resource.putChild(b"", self.resource)
        site.resource.putChild(b"lies", self.liar)
        port = await SSL4ServerEndpoint(reactor, 0, factory, interface="127.0.0.1").listen(site)
        self.addCleanup(port.stopListening)
        self.url = f"https://localhost:{port.getHost().port}/"
        self.first, policy = self.certificate("one")
        self.connections = Connections(reactor, policy)

    async def tearDown(self) -> None:  # type: ignore[override]
        await self.connections.close()

    def write(self, name: str, issued: Any) -> None:
        (self.directory / f"{name}.crt").write_bytes(issued.certificate_pem)
        (self.directory / f"{name}.key").write_bytes(issued.key_pem)
        (self.directory / f"{name}.key").chmod(0o600)

    def certificate(self, name: str) -> tuple[int, ClientPolicy]:
        issued = self.authority.issue_resource("here@example", projects=("LGI",))
        self.write(name, issued)
        credentials = load_credentials(self.directory / f"{name}.crt", self.directory / f"{name}.key")
        return issued.serial, ClientPolicy(credentials, self.directory / "ca.crt")

    async def ask(self) -> tuple[int, int]:
        response = await self.connections.post(self.url, data=b"")
        serial, port = (await treq.content(response)).split()
        return int(serial), int(port)

    async def test_kept_alive(self) -> None:
        first = await self.ask()
        self.assertEqual(first[0], self.first)
        self.assertEqual(await self.ask(), first)

    async def test_made_anew_with_the_new_certificate(self) -> None:
        await self.ask()
        second, policy = self.certificate("two")
        await self.connections.renew(policy)
        found = await self.ask()
        self.assertEqual(found[0], second)
        self.assertEqual(await self.ask(), found)

    async def test_what_is_under_way_ends_as_it_began(self) -> None:
        asked: Deferred[None] = Deferred()
        hold: Deferred[None] = Deferred()
        self.resource.asked, self.resource.hold = asked, hold
        answer = Deferred.fromCoroutine(self.ask())
        await asked
        second, policy = self.certificate("two")
        await self.connections.renew(policy)
        self.assertEqual((await self.ask())[0], second)
        hold.callback(None)
        self.assertEqual((await answer)[0], self.first)
        self.assertEqual((await self.ask())[0], second)

    async def test_answers_that_are_none(self) -> None:
        http: Any = self.connections
        server = Server(http=http, reactor=reactor, url=f"{self.url}lies", project="LGI", largest=1 << 20)
        for kind, error in (
            ("page", AnswerMalformed),
            ("short", AnswerMalformed),
            ("nothing", AnswerMalformed),
            ("endless", AnswerMalformed),
            ("half", ServerUnreachable),
        ):
            await self.assertFailure(Deferred.fromCoroutine(server.call(kind, {})), error)
        await self.liar.gone
        self.assertEqual((await self.ask())[0], self.first, "and everything goes on")
