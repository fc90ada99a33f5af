"""Jobs, files and times as people and programs read them."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from lgi.cli.screen import as_text, printable
from lgi.client.answers import JobAnswer, ResourceRow
from lgi.model import Job, RepositoryFile
from lgi.states import TERMINAL, JobState
from lgi.wire.dialect import MalformedXML
from lgi.wire.specifics import DAEMON_REFERENCE, EXIT_STATUS, REPOSITORY, REPOSITORY_URL, read_tag, without


def size(count: int) -> str:
    """A number of bytes for people, in powers of 1000: `817 B`, `12.3 kB`."""
    if count < 1000:
        return f"{count} B"
    value, units = count / 1000, ["kB", "MB", "GB", "TB"]
    while value >= 999.95 and len(units) > 1:
        value /= 1000
        del units[0]
    return f"{value:.1f} {units[0]}"


def moment(seconds: float) -> str:
    """A time in Unix seconds as local date and time."""
    try:
        return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, OSError, ValueError):
        return f"{seconds:.0f}"


def duration(seconds: float) -> str:
    """A time span for people: `12 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`."""
    whole = max(0, int(seconds))
    parts = []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if whole >= length:
            parts.append(f"{whole // length} {unit}")
            whole %= length
    return " ".join(parts[:2]) or "0 s"


def tag(job: Job, name: str) -> str:
    """The text of a tag in the job's specifics, empty where there is none."""
    try:
        return read_tag(job.job_specifics, name)
    except MalformedXML:
        return ""


def exit_status(job: Job) -> int | None:
    """What the job script ended with, None where that is not known (yet)."""
    text = tag(job, EXIT_STATUS) if job.state in TERMINAL else ""
    return int(text) if text.removeprefix("-").isascii() and text.removeprefix("-").isdigit() else None


def succeeded(job: Job) -> bool:
    """Whether the job has finished without a failure that is known."""
    return job.state is JobState.FINISHED and exit_status(job) in (None, 0)


def state(job: Job) -> str:
    """The state, with the exit status once there is one."""
    status = exit_status(job)
    return job.state.value if status is None else f"{job.state.value} (exit status {status})"


def targets(job: Job) -> str:
    """The target resources in one word."""
    return ", ".join(job.target_resources)


JOB_HEADERS = ("Job", "State", "Application", "Targets", "Since", "Owners")


def job_row(job: Job) -> tuple[str, ...]:
    """A job in the table of JOB_HEADERS."""
    since = moment(job.state_time_stamp)
    return (str(job.job_id), job.state.value, job.application, targets(job), since, ", ".join(job.owners))


def job_value(answer: JobAnswer) -> dict[str, Any]:
    """A job for JSON; input, output and files where the answer has them.

    Input and output are text, or null where they are not UTF-8; then `input_base64` and `output_base64` have them.
    """
    job = answer.job
    value: dict[str, Any] = {
        "job_id": job.job_id,
        "state": job.state.value,
        "application": job.application,
        "target_resources": list(job.target_resources),
        "owners": list(job.owners),
        "read_access": list(job.read_access),
        "write_access": list(job.write_access),
        "state_time_stamp": job.state_time_stamp,
        "job_specifics": job.job_specifics,
        "exit_status": exit_status(job),
        "repository_url": tag(job, REPOSITORY_URL) or None,
    }
    for name, data in (("input", job.input), ("output", job.output)):
        if data is None:
            continue
        try:
            value[name] = data.decode()
        except UnicodeDecodeError:
            value[name] = None
            value[f"{name}_base64"] = base64.b64encode(data).decode("ascii")
    if answer.files is not None:
        value["files"] = [file_value(file) for file in visible(answer.files)]
    return value


def visible(files: tuple[RepositoryFile, ...]) -> list[RepositoryFile]:
    """The files by name, without those that the server keeps for itself."""
    return sorted((file for file in files if not file.name.startswith(".")), key=lambda file: file.name)


def file_value(file: RepositoryFile) -> dict[str, Any]:
    """A file for JSON."""
    return {"name": file.name, "size": file.size, "date": file.date}


def resource_value(row: ResourceRow) -> dict[str, Any]:
    """A resource for JSON; `last_call_time` is null where it never called."""
    return {
        "resource_name": row.name,
        "applications": list(row.applications),
        "last_call_time": row.last_call_time or None,
    }


def _own_specifics(job: Job) -> str:
    try:
        return without(job.job_specifics, (REPOSITORY, REPOSITORY_URL, DAEMON_REFERENCE, EXIT_STATUS))
    except MalformedXML:
        return job.job_specifics


def details(answer: JobAnswer, reference: str = "") -> Iterator[str]:
    """The lines that tell everything about a job, which goes by its number if not by `reference`."""
    job = answer.job
    fields = {
        "State": f"{state(job)} since {moment(job.state_time_stamp)}",
        "Application": job.application,
        "Targets": targets(job),
        "Owners": ", ".join(job.owners),
        "Readable by": ", ".join(job.read_access),
        "Writable by": ", ".join(job.write_access),
        "Specifics": _own_specifics(job),
        "Repository": tag(job, REPOSITORY_URL),
    }
    yield f"Job {reference or job.job_id}"
    for name, value in fields.items():
        if value:
            yield f"  {name + ':':<13}{printable(value)}"
    for label, data in (("Input", job.input), ("Output", job.output)):
        if data:
            yield f"  {label + ':':<13}{size(len(data))}"
            yield from (f"    {line}" for line in as_text(data).rstrip("\n").split("\n"))
    files = visible(answer.files or ())
    if files:
        yield "  Files:"
        width = max(len(printable(file.name)) for file in files)
        for file in files:
            yield f"    {printable(file.name):<{width}}  {size(file.size):>9}  {moment(file.date)}"
