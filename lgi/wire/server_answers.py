"""The answers of project servers to each other, in the recorded order.

LGI 1.41, Project server synchronization API.
"""

from __future__ import annotations

from lgi.lists import encode_list
from lgi.model import Update
from lgi.wire.answers import Servers
from lgi.wire.binhex import encode_binhex
from lgi.wire.dialect import element, raw_element


def next_update(
    project: str, servers: Servers, peer: str, version: int, count: int, update: Update | None, highest: int
) -> str:
    """Get_update: how many updates follow the peer's `version`, and the first of them.

    Without one, the highest version that is known, which is left empty before the first.
    """
    parts = [element("updates", count)]
    if update is None:
        parts.append(element("update_version", highest or ""))
    else:
        parts += _update(update, encode_binhex(update.query))
    return " ".join(
        (
            element("project", project),
            element("project_master_server", servers.master),
            element("this_project_server", servers.this),
            element("requesting_project_server", peer),
            element("requesting_project_server_version", version),
            raw_element("update", " ".join(parts)),
        )
    )


def ran_update(
    project: str, servers: Servers, peer: str, pushed: Update | None, posted: str, *, cycled: bool, highest: int
) -> str:
    """Run_update: what was pushed, if anything, its statement as it was `posted`; and the version reached here."""
    # The spelling of did_update_cyle is what deployed servers look for.
    reached = element("did_update_cyle", int(cycled)), element("update_version", highest or "")
    return " ".join(
        (
            element("project", project),
            element("project_master_server", servers.master),
            element("requesting_project_server", peer),
            element("this_project_server", servers.this),
            *([] if pushed is None else _update(pushed, posted)),
            raw_element("update", " ".join(reached)),
        )
    )


def _update(update: Update, query: str) -> list[str]:
    return [
        element("update_version", update.version),
        element("target_servers", encode_list(update.servers)),
        element("update_query", query),
    ]
