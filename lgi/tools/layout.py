"""What the tools print, in the layout of the deployed ones, which scripts take apart.

Each function gives text to be printed as it is. Bytes that are not UTF-8 stand in it as surrogates.
"""

from __future__ import annotations

import time

from lxml import etree

from lgi.client.answers import AnswerMalformed, ServerRefused, read_files, read_integer
from lgi.model import RepositoryFile
from lgi.tools.calls import Part, Response
from lgi.tools.scan import find_all
from lgi.wire.binhex import decode_binhex
from lgi.wire.dialect import element, raw_element, text_of

RULE = "-" * 131 + "\n"
_COLUMNS = "{:>5} | {:>6} | {:>12} | {:>36} | {:>16} | {:>24} | {:>12}\n"
_ABOUT_ALL = ("project", "project_master_server", "this_project_server", "user", "groups", "state", "application")


def one_line(text: str) -> str:
    """Text in one line: what is no printable character becomes a question mark."""
    return "".join(char if char.isprintable() or "\udc80" <= char <= "\udcff" else "?" for char in text)


def labelled(label: str, value: str | int) -> str:
    """A line with a label."""
    return f"{label:<22}: {one_line(str(value))}\n"


def moment(stamp: int) -> str:
    """A time in Unix seconds for people, in the time zone of this machine."""
    try:
        return time.ctime(stamp)
    except (OverflowError, ValueError, OSError):
        raise AnswerMalformed(f"the server's answer has {stamp}, which is no time") from None


def stamped(stamp: int) -> str:
    """A time for people and for programs."""
    return f"{moment(stamp)} [{stamp}]"


def servers_head(response: Response) -> str:
    """The project and its servers, with which most of what is printed begins or ends."""
    return (
        labelled("This project", response.value("project"))
        + labelled("This project server", response.value("this_project_server"))
        + labelled("Project master server", response.value("project_master_server"))
    )


def _asker(response: Response) -> str:
    if response.node.find("resource") is not None:
        return labelled("Resource", response.value("resource"))
    return labelled("User", response.value("user")) + labelled("Groups", response.value("groups"))


def _blob(label: str, job: Part, tag: str) -> str:
    try:
        data = decode_binhex(job.value(tag))
    except ValueError:
        raise AnswerMalformed(f"the server's answer has no hexadecimal text in <{tag}>") from None
    return f"{label:<22}: {data.decode('utf-8', 'surrogateescape')}\n"


def _content(job: Part) -> str:
    content = job.node.find("repository_content")
    files = () if content is None else read_files(content)
    return labelled("Repository content", ", ".join(file.name for file in files)) if files else ""


def _job(response: Response, *, access: tuple[str, str]) -> str:
    job = response.one("job")
    names = {"read_access": "Read access on job", "write_access": "Write access on job"}
    return (
        servers_head(response)
        + _asker(response)
        + labelled("Job id", read_integer(job.node, "job_id"))
        + labelled("Job state", job.value("state"))
        + labelled("Job application", job.value("application"))
        + labelled("Job specifics", job.raw("job_specifics"))
        + labelled("Target resources", job.value("target_resources"))
        + labelled("Job owners", job.value("owners"))
        + "".join(labelled(names[tag], job.value(tag)) for tag in access)
        + labelled("Time stamp", stamped(read_integer(job.node, "state_time_stamp")))
        + _blob("Input", job, "input")
    )


def submitted(response: Response) -> str:
    """A job that has just been submitted."""
    head = "\nJob has been submitted. Some details: \n\n"
    return head + _job(response, access=("read_access", "write_access")) + _content(response.one("job")) + "\n"


def detail(response: Response) -> str:
    """Everything about a job."""
    job = response.one("job")
    return (
        "\n"
        + _job(response, access=("write_access", "read_access"))
        + _blob("Output", job, "output")
        + _content(job)
        + "\n"
    )


def deleted(response: Response) -> str:
    """What deleting a job has led to."""
    job = response.one("job")
    number = read_integer(job.node, "job_id")
    where = one_line(f"project {response.value('project')} on server {response.value('this_project_server')}")
    if job.value("state") == "deleted":
        return f"\nJob {number} deleted from {where}\n\n"
    return f"\nAborting job {number} in {where}\n\n"


def list_head() -> str:
    """What stands above a list of jobs."""
    names = ("#", "job_id", "state", "target_resources", "application", "time_stamp", "owners")
    return f"\n{RULE}{_COLUMNS.format(*names)}{RULE}"


def list_row(number: int, job: Part) -> str:
    """A job in a list."""
    texts = (one_line(job.value(tag)) for tag in ("state", "target_resources", "application"))
    stamp = moment(read_integer(job.node, "state_time_stamp"))
    return _COLUMNS.format(number, read_integer(job.node, "job_id"), *texts, stamp, one_line(job.value("owners")))


def list_foot(number: int, response: Response) -> str:
    """What stands below a list of jobs."""
    return f"{RULE}\n{labelled('Number of jobs listed', number)}{servers_head(response)}\n"


def count(response: Response) -> str:
    """How many jobs there are."""
    number = read_integer(response.node, "number_of_jobs")
    return f"\n{labelled('Number of jobs found', number)}{servers_head(response)}\n"


def list_row_xml(number: int, job: Part) -> str:
    """A job in a list, as XML."""
    return raw_element("job", job.text, f" number='{number}'") + " "


def list_foot_xml(number: int, response: Response) -> str:
    """What follows the jobs in a list as XML."""
    about = "".join(f"{element(tag, response.value(tag))} " for tag in _ABOUT_ALL)
    return f"{about}{element('number_of_jobs', number)} \n"


def count_xml(response: Response) -> str:
    """How many jobs there are, as XML."""
    return list_foot_xml(read_integer(response.node, "number_of_jobs"), response)


def servers(response: Response) -> str:
    """The project's servers."""
    slaves = "".join(
        labelled("Project slave server", text_of(node)) for node in response.node.findall("project_server")
    )
    return f"\n{servers_head(response)}{slaves}"


def resources(response: Response) -> str:
    """The project's resources, each after an empty line."""
    return "".join(
        "\n"
        + labelled("Resource name", resource.value("resource_name"))
        + labelled("Resource capabilities", resource.raw("resource_capabilities"))
        + labelled("Resource time stamp", stamped(read_integer(resource.node, "last_call_time")))
        for resource in response.all("resource")
    )


def refused_xml(problem: ServerRefused) -> str:
    """A server's error as the `<response>` that it came in."""
    more = "" if problem.timeout is None else f"  {element('timeout', problem.timeout)}"
    content = f"{element('number', problem.number)} {element('message', problem.message)}{more}"
    return f" {raw_element('error', content)} \n"


def files(content: etree._Element) -> str:
    """The files in a repository, nothing where there are none."""
    lines = "".join(_file(file) for file in read_files(content))
    return f"\n{lines}\n" if lines else ""


def _file(file: RepositoryFile) -> str:
    return f"{one_line(file.name):<32} {file.size:>8} {stamped(int(file.date))}\n"


def files_xml(body: bytes) -> str:
    """The files in a repository, as the XML that the server sends."""
    content = find_all(body.decode("utf-8", "surrogateescape"), "repository_content")
    return "".join(f"{one.content.strip()}\n" for one in content)
