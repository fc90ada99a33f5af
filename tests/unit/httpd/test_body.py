"""Bodies of requests: taken apart as they come, in any pieces, files never in memory."""

from __future__ import annotations

import hashlib
import os
import tracemalloc
from pathlib import Path
from urllib.parse import quote_from_bytes, quote_plus

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from lgi.errors import ErrorNumber, LGIError
from lgi.httpd.body import (
    MAX_FIELDS_SIZE,
    FormBody,
    MultipartBody,
    RefusedBody,
    UrlencodedBody,
    boundary_of,
)
from lgi.httpd.filebody import FileBody
from lgi.httpd.spool import Spool
from lgi.wire.fields import RECEIVED_MAXIMUM
from tests.http.memory import FullSpool

BOUNDARY = b"--7dd@$_23"
MIB = 1 << 20

field_names = st.text(st.characters(min_codepoint=32, exclude_characters='"\\%\x7f', codec="utf-8"), max_size=20)
# What looks like a delimiter, wholly or in part, is what a parser has to get right.
pieces = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([b"\r", b"\n", b"\r\n", b"--", b"\r\n--", b"\r\n--" + BOUNDARY[:-1], BOUNDARY[:-1], BOUNDARY]),
)
contents = (
    st.lists(pieces, max_size=6)
    .map(b"".join)
    .filter(lambda data: b"\r\n--" + BOUNDARY not in b"\r\n" + data + b"\r\n")
)


def parts(fields: list[tuple[str, bytes]], files: list[tuple[str, bytes]]) -> bytes:
    written = [
        f'--{BOUNDARY.decode()}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + data + b"\r\n"
        for name, data in fields
    ] + [
        f'--{BOUNDARY.decode()}\r\nContent-Disposition: form-data; name="uploaded_file_{number}"; '
        f'filename="{name}"\r\nContent-Type: application/octet-stream\r\n\r\n'.encode()
        + data
        + b"\r\n"
        for number, (name, data) in enumerate(files, start=1)
    ]
    return b"".join(written) + b"--" + BOUNDARY + b"--\r\n"


