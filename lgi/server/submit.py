"""Submitting jobs, by a user or by a resource (LGI 1.41, interface_submit_job, resource_submit_job)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence, Set
from typing import TypeVar

import attrs
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError
from twisted.internet.threads import deferToThread

from lgi.access import Grants, Permit, denied_groups, leaves_room, permits
from lgi.db.database import CommitUnknown
from lgi.db.events import SCHEDULE_CYCLE, schedule
from lgi.db.grants import fetch_grants, hold_grant, keeps_limit, take_grant
from lgi.db.jobs import count_owned, fetch_submitted, insert_job, insert_last_job, key_of
from lgi.db.locks import lock_job
from lgi.db.usage import AccountFull, charge
from lgi.errors import ErrorNumber, LGIError
from lgi.httpd.body import Upload
from lgi.httpd.peer import Caller
from lgi.lists import ANY
from lgi.model import Grant, Job, RepositoryFile, Resource
from lgi.repository.names import NameRefused, new_repository_name
from lgi.repository.usage import UsageExceeded
from lgi.server.members import User
from lgi.server.project import Project
from lgi.server.sessions import resource_in_session
from lgi.server.work import targets_of
from lgi.states import SUBMITTABLE, JobState
from lgi.wire.dialect import MalformedXML
from lgi.wire.specifics import posted_specifics, with_repository

R = TypeVar("R")

ADMIN = "admin"
"""The group that may read and modify every job."""
_LIMITS = (ErrorNumber.SUBMIT_REFUSED, ErrorNumber.FILE_TOO_BIG)

NAMED = 64
"""So many targets of a job are looked up by name; where there are more, all that offer its application are."""
SHOWN = 3
"""So many of them are told in a refusal."""


@attrs.frozen(kw_only=True)
class Submission:
    """What is posted of a new job."""

    application: str
    target_resources: tuple[str, ...]
    job_specifics: str = ""
    input: bytes = b""
    output: bytes = b""
    read_access: tuple[str, ...] = ()
    write_access: tuple[str, ...] = ()
    submission_key: str = ""


class _SubmittedMeanwhile(LGIError):
    """Somebody has submitted a job with the same key, since it was looked for."""


def checked(posted: Submission) -> Submission:
    """The submission with specifics as they may be kept; raises LGIError(SPECIFICS_MALFORMED)."""
    try:
        return attrs.evolve(posted, job_specifics=posted_specifics(posted.job_specifics))
    except MalformedXML as problem:
        raise LGIError(ErrorNumber.SPECIFICS_MALFORMED, str(problem)) from None


def _named(posted: Submission) -> tuple[str, ...] | None:
    """The resources that are asked for, None for too many to be looked for by name."""
    names = tuple(name for name in targets_of(posted.target_resources) if name != ANY)
    return names if len(names) <= NAMED else None


def _known_targets(posted: Submission, offered_by: Set[str]) -> tuple[str, ...]:
    """Those of the posted targets that offer the application; raises LGIError where there is none."""
    if not offered_by:
        raise LGIError(ErrorNumber.APPLICATION_UNKNOWN, posted.application)
    wanted = targets_of(posted.target_resources)
    targets = tuple(name for name in wanted if name == ANY or name in offered_by)
    if not targets:
        named = ", ".join(wanted[:SHOWN]) + (", …" if len(wanted) > SHOWN else "")
        raise LGIError(ErrorNumber.NO_KNOWN_TARGET, f"{posted.application} at {named}")
    return targets


def _in_order(found: Iterable[Permit]) -> list[Permit]:
    """Those with a limit, in the one order in which they are held, whatever was posted.

    Otherwise two who want the same ones would each wait for the other.
    """
    limited = (permit for permit in found if permit.grant.job_limit)
    return sorted(limited, key=lambda permit: (permit.of_group, permit.grant.name, permit.grant.application))


def _hold(connection: Connection, found: Iterable[Permit]) -> dict[Permit, Grant | None]:
    """The grants with a limit among these as they are now.

    Nobody else's submission under the same limit comes between this and the end of the transaction.
    """
    return {permit: hold_grant(connection, permit.grant, of_group=permit.of_group) for permit in _in_order(found)}


def _may_own(
    connection: Connection, owner: str, application: str, grants: Grants, held: Mapping[Permit, Grant | None]
) -> bool:
    """Whether a resource may submit one more job for an owner: whether one of his permits leaves room."""
    for permit in permits(owner, [owner], application, grants):
        if permit.grant.job_limit:
            grant = held[permit]
            if grant is None or not leaves_room(grant, *count_owned(connection, permit.owner, grant.application)):
                continue
        return True
    return False


def _new_job(project: Project, posted: Submission, repository: str, now: int, **fields: object) -> Job:
    specifics = with_repository(
        posted.job_specifics,
        project.repositories.location_of(repository),
        project.repositories.url_of(repository),
    )
    values = {
        "job_id": 0,
        "application": posted.application,
        "job_specifics": specifics,
        "input": posted.input,
        "output": posted.output,
        "state_time_stamp": now,
        "priority": now,
        "repository": repository,
    }
    return Job(**(values | fields))  # type: ignore[arg-type]


def _size(uploads: Sequence[Upload]) -> int:
    """What the files of a submission count with, in bytes."""
    return sum(upload.file.size for upload in uploads)


def _charge(connection: Connection, project: Project, job: Job) -> None:
    """Let the files of a new job count for its first owner; raises UsageExceeded."""
    if not job.repository_size:
        return
    try:
        charge(connection, job.account, job.repository_size, project.user_files)
    except AccountFull:
        raise UsageExceeded(f"max_user_size: the files of {job.account}", project.user_files) from None


async def _with_repository(
    project: Project,
    write_access: Sequence[str],
    uploads: Sequence[Upload],
    insert: Callable[[str], Awaitable[R]],
) -> tuple[R, tuple[RepositoryFile, ...]]:
    """Make a repository, then the job that refers to it: a job never lacks its files.

    The other way round a crash would leave a job without them. A repository without a job is only waste. Nothing that
    can fail comes after the commit: a client that is told of a failure may submit again.
    """
    name = new_repository_name()
    try:
        await project.keeper.create(name, write_access, uploads)
        files = await deferToThread(project.repositories.list, name)
    except NameRefused as problem:
        raise LGIError(ErrorNumber.UPLOAD_FAILED, str(problem)) from None
    except OSError as problem:
        raise LGIError(ErrorNumber.UPLOAD_FAILED, f"it cannot be stored here: {problem.strerror}") from None
    try:
        result = await insert(name)
    except CommitUnknown:
        # The job may be there, and must find its files.
        raise
    except LGIError:
        await project.keeper.remove(name)
        raise
    return result, files


def _submitted(connection: Connection, user: User, posted: Submission) -> Job | None:
    """The job that the user has submitted with this key, whatever else he posted then; None where there is none."""
    if not posted.submission_key:
        return None
    return fetch_submitted(connection, key_of(user.name, posted.submission_key))


def _check_user(connection: Connection, user: User, posted: Submission) -> Job | tuple[tuple[str, ...], Grants]:
    """The targets, and the grants of which one lets the user submit; only its limit is left to be counted.

    The job itself where it has been submitted before.
    """
    first = _submitted(connection, user, posted)
    if first is not None:
        return first
    grants = fetch_grants(connection, [user.name], user.groups, posted.application, _named(posted))
    targets = _known_targets(posted, grants.offered_by)
    if not permits(user.name, user.groups, posted.application, grants):
        raise LGIError(ErrorNumber.SUBMIT_REFUSED, posted.application)
    return targets, grants


def _submit_of_user(
    connection: Connection,
    project: Project,
    user: User,
    posted: Submission,
    targets: tuple[str, ...],
    grants: Grants,
    repository: str,
    size: int,
    now: int,
) -> Job:
    denied = denied_groups(user.groups, posted.application, grants)
    owners = tuple(dict.fromkeys((user.name, *(group for group in user.groups if group not in denied))))
    job = _new_job(
        project,
        posted,
        repository,
        now,
        state=JobState.QUEUED,
        target_resources=targets,
        owners=owners,
        read_access=tuple(dict.fromkeys((ADMIN, user.name, *posted.read_access))),
        write_access=_user_write_access(user, posted),
        repository_size=size,
    )
    key = key_of(user.name, posted.submission_key) if posted.submission_key else None

    def complete() -> None:
        _charge(connection, project, job)
        schedule(connection, SCHEDULE_CYCLE, now)
        _check_limits(connection, posted.application, permits(user.name, user.groups, posted.application, grants))

    try:
        job_id = insert_last_job(
            connection,
            job,
            actor=user.name,
            submission_key=key,
            complete=complete,
        )
    except IntegrityError:
        if key is None:
            raise
        text = "the same job is being submitted and deleted"
        raise _SubmittedMeanwhile(ErrorNumber.OVERLOADED, text, timeout=project.limits.back_off) from None
    return attrs.evolve(job, job_id=job_id)


def _check_limits(connection: Connection, application: str, found: Sequence[Permit]) -> None:
    """Raise LGIError(SUBMIT_REFUSED) unless one permit leaves room for the queued job, which is counted already.

    Last of all: who submits under a limit waits for whoever else does, from here to the end of the transaction.
    """
    if any(not permit.grant.job_limit for permit in found):
        return
    for permit in _in_order(found):
        take_grant(connection, permit.grant, of_group=permit.of_group)
    for permit in found:
        if keeps_limit(connection, permit.owner, permit.grant, of_group=permit.of_group):
            return
    raise LGIError(ErrorNumber.SUBMIT_REFUSED, application)


def _submit_without_files(
    connection: Connection, project: Project, user: User, posted: Submission, now: int
) -> tuple[Job, bool]:
    """The job, and whether it is new; its repository is made when it has a file."""
    found = _check_user(connection, user, posted)
    if isinstance(found, Job):
        return found, False
    return _submit_of_user(connection, project, user, posted, *found, new_repository_name(), 0, now), True


def _user_write_access(user: User, posted: Submission) -> tuple[str, ...]:
    return tuple(dict.fromkeys((ADMIN, user.name, *posted.write_access)))


async def submit_of_user(
    project: Project, user: User, posted: Submission, uploads: Sequence[Upload]
) -> tuple[Job, tuple[RepositoryFile, ...]]:
    """Store a user's job and its files; the job is queued when this returns, and survives any crash.

    With the key of a job that he has submitted before, and that is there still, nothing is stored, and that job is
    returned as it is now: its first submission counts, of which the answer was lost.
    """
    posted = checked(posted)
    now = project.now()
    try:
        if not uploads:
            job, is_new = await project.database.run("submit", _submit_without_files, project, user, posted, now)
            return job, project.unmade(job) if is_new else await project.files(job)
        found = await project.database.read("check submission", _check_user, user, posted)
        if isinstance(found, Job):
            return found, await project.files(found)
        size = _size(uploads)

        async def insert(repository: str) -> Job:
            return await project.database.run(
                "submit", _submit_of_user, project, user, posted, *found, repository, size, now
            )

        job, files = await _with_repository(project, _user_write_access(user, posted), uploads, insert)
    except LGIError as problem:
        # Of two who come with one key at the same time, one may also find that the other has used up the limit.
        meanwhile = isinstance(problem, _SubmittedMeanwhile) or problem.number in _LIMITS
        if not posted.submission_key or not meanwhile:
            raise
        first = await project.database.read("look for submission", _submitted, user, posted)
        if first is None:
            raise
        return first, await project.files(first)
    return job, files


def _check_resource(
    connection: Connection, caller: Caller, session_id: int, owners: Sequence[str], posted: Submission, now: int
) -> tuple[tuple[str, ...], Grants, tuple[str, ...]]:
    """The targets, the grants, and those owners whom the grants let submit; only their limits are left."""
    resource_in_session(connection, caller, session_id, now)
    grants = fetch_grants(connection, owners, owners, posted.application, _named(posted))
    targets = _known_targets(posted, grants.offered_by)
    allowed = tuple(owner for owner in owners if permits(owner, [owner], posted.application, grants))
    if not allowed:
        raise LGIError(ErrorNumber.NO_OWNER_MAY_SUBMIT, posted.application)
    return targets, grants, allowed


def _submit_of_resource(
    connection: Connection,
    project: Project,
    caller: Caller,
    session_id: int,
    state: JobState,
    owners: tuple[str, ...],
    posted: Submission,
    targets: tuple[str, ...],
    grants: Grants,
    repository: str,
    size: int,
    now: int,
) -> tuple[Resource, Job]:
    resource = resource_in_session(connection, caller, session_id, now)
    application = posted.application
    held = _hold(connection, (permit for owner in owners for permit in permits(owner, [owner], application, grants)))
    allowed = tuple(owner for owner in owners if _may_own(connection, owner, application, grants, held))
    if not allowed:
        raise LGIError(ErrorNumber.NO_OWNER_MAY_SUBMIT, posted.application)
    job = _new_job(
        project,
        posted,
        repository,
        now,
        state=state,
        target_resources=targets,
        owners=allowed,
        read_access=tuple(dict.fromkeys((ADMIN, *allowed, *posted.read_access))),
        write_access=tuple(dict.fromkeys((ADMIN, *allowed, *posted.write_access))),
        daemon_pulse=now,
        repository_size=size,
    )
    # On offer for a moment, inside this transaction: the lock takes it off again.
    job = attrs.evolve(job, job_id=insert_job(connection, job, actor=resource.resource_name))
    lock_job(connection, job.job_id, resource_id=resource.resource_id, session_id=session_id, now=now)
    _charge(connection, project, job)
    schedule(connection, SCHEDULE_CYCLE, now)
    return resource, job


def _submit_of_resource_without_files(
    connection: Connection,
    project: Project,
    caller: Caller,
    session_id: int,
    state: JobState,
    owners: tuple[str, ...],
    posted: Submission,
    now: int,
) -> tuple[Resource, Job]:
    targets, grants, allowed = _check_resource(connection, caller, session_id, owners, posted, now)
    return _submit_of_resource(
        connection,
        project,
        caller,
        session_id,
        state,
        allowed,
        posted,
        targets,
        grants,
        new_repository_name(),
        0,
        now,
    )


async def submit_of_resource(
    project: Project,
    caller: Caller,
    session_id: int,
    state: JobState,
    owners: tuple[str, ...],
    posted: Submission,
    uploads: Sequence[Upload],
) -> tuple[Resource, Job, tuple[RepositoryFile, ...]]:
    """Store a job of a resource, locked for its session, owned by those of `owners` who may submit."""
    if state not in SUBMITTABLE:
        raise LGIError(ErrorNumber.STATE_MISSING, f"a job is not submitted as {state}")
    posted = checked(posted)
    now = project.now()
    if not uploads:
        resource, job = await project.database.run(
            "submit", _submit_of_resource_without_files, project, caller, session_id, state, owners, posted, now
        )
        return resource, job, project.unmade(job)
    targets, grants, owners = await project.database.run(
        "check submission", _check_resource, caller, session_id, owners, posted, now
    )
    size = _size(uploads)

    async def insert(repository: str) -> tuple[Resource, Job]:
        return await project.database.run(
            "submit",
            _submit_of_resource,
            project,
            caller,
            session_id,
            state,
            owners,
            posted,
            targets,
            grants,
            repository,
            size,
            now,
        )

    write_access = tuple(dict.fromkeys((ADMIN, *owners, *posted.write_access)))
    (resource, job), files = await _with_repository(project, write_access, uploads, insert)
    return resource, job, files
