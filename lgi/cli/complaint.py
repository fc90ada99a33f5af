"""What went wrong, in one line that says what to do next where that is known."""

from __future__ import annotations

import click

from lgi.errors import ErrorNumber

_N = ErrorNumber

_HINTS = {
    _N.CERTIFICATE_REFUSED: "if it was revoked or replaced, ask your project's administrator for a new one",
    _N.NO_PROJECT_DATABASE: "see --project, or the file defaultproject in the configuration directory",
    _N.PROJECT_REFUSED: "see --project, or the file defaultproject in the configuration directory",
    _N.GROUPS_REFUSED: "the file groups in the configuration directory must name groups of the certificate",
    _N.USER_MISMATCH: "the file user in the configuration directory must say the certificate's name",
    _N.SUBMIT_REFUSED: "lgi list shows your jobs, the project's administrator grants the applications",
    _N.INPUT_TOO_BIG: "send large data as a file of the job: lgi submit … FILE",
    _N.JOB_UNKNOWN: "lgi list shows your jobs",
    _N.READ_REFUSED: "its owner can give access when submitting (--read)",
    _N.MODIFY_REFUSED: "its owner can give access when submitting (--write)",
}


_NOT_FOUND = "HTTP status 404"


class Complaint(click.ClickException):
    """An expected end without success; the message is one line for people."""

    exit_code = 1


def worded(problem: BaseException) -> str | None:
    """One line about a problem that may be expected to happen, None for one that is a fault of this program."""
    # Imported here, since only who has met such an error has them loaded already.
    from lgi.ca import AuthorityError
    from lgi.client.answers import AnswerMalformed, ServerRefused, ServerUnreachable
    from lgi.client.reference import UnknownReference
    from lgi.client.settings import SettingsError
    from lgi.tls import TLSFileError

    match problem:
        case click.ClickException():
            return problem.format_message()
        case ServerRefused():
            hint = _HINTS.get(ErrorNumber(problem.number)) if problem.number in set(ErrorNumber) else None
            return f"{problem}; {hint}" if hint else str(problem)
        case ServerUnreachable() if str(problem).endswith(_NOT_FOUND):
            return (
                f"there is no project server at this address: {problem}; it ends in /LGI as a rule, "
                "see --server, or the file defaultserver in the configuration directory"
            )
        case ServerUnreachable():
            return f"the server cannot be reached: {problem}"
        case UnknownReference():
            return f"{problem}; lgi list shows your jobs, lgi servers the project's servers"
        case TLSFileError():
            hint = "; ask your project's administrator for a new one (lgi ca issue user …)"
            return f"{problem}{hint if 'expired' in str(problem) else ''}"
        case SettingsError() | AnswerMalformed() | AuthorityError():
            return str(problem)
        case OSError():
            reason = problem.strerror or str(problem)
            return f"{problem.filename}: {reason}" if problem.filename else reason
    return None
