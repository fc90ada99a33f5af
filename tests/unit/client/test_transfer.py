"""Calls over HTTP: what fails, how it is said, and how much of a file is in memory."""

from __future__ import annotations

import gc
import io
import tracemalloc
from pathlib import Path
from typing import Any

from OpenSSL.SSL import Error as TLSError
from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import RequestGenerationFailed, ResponseNeverReceived
from twisted.web.server import NOT_DONE_YET, Request

from lgi.client.answers import AnswerMalformed, ServerRefused, ServerUnreachable
from lgi.client.transfer import Stall, explain, file_body, never_sent
from tests.unit.client import fakes
from tests.unit.client.fakes import STATE, SUBMIT, ServerTestCase


def failed(*reasons: Exception) -> ResponseNeverReceived:
    return ResponseNeverReceived([Failure(reason) for reason in reasons])


class Explain(SynchronousTestCase):
    def test_tls_goes_before_the_connection_it_ended(self) -> None:
        alert = TLSError([("SSL routines", "", "sslv3 alert certificate revoked")])
        self.assertIn("revoked", explain(failed(error.ConnectionLost(), alert)))
        self.assertTrue(never_sent(failed(error.ConnectionLost(), alert)))

    def test_every_kind_is_one_line(self) -> None:
        for problem, words in (
            (TLSError([("SSL routines", "", "certificate verify failed")]), "not of the authority"),
            (TLSError([("SSL routines", "", "something new")]), "something new"),
            (TLSError([]), "closed"),
            (error.ConnectionRefusedError(), "connection refused"),
            (error.DNSLookupError("no such host"), "not known"),
            (error.TimeoutError(), "in time"),
            (TimeoutError(), "in time"),
            (failed(error.ConnectionDone()), "before the answer"),
            (RequestGenerationFailed([Failure(OSError(5, "I/O error"))]), "I/O error"),
        ):
            self.assertIn(words, explain(problem))
            self.assertNotIn("\n", explain(problem))

    def test_what_may_have_been_received(self) -> None:
        self.assertFalse(never_sent(failed(error.ConnectionLost())))
        self.assertTrue(never_sent(error.ConnectionRefusedError()))


class StallTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.stall = Stall(self.clock, 60)
        self.aborted = 0

    def request(self) -> Deferred[str]:
        def abort(deferred: Deferred[str]) -> None:
            # As twisted.web does: who cancels is told of the connection that it cost.
            self.aborted += 1
            deferred.errback(failed(error.ConnectionAborted()))

        return Deferred(abort)

    def test_result(self) -> None:
        request = self.request()
        watched = Deferred.fromCoroutine(self.stall.watch(request))
        request.callback("answer")
        self.assertEqual(self.successResultOf(watched), "answer")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_failure(self) -> None:
        request = self.request()
        watched = Deferred.fromCoroutine(self.stall.watch(request))
        request.errback(ValueError("x"))
        self.failureResultOf(watched, ValueError)

    def test_moves_postpone_the_end(self) -> None:
        watched = Deferred.fromCoroutine(self.stall.watch(self.request()))
        for _ in range(5):
            self.clock.advance(59)
            self.stall.moved(1)
        self.assertNoResult(watched)
        self.clock.advance(60)
        self.failureResultOf(watched, TimeoutError)
        self.assertEqual(self.aborted, 1)

    def test_whoever_cancels_sees_that_he_did(self) -> None:
        watched = Deferred.fromCoroutine(self.stall.watch(self.request()))
        watched.cancel()
        self.failureResultOf(watched, CancelledError)
        self.assertEqual((self.aborted, self.clock.getDelayedCalls()), (1, []))


