"""A job's file repository from the far side (LGI 1.41, Repositories)."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import attrs
from treq.client import HTTPClient
from twisted.internet.threads import deferToThread

from lgi.client.answers import AnswerMalformed, read_files, read_whole
from lgi.client.attempts import Patience
from lgi.client.download import Download
from lgi.client.landing import Arrived, Landing
from lgi.client.places import Place, place_of
from lgi.client.post import CALL_TIMEOUT, Client
from lgi.client.sending import FileChanged
from lgi.client.transfer import Progress, no_progress
from lgi.client.upload import Abilities, Upload
from lgi.client.wire import Wire, checked_name
from lgi.model import RepositoryFile

__all__ = ["FileChanged", "Patience", "Progress", "RepositoryClient", "checked_name", "no_progress"]


@attrs.frozen(kw_only=True)
class RepositoryClient:
    """The repository at `url` (what `repository_url` in a job's specifics says).

    Every call raises ServerUnreachable, ServerRefused with an HTTP status as its number, or AnswerMalformed; OSError
    is about this side's files, ValueError about names. `timeout` is the time in seconds in which nothing is sent or
    received. Transfers go on where they stopped, with `patience`.
    """

    http: HTTPClient
    reactor: Any
    url: str
    timeout: float = CALL_TIMEOUT
    patience: Patience = attrs.field(factory=Patience)
    _abilities: Abilities = attrs.field(factory=Abilities, init=False, eq=False, repr=False)

    @property
    def _wire(self) -> Wire:
        assert isinstance(self.http, Client), "of lgi.client.post.connect"
        return Wire(
            agent=self.http.agent, reactor=self.reactor, url=self.url, timeout=self.timeout, patience=self.patience
        )

    async def list(self) -> tuple[RepositoryFile, ...]:
        """The files in the repository in the order of their names, the server's own hidden ones left out."""
        name = urlsplit(self.url).path.rstrip("/").rsplit("/", 1)[-1]
        # …/repository/<fan-out>/JOB_x, or …/repository/JOB_x without the fan-out directory of newer servers.
        base = self.url[: self.url.rindex("/repository/")] if "/repository/" in self.url else self.url
        exchange = self._wire.exchange(f"{base}/repository/repository_content.php?repository={quote(name, safe='')}")
        response = await exchange.begin("GET", {})
        if response.code != 200:
            raise await exchange.refusal(response)
        body = (await exchange.whole(response)).body
        files = await deferToThread(_read_listing, body)
        return tuple(sorted((file for file in files if not file.name.startswith(".")), key=lambda file: file.name))

    async def get(self, name: str, target: Path, progress: Progress = no_progress, *, verify: bool = False) -> int:
        """Download a file to `target`, which appears whole or not at all, on disk; returns its size in bytes.

        What has come of a large file stays beside it when this fails, and is not asked for again. With `verify` it
        is compared with what the server has before it appears.
        """
        checked_name(name)
        with place_of(target) as place:
            arrived = await self.fetch(name, place, progress, verify=verify)
            size = arrived.size
            await Landing().settle(arrived)
            return size

    async def fetch(
        self, name: str, place: Place, progress: Progress = no_progress, *, verify: bool = False
    ) -> Arrived:
        """Download a file that is to be brought to its place by a Landing."""
        return await Download(self._wire, name, place, progress, verify=verify).fetch()

    async def put(
        self, source: Path, name: str | None = None, progress: Progress = no_progress, *, verify: bool = False
    ) -> int:
        """Upload the file `source`; the server keeps the old one until the new one is whole. Returns its size.

        Raises FileChanged where it changes meanwhile. With `verify` the server is asked afterwards what it has.
        """
        name = checked_name(source.name if name is None else name)
        wire, sent = self._wire, 0

        def count(size: int) -> None:
            nonlocal sent
            sent += size
            progress(size)

        digest = await Upload(wire=wire, path=source, name=name, progress=count, abilities=self._abilities).run()
        if verify:
            told = await wire.digest(name, size=sent)
            if told is None:
                raise AnswerMalformed(f"{name}: this server gives no digest to verify a file by")
            if told != digest:
                raise AnswerMalformed(f"{name}: the server has something else; somebody else may have put it")
        return sent

    async def delete(self, name: str) -> None:
        """Delete a file."""
        await self._wire.ask("DELETE", name)


def _read_listing(body: bytes) -> tuple[RepositoryFile, ...]:
    return read_files(read_whole(body, "repository_content"))
