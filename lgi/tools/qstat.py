"""`LGI_qstat`: the jobs, a job, the servers or the resources of a project (LGI 1.41, application interface)."""

from __future__ import annotations

import sys
from typing import Any

from lgi.client.answers import ServerRefused
from lgi.client.settings import SettingsError
from lgi.tools import layout
from lgi.tools.account import CONFIGURATION, PAPERS, PROJECT, SERVER, user_account
from lgi.tools.calls import Calls, Response, own_fields
from lgi.tools.connection import Failed, calls, connected, explained, run, show
from lgi.tools.notes import VERBOSITY, notes_of
from lgi.tools.options import Given, Option, Tool
from lgi.wire.fields import DIGITS

TOOL = Tool(
    "LGI_qstat",
    "[options] [job_id]",
    Option("-a", "only jobs of this application. default is any; '!name' is all but this one.", "application"),
    Option("-s", "only jobs in this state. default is any; '!state' is all but this one.", "state"),
    Option("-x", "write XML."),
    Option("-cnt", "only count the jobs."),
    *VERBOSITY,
    Option("-l", "list the servers of the project."),
    Option("-L", "list the resources of the project."),
    CONFIGURATION,
    PROJECT,
    *SERVER,
    *PAPERS,
)
STATE = "interfaces/interface_job_state.php"
SERVERS = "interfaces/interface_project_server_list.php"
RESOURCES = "interfaces/interface_project_resource_list.php"
PAGE = 1024


def job_number(tool: Tool, text: str) -> str:
    """The number of a job; ends the program where it is none."""
    if not (text.isascii() and text.isdigit() and len(text) <= DIGITS):
        tool.refuse(f"{text!r} is not the number of a job")
    return text


async def list_jobs(ask: Calls, chosen: dict[str, str | int], *, xml: bool) -> None:
    """Print the jobs page by page: the next one begins behind those that have come, the last one is empty."""
    number = 0
    while True:
        page = await ask.ask(STATE, {**chosen, "start": number, "limit": PAGE})
        if not number and not xml:
            show(layout.list_head())
        jobs = page.all("job")
        row = layout.list_row_xml if xml else layout.list_row
        show("".join(row(index, job) for index, job in enumerate(jobs, start=number + 1)))
        number += len(jobs)
        if not jobs:
            foot = layout.list_foot_xml if xml else layout.list_foot
            show(foot(number, page))
            return


async def list_project(ask: Calls, given: Given) -> None:
    """Print the servers, the resources, or both."""
    servers: Response | None = None
    if "-l" in given.switches:
        servers = await ask.ask(SERVERS, {})
        show(f"{servers.text}\n" if "-x" in given.switches else layout.servers(servers))
    if "-L" in given.switches:
        resources = await ask.ask(RESOURCES, {})
        if "-x" in given.switches:
            show(f"{resources.text}\n")
            return
        head = "" if servers else f"\n{layout.servers_head(resources)}"
        show(head + layout.resources(resources))
    if "-x" not in given.switches:
        show("\n")


async def answer(ask: Calls, given: Given) -> None:
    """Print what was asked for."""
    xml = "-x" in given.switches
    chosen: dict[str, str | int] = {
        name: given.values[option] for name, option in (("state", "-s"), ("application", "-a")) if given.value(option)
    }
    if given.any_of("-l", "-L"):
        await list_project(ask, given)
    elif given.arguments:
        found = await ask.ask(STATE, {"job_id": given.arguments[0]})
        show(f"{found.text}\n" if xml else layout.detail(found))
    elif "-cnt" in given.switches:
        counted = await ask.ask(STATE, {**chosen, "limit": 0})
        show(layout.count_xml(counted) if xml else layout.count(counted))
    else:
        await list_jobs(ask, chosen, xml=xml)


def status(words: list[str]) -> int:
    """The tool; returns its exit status."""
    given = TOOL.given(words)
    if len(given.arguments) > 1:
        TOOL.refuse("one job at a time")
    for argument in given.arguments:
        job_number(TOOL, argument)
        if given.any_of("-l", "-L", "-cnt"):
            TOOL.refuse("a job, or one of -l, -L and -cnt")
    if given.any_of("-l", "-L") and "-cnt" in given.switches:
        TOOL.refuse("-cnt counts jobs, neither servers nor resources")
    notes = notes_of(given)
    try:
        account = user_account(given)
    except SettingsError as problem:
        return explained(TOOL, problem)

    async def work(reactor: Any) -> None:
        async with connected(reactor, account.papers, notes) as http:
            ask = calls(reactor, http, account.server, account.project, own_fields(account), notes)
            try:
                await answer(ask, given)
            except ServerRefused as problem:
                if "-x" not in given.switches:
                    raise
                show(layout.refused_xml(problem))
                raise Failed from problem

    return run(TOOL, notes, work, account.server)


def main() -> None:
    """The program."""
    sys.exit(status(sys.argv[1:]))


if __name__ == "__main__":
    main()
