"""Answers of project servers, also the deployed ones, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, isfinite

import attrs
from lxml import etree

from lgi.lists import decode_list
from lgi.model import Job, RepositoryFile
from lgi.states import JobState
from lgi.wire.binhex import decode_binhex
from lgi.wire.dialect import MalformedXML, inner_xml, parse_fragment, read_answer, text_of
from lgi.wire.fields import DIGITS


class ServerRefused(Exception):
    """A project server's numbered error; `timeout` is in seconds and set when it asks to back off."""

    def __init__(self, number: int, message: str, timeout: int | None = None) -> None:
        self.number = number
        self.message = message
        self.timeout = timeout
        super().__init__(f"{message} (error {number})")


class ServerUnreachable(Exception):
    """No connection, no TLS, no answer in time, or an answer with an HTTP status that is no success.

    `maybe_done` is True where the request may have been received, so that what it asks for may have happened;
    `lasting` where asking again in a moment is bound to fail too.
    """

    def __init__(self, message: str, *, maybe_done: bool = False, lasting: bool = False) -> None:
        self.maybe_done = maybe_done
        self.lasting = lasting
        super().__init__(message)


class AnswerMalformed(Exception):
    """The answer is not what a project server says, or lacks what this call needs."""


@attrs.frozen(kw_only=True)
class JobAnswer:
    """A job as a server reports it, and the files of its repository where the call lists them.

    `submission_key` is the one that it was submitted with, in the answer to that where the server knows of keys.
    """

    job: Job
    files: tuple[RepositoryFile, ...] | None = None
    submission_key: str = ""


@attrs.frozen(kw_only=True)
class Changed:
    """Jobs that are in another state than was known, as in a list, and those that do not exist or cannot be read."""

    jobs: tuple[JobAnswer, ...]
    gone: tuple[int, ...]


@attrs.frozen(kw_only=True)
class ResourceRow:
    """A resource as a user sees it; `last_call_time` in Unix seconds, 0 for never."""

    name: str
    capabilities: str
    last_call_time: int

    @property
    def applications(self) -> tuple[str, ...]:
        """The applications it offers; none where the capabilities are not XML."""
        try:
            root = parse_fragment(self.capabilities)
        except MalformedXML:
            return ()
        return tuple(str(child.tag) for child in root)


@attrs.frozen(kw_only=True)
class ServerList:
    """The project's servers: the one that answered, the master, and all of them (master first).

    `remembers_submissions` says whether the one that answered makes no second job of a repeated submission,
    `job_wait` for how many seconds a user may wait there for changes of jobs (0: not at all).
    """

    this: str
    master: str
    slaves: tuple[str, ...]
    remembers_submissions: bool = False
    job_wait: int = 0

    @property
    def all(self) -> tuple[str, ...]:
        """Every server once, master first."""
        return tuple(dict.fromkeys(server for server in (self.master, *self.slaves, self.this) if server))


@attrs.frozen(kw_only=True)
class SignedUp:
    """A session that was started; in it the resource may wait for work, for `work_wait` seconds (0: not at all).

    A field that is posted has to be smaller than `largest_field` bytes, where the server has announced that. As many
    jobs as `update_jobs` says may be changed in one call (0: one for each).
    """

    session_id: int
    servers: ServerList
    work_wait: int = 0
    largest_field: int | None = None
    update_jobs: int = 0


@attrs.frozen(kw_only=True)
class JobUpdate:
    """What is to be changed of a job that is held locked; None for what stays as it is."""

    job_id: int
    state: JobState | None = None
    target_resources: tuple[str, ...] | None = None
    job_specifics: str | None = None
    output: bytes | None = None


def read_whole(body: bytes, tag: str) -> etree._Element:
    """The element `tag` that an answer is; raises AnswerMalformed, also for one that breaks off.

    The parser mends what old servers leave open, so the end of an answer must be looked for.
    """
    try:
        root = read_answer(body)
    except (MalformedXML, etree.XMLSyntaxError) as problem:
        raise AnswerMalformed(f"the server's answer cannot be read: {problem}") from None
    if root.tag != tag:
        raise AnswerMalformed(f"the server's answer is not <{tag}> but <{root.tag}>")
    if not body.rstrip().endswith(f"</{tag}>".encode()):
        raise AnswerMalformed("the server's answer breaks off")
    return root


def read_response(body: bytes) -> etree._Element:
    """The `<response>` element of an answer.

    Raises ServerRefused for an `<error>` in it, and AnswerMalformed for anything else.
    """
    root = read_whole(body, "LGI")
    response = root.find("response")
    if response is None:
        raise AnswerMalformed("the server's answer has no <response>")
    error = response.find("error")
    if error is not None:
        timeout = text_of(error, "timeout")
        seconds = int(timeout) if timeout.isascii() and timeout.isdigit() and len(timeout) <= DIGITS else None
        raise ServerRefused(read_integer(error, "number"), text_of(error, "message"), seconds)
    return response


def read_largest_field(response: etree._Element) -> int | None:
    """What the envelope of an answer announces as `server_max_field_size`; None where that is no positive number."""
    envelope = response.getparent()
    text = "" if envelope is None else text_of(envelope, "server_max_field_size")
    return int(text) if text.isdigit() and text.isascii() and int(text) > 0 else None


