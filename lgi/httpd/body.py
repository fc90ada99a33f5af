"""Bodies of requests, taken apart while they arrive: fields in memory within limits, files on disk.

Twisted hands a body over as writes on a file-like `content`. A body that cannot be taken remembers why in `failure`
and drops the rest, so that the answer says it.
"""

from __future__ import annotations

from urllib.parse import parse_qsl

import attrs
from multipart import MultipartError, MultipartSegment, PushMultipartParser

from lgi.errors import ErrorNumber, LGIError
from lgi.httpd.refusal import Refused, of_error
from lgi.httpd.spool import Spool, SpooledFile
from lgi.wire.fields import RECEIVED_MAXIMUM

MAX_PARTS = 1000
# All fields of a form together: they sit in memory, the largest real form has four of RECEIVED_MAXIMUM.
MAX_FIELDS_SIZE = 4 * 1024 * 1024
_UPLOAD_PREFIX = "uploaded_file"


@attrs.frozen(kw_only=True)
class Upload:
    """A file part of a form: the name its client gave it, which is data and not a path, and what it holds."""

    filename: str
    file: SpooledFile


class Body:
    """What all bodies have in common: a limit in bytes, a count, and the reason for a refusal."""

    def __init__(self, maximum: int) -> None:
        self.failure: LGIError | None = None
        self._maximum = maximum
        self._received = 0

    def write(self, data: bytes) -> None:
        """Take the next piece, or drop it once something was wrong."""
        self._received += len(data)
        if self.failure is not None:
            return
        if self._received > self._maximum:
            self._fail(LGIError(ErrorNumber.REQUEST_TOO_BIG, f"at most {self._maximum} bytes"))
            return
        try:
            self.take(data)
        except LGIError as problem:
            self._fail(problem)
        except MultipartError as problem:
            self._fail(LGIError(ErrorNumber.UPLOAD_FAILED, f"the form cannot be read: {problem}"))
        except OSError as problem:
            self._fail(LGIError(ErrorNumber.UPLOAD_FAILED, f"it cannot be stored here: {problem.strerror}"))

    def take(self, data: bytes) -> None:
        """Take apart the next piece; raises LGIError, MultipartError or OSError."""
        raise NotImplementedError

    def _fail(self, problem: LGIError) -> None:
        self.failure = problem
        self.close()

    def tell(self) -> int:
        """How much has come, in bytes."""
        return self._received

    def seek(self, _offset: int, _whence: int = 0) -> None:
        """Do nothing: what was written has been taken apart already."""

    def close(self) -> None:
        """Drop what was not kept."""


class RefusedBody(Body):
    """A body that is not wanted from the start, of which nothing is kept."""

    def __init__(self, problem: LGIError | Refused) -> None:
        super().__init__(0)
        self.answer = problem if isinstance(problem, Refused) else of_error(problem)
        self.failure = (
            problem if isinstance(problem, LGIError) else LGIError(ErrorNumber.UPLOAD_FAILED, problem.message)
        )


class FormBody(Body):
    """A posted form. Of fields posted twice the last one counts, as in the deployed server."""

    def __init__(self, maximum: int) -> None:
        super().__init__(maximum)
        self.fields: dict[str, bytes | None] = {}
        self.uploads: list[Upload] = []

    def finish(self) -> None:
        """Check that the form is complete; raises LGIError."""
        if self.failure is not None:
            raise self.failure

    def take_uploads(self) -> list[Upload]:
        """The files, which are the caller's to keep or discard from now on, whatever becomes of the connection."""
        uploads, self.uploads = self.uploads, []
        return uploads

    def close(self) -> None:
        """Drop the files that nobody took."""
        for upload in self.take_uploads():
            upload.file.discard()


class UrlencodedBody(FormBody):
    """A form as `application/x-www-form-urlencoded`, which is never large."""

    def __init__(self, maximum: int) -> None:
        super().__init__(min(maximum, MAX_FIELDS_SIZE))
        self._data = bytearray()

    def take(self, data: bytes) -> None:
        """Gather it."""
        self._data += data

    def finish(self) -> None:
        """Read the fields; raises LGIError."""
        super().finish()
        try:
            # As text: of bytes, parse_qsl makes ASCII.
            text = self._data.decode("utf-8")
            pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_PARTS, errors="strict")
        except ValueError as problem:
            raise LGIError(ErrorNumber.UPLOAD_FAILED, f"the form cannot be read: {problem}") from None
        for name, value in pairs:
            data = value.encode()
            self.fields[name] = data if len(data) <= RECEIVED_MAXIMUM else None


class MultipartBody(FormBody):
    """A form as `multipart/form-data`, whose files go to the spool as they come."""

    def __init__(self, spool: Spool, maximum: int, max_file_size: int, boundary: bytes) -> None:
        super().__init__(maximum)
        self._spool = spool
        self._max_file_size = max_file_size
        self._parser = PushMultipartParser(boundary, max_segment_count=MAX_PARTS)
        self._segment: MultipartSegment | None = None
        self._field: bytearray | None = None
        self._fields_size = 0
        self._oversize = False

    def take(self, data: bytes) -> None:
        """Take the next piece apart."""
        for item in self._parser.parse(data):
            if item is None:
                self._end()
            elif isinstance(item, MultipartSegment):
                self._begin(item)
            else:
                self._continue(item)

    def _begin(self, segment: MultipartSegment) -> None:
        self._segment = segment
        self._oversize = False
        if segment.filename is not None and segment.name.startswith(_UPLOAD_PREFIX):
            self._field = None
            self.uploads.append(Upload(filename=segment.filename, file=self._spool.create()))
        else:
            self._field = bytearray()

    def _continue(self, data: bytes | bytearray) -> None:
        size = len(data)
        if self._field is None:
            file = self.uploads[-1].file
            if file.size + size > self._max_file_size:
                raise LGIError(ErrorNumber.FILE_TOO_BIG, f"at most {self._max_file_size} bytes")
            file.write(bytes(data))
        elif len(self._field) + size > RECEIVED_MAXIMUM:
            self._oversize = True
        elif self._fields_size + size > MAX_FIELDS_SIZE:
            raise LGIError(ErrorNumber.REQUEST_TOO_BIG, f"at most {MAX_FIELDS_SIZE} bytes in all fields together")
        else:
            self._fields_size += size
            self._field += data

    def _end(self) -> None:
        assert self._segment is not None
        if self._field is None:
            self.uploads[-1].file.complete()
        else:
            self.fields[self._segment.name] = None if self._oversize else bytes(self._field)
        self._segment = None

    def finish(self) -> None:
        """Check that the form was complete; raises LGIError."""
        super().finish()
        try:
            self._parser.close()
        except MultipartError as problem:
            raise LGIError(ErrorNumber.UPLOAD_FAILED, f"the form cannot be read: {problem}") from None


def boundary_of(content_type: str) -> bytes | None:
    """The boundary in a Content-Type of multipart/form-data, quoted or not.

    Read by hand since deployed clients send boundaries with characters (`@$_`) that belong into quotes and are not.
    """
    for part in content_type.split(";")[1:]:
        key, _, value = part.strip().partition("=")
        if key.strip().lower() == "boundary":
            return value.strip().strip('"').encode("latin-1") or None
    return None
