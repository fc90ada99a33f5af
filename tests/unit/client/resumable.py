"""A repository that keeps what has come of an upload and sends the rest of a file, and can be cut anywhere.

tests/integration/test_transfers.py asks the real server the same.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any
from urllib.parse import unquote

from twisted.web.server import NOT_DONE_YET, Request

from tests.unit.client.fakes import STORE, FakeServer

_PIECE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_QUESTION = re.compile(r"bytes \*/(\d+)")


def digest_of(data: bytes) -> str:
    """As in Repr-Digest."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


class Resumable(FakeServer):
    """`files` by their whole names, `held` what has come of uploads; `log` has what was asked.

    `cuts` are numbers of bytes: each transfer ends after the next of them without an answer, or half an answer.
    `marks` False is a server without ETags and ranges. `weather` has statuses with which requests are refused first.
    `busy` is how many pieces meet another connection, `lost_answers` how many uploads arrive without being told.
    """

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[tuple[str, int, str], bytes] = {}
        self.log: list[tuple[str, str, str]] = []
        self.cuts: list[int] = []
        self.weather: list[int] = []
        self.marks = True
        self.lost_answers = 0
        self.busy = 0

    def _file(self, name: str, request: Request) -> Any:
        path = unquote(request.path.decode()).partition(f"/{STORE}/")[2]
        span = request.getHeader("content-range") or request.getHeader("range") or ""
        self.log.append((request.method.decode(), path, span))
        if self.weather:
            request.setResponseCode(self.weather.pop(0))
            return b""
        if request.method in (b"GET", b"HEAD"):
            return self._read(path, request)
        if request.method == b"PUT" and request.getHeader("content-range"):
            return self._piece(path, request)
        if request.method == b"PUT":
            assert request.content is not None
            request.content.seek(0)
            data = request.content.read()
            if request.getHeader("repr-digest") not in (None, digest_of(data)):
                return self._status(request, 422)
            self.files[path] = data
            return self._status(request, 200)
        if path not in self.files:
            return self._status(request, 404)
        del self.files[path]
        return self._status(request, 200)

    @staticmethod
    def _status(request: Request, code: int, offset: int | None = None) -> bytes:
        request.setResponseCode(code)
        if offset is not None:
            request.setHeader("upload-offset", str(offset))
        return f"<status> <number> {code} </number> <message> says the test </message> </status>".encode()

    @staticmethod
    def _hang_up(request: Request) -> Any:
        assert request.channel is not None
        request.channel.loseConnection()
        return NOT_DONE_YET

    def _read(self, path: str, request: Request) -> Any:
        if path not in self.files:
            return self._status(request, 404)
        data = self.files[path]
        mark = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        start = 0
        if self.marks:
            request.setHeader("etag", mark)
            if request.getHeader("want-repr-digest"):
                request.setHeader("repr-digest", digest_of(data))
            wanted = re.fullmatch(r"bytes=(\d+)-", request.getHeader("range") or "")
            if wanted and request.getHeader("if-range") == mark:
                start = int(wanted[1])
                if start >= len(data):
                    request.setHeader("content-range", f"bytes */{len(data)}")
                    return self._status(request, 416)
                request.setResponseCode(206)
                request.setHeader("content-range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        request.setHeader("content-length", str(len(data) - start))
        if request.method == b"HEAD":
            return b""
        if self.cuts:
            request.write(data[start : start + self.cuts.pop(0)])
            return self._hang_up(request)
        return data[start:]

    def _piece(self, path: str, request: Request) -> Any:
        assert request.content is not None
        request.content.seek(0)
        data, span = request.content.read(), request.getHeader("content-range") or ""
        if not self.marks:
            self.files[path] = data
            return self._status(request, 200)
        key = request.getHeader("upload-key") or ""
        question = _QUESTION.fullmatch(span)
        if question:
            return self._status(request, 202, len(self.held.get((path, int(question[1]), key), b"")))
        piece = _PIECE.fullmatch(span)
        assert piece is not None
        first, last, total = map(int, piece.groups())
        assert len(data) == last + 1 - first
        at = (path, total, key)
        held = self.held.get(at, b"") if first else b""
        if first != len(held):
            return self._status(request, 416, len(held))
        if self.busy:
            self.busy -= 1
            return self._status(request, 409)
        if self.cuts:
            self.held[at] = held + data[: self.cuts.pop(0)]
            return self._hang_up(request)
        self.held[at] = held + data
        if last + 1 < total:
            return self._status(request, 202, last + 1)
        whole = self.held.pop(at)
        if request.getHeader("repr-digest") not in (None, digest_of(whole)):
            return self._status(request, 422, 0)
        self.files[path] = whole
        if self.lost_answers:
            self.lost_answers -= 1
            return self._hang_up(request)
        return self._status(request, 200)