class Calls(ServerTestCase):
    async def expect(self, kind: type[Exception], pattern: str) -> Any:
        problem = await self.assertFailure(Deferred.fromCoroutine(self.user.job(7)), kind)
        self.assertRegex(str(problem), pattern)
        return problem

    async def test_posted_fields(self) -> None:
        self.fake.script[STATE] = [fakes.detail(7)]
        await self.user.job(7)
        fields = {"project": "LGI", "user": "mark@localhost", "groups": "theor", "job_id": "7"}
        self.assertEqual(self.fake.calls, [(STATE, fields)])

    async def test_wrong_job(self) -> None:
        self.fake.script[STATE] = [fakes.detail(6)]
        await self.expect(AnswerMalformed, "about job 6, not about job 7")

    async def test_page_of_something_else(self) -> None:
        self.fake.script[STATE] = [b"<html><body>It works!</body></html>"]
        await self.expect(AnswerMalformed, "not one of a project server")

    async def test_status_that_is_no_success(self) -> None:
        def broken(request: Request) -> bytes:
            request.setResponseCode(503)
            return b"<html>down</html>"

        self.fake.script[STATE] = [broken]
        self.assertTrue((await self.expect(ServerUnreachable, "HTTP status 503")).maybe_done)

    async def test_numbered_refusal_with_another_status(self) -> None:
        def too_big(request: Request) -> bytes:
            request.setResponseCode(413)
            return fakes.refusal(65)

        self.fake.script[STATE] = [too_big]
        self.assertEqual((await self.expect(ServerRefused, "error 65")).number, 65)

    async def test_redirection_is_not_followed(self) -> None:
        def elsewhere(request: Request) -> bytes:
            request.redirect(b"https://elsewhere.invalid/LGI")
            return b""

        self.fake.script[STATE] = [elsewhere]
        await self.expect(ServerUnreachable, "HTTP status 302")

    async def test_nothing_listens(self) -> None:
        await self.stop_listening()
        self.assertFalse((await self.expect(ServerUnreachable, "connection refused")).maybe_done)

    async def test_answer_cut_in_the_middle(self) -> None:
        self.fake.script[STATE] = [fakes.cut]
        self.assertTrue((await self.expect(ServerUnreachable, "closed before the answer")).maybe_done)

    async def test_silence(self) -> None:
        self.fake.script[STATE] = [fakes.never]
        try:
            await self.server.call(STATE, {}, timeout=0.05)
        except ServerUnreachable as problem:
            self.assertIn("no answer in time", str(problem))
        else:
            self.fail("an answer from nowhere")

    async def test_silence_in_the_middle_of_an_answer(self) -> None:
        def start(request: Request) -> Any:
            request.write(b"<LGI> ")
            return NOT_DONE_YET

        self.fake.script[STATE] = [start]
        try:
            await self.server.call(STATE, {}, timeout=0.05)
        except ServerUnreachable as problem:
            self.assertIn("no answer in time", str(problem))
        else:
            self.fail("an answer from nowhere")

    async def test_cancelling_is_not_an_outage(self) -> None:
        asked: Deferred[None] = Deferred()

        def silent(_request: Request) -> Any:
            asked.callback(None)
            return NOT_DONE_YET

        self.fake.script[STATE] = [silent]
        calling = Deferred.fromCoroutine(self.user.job(7))
        await asked
        calling.cancel()
        await self.assertFailure(calling, CancelledError)


class Uploads(ServerTestCase):
    async def test_files_go_with_the_job(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "a b.txt").write_bytes(b"contents of a")
        (folder / "big").write_bytes(bytes(300_000))
        self.fake.script[SUBMIT] = [fakes.submitted(12)]
        moved: list[int] = []
        found = await self.user.submit(
            application="hello_world",
            input=b"\x00\xff",
            uploads=[folder / "a b.txt", folder / "big"],
            progress=moved.append,
        )
        self.assertEqual(found.job.job_id, 12)
        [(_, fields)] = self.fake.calls
        self.assertEqual((fields["number_of_uploaded_files"], fields["input"]), ("2", "00ff"))
        self.assertEqual(fields["uploaded_file_1"], "contents of a")
        self.assertIn(b'name="uploaded_file_1"; filename="a b.txt"', self.fake.bodies[0])
        self.assertEqual(len(fields["uploaded_file_2"]), 300_000)
        self.assertEqual(sum(moved), 13 + 300_000)

    async def test_file_that_cannot_be_read_is_not_an_outage(self) -> None:
        try:
            await self.user.submit(application="x", uploads=[Path(self.mktemp())])
        except FileNotFoundError:
            self.assertEqual(self.fake.seen, [])
        else:
            self.fail("sent from nowhere")

    def test_a_big_file_is_never_in_memory(self) -> None:
        path = Path(self.mktemp())
        with path.open("wb") as sparse:
            sparse.truncate(64 << 20)

        class Sink:
            received = 0

            def write(self, data: bytes) -> None:
                self.received += len(data)

        pieces: list[int] = []
        sink = Sink()
        with path.open("rb") as stream:
            body = file_body(stream, pieces.append)
            self.assertEqual(body.length, 64 << 20)
            gc.collect()
            tracemalloc.start()
            self.addCleanup(tracemalloc.stop)
            for _ in body._writeloop(sink):
                pass
            _, peak = tracemalloc.get_traced_memory()
        self.assertEqual((sink.received, sum(pieces)), (64 << 20, 64 << 20))
        self.assertLess(max(pieces), 1 << 20)
        self.assertLess(peak, 2 << 20)

    def test_progress_counts_what_is_read(self) -> None:
        seen: list[int] = []
        body = file_body(io.BytesIO(bytes(10)), seen.append)
        self.assertEqual(body.length, 10)
