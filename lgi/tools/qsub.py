"""`LGI_qsub`: submit a job as a user, or as the resource whose job script calls it (LGI 1.41)."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from secrets import token_hex
from typing import Any

import attrs

from lgi.client.answers import AnswerMalformed, ServerRefused, ServerUnreachable
from lgi.client.repository import checked_name
from lgi.client.settings import SettingsError
from lgi.lists import ANY
from lgi.tools import layout
from lgi.tools.account import (
    CONFIGURATION,
    JOB_DIRECTORY,
    PAPERS,
    PROJECT,
    SERVER,
    JobAccount,
    UserAccount,
    as_resource,
    job_account,
    job_directory,
    user_account,
)
from lgi.tools.calls import Calls, Response, own_fields
from lgi.tools.connection import calls, complain, connected, explained, run, show
from lgi.tools.notes import VERBOSITY, notes_of
from lgi.tools.options import Given, Option, Tool
from lgi.wire.binhex import encode_binhex

TOOL = Tool(
    "LGI_qsub",
    "-a application [options] [files for the repository]",
    Option("-x", "write XML."),
    Option("-a", "the application.", "application"),
    Option("-t", "the target resources, or any, which is the default.", "targetresources"),
    Option("-s", "the job specifics, in XML.", "jobspecs"),
    Option("-i", "the file with the input of the job; - is standard input.", "inputfile"),
    Option("-r", "who may read the job: users and groups.", "readaccesslist"),
    Option("-w", "who may change the job: users and groups.", "writeaccesslist"),
    CONFIGURATION,
    JOB_DIRECTORY,
    *PAPERS[1:],
    *SERVER,
    PROJECT,
    PAPERS[0],
    Option("-m", "act as a user in a job directory, and as a resource elsewhere."),
    *VERBOSITY,
)
SUBMIT = "interfaces/interface_submit_job.php"
SIGN_UP, SUBMIT_AS_RESOURCE, SIGN_OFF = (
    f"resources/resource_{name}.php" for name in ("signup_resource", "submit_job", "signoff_resource")
)


@attrs.frozen(kw_only=True)
class Submission:
    """Who submits, and what is posted of the job."""

    account: UserAccount | JobAccount
    fields: dict[str, str | int]
    files: tuple[Path, ...]


def checked_files(names: Iterable[str]) -> tuple[Path, ...]:
    """The files, if all can be sent and no two go by the same name; raises SettingsError that names every other."""
    mistakes: list[str] = []
    found: dict[str, Path] = {}
    for file in map(Path, names):
        try:
            checked_name(file.name)
            if file.exists() and not file.is_file():
                raise ValueError("it is not a file")
            file.open("rb").close()
        except OSError as problem:
            mistakes.append(f"{file}: {problem.strerror}")
        except ValueError as problem:
            mistakes.append(f"{file}: {problem}")
        if file.name in found:
            mistakes.append(f"{found[file.name]} and {file} have the same name, a repository holds one of them")
        found.setdefault(file.name, file)
    if mistakes:
        raise SettingsError("; ".join(mistakes) + "; nothing was sent")
    return tuple(found.values())


def _input(name: str) -> bytes:
    return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()


def submission(given: Given) -> Submission:
    """What the command line, a configuration directory or a job directory say; raises SettingsError, OSError."""
    directory = job_directory(given)
    account: UserAccount | JobAccount
    if (directory is not None) != ("-m" in given.switches):
        account = as_resource(given) if directory is None else job_account(directory, given)
        application, targets = given.value("-a"), given.value("-t") or ANY
        specifics, readers, writers = given.value("-s"), account.read_access, account.write_access
    else:
        account = user_account(given)
        application, targets = account.application, account.target_resources
        specifics, readers, writers = account.job_specifics, given.value("-r"), given.value("-w")
    if not application:
        raise SettingsError("the application is missing: -a, or a user's file defaultapplication")
    optional = {
        "job_specifics": specifics,
        "input": encode_binhex(_input(given.value("-i"))) if given.value("-i") else "",
        "read_access": readers,
        "write_access": writers,
    }
    fields: dict[str, str | int] = {"application": application, "target_resources": targets}
    fields.update((name, value) for name, value in optional.items() if value)
    return Submission(
        account=account,
        fields=fields,
        files=checked_files(given.arguments),
    )


async def submit_as_resource(ask: Calls, account: JobAccount, job: Submission) -> Response:
    """Submit in a session of its own; the end of the session unlocks the job, which others may take from then on."""
    session_id = (await ask.ask(SIGN_UP, {})).value("session_id")
    if not session_id:
        raise AnswerMalformed("the server's answer has no <session_id>")
    fields = {"session_id": session_id, **job.fields, "state": "queued", "owners": account.owners}
    try:
        return await ask.ask(SUBMIT_AS_RESOURCE, fields, job.files)
    finally:
        try:
            await ask.ask(SIGN_OFF, {"session_id": session_id})
        except (ServerRefused, ServerUnreachable, AnswerMalformed) as problem:
            complain(f"{TOOL.name}: session {session_id} goes on until the server ends it: {problem}\n")


async def submit_as_user(ask: Calls, job: Submission) -> Response:
    """Submit; the key tells the server which submissions are one and the same."""
    try:
        return await ask.ask(SUBMIT, {**job.fields, "submission_key": token_hex(16)}, job.files)
    except (ServerUnreachable, AnswerMalformed) as problem:
        if isinstance(problem, AnswerMalformed) or problem.maybe_done:
            complain(f"{TOOL.name}: it is not known whether the job has been submitted, see LGI_qstat\n")
        raise


def submit(words: list[str]) -> int:
    """The tool; returns its exit status."""
    given = TOOL.given(words)
    notes = notes_of(given)
    try:
        job = submission(given)
    except (SettingsError, OSError) as problem:
        return explained(TOOL, problem)
    account = job.account

    async def work(reactor: Any) -> None:
        async with connected(reactor, account.papers, notes) as http:
            own = own_fields(account) if isinstance(account, UserAccount) else {}
            ask = calls(reactor, http, account.server, account.project, own, notes)
            if isinstance(account, JobAccount):
                response = await submit_as_resource(ask, account, job)
            else:
                response = await submit_as_user(ask, job)
            show(f"{response.text}\n" if "-x" in given.switches else layout.submitted(response))

    return run(TOOL, notes, work, account.server)


def main() -> None:
    """The program."""
    sys.exit(submit(sys.argv[1:]))


if __name__ == "__main__":
    main()
