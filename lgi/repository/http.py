"""Repositories over HTTP: GET, HEAD, PUT and DELETE of files, and the listing.

LGI 1.41, Repositories. Reading needs a valid certificate and the repository's name, which is secret; changing needs
the access file or the list of resources.
"""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from lgi.errors import LGIError
from lgi.httpd.body import FormBody, RefusedBody
from lgi.httpd.peer import Caller
from lgi.httpd.refusal import Refused, of_error, of_storage
from lgi.httpd.router import shielded
from lgi.httpd.site import UNEXPECTED, Announced, Request
from lgi.repository.address import Address, address_of, is_listing, text_of
from lgi.repository.conditions import Conditions, Unsatisfiable, etag, last_modified, wanted_range
from lgi.repository.digest import REPR_DIGEST, digest_of, encode_digest, is_wanted
from lgi.repository.files import Repositories
from lgi.repository.keeper import Keeper
from lgi.repository.names import NameRefused
from lgi.repository.receive import Admission, Receiver
from lgi.repository.send import FileSender
from lgi.repository.store import NotAFile, OpenFile
from lgi.wire.answers import listing, status

_XML = "text/xml; charset=UTF-8"


class RepositoryResource(Resource):
    """Everything under `…/repository/`."""

    isLeaf = True
    _log = Logger()

    def __init__(
        self,
        repositories: Repositories,
        keeper: Keeper,
        receiver: Receiver,
    ) -> None:
        super().__init__()
        self._repositories = repositories
        self._keeper = keeper
        self._receiver = receiver

    def render(self, request: Request) -> int:
        """Answer a request; whatever it changes is carried through also if its client hangs up."""
        shielded(self._respond(request))
        return NOT_DONE_YET

    async def _respond(self, request: Request) -> None:
        try:
            code, body, headers = await self._tried(request)
        except Refused as refusal:
            code, body, headers = refusal.code, refusal.body, refusal.headers
        if code:
            self._finish(request, code, body, headers)

    async def _tried(self, request: Request) -> tuple[int, bytes, Mapping[str, str]]:
        """The answer, with status 0 when it is being sent already; raises Refused."""
        try:
            return await self._answer(request)
        except NameRefused as problem:
            raise Refused(400, str(problem)) from None
        except LGIError as problem:
            raise of_error(problem) from None
        except FileNotFoundError:
            raise Refused(404, "there is no such file") from None
        except NotAFile as problem:
            raise Refused(409, problem.strerror or "a directory has this name, or a file is in the way") from None
        except OSError as problem:
            self._log.error("{path}: {problem}", path=request.path, problem=problem)
            raise of_storage(problem) from None
        except Refused:
            raise
        except Exception:
            self._log.failure("{path} failed", path=request.path)
            raise Refused(500, UNEXPECTED) from None

    @staticmethod
    def _finish(request: Request, code: int, body: bytes, headers: Mapping[str, str]) -> None:
        if request._disconnected:
            return
        request.setResponseCode(code)
        if code != 304:
            headers = {"Content-Type": _XML, "Content-Length": str(len(body))} | dict(headers)
        for name, value in headers.items():
            request.responseHeaders.setRawHeaders(name, [value])
        request.write(b"" if request.method == b"HEAD" else body)
        request.finish()

    async def _answer(self, request: Request) -> tuple[int, bytes, Mapping[str, str]]:
        caller = request.caller()
        if isinstance(request.content, RefusedBody):
            raise request.content.answer
        segments = text_of(request.postpath or [])
        if is_listing(segments) and request.method in (b"GET", b"HEAD", b"POST"):
            return 200, await self._list(request), {}
        address = address_of(segments)
        match request.method:
            case b"GET" | b"HEAD":
                return await self._read(request, address)
            case b"PUT":
                return await self._store(request, caller, address)
            case b"DELETE":
                await self._receiver.authorise(caller, address)
                conditions = Conditions.of(request.requestHeaders)
                await self._keeper.delete(address.repository, address.name, conditions)
                return 200, status(200, f"deleted {address.name}"), {}
            case _:
                request.responseHeaders.setRawHeaders("Allow", ["GET, HEAD, PUT, DELETE"])
                raise Refused(405, "files are read with GET and HEAD, changed with PUT and DELETE")

    async def _list(self, request: Request) -> bytes:
        name = b""
        if isinstance(request.content, FormBody):
            request.content.finish()
            name = request.content.fields.get("repository") or b""
        elif b"repository" in request.args:
            name = request.args[b"repository"][0]
        repository = name.decode("utf-8", "replace").strip().rstrip("/").rpartition("/")[2]
        files = await self._keeper.list(repository)
        return listing(repository, files)

    async def _store(
        self, request: Request, caller: Caller, address: Address
    ) -> tuple[int, bytes, Mapping[str, str]]:
        admission = request.admitted
        if not isinstance(admission, Admission):
            # There was no body to wait for.
            announced = Announced(
                method=request.method,
                path=request.path,
                headers=request.requestHeaders,
                caller=caller,
                length=0,
                line=request.channel,
            )
            admission = await self._receiver.welcome(announced, address)
        code, message, headers = await self._receiver.receive(admission, request.content)
        return code, status(code, message), headers

    async def _read(self, request: Request, address: Address) -> tuple[int, bytes, Mapping[str, str]]:
        file = await deferToThread(self._repositories.store.open, address.repository, address.name)
        sent = False
        try:
            headers = {"ETag": etag(file.state), "Last-Modified": last_modified(file.state), "Accept-Ranges": "bytes"}
            conditions = Conditions.of(request.requestHeaders)
            if conditions.fail_reading(file.state):
                raise Refused(412, "the file is not, or no longer, as the request has it", headers)
            if conditions.unchanged(file.state):
                return 304, b"", headers
            if is_wanted(request.requestHeaders):
                headers[REPR_DIGEST] = encode_digest(await deferToThread(digest_of, file))
            if not request._disconnected:
                sent = self._send(request, file, headers)
            return 0, b"", {}
        finally:
            if not sent:
                await deferToThread(file.close)

    def _send(self, request: Request, file: OpenFile, headers: dict[str, str]) -> bool:
        """Begin to send; returns whether the file is in use from now on."""
        code, start, size = 200, 0, file.state.size
        try:
            wanted = wanted_range(request.requestHeaders, file.state)
        except Unsatisfiable:
            # As small as can be: some clients append the body of whatever answer they get to their file.
            self._finish(request, 416, b"", headers | {"Content-Range": f"bytes */{size}"})
            return False
        if wanted is not None:
            code, (start, length) = 206, wanted
            headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{size}"
            size = length
        request.setResponseCode(code)
        headers |= {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        for name, value in headers.items():
            request.responseHeaders.setRawHeaders(name, [value])
        if request.method == b"HEAD" or size == 0:
            request.finish()
            return False
        FileSender(request, file, start, size).start()
        return True
