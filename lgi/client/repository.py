"""A job's file repository from the far side (LGI 1.41, Repositories)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import attrs
from treq.client import HTTPClient
from twisted.web.http import PotentialDataLoss

from lgi.client.answers import AnswerMalformed, ServerRefused, ServerUnreachable, read_files, read_whole
from lgi.client.post import CALL_TIMEOUT
from lgi.client.transfer import TRANSPORT_FAILURES, Progress, Stall, explain, file_body, no_progress, read_body
from lgi.model import RepositoryFile
from lgi.wire.dialect import text_of

__all__ = ["Progress", "RepositoryClient", "checked_name", "no_progress"]

_ANSWER_LIMIT = 1 << 26


def checked_name(name: str) -> str:
    """`name` if it can be a file in a repository; raises ValueError for paths, hidden and unprintable names."""
    if not name or name.startswith(".") or "/" in name or not name.isprintable() or len(name.encode()) > 255:
        raise ValueError(f"{name!r} cannot be the name of a file in a repository")
    return name


@attrs.frozen(kw_only=True)
class RepositoryClient:
    """The repository at `url` (what `repository_url` in a job's specifics says).

    Every call raises ServerUnreachable, ServerRefused with an HTTP status as its number, or AnswerMalformed; OSError
    is about this side's files. `timeout` is the time in seconds in which nothing is sent or received.
    """

    http: HTTPClient
    reactor: Any
    url: str
    timeout: float = CALL_TIMEOUT

    def _file(self, name: str) -> str:
        return f"{self.url.rstrip('/')}/{quote(checked_name(name), safe='')}"

    async def _exchange(
        self,
        method: str,
        url: str,
        sink: Callable[[bytes], object],
        *,
        stall: Stall,
        unending: bool = False,
        **more: Any,
    ) -> None:
        """One request whose answer's body goes to `sink` if it succeeds; `unending` takes one of unknown length."""
        refusal: list[bytes] = []

        def write(data: bytes) -> None:
            stall.moved()
            (sink if accepted else refusal.append)(data)

        try:
            request = self.http.request(
                method, url, allow_redirects=False, unbuffered=True, reactor=self.reactor, **more
            )
            response = await stall.watch(request)
            accepted = response.code in (200, 201, 204)
            try:
                await stall.watch(read_body(response, write))
            except PotentialDataLoss:
                if accepted and not unending:
                    raise
        except TRANSPORT_FAILURES as problem:
            raise ServerUnreachable(f"{url}: {explain(problem)}") from problem
        if not accepted:
            raise ServerRefused(response.code, _message(b"".join(refusal), response))

    async def _answer(self, method: str, url: str, stall: Stall | None = None, **more: Any) -> bytes:
        body = bytearray()

        def keep(data: bytes) -> None:
            body.extend(data)
            if len(body) > _ANSWER_LIMIT:
                raise AnswerMalformed("the server's answer does not end")

        await self._exchange(
            method, url, keep, stall=stall or Stall(self.reactor, self.timeout), unending=True, **more
        )
        return bytes(body)

    async def list(self) -> tuple[RepositoryFile, ...]:
        """The files in the repository in the order of their names, the server's own hidden ones left out."""
        name = urlsplit(self.url).path.rstrip("/").rsplit("/", 1)[-1]
        # …/repository/<fan-out>/JOB_x, or …/repository/JOB_x without the fan-out directory of newer servers.
        base = self.url[: self.url.rindex("/repository/")] if "/repository/" in self.url else self.url
        body = await self._answer("GET", f"{base}/repository/repository_content.php", params={"repository": name})
        files = read_files(read_whole(body, "repository_content"))
        return tuple(sorted((file for file in files if not file.name.startswith(".")), key=lambda file: file.name))

    async def get(self, name: str, target: Path, progress: Progress = no_progress) -> int:
        """Download a file to `target`, which appears whole or not at all; returns its size in bytes."""
        url = self._file(name)
        stall = Stall(self.reactor, self.timeout)
        descriptor, part = tempfile.mkstemp(dir=target.parent, prefix=".lgi-", suffix=".part")
        try:
            with os.fdopen(descriptor, "wb") as stream:

                def write(data: bytes) -> None:
                    stream.write(data)
                    progress(len(data))

                await self._exchange("GET", url, write, stall=stall)
                size = stream.tell()
                stream.flush()
                os.fsync(stream.fileno())
            umask = os.umask(0)
            os.umask(umask)
            Path(part).chmod(0o666 & ~umask)
            Path(part).replace(target)
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise
        return size

    async def put(self, source: Path, name: str | None = None, progress: Progress = no_progress) -> None:
        """Upload the file `source`; the server keeps the old one until the new one is whole."""
        url = self._file(name or source.name)
        stall = Stall(self.reactor, self.timeout)

        def sent(size: int) -> None:
            stall.moved()
            progress(size)

        with source.open("rb") as stream:
            await self._answer("PUT", url, stall, data=file_body(stream, sent))

    async def delete(self, name: str) -> None:
        """Delete a file."""
        await self._answer("DELETE", self._file(name))


def _message(body: bytes, response: Any) -> str:
    try:
        text = text_of(read_whole(body, "status"), "message")
    except AnswerMalformed:
        text = ""
    return text or f"HTTP status {response.code} {response.phrase.decode('latin-1')}"
