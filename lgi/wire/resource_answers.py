"""Answers to resources, element by element in the order that deployed clients rely on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from lgi.errors import LGIError
from lgi.lists import encode_list
from lgi.model import Job, Lock, RepositoryFile, Resource
from lgi.wire.answers import (
    Servers,
    access_elements,
    error_element,
    job_content,
    numbered,
    owners_element,
    server_pair,
    slave_elements,
    targets_element,
)
from lgi.wire.binhex import encode_binhex
from lgi.wire.dialect import element, raw_element


def _resource_head(resource: Resource, project: str, servers: Servers) -> tuple[str, ...]:
    return (
        *_resource_elements(resource.resource_name, resource.url, resource.resource_capabilities, project),
        *server_pair(servers),
    )


# A resource makes several calls for each job.
@lru_cache(maxsize=1024)
def _resource_elements(name: str, url: str, capabilities: str, project: str) -> tuple[str, str, str, str]:
    return (
        element("resource", name),
        element("resource_url", url),
        raw_element("resource_capabilities", capabilities),
        element("project", project),
    )


def _offered_job(job: Job) -> str:
    return " ".join(
        (
            element("job_id", job.job_id),
            element("state_time_stamp", job.state_time_stamp),
            targets_element(job),
            owners_element(job),
            *access_elements(job),
        )
    )


def session(
    resource: Resource,
    project: str,
    servers: Servers,
    session_id: int,
    *,
    work_wait: int = 0,
    update_jobs: int = 0,
) -> str:
    """Signup and signoff.

    With `work_wait` it is said for how many seconds the session may wait for work, with `update_jobs` how many jobs
    it may change in one call.
    """
    parts = [*_resource_head(resource, project, servers), *slave_elements(servers), element("session_id", session_id)]
    if work_wait:
        parts.append(element("work_wait", work_wait))
    if update_jobs:
        parts.append(element("update_jobs", update_jobs))
    return " " + " ".join(parts)


def work_for(
    resource: Resource, project: str, servers: Servers, *, session_id: int, applications: Sequence[str]
) -> str:
    """Request_work that has waited: for which applications it is worth asking for work."""
    parts = (
        *_resource_head(resource, project, servers),
        element("session_id", session_id),
        element("work_for", encode_list(applications)),
    )
    return " ".join(parts)


def work(
    resource: Resource,
    project: str,
    servers: Servers,
    *,
    session_id: int,
    application: str,
    owners: str,
    start: int,
    limit: int,
    number_of_jobs: int,
    jobs: Sequence[Job],
) -> str:
    """Request_work, with jobs or as a count."""
    parts = (
        element("start", start),
        element("limit", limit),
        element("owners", owners),
        *_resource_head(resource, project, servers),
        element("session_id", session_id),
        element("application", application),
        element("number_of_jobs", number_of_jobs),
        *numbered("job", map(_offered_job, jobs)),
    )
    return " ".join(parts)


def resource_job(
    resource: Resource,
    project: str,
    servers: Servers,
    job: Job,
    *,
    session_id: int | None = None,
    files: Sequence[RepositoryFile] | None = None,
) -> str:
    """The calls of a resource that answer with one job."""
    parts = list(_resource_head(resource, project, servers))
    if session_id is not None:
        parts.append(element("session_id", session_id))
    return " " + " ".join((*parts, raw_element("job", job_content(job, files))))


def resource_jobs(
    resource: Resource, project: str, servers: Servers, found: Mapping[int, Job | LGIError], *, session_id: int
) -> str:
    """Update_jobs: each of the jobs, or why it was refused."""
    parts = (
        *_resource_head(resource, project, servers),
        element("session_id", session_id),
        element("number_of_jobs", len(found)),
        *numbered("job", (_job_or_error(job_id, outcome) for job_id, outcome in found.items())),
    )
    return " " + " ".join(parts)


def _job_or_error(job_id: int, outcome: Job | LGIError) -> str:
    if isinstance(outcome, LGIError):
        return f"{element('job_id', job_id)} {error_element(outcome)}"
    return job_content(outcome)


def lock(
    resource: Resource, project: str, servers: Servers, held: Lock, *, session_id: int, unlock_time: int | None = None
) -> str:
    """Lock and unlock."""
    time = element("lock_time", held.lock_time) if unlock_time is None else element("unlock_time", unlock_time)
    details = (
        element("lock_id", held.lock_id),
        element("job_id", held.job_id),
        time,
        element("session_id", held.session_id),
        element("resource_id", held.resource_id),
    )
    parts = (
        *_resource_head(resource, project, servers),
        element("session_id", session_id),
        element("job_id", held.job_id),
        raw_element("lock", " ".join(details)),
    )
    return " " + " ".join(parts)


def resource_data(resource: Resource, project: str, servers: Servers, requested: Resource) -> str:
    """Request_resource_data; the old server closed the inner `resource_url` as `url`."""
    details = (
        element("resource_name", requested.resource_name),
        element("client_certificate", encode_binhex(requested.client_certificate.encode())),
        element("resource_url", requested.url),
        element("last_call_time", requested.last_call_time),
    )
    parts = (*_resource_head(resource, project, servers), raw_element("requested_resource_data", " ".join(details)))
    return " " + " ".join(parts)
