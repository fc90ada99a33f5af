"""Answers to users, element by element in the order that deployed clients rely on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from lgi.lists import encode_list
from lgi.model import Job, ListedJob, RepositoryFile, Resource
from lgi.wire.answers import (
    Servers,
    access_elements,
    job_content,
    numbered,
    owners_element,
    server_pair,
    slave_elements,
    targets_element,
)
from lgi.wire.dialect import element, escape, raw_element


def _user_head(project: str, servers: Servers, user: str, groups: Sequence[str]) -> tuple[str, ...]:
    return (
        element("project", project),
        *server_pair(servers),
        element("user", user),
        element("groups", encode_list(groups)),
    )


def _short_head(project: str, servers: Servers, user: str, groups: Sequence[str]) -> tuple[str, ...]:
    return (
        element("user", user),
        element("groups", encode_list(groups)),
        element("project", project),
        *server_pair(servers),
    )


# The same names stand in the jobs of many answers.
_escaped = lru_cache(maxsize=4096)(escape)


def _listed_job(job: ListedJob) -> str:
    # In one piece, since an answer has many of them.
    return (
        f"<job_id> {job.job_id} </job_id> <state> {job.state} </state>"
        f" <state_time_stamp> {job.state_time_stamp} </state_time_stamp>"
        f" <target_resources> {_escaped(job.target_resources)} </target_resources>"
        f" <owners> {_escaped(job.owners)} </owners> <application> {_escaped(job.application)} </application>"
        f" <read_access> {_escaped(job.read_access)} </read_access>"
        f" <write_access> {_escaped(job.write_access)} </write_access>"
        f" <job_specifics> {job.job_specifics} </job_specifics>"
    )


def _job_wait(seconds: int) -> str:
    """For how long a user may wait for changes of jobs in one call, at the end of answers from which he may do so."""
    return " " + element("job_wait", seconds)


def submitted(
    project: str,
    servers: Servers,
    user: str,
    groups: Sequence[str],
    job: Job,
    files: Sequence[RepositoryFile],
    *,
    submission_key: str = "",
    job_wait: int,
) -> str:
    """A user's submission, with the key that he gave it."""
    content = job_content(job, files)
    if submission_key:
        content += " " + element("submission_key", submission_key)
    parts = (*_user_head(project, servers, user, groups), raw_element("job", content))
    return " " + " ".join(parts) + _job_wait(job_wait)


def job_list(
    project: str,
    servers: Servers,
    user: str,
    groups: Sequence[str],
    *,
    state: str,
    application: str,
    start: int,
    limit: int,
    number_of_jobs: int,
    jobs: Sequence[ListedJob],
    job_wait: int,
) -> str:
    """A user's list or count."""
    parts = (
        *_user_head(project, servers, user, groups),
        element("state", state),
        element("application", application),
        element("start", start),
        element("limit", limit),
        element("number_of_jobs", number_of_jobs),
    )
    listed = f" {' '.join(parts)}  {' '.join(numbered('job', map(_listed_job, jobs)))}".removesuffix(" ")
    return listed + _job_wait(job_wait)


def job_changes(
    project: str,
    servers: Servers,
    user: str,
    groups: Sequence[str],
    *,
    jobs: Sequence[ListedJob],
    gone: Sequence[int],
    job_wait: int,
) -> str:
    """Jobs that are in another state than a user knew, as in the list, and those that there are not for him."""
    parts = (
        *_user_head(project, servers, user, groups),
        element("number_of_jobs", len(jobs)),
        *numbered("job", map(_listed_job, jobs)),
        element("gone", encode_list(map(str, gone))),
    )
    return " " + " ".join(parts) + _job_wait(job_wait)


def job_detail(
    project: str,
    servers: Servers,
    user: str,
    groups: Sequence[str],
    job: Job,
    files: Sequence[RepositoryFile],
    *,
    job_wait: int,
) -> str:
    """A user's look at one job."""
    parts = (
        *_user_head(project, servers, user, groups),
        element("number_of_jobs", 1),
        *numbered("job", [job_content(job, files)]),
    )
    return " " + " ".join(parts) + _job_wait(job_wait)


def job_deleted(project: str, servers: Servers, user: str, groups: Sequence[str], job: Job) -> str:
    """A user's deletion; the job's state says whether it is gone or being aborted."""
    content = " ".join(
        (
            element("job_id", job.job_id),
            targets_element(job),
            element("application", job.application),
            owners_element(job),
            *access_elements(job),
            element("state", job.state.value),
            element("state_time_stamp", job.state_time_stamp),
        )
    )
    parts = (
        *_user_head(project, servers, user, groups),
        element("number_of_jobs", 1),
        *numbered("job", [content]),
    )
    return " " + " ".join(parts)


def server_list(project: str, servers: Servers, user: str, groups: Sequence[str], *, job_wait: int) -> str:
    """A user's list of project servers."""
    return " ".join((*_short_head(project, servers, user, groups), *slave_elements(servers))) + _job_wait(job_wait)


def resource_list(
    project: str, servers: Servers, user: str, groups: Sequence[str], resources: Sequence[Resource]
) -> str:
    """A user's list of resources."""
    contents = (
        " ".join(
            (
                element("resource_name", resource.resource_name),
                raw_element("resource_capabilities", resource.resource_capabilities),
                element("last_call_time", resource.last_call_time),
            )
        )
        for resource in resources
    )
    parts = (
        *_short_head(project, servers, user, groups),
        element("number_of_resources", len(resources)),
        *numbered("resource", contents),
    )
    return " ".join(parts)
