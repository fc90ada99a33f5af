"""The server's answers, element by element in the order that deployed clients rely on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from lgi.errors import LGIError
from lgi.lists import encode_list
from lgi.model import Job, Lock, RepositoryFile, Resource
from lgi.wire.binhex import encode_binhex
from lgi.wire.dialect import element, raw_element

API_VERSION = "1.41"
MAX_FIELD_SIZE = 65_355


@attrs.frozen(kw_only=True)
class Envelope:
    """What stands around every answer of a server."""

    lgi_version: str
    ca_certificate_url: str

    def wrap(self, response: str) -> bytes:
        """A whole answer around the content of `<response>`."""
        head = " ".join(
            (
                element("API_version", API_VERSION),
                element("LGI_version", self.lgi_version),
                element("CA_certificate", self.ca_certificate_url),
                element("server_max_field_size", MAX_FIELD_SIZE),
            )
        )
        return f"<LGI> {head}  <response> {response} </response> </LGI>".encode()

    def wrap_error(self, error: LGIError) -> bytes:
        """An answer that reports an error by number."""
        parts = [element("number", int(error.number)), element("message", error.message)]
        if error.timeout is not None:
            parts[-1] += " "
            parts.append(element("timeout", error.timeout))
        return self.wrap(raw_element("error", " ".join(parts)))


def files_element(files: Sequence[RepositoryFile]) -> str:
    """The content of a job's repository."""
    return f"<repository_content>  {_files(files)} </repository_content>"


def listing(name: str, files: Sequence[RepositoryFile]) -> bytes:
    """The answer of repository_content, which has no envelope."""
    content = f"{element('repository_name', name)} {_files(files)}"
    return (raw_element("repository_content", content) + " \n").encode()


def _files(files: Sequence[RepositoryFile]) -> str:
    elements = [
        raw_element(
            "file",
            " ".join(
                (element("file_name", file.name), element("size", file.size), element("date", f"{file.date:.10f}"))
            ),
            f' number="{number}"',
        )
        for number, file in enumerate(files, start=1)
    ]
    return " ".join((*elements, element("number_of_files", len(files))))


def status(number: int, message: str) -> bytes:
    """The body of an answer to PUT, DELETE and failed requests of a repository."""
    content = f"{element('number', number)} {element('message', message)}"
    return (raw_element("status", content) + "\n").encode()


@attrs.frozen(kw_only=True)
class Servers:
    """The addresses of a project's servers: the master's, this one's, and all slaves'."""

    master: str
    this: str
    slaves: tuple[str, ...]


def _server_pair(servers: Servers) -> tuple[str, str]:
    return element("project_master_server", servers.master), element("this_project_server", servers.this)


def _slaves(servers: Servers) -> Iterable[str]:
    yield element("number_of_slave_servers", len(servers.slaves))
    for number, url in enumerate(servers.slaves, start=1):
        yield element("project_server", url, f" number='{number}'")


def _resource_head(resource: Resource, project: str, servers: Servers) -> tuple[str, ...]:
    return (
        element("resource", resource.resource_name),
        element("resource_url", resource.url),
        raw_element("resource_capabilities", resource.resource_capabilities),
        element("project", project),
        *_server_pair(servers),
    )


def _user_head(project: str, servers: Servers, user: str, groups: Sequence[str]) -> tuple[str, ...]:
    return (
        element("project", project),
        *_server_pair(servers),
        element("user", user),
        element("groups", encode_list(groups)),
    )


def _access(job: Job) -> tuple[str, str, str]:
    return (
        element("read_access", encode_list(job.read_access)),
        element("write_access", encode_list(job.write_access)),
        raw_element("job_specifics", job.job_specifics),
    )


def _targets(job: Job) -> str:
    return element("target_resources", encode_list(job.target_resources))


def _owners(job: Job) -> str:
    return element("owners", encode_list(job.owners))


def job_content(job: Job, files: Sequence[RepositoryFile] | None = None) -> str:
    """A job as details, update, submit and the resource's job state report it.

    Input and output are there if the job has them, the repository's files if they are given.
    """
    parts = [
        element("job_id", job.job_id),
        _targets(job),
        _owners(job),
        element("application", job.application),
        element("state", job.state.value),
        element("state_time_stamp", job.state_time_stamp),
    ]
    if files is not None:
        parts.append(files_element(files))
    if job.input is not None:
        parts.append(element("input", encode_binhex(job.input)))
    if job.output is not None:
        parts.append(element("output", encode_binhex(job.output)))
    return " ".join((*parts, *_access(job)))


def _listed_job(job: Job) -> str:
    return " ".join(
        (
            element("job_id", job.job_id),
            element("state", job.state.value),
            element("state_time_stamp", job.state_time_stamp),
            _targets(job),
            _owners(job),
            element("application", job.application),
            *_access(job),
        )
    )


def _offered_job(job: Job) -> str:
    return " ".join(
        (
            element("job_id", job.job_id),
            element("state_time_stamp", job.state_time_stamp),
            _targets(job),
            _owners(job),
            *_access(job),
        )
    )


def _numbered(tag: str, contents: Iterable[str]) -> Iterable[str]:
    return (raw_element(tag, content, f" number='{number}'") for number, content in enumerate(contents, start=1))


def session(resource: Resource, project: str, servers: Servers, session_id: int) -> str:
    """Signup and signoff."""
    parts = (*_resource_head(resource, project, servers), *_slaves(servers), element("session_id", session_id))
    return " " + " ".join(parts)


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
        *_numbered("job", map(_offered_job, jobs)),
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


def submitted(
    project: str, servers: Servers, user: str, groups: Sequence[str], job: Job, files: Sequence[RepositoryFile]
) -> str:
    """A user's submission."""
    parts = (*_user_head(project, servers, user, groups), raw_element("job", job_content(job, files)))
    return " " + " ".join(parts)


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
    jobs: Sequence[Job],
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
    return f" {' '.join(parts)}  {' '.join(_numbered('job', map(_listed_job, jobs)))}".removesuffix(" ")


def job_detail(
    project: str, servers: Servers, user: str, groups: Sequence[str], job: Job, files: Sequence[RepositoryFile]
) -> str:
    """A user's look at one job."""
    parts = (
        *_user_head(project, servers, user, groups),
        element("number_of_jobs", 1),
        *_numbered("job", [job_content(job, files)]),
    )
    return " " + " ".join(parts)


def job_deleted(project: str, servers: Servers, user: str, groups: Sequence[str], job: Job) -> str:
    """A user's deletion; the job's state says whether it is gone or being aborted."""
    content = " ".join(
        (
            element("job_id", job.job_id),
            _targets(job),
            element("application", job.application),
            _owners(job),
            *_access(job),
            element("state", job.state.value),
            element("state_time_stamp", job.state_time_stamp),
        )
    )
    parts = (
        *_user_head(project, servers, user, groups),
        element("number_of_jobs", 1),
        *_numbered("job", [content]),
    )
    return " " + " ".join(parts)


def _short_head(project: str, servers: Servers, user: str, groups: Sequence[str]) -> tuple[str, ...]:
    return (
        element("user", user),
        element("groups", encode_list(groups)),
        element("project", project),
        *_server_pair(servers),
    )


def server_list(project: str, servers: Servers, user: str, groups: Sequence[str]) -> str:
    """A user's list of project servers."""
    return " ".join((*_short_head(project, servers, user, groups), *_slaves(servers)))


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
        *_numbered("resource", contents),
    )
    return " ".join(parts)
