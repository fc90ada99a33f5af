"""Posted fields: their sizes and forms, and the error each raises.

Sizes are those of the deployed server: short text up to 254 bytes, whole numbers up to 9 digits, long text and
decoded data up to 65,354 bytes. A field that is too big or of the wrong form raises that field's error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NoReturn

import attrs

from lgi.errors import MESSAGES, ErrorNumber, LGIError
from lgi.lists import decode_list
from lgi.states import JobState
from lgi.wire.binhex import decode_binhex

SHORT = 254
DIGITS = 9
LONG = 65_354
# Names in one list; each becomes a row or a parameter of a statement.
LIST = 1_000
KEY = 64
JOBS = 32
"""Jobs that one call may change."""
UNKNOWN = "?"
"""Stands for the state of a job of which its client knows none."""
_KEY = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
# As received: hexadecimal takes two bytes for one, and a little white space may stand around it.
RECEIVED_MAXIMUM = 2 * LONG + 1024

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")

_E = ErrorNumber
TOO_BIG: dict[str, ErrorNumber] = {
    "state": _E.STATE_TOO_BIG,
    "application": _E.APPLICATION_TOO_BIG,
    "job_id": _E.JOB_ID_TOO_BIG,
    "start": _E.START_TOO_BIG,
    "limit": _E.LIMIT_TOO_BIG,
    "target_resources": _E.TARGETS_TOO_BIG,
    "read_access": _E.READ_ACCESS_TOO_BIG,
    "write_access": _E.WRITE_ACCESS_TOO_BIG,
    "job_specifics": _E.SPECIFICS_TOO_BIG,
    "input": _E.INPUT_TOO_BIG,
    "output": _E.OUTPUT_TOO_BIG,
    "groups": _E.GROUPS_TOO_BIG,
    "user": _E.USER_TOO_BIG,
    "project": _E.PROJECT_TOO_BIG,
    "version": _E.VERSION_TOO_BIG,
    "servers": _E.SERVERS_TOO_BIG,
    "update": _E.UPDATE_TOO_BIG,
    "session_id": _E.SESSION_ID_TOO_BIG,
    "resource_name": _E.RESOURCE_NAME_TOO_BIG,
    "capabilities": _E.CAPABILITIES_TOO_BIG,
    "owners": _E.OWNERS_TOO_BIG,
    "applications": _E.APPLICATION_TOO_BIG,
    "wait": _E.LIMIT_TOO_BIG,
    "cancel": _E.STATE_TOO_BIG,
    "jobs": _E.JOB_ID_MISSING,
    "submission_key": _E.UPLOAD_FAILED,
    "number_of_jobs": _E.LIMIT_TOO_BIG,
    "number_of_uploaded_files": _E.UPLOAD_FAILED,
    "repository": _E.UPLOAD_FAILED,
}
MISSING: dict[str, ErrorNumber] = {
    "application": _E.APPLICATION_MISSING,
    "applications": _E.APPLICATION_MISSING,
    "job_id": _E.JOB_ID_MISSING,
    "number_of_jobs": _E.JOB_ID_MISSING,
    "session_id": _E.SESSION_ID_MISSING,
    "state": _E.STATE_MISSING,
    "owners": _E.OWNERS_MISSING,
    "target_resources": _E.TARGETS_MISSING,
    "groups": _E.GROUPS_MISSING,
    "user": _E.USER_MISSING,
    "project": _E.PROJECT_REFUSED,
    "version": _E.VERSION_MISSING,
    "resource_name": _E.RESOURCE_NAME_MISSING,
}


@attrs.frozen(kw_only=True)
class PostedFields:
    """The fields of one request, as bytes; a value of None is one too big to have been kept.

    Names are those of the table of fields; in the request they have `ending` behind them, see `numbered`.
    """

    values: Mapping[str, bytes | None]
    ending: str = ""

    def numbered(self, number: int) -> PostedFields:
        """The fields whose names end in this number, under their names without it."""
        return attrs.evolve(self, ending=f"_{number}")

    def _text(self, name: str, maximum: int) -> str | None:
        if name + self.ending not in self.values:
            return None
        value = self.values[name + self.ending]
        if value is None or len(value) > maximum:
            raise self._wrong(name, f"at most {maximum} bytes")
        try:
            text = value.decode("utf-8")
        except UnicodeDecodeError:
            raise self._wrong(name, "it is not UTF-8 text") from None
        if _CONTROL.search(text) is not None:
            raise self._wrong(name, "it contains control characters")
        return text.strip()

    def short(self, name: str) -> str:
        """Short text; raises LGIError when missing or empty."""
        return self.optional_short(name) or self._missing(name)

    def optional_short(self, name: str) -> str:
        """Short text, empty when it was not posted."""
        text = self._text(name, SHORT) or ""
        if not text.isprintable():
            raise self._wrong(name, "it contains control characters")
        return text

    def integer(self, name: str) -> int:
        """A whole number; raises LGIError when missing or not one."""
        number = self.optional_integer(name)
        return self._missing(name) if number is None else number

    def optional_integer(self, name: str) -> int | None:
        """A whole number, None when it was not posted or is none."""
        value = self.values.get(name + self.ending, b"")
        if value is None or len(value.strip()) > DIGITS:
            raise self._wrong(name, f"at most {DIGITS} digits")
        text = self._text(name, SHORT)
        return int(text) if text and text.isascii() and text.isdigit() else None

    def count(self, name: str) -> int:
        """How many jobs a call is about; raises LGIError when missing, or not from 1 to JOBS."""
        number = self.integer(name)
        if not 1 <= number <= JOBS:
            raise self._wrong(name, f"it is not from 1 to {JOBS}")
        return number

    def long(self, name: str) -> str:
        """Long text; raises LGIError when missing or empty."""
        return self.optional_long(name) or self._missing(name)

    def optional_long(self, name: str) -> str | None:
        """Long text, None when it was not posted."""
        return self._text(name, LONG)

    def names(self, name: str) -> tuple[str, ...]:
        """A comma-separated list of names; raises LGIError when missing or empty."""
        return self.optional_names(name) or self._missing(name)

    def optional_names(self, name: str) -> tuple[str, ...]:
        """A comma-separated list of at most 1,000 names, each of at most 254 bytes; empty when it was not posted."""
        names = decode_list(self.optional_long(name) or "")
        if len(names) > LIST:
            raise self._wrong(name, f"at most {LIST} names")
        if any(len(item.encode()) > SHORT or not item.isprintable() for item in names):
            raise self._wrong(name, f"a name in it has more than {SHORT} bytes or control characters")
        return names

    def optional_key(self, name: str) -> str:
        """A key that a client has made, of 1 to KEY letters, digits, `_` and `-`; empty when it was not posted."""
        text = self.optional_short(name)
        if text and (len(text) > KEY or not _KEY.fullmatch(text)):
            raise self._wrong(name, f"it has 1 to {KEY} letters of A-Z, a-z, 0-9, _ and -")
        return text

    def optional_job_states(self, name: str) -> dict[int, JobState | None]:
        """A comma-separated list of at most LIST jobs as ID:STATE or ID:UNKNOWN; empty when it was not posted."""
        items = decode_list(self.optional_long(name) or "")
        if len(items) > LIST:
            raise self._wrong(name, f"it has {len(items)} items, and at most {LIST} are taken")
        known: dict[int, JobState | None] = {}
        for item in items:
            job_id, _colon, state = (part.strip() for part in item.partition(":"))
            if not (job_id.isascii() and job_id.isdigit() and len(job_id) <= DIGITS):
                raise self._wrong(name, f"{item[:80]!r} is not ID:STATE or ID:{UNKNOWN}")
            if state != UNKNOWN and state not in set(JobState):
                raise self._wrong(name, f"{item[:80]!r} has no state of a job, and is not ID:{UNKNOWN}")
            if int(job_id) in known:
                raise self._wrong(name, f"job {int(job_id)} is in it twice")
            known[int(job_id)] = None if state == UNKNOWN else JobState(state)
        return known

    def binhex(self, name: str) -> bytes | None:
        """Data posted in hexadecimal, None when it was not posted."""
        if self.values.get(name + self.ending, b"") is None:
            raise self._wrong(name, f"at most {LONG} bytes")
        text = self._text(name, RECEIVED_MAXIMUM)
        if text is None:
            return None
        try:
            data = decode_binhex(text)
        except ValueError:
            raise self._wrong(name, "it is not hexadecimal") from None
        if len(data) > LONG:
            raise self._wrong(name, f"at most {LONG} bytes")
        return data

    def _wrong(self, name: str, text: str) -> LGIError:
        """What to raise for a field that is wrong, by name where the table's text does not have it."""
        said = self._said(name, TOO_BIG[name])
        return LGIError(TOO_BIG[name], f"{said}: {text}" if said else text)

    def _missing(self, name: str) -> NoReturn:
        raise LGIError(MISSING[name], self._said(name, MISSING[name]))

    def _said(self, name: str, number: ErrorNumber) -> str:
        """The name of a field where the table's text does not have it."""
        return name + self.ending if self.ending or name not in MESSAGES[number] else ""
