"""Repositories over HTTP: GET, HEAD, PUT and DELETE of files, and the listing.

LGI 1.41, Repositories. Reading needs a valid certificate and the repository's name, which is secret; changing needs
the access file or the list of resources.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from twisted.web.static import File

from lgi.errors import ErrorNumber, LGIError
from lgi.httpd.body import FileBody, FormBody
from lgi.httpd.peer import Caller
from lgi.httpd.router import shielded
from lgi.httpd.site import Request
from lgi.repository.access import may_change
from lgi.repository.files import Repositories
from lgi.repository.names import LISTING, NameRefused
from lgi.wire.answers import listing, status

_FULL = (errno.ENOSPC, errno.EDQUOT)
_CODES = {ErrorNumber.CERTIFICATE_REFUSED: 403, ErrorNumber.REQUEST_TOO_BIG: 413, ErrorNumber.FILE_TOO_BIG: 413}


class _Refused(Exception):
    """A request answered with an HTTP status that is no success."""

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(message)


def _is_listing(segments: list[str]) -> bool:
    # Clients write `…/JOB_x/../repository_content.php`; some fold the dots before sending, some do not.
    return bool(segments) and segments[-1] == LISTING and all(part != LISTING for part in segments[:-1])


class RepositoryResource(Resource):
    """Everything under `…/repository/`."""

    isLeaf = True
    _log = Logger()

    def __init__(self, repositories: Repositories, identify: Callable[[Any], Caller]) -> None:
        super().__init__()
        self._repositories = repositories
        self._identify = identify

    def render(self, request: Request) -> int:
        """Answer a request; whatever it changes is carried through also if its client hangs up."""
        shielded(self._respond(request))
        return NOT_DONE_YET

    async def _respond(self, request: Request) -> None:
        try:
            answer = await self._answer(request)
        except _Refused as refusal:
            self._finish(request, refusal.code, status(refusal.code, refusal.message))
        except NameRefused as problem:
            self._finish(request, 400, status(400, str(problem)))
        except LGIError as problem:
            code = _CODES.get(problem.number, 400)
            self._finish(request, code, status(code, problem.message))
        except FileNotFoundError:
            self._finish(request, 404, status(404, "there is no such file"))
        except OSError as problem:
            self._log.error("{path}: {problem}", path=request.path, problem=problem)
            code = 507 if problem.errno in _FULL else 500
            self._finish(request, code, status(code, f"it cannot be stored here: {problem.strerror}"))
        except Exception:
            self._log.failure("{path} failed", path=request.path)
            self._finish(request, 500, status(500, "an unexpected error, see the server's log"))
        else:
            if answer is not None:
                self._finish(request, 200, answer)

    @staticmethod
    def _finish(request: Request, code: int, body: bytes) -> None:
        if request._disconnected:
            return
        request.setResponseCode(code)
        request.responseHeaders.setRawHeaders("Content-Type", ["text/xml; charset=UTF-8"])
        request.responseHeaders.setRawHeaders("Content-Length", [str(len(body))])
        request.write(b"" if request.method == b"HEAD" else body)
        request.finish()

    async def _answer(self, request: Request) -> bytes | None:
        """The body of an answer with status 200, or None when it is being sent already."""
        caller = self._identify(request.transport)
        try:
            segments = [segment.decode("utf-8") for segment in request.postpath or []]
        except UnicodeDecodeError:
            raise NameRefused("a file's name is UTF-8 text") from None
        if _is_listing(segments) and request.method in (b"GET", b"HEAD", b"POST"):
            return await self._list(request)
        if len(segments) != 3:
            raise _Refused(404, "there is nothing here; files are at repository/<3 digits>/JOB_<32 digits>/<name>")
        folder, repository, name = segments
        path = self._repositories.file(repository, name)
        if path.parent.parent.name != folder:
            raise FileNotFoundError(path)
        match request.method:
            case b"GET" | b"HEAD":
                self._send(request, repository, name)
                return None
            case b"PUT":
                return await self._store(request, caller, repository, name)
            case b"DELETE":
                await self._authorise(caller, repository)
                await deferToThread(self._repositories.delete, repository, name)
                return status(200, f"deleted {name}")
            case _:
                request.responseHeaders.setRawHeaders("Allow", ["GET, HEAD, PUT, DELETE"])
                raise _Refused(405, "files are read with GET and HEAD, changed with PUT and DELETE")

    async def _authorise(self, caller: Caller, repository: str) -> None:
        path = self._repositories.path(repository)
        if not await deferToThread(may_change, caller.identity, path, self._repositories.root):
            # The same answer whether or not the repository exists.
            raise _Refused(403, f"{caller.identity.name} may not change files in this repository")

    async def _list(self, request: Request) -> bytes:
        name = b""
        if isinstance(request.content, FormBody):
            request.content.finish()
            name = request.content.fields.get("repository") or b""
        elif b"repository" in request.args:
            name = request.args[b"repository"][0]
        repository = name.decode("utf-8", "replace").strip().rstrip("/").rpartition("/")[2]
        files = await deferToThread(self._repositories.list, repository)
        return listing(repository, files)

    def _send(self, request: Request, repository: str, name: str) -> None:
        path = self._repositories.file(repository, name)
        if path.is_symlink() or not path.is_file():
            raise FileNotFoundError(path)
        # Twisted's own: ranges, modification times, pulled by the transport piece by piece.
        served = File(str(path), defaultType="application/octet-stream")
        served.type, served.encoding = "application/octet-stream", None
        request.render(served)

    async def _store(self, request: Request, caller: Caller, repository: str, name: str) -> bytes:
        body = request.content
        if not isinstance(body, FileBody):
            await self._authorise(caller, repository)
            raise _Refused(415, "send the file itself as the body, not a form")
        failure = body.failure
        # Taken before anything is waited for: when the client hangs up, what is left in the body is dropped.
        received = None if failure is not None else body.take_file()
        try:
            await self._authorise(caller, repository)
            if received is None:
                assert failure is not None
                code = _CODES.get(failure.number, 507)
                raise _Refused(code, failure.message)
            size = await deferToThread(self._repositories.store, repository, name, received)
        finally:
            if received is not None:
                received.discard()
        return status(200, f"uploaded {name} ({size} bytes)")
