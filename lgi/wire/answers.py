"""What all answers of a server have in common, in the order that deployed clients rely on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache

import attrs

from lgi.errors import LGIError
from lgi.lists import encode_list
from lgi.model import Job, RepositoryFile
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
        return f"<LGI> {self._head}  <response> {response} </response> </LGI>".encode()

    @cached_property
    def _head(self) -> str:
        """What every answer begins with."""
        return " ".join(
            (
                element("API_version", API_VERSION),
                element("LGI_version", self.lgi_version),
                element("CA_certificate", self.ca_certificate_url),
                element("server_max_field_size", MAX_FIELD_SIZE),
            )
        )

    def wrap_error(self, error: LGIError) -> bytes:
        """An answer that reports an error by number."""
        return self.wrap(error_element(error))


def error_element(error: LGIError) -> str:
    """An error by number, of a whole call or of one job of it."""
    parts = [element("number", int(error.number)), element("message", error.message)]
    if error.timeout is not None:
        parts[-1] += " "
        parts.append(element("timeout", error.timeout))
    return raw_element("error", " ".join(parts))


def files_element(files: Sequence[RepositoryFile]) -> str:
    """The content of a job's repository."""
    return f"<repository_content>  {_file_elements(files)} </repository_content>"


def listing(name: str, files: Sequence[RepositoryFile]) -> bytes:
    """The answer of repository_content, which has no envelope."""
    content = f"{element('repository_name', name)} {_file_elements(files)}"
    return (raw_element("repository_content", content) + " \n").encode()


def _file_elements(files: Sequence[RepositoryFile]) -> str:
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


# The same few come with every answer.
@lru_cache(maxsize=64)
def server_pair(servers: Servers) -> tuple[str, str]:
    """The two addresses that every answer has."""
    return element("project_master_server", servers.master), element("this_project_server", servers.this)


def slave_elements(servers: Servers) -> Iterable[str]:
    """How many slaves there are, and their addresses."""
    yield element("number_of_slave_servers", len(servers.slaves))
    for number, url in enumerate(servers.slaves, start=1):
        yield element("project_server", url, f" number='{number}'")


def access_elements(job: Job) -> tuple[str, str, str]:
    """Who may read and write a job, and its specifics."""
    return (
        element("read_access", encode_list(job.read_access)),
        element("write_access", encode_list(job.write_access)),
        raw_element("job_specifics", job.job_specifics),
    )


def targets_element(job: Job) -> str:
    """The targets of a job."""
    return element("target_resources", encode_list(job.target_resources))


def owners_element(job: Job) -> str:
    """The owners of a job."""
    return element("owners", encode_list(job.owners))


def job_content(job: Job, files: Sequence[RepositoryFile] | None = None) -> str:
    """A job as details, update, submit and the resource's job state report it.

    Input and output are there if the job has them, the repository's files if they are given.
    """
    parts = [
        element("job_id", job.job_id),
        targets_element(job),
        owners_element(job),
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
    return " ".join((*parts, *access_elements(job)))


def numbered(tag: str, contents: Iterable[str]) -> Iterable[str]:
    """Elements with a running number, from 1."""
    return (raw_element(tag, content, f" number='{number}'") for number, content in enumerate(contents, start=1))
