"""Sessions and locks of resources (LGI 1.41, resource_signup_resource to resource_unlock_job)."""

from __future__ import annotations

import attrs
from sqlalchemy import Connection

from lgi.db.jobs import fetch_job
from lgi.db.locks import give_back, give_back_held, hold_locked_job, lock_job
from lgi.db.resources import set_capabilities
from lgi.db.sessions import (
    HeldSession,
    end_held_session,
    end_session_of_known,
    hold_session,
    hold_session_and_job,
    hold_session_and_lock,
    keep_alive,
    start_session,
    start_session_of_known,
)
from lgi.errors import ErrorNumber, LGIError
from lgi.httpd.peer import Caller
from lgi.model import Job, Lock, Resource
from lgi.server.members import TOUCH_SECONDS, known_resource, note_call, registered_resource
from lgi.server.project import Project
from lgi.wire.capabilities import check_capabilities
from lgi.wire.fields import DIGITS


def held_session(connection: Connection, caller: Caller, session_id: int, now: int) -> HeldSession:
    """The session of the calling resource, which goes on, and is held until the transaction ends; raises LGIError."""
    held = hold_session(connection, session_id, caller.identity.name)
    if held is None:
        registered_resource(connection, caller, now)
        raise LGIError(ErrorNumber.SESSION_ENDED)
    return going_on(connection, caller, held, now)


def going_on(connection: Connection, caller: Caller, held: HeldSession, now: int) -> HeldSession:
    """A session that is held, if it is the caller's and goes on; raises LGIError."""
    known_resource(caller, held.resource)
    return keep_alive(connection, held, now)


def resource_in_session(connection: Connection, caller: Caller, session_id: int, now: int) -> Resource:
    """The calling resource, whose session goes on; raises LGIError."""
    return note_call(connection, held_session(connection, caller, session_id, now).resource, now)


def job_in_session(
    connection: Connection, caller: Caller, session_id: int, job_id: int, now: int
) -> tuple[Resource, Job]:
    """The calling resource, whose session goes on, and a job as `hold_locked_job` has it; raises LGIError."""
    found = hold_session_and_job(connection, session_id, caller.identity.name, job_id)
    if found is None:
        resource = resource_in_session(connection, caller, session_id, now)
        return resource, hold_locked_job(connection, job_id, resource_id=resource.resource_id, session_id=session_id)
    held, job = found
    return note_call(connection, going_on(connection, caller, held, now).resource, now), job


def _sign_up(connection: Connection, caller: Caller, capabilities: str | None, now: int) -> tuple[Resource, int]:
    # Most resources that sign up are known, and are what they were.
    known = start_session_of_known(
        connection,
        caller.identity.name,
        certificate=caller.certificate,
        capabilities=capabilities,
        heard=now - TOUCH_SECONDS,
        now=now,
    )
    resource, session_id = known or _start(connection, caller, capabilities, now)
    if session_id >= 10**DIGITS:
        # The resource could never post it.
        raise LGIError(ErrorNumber.SESSION_NOT_STARTED, f"its number would have more than {DIGITS} digits")
    return resource, session_id


def _start(connection: Connection, caller: Caller, capabilities: str | None, now: int) -> tuple[Resource, int]:
    resource = registered_resource(connection, caller, now)
    if capabilities is not None and capabilities != resource.resource_capabilities:
        set_capabilities(connection, resource, capabilities)
        resource = attrs.evolve(resource, resource_capabilities=capabilities)
    return resource, start_session(connection, resource.resource_id, now)


async def sign_up(project: Project, caller: Caller, capabilities: str | None) -> tuple[Resource, int]:
    """Start a session and store the posted capabilities; returns the resource and the session's number."""
    if capabilities is not None:
        check_capabilities(capabilities)
    return await project.database.run("sign up", _sign_up, caller, capabilities, project.now())


def _sign_off(connection: Connection, caller: Caller, session_id: int, now: int) -> tuple[Resource, list[int]]:
    name, heard = caller.identity.name, now - TOUCH_SECONDS
    ended = end_session_of_known(connection, session_id, name, certificate=caller.certificate, heard=heard, now=now)
    if ended is not None:
        return ended, []
    resource = resource_in_session(connection, caller, session_id, now)
    return resource, end_held_session(connection, session_id)


async def sign_off(project: Project, caller: Caller, session_id: int) -> Resource:
    """End a session, which frees its locks."""
    resource, _freed = await project.database.run("sign off", _sign_off, caller, session_id, project.now())
    project.waiting.forget(session_id)
    return resource


def _lock(connection: Connection, caller: Caller, session_id: int, job_id: int, now: int) -> tuple[Resource, Lock]:
    resource = resource_in_session(connection, caller, session_id, now)
    job = fetch_job(connection, job_id)
    if job is None:
        raise LGIError(ErrorNumber.JOB_UNKNOWN)
    if not job.targets(resource.resource_name):
        raise LGIError(ErrorNumber.NOT_A_TARGET)
    held = lock_job(connection, job_id, resource_id=resource.resource_id, session_id=session_id, now=now)
    return resource, held


async def lock(project: Project, caller: Caller, session_id: int, job_id: int) -> tuple[Resource, Lock]:
    """Lock a job that the resource is a target of; raises LGIError(LOCK_REFUSED) when somebody holds it."""
    return await project.database.run("lock", _lock, caller, session_id, job_id, project.now())


def _unlock(connection: Connection, caller: Caller, session_id: int, job_id: int, now: int) -> tuple[Resource, Lock]:
    found = hold_session_and_lock(connection, session_id, caller.identity.name, job_id)
    if found is None:
        resource = resource_in_session(connection, caller, session_id, now)
        return resource, give_back(connection, job_id, resource_id=resource.resource_id, session_id=session_id)
    held, row = found
    resource = note_call(connection, going_on(connection, caller, held, now).resource, now)
    return resource, give_back_held(connection, row)


async def unlock(project: Project, caller: Caller, session_id: int, job_id: int) -> tuple[Resource, Lock]:
    """Give back a lock of this session; raises LGIError when there is none or it is another's."""
    return await project.database.run("unlock", _unlock, caller, session_id, job_id, project.now())
