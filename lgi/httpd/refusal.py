"""An answer that is no success, said by its HTTP status."""

from __future__ import annotations

import errno
from collections.abc import Mapping

from lgi.errors import ErrorNumber, LGIError
from lgi.wire.answers import status

_FULL = (errno.ENOSPC, errno.EDQUOT)
_CODES = {
    ErrorNumber.CERTIFICATE_REFUSED: 403,
    ErrorNumber.REQUEST_TOO_BIG: 413,
    ErrorNumber.FILE_TOO_BIG: 413,
    ErrorNumber.OVERLOADED: 503,
    ErrorNumber.DATABASE_UNREACHABLE: 503,
}


class Refused(Exception):
    """A request answered with an HTTP status that is no success, and a body that says why."""

    def __init__(self, code: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        self.code = code
        self.message = message
        self.headers = dict(headers or {})
        super().__init__(message)

    @property
    def body(self) -> bytes:
        """What is sent with it."""
        return status(self.code, self.message)


def of_error(problem: LGIError, headers: Mapping[str, str] | None = None) -> Refused:
    """What an error of the table is in HTTP."""
    return Refused(_CODES.get(problem.number, 400), problem.message, headers)


def of_upload(problem: LGIError, headers: Mapping[str, str] | None = None) -> Refused:
    """What the failure of a body that was to be stored is in HTTP: anything that is not its size is our disk."""
    return Refused(_CODES.get(problem.number, 507), problem.message, headers)


def of_storage(problem: OSError, headers: Mapping[str, str] | None = None) -> Refused:
    """What a failing disk, here or on another machine, is in HTTP."""
    code = 507 if problem.errno in _FULL else 500
    return Refused(code, f"it cannot be stored here: {problem.strerror or problem}", headers)