class BodyCase(TestCase):
    """A spool, and what is in it."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.spool = Spool(self.directory)
        self.spool.prepare()

    def spooled(self) -> list[Path]:
        return list(self.directory.iterdir())

    def multipart(self, *, maximum: int = 1 << 40, file: int = 1 << 40) -> MultipartBody:
        return MultipartBody(self.spool, maximum, file, BOUNDARY)

    def files(self, body: FormBody) -> list[tuple[str, bytes]]:
        """The files of a form, which are taken, read and dropped."""
        found = []
        for number, upload in enumerate(body.take_uploads()):
            target = self.directory.parent / f"{self.directory.name}-{number}"
            size = upload.file.size
            upload.file.keep(target)
            found.append((upload.filename, target.read_bytes()))
            self.assertEqual(size, len(found[-1][1]))
            target.unlink()
        return found

    def failure(self, body: FormBody) -> ErrorNumber:
        number: ErrorNumber = self.assertRaises(LGIError, body.finish).number
        return number


class MultipartTests(BodyCase):
    """multipart/form-data."""

    @settings(max_examples=150, deadline=None)
    @given(
        fields=st.lists(st.tuples(field_names, contents), max_size=4),
        files=st.lists(st.tuples(field_names, contents), max_size=3),
        cuts=st.lists(st.integers(1, 70), min_size=1, max_size=8),
    )
    def test_round_trip(
        self, fields: list[tuple[str, bytes]], files: list[tuple[str, bytes]], cuts: list[int]
    ) -> None:
        """Whatever is written comes out, in whatever pieces it arrives."""
        whole = parts(fields, files)
        body = self.multipart()
        position = turn = 0
        while position < len(whole):
            size = cuts[turn % len(cuts)]
            body.write(whole[position : position + size])
            position, turn = position + size, turn + 1
        body.finish()
        self.assertEqual(body.fields, dict(fields))
        self.assertEqual(self.files(body), files)
        body.close()
        self.assertEqual(self.spooled(), [])

    def test_byte_by_byte(self) -> None:
        data = bytes(range(256)) + b"\r\n--" + BOUNDARY[:-1] + b"\r\r\n-"
        whole = b"preamble\r\n" + parts([("a", data), ("b", b"")], [("f", data), ("empty", b"")]) + b"epilogue"
        body = self.multipart()
        for number in range(len(whole)):
            body.write(whole[number : number + 1])
        body.finish()
        self.assertEqual(body.fields, {"a": data, "b": b""})
        self.assertEqual(self.files(body), [("f", data), ("empty", b"")])

    @settings(max_examples=300, deadline=None)
    @given(
        st.lists(
            st.one_of(
                st.binary(max_size=40),
                st.sampled_from(
                    [
                        b"--" + BOUNDARY + b"\r\n",
                        b"--" + BOUNDARY + b"--",
                        b'Content-Disposition: form-data; name="uploaded_file_1"; filename="a"\r\n',
                        b'Content-Disposition: form-data; name="a"\r\n',
                        b"Content-Disposition: form-data; name*=utf-8''a%ff; filename*=x\r\n",
                        b"Content-Length: 3\r\n",
                        b" continued\r\n",
                        b"\r\n",
                    ]
                ),
            ),
            max_size=12,
        )
    )
    def test_anything(self, chunks: list[bytes]) -> None:
        """No bytes at all do more than be refused, and nothing is left of them."""
        body = self.multipart()
        for chunk in chunks:
            body.write(chunk)
        try:
            body.finish()
        except LGIError as problem:
            self.assertEqual(problem.number, ErrorNumber.UPLOAD_FAILED)
        body.close()
        self.assertEqual(self.spooled(), [])

    def test_cut_off(self) -> None:
        """No beginning of a form passes for a whole one."""
        whole = parts([("a", b"1")], [("f", b"2")])
        for end in range(len(whole) - 2):
            body = self.multipart()
            if end:
                body.write(whole[:end])
            self.assertEqual(self.failure(body), ErrorNumber.UPLOAD_FAILED)
            body.close()
        self.assertEqual(self.spooled(), [])

    def test_files_stay_out_of_memory(self) -> None:
        head, tail = parts([], [("big", b"HERE")]).split(b"HERE")
        piece = os.urandom(64 * 1024)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        body = self.multipart()
        body.write(head)
        for _ in range(48 * 16):
            body.write(piece)
        body.write(tail)
        body.finish()
        _now, peak = tracemalloc.get_traced_memory()
        self.assertLess(peak, 2 * MIB)
        (upload,) = body.take_uploads()
        self.assertEqual(upload.file.size, 48 * MIB)
        upload.file.discard()

    def test_fields_are_bounded(self) -> None:
        """One field that is too big is known to be so; all together have a limit of their own."""
        body = self.multipart()
        body.write(parts([("a", b"x" * (RECEIVED_MAXIMUM + 1)), ("b", b"x" * RECEIVED_MAXIMUM)], []))
        body.finish()
        self.assertEqual(body.fields, {"a": None, "b": b"x" * RECEIVED_MAXIMUM})
        body = self.multipart()
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for number in range(400):
            body.write(parts([(f"a{number}", b"x" * 100_000)], []).removesuffix(b"--\r\n")[: -len(BOUNDARY) - 2])
        self.assertEqual(self.failure(body), ErrorNumber.REQUEST_TOO_BIG)
        self.assertLess(tracemalloc.get_traced_memory()[1], MAX_FIELDS_SIZE + 2 * MIB)

    def test_one_open_file(self) -> None:
        """A form with many files needs no more descriptors than one with few."""
        before = len(os.listdir("/proc/self/fd"))
        body = self.multipart()
        body.write(parts([], [(f"f{number}", b"x") for number in range(900)]))
        self.assertLessEqual(len(os.listdir("/proc/self/fd")), before + 1)
        body.finish()
        self.assertEqual(len(self.spooled()), 900)
        body.close()
        self.assertEqual(self.spooled(), [])

    def test_limits(self) -> None:
        whole = parts([], [("a", b"x" * 100)])
        body = self.multipart(file=99)
        body.write(whole)
        self.assertEqual(self.failure(body), ErrorNumber.FILE_TOO_BIG)
        self.assertEqual(self.spooled(), [])
        body = self.multipart(maximum=len(whole) - 1)
        for number in range(len(whole)):
            body.write(whole[number : number + 1])
        self.assertEqual(self.failure(body), ErrorNumber.REQUEST_TOO_BIG)
        self.assertEqual((self.spooled(), body.tell()), ([], len(whole)))

    def test_spool_that_is_gone(self) -> None:
        self.directory.rmdir()
        body = self.multipart()
        body.write(parts([], [("a", b"x")]))
        self.assertIn("No such file", str(self.assertRaises(LGIError, body.finish)))

    def test_dropped(self) -> None:
        """Files that nobody took go with the request; those that were taken stay."""
        body = self.multipart()
        body.write(parts([], [("a", b"x")])[:-10])
        self.assertEqual(len(self.spooled()), 1)
        body.close()
        body.close()
        self.assertEqual(self.spooled(), [])
        body = self.multipart()
        body.write(parts([], [("a", b"x")]))
        (upload,) = body.take_uploads()
        body.close()
        self.assertEqual(len(self.spooled()), 1)
        upload.file.discard()


class UrlencodedTests(BodyCase):
    """application/x-www-form-urlencoded."""

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.tuples(st.text(min_size=1, max_size=10), st.text(max_size=30)), max_size=5), st.integers(1, 9))
    def test_round_trip(self, fields: list[tuple[str, str]], size: int) -> None:
        fields = [(name, value) for name, value in fields if (name + value).isprintable()]
        body = UrlencodedBody(MIB)
        whole = "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in fields).encode()
        for position in range(0, len(whole), size):
            body.write(whole[position : position + size])
        body.finish()
        self.assertEqual(body.fields, {name: value.encode() for name, value in fields})

    @settings(max_examples=100, deadline=None)
    @given(st.binary(max_size=60))
    def test_anything(self, data: bytes) -> None:
        for written in (data, quote_from_bytes(data).encode()):
            body = UrlencodedBody(MIB)
            body.write(written)
            try:
                body.finish()
            except LGIError as problem:
                self.assertEqual(problem.number, ErrorNumber.UPLOAD_FAILED)

    def test_limit(self) -> None:
        body = UrlencodedBody(1 << 40)
        for _ in range(5):
            body.write(b"a=" + b"x" * MIB)
        self.assertEqual(self.failure(body), ErrorNumber.REQUEST_TOO_BIG)


class Line:
    """A connection that remembers whether it is held."""

    held = False

    def hold(self) -> None:
        self.held = True

    def release(self) -> None:
        self.held = False


class FileTests(BodyCase):
    """The body of a PUT, and one that nobody wants."""

    async def test_file(self) -> None:
        body = FileBody(self.spool, 10)
        body.write(b"12345")
        body.write(b"67890")
        target = self.directory.parent / f"{self.directory.name}-kept"
        file = await body.take_file()
        body.close()
        file.keep(target)
        self.assertEqual((target.read_bytes(), target.stat().st_mode & 0o777), (b"1234567890", 0o640))
        file.discard()
        self.assertTrue(target.exists())
        self.assertEqual(self.spooled(), [])

    async def test_nothing(self) -> None:
        """A request without a body costs no file, unless it is taken as an empty one."""
        body = FileBody(self.spool, 10)
        self.assertEqual(self.spooled(), [])
        file = await body.take_file()
        self.assertEqual((file.size, len(self.spooled())), (0, 1))
        file.discard()
        self.assertEqual(self.spooled(), [])

    async def test_limit(self) -> None:
        body = FileBody(self.spool, 10)
        body.write(b"x" * 10)
        self.assertIsNone(body.failure)
        body.write(b"x")
        assert body.failure is not None
        self.assertEqual(body.failure.number, ErrorNumber.REQUEST_TOO_BIG)
        self.assertEqual(self.spooled(), [])
        with self.assertRaises(LGIError):
            await body.take_file()
        self.assertEqual(self.spooled(), [])

    async def test_large(self) -> None:
        """Much of it: written in threads, in order, with its digest; the connection is held meanwhile."""
        line = Line()
        body = FileBody(self.spool, 100 * MIB, line)
        body.hashed = True
        pieces = [bytes([number]) * 100_000 for number in range(200)]
        for piece in pieces:
            body.write(piece)
        self.assertTrue(line.held)
        file = await body.take_file()
        self.assertFalse(line.held)
        self.assertEqual(file.size, 20_000_000)
        file.complete()
        self.assertEqual(file.path.read_bytes(), b"".join(pieces))
        self.assertEqual(body.digest, hashlib.sha256(b"".join(pieces)).digest())
        file.discard()
        self.assertEqual(self.spooled(), [])

    async def test_large_and_dropped(self) -> None:
        """The client is gone while a thread writes: the name goes at once, nothing of it is left open."""
        body = FileBody(self.spool, 100 * MIB, Line())
        for _ in range(50):
            body.write(b"x" * MIB)
        body.close()
        self.assertEqual(self.spooled(), [])
        while any(
            str(self.directory) in os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
        ):
            await deferLater(reactor, 0.01)

    async def test_large_and_full(self) -> None:
        """A full disk is found in a thread, and said to whoever asks for the file."""
        body = FileBody(FullSpool(self.directory), 100 * MIB, Line())
        body.write(b"x" * 2 * MIB)
        with self.assertRaises(LGIError) as caught:
            await body.take_file()
        self.assertEqual(caught.exception.number, ErrorNumber.UPLOAD_FAILED)
        self.assertEqual((await body.refusal()).code, 507)
        self.assertEqual(self.spooled(), [])

    def test_refused(self) -> None:
        problem = LGIError(ErrorNumber.CERTIFICATE_REFUSED)
        body = RefusedBody(problem)
        body.write(b"x" * 100)
        self.assertIs(body.failure, problem)
        self.assertEqual((body.tell(), self.spooled()), (100, []))


class SpoolTests(BodyCase):
    """Files being received."""

    def test_full_disk(self) -> None:
        """Known at the latest when the file is kept; dropping it works all the same, and the older file stays."""
        target = self.directory.parent / f"{self.directory.name}-old"
        target.write_bytes(b"old")
        for size, times in ((10, 1), (10 * MIB, 1), (5000, 10)):
            file = FullSpool(self.directory).create()
            with self.assertRaises(OSError):
                for _ in range(times):
                    file.write(b"x" * size)
                file.keep(target)
            file.discard()
            file.discard()
            self.assertEqual((self.spooled(), target.read_bytes()), ([], b"old"))

    def test_full_disk_and_not_wanted(self) -> None:
        """What was still to be written when the client hung up is nobody's trouble."""
        file = FullSpool(self.directory).create()
        file.write(b"x")
        file.discard()
        self.assertEqual(self.spooled(), [])

    def test_no_place_to_keep(self) -> None:
        file = self.spool.create()
        file.write(b"x")
        self.assertRaises(FileNotFoundError, file.keep, self.directory / "missing" / "a")
        file.discard()
        self.assertEqual(self.spooled(), [])

    def test_leftovers(self) -> None:
        """What a killed process left long ago is removed, what may be under way is not, nor anything else."""
        names = ("upload-old", "upload-new", "other-old")
        for name in names:
            (self.directory / name).write_bytes(b"")
            if name.endswith("old"):
                os.utime(self.directory / name, (1, 1))
        self.spool.prepare()
        self.assertEqual(sorted(path.name for path in self.spooled()), ["other-old", "upload-new"])

    def test_private(self) -> None:
        """Nobody else reads what is being received."""
        file = self.spool.create()
        self.assertEqual([path.stat().st_mode & 0o777 for path in self.spooled()], [0o600])
        self.assertEqual(self.directory.stat().st_mode & 0o777, 0o700)
        file.discard()


class BoundaryTests(SynchronousTestCase):
    """Boundaries as clients write them."""

    def test_boundaries(self) -> None:
        for content_type, boundary in (
            ("multipart/form-data; boundary=abc", b"abc"),
            ('multipart/form-data; boundary="a b"', b"a b"),
            ("multipart/form-data; charset=utf-8; BOUNDARY = abc ", b"abc"),
            ("multipart/form-data; boundary=--7dd@$_=x", b"--7dd@$_=x"),
            ("multipart/form-data; boundary=é".encode().decode("latin-1"), "é".encode()),
            ("multipart/form-data; boundary=", None),
            ('multipart/form-data; boundary=""', None),
            ("multipart/form-data", None),
            ("multipart/form-data; xboundary=a", None),
        ):
            self.assertEqual(boundary_of(content_type), boundary, content_type)
