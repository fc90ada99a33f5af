"""The error table of the wire, and the exception that carries an entry of it.

Numbers are those of the deployed servers and clients; the texts are ours.
"""

from __future__ import annotations

from enum import IntEnum, unique


@unique
class ErrorNumber(IntEnum):
    """Error numbers that travel in `<error> <number> … </number>`."""

    OVERLOADED = 1
    CERTIFICATE_REFUSED = 2
    DATABASE_UNREACHABLE = 3
    NO_PROJECT_DATABASE = 4
    RESOURCE_UNKNOWN = 5
    NOT_ONE_MASTER = 6
    LOCKS_WITHOUT_SESSION = 7
    SESSION_ID_MISSING = 8
    LOCK_SEARCH_WITHOUT_SESSION = 9
    UNLOCK_WITHOUT_SESSION = 10
    LOCK_WITHOUT_SESSION = 11
    SEVERAL_LOCKS = 12
    LOCK_MISSING = 13
    LOCK_OF_ANOTHER = 14
    JOB_UNKNOWN = 15
    SESSION_ENDED = 16
    SESSION_HOLDS_LOCKS = 17
    APPLICATION_MISSING = 18
    JOB_ID_MISSING = 19
    JOB_NOT_LOCKED = 20
    NOT_A_TARGET = 21
    LOCK_REFUSED = 22
    UNLOCK_REFUSED = 23
    STATE_HIDDEN = 24
    STATE_MISSING = 25
    OWNERS_MISSING = 26
    TARGETS_MISSING = 27
    NO_KNOWN_TARGET = 28
    NO_OWNER_MAY_SUBMIT = 29
    USER_MISMATCH = 30
    GROUPS_MISSING = 31
    USER_MISSING = 32
    SUBMIT_REFUSED = 33
    READ_REFUSED = 34
    MODIFY_REFUSED = 35
    INTERFACE_LOCK_MISSING = 36
    PROJECT_REFUSED = 37
    GROUPS_REFUSED = 38
    NOT_A_SERVER = 39
    VERSION_MISSING = 40
    UPDATE_REFUSED = 41
    SESSION_UNKNOWN = 42
    RESOURCE_NAME_MISSING = 43
    SESSION_NOT_STARTED = 44
    STATE_TOO_BIG = 45
    APPLICATION_TOO_BIG = 46
    JOB_ID_TOO_BIG = 47
    START_TOO_BIG = 48
    LIMIT_TOO_BIG = 49
    TARGETS_TOO_BIG = 50
    READ_ACCESS_TOO_BIG = 51
    WRITE_ACCESS_TOO_BIG = 52
    SPECIFICS_TOO_BIG = 53
    INPUT_TOO_BIG = 54
    OUTPUT_TOO_BIG = 55
    GROUPS_TOO_BIG = 56
    USER_TOO_BIG = 57
    PROJECT_TOO_BIG = 58
    VERSION_TOO_BIG = 59
    SERVERS_TOO_BIG = 60
    UPDATE_TOO_BIG = 61
    SESSION_ID_TOO_BIG = 62
    RESOURCE_NAME_TOO_BIG = 63
    FILE_TOO_BIG = 64
    REQUEST_TOO_BIG = 65
    FORGED_REQUEST = 66
    BROWSER_SESSION = 67
    UPLOAD_FAILED = 68
    CAPABILITIES_TOO_BIG = 69
    APPLICATION_UNKNOWN = 70
    OWNERS_TOO_BIG = 71
    SPECIFICS_MALFORMED = 72
    CAPABILITIES_MALFORMED = 73


_N = ErrorNumber

