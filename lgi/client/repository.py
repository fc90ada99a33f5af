"""A job's file repository from the far side (LGI 1.41, Repositories)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, urlsplit

import attrs
import treq
from lxml import etree
from treq.client import HTTPClient

from lgi.client.answers import AnswerMalformed, ServerRefused, ServerUnreachable, read_files
from lgi.client.post import CALL_TIMEOUT, TRANSPORT_FAILURES, explain
from lgi.model import RepositoryFile
from lgi.wire.dialect import MalformedXML, read_answer, text_of

Progress = Callable[[int], None]
"""Called with the number of bytes that have just gone over the wire."""


def no_progress(_bytes: int) -> None:
    """Report to nobody."""


def checked_name(name: str) -> str:
    """`name` if it can be a file in a repository; raises ValueError for paths, hidden and unprintable names."""
    if not name or name.startswith(".") or "/" in name or not name.isprintable() or len(name.encode()) > 255:
        raise ValueError(f"{name!r} cannot be the name of a file in a repository")
    return name


class _Counted:
    """A file being sent, which reports what is read from it."""

    def __init__(self, stream: BinaryIO, progress: Progress) -> None:
        self._stream = stream
        self._progress = progress

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._progress(len(data))
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@attrs.frozen(kw_only=True)
class RepositoryClient:
    """The repository at `url` (what `repository_url` in a job's specifics says).

    Every call raises ServerUnreachable, ServerRefused with an HTTP status as its number, or AnswerMalformed.
    """

    http: HTTPClient
    reactor: Any
    url: str

    def _file(self, name: str) -> str:
        return f"{self.url.rstrip('/')}/{quote(checked_name(name), safe='')}"

    async def _request(self, method: str, url: str, *, timeout: float | None = CALL_TIMEOUT, **more: Any) -> Any:
        try:
            response = await self.http.request(method, url, timeout=timeout, reactor=self.reactor, **more)
            if response.code not in (200, 201, 204, 206):
                raise ServerRefused(response.code, _message(await treq.content(response), response))
        except TRANSPORT_FAILURES as problem:
            raise ServerUnreachable(f"{url}: {explain(problem)}") from problem
        return response

    async def list(self) -> tuple[RepositoryFile, ...]:
        """The files in the repository, the server's own hidden ones left out."""
        parts = urlsplit(self.url)
        name = parts.path.rstrip("/").rsplit("/", 1)[-1]
        # …/repository/<fan-out>/JOB_x, or …/repository/JOB_x without the fan-out directory of newer servers.
        base = self.url[: self.url.rindex("/repository/")] if "/repository/" in self.url else self.url
        response = await self._request(
            "GET", f"{base}/repository/repository_content.php", params={"repository": name}
        )
        try:
            root = read_answer(await treq.content(response))
        except TRANSPORT_FAILURES as problem:
            raise ServerUnreachable(f"{self.url}: {explain(problem)}") from problem
        except (MalformedXML, etree.XMLSyntaxError) as problem:
            raise AnswerMalformed(f"the listing cannot be read: {problem}") from None
        return tuple(file for file in read_files(root) if not file.name.startswith("."))

    async def get(self, name: str, target: Path, progress: Progress = no_progress) -> int:
        """Download a file to `target`, which appears whole or not at all; returns its size in bytes."""
        response = await self._request("GET", self._file(name), unbuffered=True)
        descriptor, part = tempfile.mkstemp(dir=target.parent, prefix=".lgi-", suffix=".part")
        received = 0
        try:
            with os.fdopen(descriptor, "wb") as stream:

                def write(data: bytes) -> None:
                    nonlocal received
                    stream.write(data)
                    received += len(data)
                    progress(len(data))

                try:
                    await treq.collect(response, write)
                except TRANSPORT_FAILURES as problem:
                    raise ServerUnreachable(f"{self._file(name)}: {explain(problem)}") from problem
                stream.flush()
                os.fsync(stream.fileno())
            expected = response.length
            if isinstance(expected, int) and expected != received:
                raise ServerUnreachable(f"{self._file(name)}: only {received} of {expected} bytes came")
            umask = os.umask(0)
            os.umask(umask)
            Path(part).chmod(0o666 & ~umask)
            Path(part).replace(target)
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise
        return received

    async def put(self, source: Path, name: str | None = None, progress: Progress = no_progress) -> None:
        """Upload the file `source`; the server keeps the old one until the new one is whole."""
        with source.open("rb") as stream:
            response = await self._request(
                "PUT", self._file(name or source.name), timeout=None, data=_Counted(stream, progress)
            )
            await treq.content(response)

    async def delete(self, name: str) -> None:
        """Delete a file."""
        await treq.content(await self._request("DELETE", self._file(name)))


def _message(body: bytes, response: Any) -> str:
    try:
        text = text_of(read_answer(body), "message")
    except (MalformedXML, etree.XMLSyntaxError):
        text = ""
    return text or f"HTTP status {response.code} {response.phrase.decode('latin-1')}"