def read_integer(node: etree._Element, path: str) -> int:
    """The whole number at `path`; raises AnswerMalformed where there is none."""
    return _integer(text_of(node, path), path)


def _integer(text: str, tag: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise AnswerMalformed(f"the server's answer has no number in <{tag}>: {text[:80]!r}") from None


def _blob(parts: Mapping[str, etree._Element], tag: str) -> bytes | None:
    if tag not in parts:
        return None
    try:
        return decode_binhex(text_of(parts[tag]))
    except ValueError:
        raise AnswerMalformed(f"the server's answer has no hexadecimal text in <{tag}>") from None


def read_job(node: etree._Element | None, *, job_id: int | None = None, state: JobState | None = None) -> JobAnswer:
    """A `<job>` element as a value; raises AnswerMalformed, also where it is not the job `job_id` that was asked for.

    `state` is what the job's is known to be where the call does not say.
    """
    if node is None:
        raise AnswerMalformed("the server's answer has no <job>")
    # The first of each name, as everywhere; looking for one after the other takes three times as long.
    parts = {part.tag: part for part in node.iterchildren(etree.Element, reversed=True)}
    texts = {tag: (part.text or "").strip() for tag, part in parts.items()}
    found = _integer(texts.get("job_id", ""), "job_id")
    if job_id is not None and found != job_id:
        raise AnswerMalformed(f"the server's answer is about job {found}, not about job {job_id}")
    said = texts.get("state") or (state or "")
    if said not in JobState.__members__.values():
        raise AnswerMalformed(f"the server's answer has the unknown job state {said[:80]!r}")
    content = parts.get("repository_content")
    return JobAnswer(
        job=Job(
            job_id=found,
            state=JobState(said),
            application=texts.get("application", ""),
            target_resources=decode_list(texts.get("target_resources", "")),
            owners=decode_list(texts.get("owners", "")),
            read_access=decode_list(texts.get("read_access", "")),
            write_access=decode_list(texts.get("write_access", "")),
            job_specifics=inner_xml(parts.get("job_specifics")),
            state_time_stamp=_integer(texts.get("state_time_stamp", ""), "state_time_stamp"),
            input=_blob(parts, "input"),
            output=_blob(parts, "output"),
        ),
        files=None if content is None else read_files(content),
        submission_key=texts.get("submission_key", ""),
    )


def read_updated(response: etree._Element, job_ids: Sequence[int]) -> list[JobAnswer | ServerRefused]:
    """The answer to several updates in one call, in order; raises AnswerMalformed, also if it is not about these."""
    nodes = response.findall("job")
    if len(nodes) != len(job_ids):
        raise AnswerMalformed(f"the server's answer is about {len(nodes)} jobs, not about {len(job_ids)}")
    found: list[JobAnswer | ServerRefused] = []
    for node, job_id in zip(nodes, job_ids, strict=True):
        error = node.find("error")
        if error is None:
            found.append(read_job(node, job_id=job_id))
        elif read_integer(node, "job_id") != job_id:
            raise AnswerMalformed(f"the server's answer is not about job {job_id}")
        else:
            found.append(ServerRefused(read_integer(error, "number"), text_of(error, "message")))
    return found


def read_changed(response: etree._Element) -> Changed:
    """The answer to a user who waits for changes; raises AnswerMalformed, also where a server knows nothing of it."""
    gone = response.find("gone")
    if gone is None:
        raise AnswerMalformed("the server's answer does not say which jobs are gone")
    numbers = decode_list(text_of(gone))
    if not all(number.isascii() and number.isdigit() for number in numbers):
        raise AnswerMalformed(f"the server's answer has no numbers of jobs in <gone>: {text_of(gone)[:80]!r}")
    return Changed(jobs=tuple(read_job(node) for node in response.findall("job")), gone=tuple(map(int, numbers)))


def _date(node: etree._Element) -> float:
    text = text_of(node, "date")
    try:
        date = float(text)
    except ValueError:
        date = inf
    if not isfinite(date):
        raise AnswerMalformed(f"the server's answer has no time in <date>: {text[:80]!r}")
    return date


def read_files(content: etree._Element) -> tuple[RepositoryFile, ...]:
    """The files of a `<repository_content>` element."""
    return tuple(
        RepositoryFile(
            name=text_of(node, "file_name"),
            size=read_integer(node, "size"),
            date=_date(node),
        )
        for node in content.iter("file")
    )


def read_servers(response: etree._Element) -> ServerList:
    """The servers in an answer to signup or project_server_list."""
    return ServerList(
        this=text_of(response, "this_project_server"),
        master=text_of(response, "project_master_server"),
        slaves=tuple(text_of(node) for node in response.findall("project_server")),
        # Both came into the protocol together.
        remembers_submissions=response.find("job_wait") is not None,
        job_wait=read_integer(response, "job_wait") if response.find("job_wait") is not None else 0,
    )


def read_resources(response: etree._Element) -> tuple[ResourceRow, ...]:
    """The resources in an answer to project_resource_list."""
    return tuple(
        ResourceRow(
            name=text_of(node, "resource_name"),
            capabilities=inner_xml(node.find("resource_capabilities")),
            last_call_time=read_integer(node, "last_call_time"),
        )
        for node in response.findall("resource")
    )