MESSAGES: dict[ErrorNumber, str] = {
    _N.OVERLOADED: "back-off: the server is busy, try again later",
    _N.CERTIFICATE_REFUSED: "this client certificate is not accepted",
    _N.DATABASE_UNREACHABLE: "the project's database does not answer",
    _N.NO_PROJECT_DATABASE: "this server does not serve the project",
    _N.RESOURCE_UNKNOWN: "the resource is not registered in this project",
    _N.NOT_ONE_MASTER: "the project does not have exactly one master server",
    _N.LOCKS_WITHOUT_SESSION: "locks can be cleared in a session only",
    _N.SESSION_ID_MISSING: "the field session_id is missing or not a number",
    _N.LOCK_SEARCH_WITHOUT_SESSION: "locks can be looked up in a session only",
    _N.UNLOCK_WITHOUT_SESSION: "a job can be unlocked in a session only",
    _N.LOCK_WITHOUT_SESSION: "a job can be locked in a session only",
    _N.SEVERAL_LOCKS: "the job has more than one lock",
    _N.LOCK_MISSING: "the job is not locked",
    _N.LOCK_OF_ANOTHER: "the job is locked by another resource or session",
    _N.JOB_UNKNOWN: "there is no such job",
    _N.SESSION_ENDED: "the session does not exist or has ended; sign up again",
    _N.SESSION_HOLDS_LOCKS: "the session still holds locks; unlock those jobs first",
    _N.APPLICATION_MISSING: "the field application is missing",
    _N.JOB_ID_MISSING: "the field job_id is missing or not a number",
    _N.JOB_NOT_LOCKED: "the job is not locked by this resource in this session",
    _N.NOT_A_TARGET: "the resource is not a target of the job",
    _N.LOCK_REFUSED: "the job is locked already",
    _N.UNLOCK_REFUSED: "the job could not be unlocked",
    _N.STATE_HIDDEN: "the resource is not a target of the job and may not see it",
    _N.STATE_MISSING: "the field state is missing",
    _N.OWNERS_MISSING: "the field owners is missing",
    _N.TARGETS_MISSING: "the field target_resources is missing",
    _N.NO_KNOWN_TARGET: "none of the target resources is known to run the application",
    _N.NO_OWNER_MAY_SUBMIT: "none of the owners may submit jobs for the application",
    _N.USER_MISMATCH: "the field user is not the user of the certificate",
    _N.GROUPS_MISSING: "the field groups is missing",
    _N.USER_MISSING: "the field user is missing",
    _N.SUBMIT_REFUSED: "the user may not submit jobs for the application, or has reached the job limit",
    _N.READ_REFUSED: "the user may not read the job",
    _N.MODIFY_REFUSED: "the user may not modify the job",
    _N.INTERFACE_LOCK_MISSING: "the job is gone or no longer locked for this request",
    _N.PROJECT_REFUSED: "the certificate is not valid for this project",
    _N.GROUPS_REFUSED: "the certificate has none of the posted groups",
    _N.NOT_A_SERVER: "the certificate is not that of a registered project server",
    _N.VERSION_MISSING: "the field version is missing or not a number",
    _N.UPDATE_REFUSED: "the update is incomplete or not acceptable",
    _N.SESSION_UNKNOWN: "there is no such session to end",
    _N.RESOURCE_NAME_MISSING: "the field resource_name is missing",
    _N.SESSION_NOT_STARTED: "the session could not be started",
    _N.STATE_TOO_BIG: "the field state is too big or not acceptable",
    _N.APPLICATION_TOO_BIG: "the field application is too big or not acceptable",
    _N.JOB_ID_TOO_BIG: "the field job_id is too big or not acceptable",
    _N.START_TOO_BIG: "the field start is too big or not acceptable",
    _N.LIMIT_TOO_BIG: "the field limit is too big or not acceptable",
    _N.TARGETS_TOO_BIG: "the field target_resources is too big or not acceptable",
    _N.READ_ACCESS_TOO_BIG: "the field read_access is too big or not acceptable",
    _N.WRITE_ACCESS_TOO_BIG: "the field write_access is too big or not acceptable",
    _N.SPECIFICS_TOO_BIG: "the field job_specifics is too big or not acceptable",
    _N.INPUT_TOO_BIG: "the field input is too big or not acceptable",
    _N.OUTPUT_TOO_BIG: "the field output is too big or not acceptable",
    _N.GROUPS_TOO_BIG: "the field groups is too big or not acceptable",
    _N.USER_TOO_BIG: "the field user is too big or not acceptable",
    _N.PROJECT_TOO_BIG: "the field project is too big or not acceptable",
    _N.VERSION_TOO_BIG: "the field version is too big or not acceptable",
    _N.SERVERS_TOO_BIG: "the field servers is too big or not acceptable",
    _N.UPDATE_TOO_BIG: "the field update is too big or not acceptable",
    _N.SESSION_ID_TOO_BIG: "the field session_id is too big or not acceptable",
    _N.RESOURCE_NAME_TOO_BIG: "the field resource_name is too big or not acceptable",
    _N.FILE_TOO_BIG: "an uploaded file is too big",
    _N.REQUEST_TOO_BIG: "the request is too big",
    _N.FORGED_REQUEST: "the request came from another site",
    _N.BROWSER_SESSION: "this call is for API clients, not for a browser session",
    _N.UPLOAD_FAILED: "the upload failed",
    _N.CAPABILITIES_TOO_BIG: "the field capabilities is too big or not acceptable",
    _N.APPLICATION_UNKNOWN: "no known resource has the application",
    _N.OWNERS_TOO_BIG: "the field owners is too big or not acceptable",
    _N.SPECIFICS_MALFORMED: "the field job_specifics is not well-formed XML",
    _N.CAPABILITIES_MALFORMED: "the field capabilities is not well-formed XML",
}


class LGIError(Exception):
    """An expected outcome that a client is told by number.

    `detail` is appended to the table's text; `timeout` is in whole seconds and only goes with OVERLOADED.
    """

    def __init__(self, number: ErrorNumber, detail: str = "", *, timeout: int | None = None) -> None:
        self.number = number
        self.detail = detail
        self.timeout = timeout
        super().__init__(self.message)

    @property
    def message(self) -> str:
        """The text for people: the table's, and what is particular to this occurrence."""
        text = MESSAGES[self.number]
        return f"{text}: {self.detail}" if self.detail else text
