"""The body of a request that carries a part of an upload."""

from __future__ import annotations

from lgi.errors import LGIError
from lgi.httpd.filebody import StreamBody
from lgi.httpd.refusal import Refused, of_upload
from lgi.httpd.spool import SpooledFile
from lgi.httpd.writer import Line, Writer
from lgi.repository.unfinished import Part

OFFSET = "Upload-Offset"


class PartBody(StreamBody):
    """Adds to an upload in the making. What has come stays, whatever becomes of the connection."""

    def __init__(self, part: Part, size: int, line: Line | None) -> None:
        super().__init__(size, line)
        self._part = part

    def start(self) -> SpooledFile:
        """The part that has come before."""
        return self._part

    def give_up(self) -> None:
        """Nothing yet: the answer says how much has come."""

    async def take_part(self) -> Part:
        """What has come, which is the caller's to keep or leave; raises Refused where not all could be stored."""
        try:
            await self.settle()
        except LGIError as problem:
            raise self._said(problem) from None
        return self._part

    async def refusal(self) -> Refused:
        """What to answer after a failure: what found room stays."""
        try:
            await self.settle()
        except LGIError as problem:
            return self._said(problem)
        raise AssertionError("there was no failure")

    def _said(self, problem: LGIError) -> Refused:
        size = self._part.size
        self._part.leave()
        return of_upload(problem, {OFFSET: str(size)})

    def drop(self, _writer: Writer) -> None:
        """What has come is written."""

    def end(self) -> None:
        """Let go of it."""
        self._part.leave()
