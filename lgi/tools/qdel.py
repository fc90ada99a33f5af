"""`LGI_qdel`: delete a job, or have a running one aborted (LGI 1.41, Basic command-line interface)."""

from __future__ import annotations

import sys
from typing import Any

from lgi.client.answers import ServerRefused
from lgi.client.settings import SettingsError
from lgi.tools import layout
from lgi.tools.account import CONFIGURATION, PAPERS, PROJECT, SERVER, user_account
from lgi.tools.calls import own_fields
from lgi.tools.connection import Failed, calls, connected, explained, run, show
from lgi.tools.notes import VERBOSITY, notes_of
from lgi.tools.options import Option, Tool
from lgi.tools.qstat import job_number

TOOL = Tool(
    "LGI_qdel",
    "[options] job_id",
    Option("-x", "write XML."),
    *VERBOSITY,
    CONFIGURATION,
    PROJECT,
    *SERVER,
    *PAPERS,
)
DELETE = "interfaces/interface_delete_job.php"


def delete(words: list[str]) -> int:
    """The tool; returns its exit status."""
    given = TOOL.given(words)
    if len(given.arguments) != 1:
        TOOL.refuse("one job at a time" if given.arguments else "the number of a job is missing")
    job_id = job_number(TOOL, given.arguments[0])
    notes = notes_of(given)
    try:
        account = user_account(given)
    except SettingsError as problem:
        return explained(TOOL, problem)

    async def work(reactor: Any) -> None:
        async with connected(reactor, account.papers, notes) as http:
            ask = calls(reactor, http, account.server, account.project, own_fields(account), notes)
            try:
                response = await ask.ask(DELETE, {"job_id": job_id})
            except ServerRefused as problem:
                if "-x" not in given.switches:
                    raise
                show(layout.refused_xml(problem))
                raise Failed from problem
            show(f"{response.text}\n" if "-x" in given.switches else layout.deleted(response))

    return run(TOOL, notes, work, account.server)


def main() -> None:
    """The program."""
    sys.exit(delete(sys.argv[1:]))


if __name__ == "__main__":
    main()
