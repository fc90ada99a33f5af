"""From requests to handlers and back, when a handler waits, fails or is left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lgi.errors import ErrorNumber, LGIError
from lgi.httpd.peer import Caller
from lgi.httpd.router import Call, Router, shielded
from lgi.httpd.site import FRESH, BodyLimits, Site
from lgi.httpd.spool import Spool
from lgi.identity import Identity
from lgi.wire.answers import Envelope
from tests.http.memory import Answer, MemoryServer, Transport, multipart

CALLER = Caller(identity=Identity(name="mark"), certificate="")
UPLOAD = [("f", b"x" * 1000)]


class RouterTests(SynchronousTestCase):
    """A router of one call, whose handler answers when a test says so."""

    def setUp(self) -> None:
        self.refusal: LGIError | None = None
        self.handled: list[Call] = []
        self.answers: list[Deferred[str]] = []
        self.directory = Path(self.mktemp()).absolute()
        spool = Spool(self.directory)
        spool.prepare()
        self.router = Router(
            envelope=Envelope(lgi_version="2", ca_certificate_url=""),
            max_requests=2,
            back_off=5,
        )
        self.router.add("/call", self.handle)
        self.site = Site(
            self.router,
            identify=self.identify,
            drain=self.router.drain,
            spool=spool,
            limits=BodyLimits(request=1 << 20, file=1 << 20),
            too_big=b"",
            reactor=Clock(),
            idle_timeout=60,
        )
        self.site.doStart()
        self.addCleanup(self.site.doStop)

    def identify(self, _transport: object) -> Caller:
        if self.refusal is not None:
            raise self.refusal
        return CALLER

    async def handle(self, call: Call) -> str:
        self.handled.append(call)
        answer: Deferred[str] = Deferred()
        self.answers.append(answer)
        return await answer

    def begin(self, cut: int | None = None) -> tuple[Any, Transport]:
        """Post a form with a file, the first `cut` bytes of it."""
        kind, body = multipart({"a": "1"}, UPLOAD)
        head = f"POST /call HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        transport = Transport("mark")
        protocol: Any = self.site.buildProtocol(transport.getPeer())
        protocol.makeConnection(transport)
        protocol.dataReceived((head.encode() + body)[:cut])
        return protocol, transport

    def answer_of(self, transport: Transport) -> Answer:
        answer: Answer = self.successResultOf(transport.answered)
        return answer

    def spooled(self) -> int:
        return len(list(self.directory.iterdir()))

    def test_answer(self) -> None:
        """Its content in the envelope; its files are there until then, and not after."""
        _protocol, transport = self.begin()
        (call,) = self.handled
        self.assertEqual((call.caller, call.fields.short("a"), call.uploads[0].filename), (CALLER, "1", "f"))
        self.assertEqual(self.spooled(), 1)
        self.assertNoResult(transport.answered)
        self.answers[0].callback("<x> y </x>")
        answer = self.answer_of(transport)
        self.assertEqual((answer.code, answer.value("x")), (200, "y"))
        self.assertEqual(answer.headers["content-length"], str(len(answer.body)))
        self.assertEqual(self.spooled(), 0)

    def test_expected_failure(self) -> None:
        _protocol, transport = self.begin()
        self.answers[0].errback(LGIError(ErrorNumber.JOB_UNKNOWN, "<7>"))
        answer = self.answer_of(transport)
        self.assertEqual((answer.code, answer.number()), (200, 15))
        self.assertIn("&lt;7&gt;", answer.value("message"))
        self.assertEqual((self.flushLoggedErrors(), self.spooled()), ([], 0))

    def test_unexpected_failure(self) -> None:
        """Logged with its traceback, answered blandly, and never as a back-off: it may have been done."""
        _protocol, transport = self.begin()
        self.answers[0].errback(ZeroDivisionError("secret"))
        answer = self.answer_of(transport)
        self.assertEqual((answer.code, answer.number()), (500, 3))
        self.assertNotIn("<timeout>", answer.text)
        self.assertNotIn("secret", answer.text)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.spooled(), 0)

    def test_client_that_hangs_up(self) -> None:
        """What has begun is carried through, with its files, whatever becomes of it."""
        for result in ("<x> y </x>", LGIError(ErrorNumber.JOB_UNKNOWN)):
            protocol, transport = self.begin()
            MemoryServer.hang_up(protocol)
            self.assertEqual(self.spooled(), 1)
            if isinstance(result, str):
                self.answers.pop().callback(result)
            else:
                self.answers.pop().errback(result)
            self.assertEqual((self.spooled(), transport.value()), (0, b""))
            self.assertEqual(self.flushLoggedErrors(), [])
        protocol, _transport = self.begin()
        MemoryServer.hang_up(protocol)
        self.answers.pop().errback(ZeroDivisionError())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_half_a_request(self) -> None:
        protocol, _transport = self.begin(-500)
        self.assertEqual(self.spooled(), 1)
        MemoryServer.hang_up(protocol)
        self.assertEqual((self.spooled(), self.handled), (0, []))

    def test_refused_caller(self) -> None:
        """Nothing of what he sends is stored, not even while it comes."""
        self.refusal = LGIError(ErrorNumber.CERTIFICATE_REFUSED)
        protocol, transport = self.begin(-500)
        self.assertEqual(self.spooled(), 0)
        protocol.dataReceived(multipart({"a": "1"}, UPLOAD)[1][-500:])
        self.assertEqual((self.answer_of(transport).number(), self.handled), (2, []))

    def test_refused_in_between(self) -> None:
        """Revoked while his request came: what has come is dropped."""
        protocol, transport = self.begin(-500)
        self.refusal = LGIError(ErrorNumber.CERTIFICATE_REFUSED)
        clock = self.site.clock
        self.site.clock = lambda: clock() + 2 * FRESH
        protocol.dataReceived(multipart({"a": "1"}, UPLOAD)[1][-500:])
        self.assertEqual((self.answer_of(transport).number(), self.handled), (2, []))
        self.assertEqual(self.spooled(), 0)

    def test_overload(self) -> None:
        transports = [self.begin()[1] for _ in range(3)]
        answer = self.answer_of(transports[2])
        self.assertEqual((answer.code, answer.number(), answer.value("timeout")), (200, 1, "5"))
        self.assertEqual((len(self.handled), self.spooled()), (2, 2))
        self.answers[0].callback("")
        _protocol, again = self.begin()
        self.assertNoResult(again.answered)
        self.assertEqual(len(self.handled), 3)

    def test_drain(self) -> None:
        """Over when all are answered; whoever comes now is told to come back."""
        first, second = self.begin()[1], self.begin()[1]
        drained = Deferred.fromCoroutine(self.router.drain())
        self.assertEqual(self.answer_of(self.begin()[1]).number(), 1)
        self.answers[0].callback("")
        self.assertNoResult(drained)
        self.answers[1].errback(ZeroDivisionError())
        self.successResultOf(drained)
        self.assertEqual((self.answer_of(first).code, self.answer_of(second).code), (200, 500))
        self.flushLoggedErrors(ZeroDivisionError)
        self.assertEqual(self.answer_of(self.begin()[1]).number(), 1)
        self.assertEqual(len(self.handled), 2)

    def test_drain_of_nothing(self) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.router.drain()))

    def test_too_big(self) -> None:
        """A client that is told so, and goes on sending all the same, is cut off in the end."""
        clock: Any = self.site.reactor
        transport = Transport("mark")
        protocol: Any = self.site.buildProtocol(transport.getPeer())
        protocol.makeConnection(transport)
        protocol.dataReceived(b"PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n")
        self.assertEqual(self.answer_of(transport).code, 413)
        for _ in range(20):
            protocol.dataReceived(b"x" * 1000)
            clock.advance(3.1)
        self.assertEqual((self.spooled(), transport.value().count(b"HTTP/1.1")), (0, 1))
        clock.advance(20)
        self.assertTrue(transport.disconnected)
        MemoryServer.hang_up(protocol)
        self.assertEqual(clock.getDelayedCalls()[1:], [])

    def test_too_big_and_here(self) -> None:
        """A request that is too big and has come in one go is answered once."""
        transport = Transport("mark")
        protocol: Any = self.site.buildProtocol(transport.getPeer())
        protocol.makeConnection(transport)
        size = (1 << 20) + 1
        protocol.dataReceived(b"PUT /call HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
        self.assertEqual(transport.value().count(b"HTTP/1.1"), 1)
        MemoryServer.hang_up(protocol)

    def test_idle(self) -> None:
        """Who sends nothing more is not waited for; who waits for an answer is."""
        clock: Any = self.site.reactor
        _protocol, half = self.begin(-500)
        _protocol, whole = self.begin()
        clock.advance(61)
        self.assertTrue(half.disconnecting)
        self.assertFalse(whole.disconnecting)

    def trickle(self, data: bytes, piece: int, seconds: float) -> tuple[Any, Transport]:
        """Send a request in pieces, one in so many seconds."""
        clock: Any = self.site.reactor
        transport = Transport("mark")
        protocol: Any = self.site.buildProtocol(transport.getPeer())
        protocol.makeConnection(transport)
        for start in range(0, len(data), piece):
            protocol.dataReceived(data[start : start + piece])
            clock.advance(seconds)
        return protocol, transport

    def test_slow(self) -> None:
        """Who is never idle for long is waited for as long as he is not idle all the time."""
        kind, body = multipart({"a": "1"}, [("f", b"x" * 200_000)])
        head = (
            f"POST /call HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        )
        # Headers in 600 seconds, then a body at 100 bytes a second.
        for data, piece, seconds in ((head, max(1, len(head) // 20), 30), (head + body, 3_000, 30)):
            protocol, transport = self.trickle(data, piece, seconds)
            self.assertTrue(transport.disconnected, piece)
            self.assertEqual(transport.value(), b"")
            MemoryServer.hang_up(protocol)
            self.assertEqual((self.spooled(), self.handled), (0, []))
        # A body at 2,000 bytes a second, and a form that the server takes long to answer.
        protocol, transport = self.trickle(head + body, 20_000, 10)
        self.assertEqual((len(self.handled), transport.disconnecting), (1, False))
        clock: Any = self.site.reactor
        clock.advance(1000)
        self.answers[0].callback("<x> y </x>")
        self.assertEqual(self.answer_of(transport).value("x"), "y")
        # The next request on the connection has its own time.
        clock.advance(50)
        protocol.dataReceived(b"GET /x HTTP/1.1\r\n")
        clock.advance(50)
        protocol.dataReceived(b"Host: x\r\n\r\n")
        self.assertEqual(transport.value().count(b"HTTP/1.1"), 2)
        self.assertFalse(transport.disconnecting or transport.disconnected)
        MemoryServer.hang_up(protocol)

    def test_closing(self) -> None:
        """Who was answered for the last time, and does not close, is cut off."""
        clock: Any = self.site.reactor
        for request in (b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"x" * 20_000, b"x\r\n"):
            transport = Transport("mark")
            protocol: Any = self.site.buildProtocol(transport.getPeer())
            protocol.makeConnection(transport)
            protocol.dataReceived(request)
            self.assertTrue(transport.disconnecting)
            for _ in range(12):
                protocol.dataReceived(b"x")
                clock.advance(6)
            self.assertTrue(transport.disconnected, request[:9])
            MemoryServer.hang_up(protocol)


class ShieldTests(SynchronousTestCase):
    """What is carried through though nobody waits any more."""

    def test_cancelled(self) -> None:
        inner: Deferred[int] = Deferred()
        done: list[int] = []

        async def work() -> int:
            done.append(await inner)
            return done[0]

        outer = shielded(work())
        outer.cancel()
        self.failureResultOf(outer, CancelledError)
        inner.callback(3)
        self.assertEqual(done, [3])

    def test_cancelled_and_failed(self) -> None:
        inner: Deferred[int] = Deferred()

        async def work() -> int:
            return await inner

        outer = shielded(work())
        outer.cancel()
        self.failureResultOf(outer, CancelledError)
        inner.errback(ZeroDivisionError())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_result(self) -> None:
        async def work() -> int:
            return 4

        self.assertEqual(self.successResultOf(shielded(work())), 4)
