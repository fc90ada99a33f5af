"""Who may submit, read, modify and take: pure functions over values.

LGI 1.41, tables users_allowed to groups_denied: a denial beats everything; a user's own record beats his groups'; a
group's own record beats the `any` user; that beats the `any` group; nothing found is a refusal.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from lgi.lists import ANY
from lgi.model import Denial, Grant


def matches(names: Iterable[str], access: Sequence[str]) -> bool:
    """Whether one of `names` is in an access list, or the list says `any`."""
    return ANY in access or any(name in access for name in names)


@attrs.frozen(kw_only=True)
class Grants:
    """What decides a submission: the rows of the grant tables that may concern it, and who could take the job."""

    users_allowed: tuple[Grant, ...] = ()
    groups_allowed: tuple[Grant, ...] = ()
    users_denied: tuple[Denial, ...] = ()
    groups_denied: tuple[Denial, ...] = ()
    offered_by: frozenset[str] = frozenset()
    """The resources that offer the application."""


@attrs.frozen(kw_only=True)
class Permit:
    """Leave to submit: in the name of `owner`, whose jobs are counted against `grant.job_limit`.

    `of_group` says which table the row is in.
    """

    owner: str
    grant: Grant
    of_group: bool = False


def _denied(name: str, application: str, denials: Sequence[Denial]) -> bool:
    return any(row.name in (name, ANY) and row.application in (application, ANY) for row in denials)


def _granted(name: str, application: str, grants: Sequence[Grant]) -> Grant | None:
    # A row for the application itself is more particular than one for any application.
    for wanted in (application, ANY):
        for row in grants:
            if row.name == name and row.application == wanted:
                return row
    return None


def permits(user: str, groups: Sequence[str], application: str, grants: Grants) -> tuple[Permit, ...]:
    """The permits, best first, under which `user` may submit for `application` with these groups.

    Empty: refused. The caller counts jobs and takes the first permit whose limit leaves room; where the user's own
    record decides there is exactly one, since it overrules his groups.
    """
    if _denied(user, application, grants.users_denied):
        return ()
    usable = [group for group in groups if not _denied(group, application, grants.groups_denied)]
    if groups and not usable:
        return ()
    own = _granted(user, application, grants.users_allowed)
    if own is not None:
        return (Permit(owner=user, grant=own),)
    found = [
        Permit(owner=group, grant=row, of_group=True)
        for group in usable
        if (row := _granted(group, application, grants.groups_allowed)) is not None
    ]
    if found:
        return tuple(found)
    anybody = _granted(ANY, application, grants.users_allowed)
    if anybody is not None:
        return (Permit(owner=user, grant=anybody),)
    any_group = _granted(ANY, application, grants.groups_allowed)
    if any_group is not None:
        return tuple(Permit(owner=group, grant=any_group, of_group=True) for group in usable)
    return ()


def denied_groups(groups: Sequence[str], application: str, grants: Grants) -> frozenset[str]:
    """Those of `groups` that may not own a job of `application`."""
    return frozenset(group for group in groups if _denied(group, application, grants.groups_denied))


def leaves_room(grant: Grant, active: int, total: int) -> bool:
    """Whether one more job fits: `active` counts queued and running jobs, `total` all of them."""
    if grant.job_limit == 0:
        return True
    return active < -grant.job_limit if grant.job_limit < 0 else total < grant.job_limit


def owner_wanted(owners: Iterable[str], posted: Sequence[str]) -> bool:
    """Whether a resource that posted this `owners` field takes a job of these owners.

    LGI 1.41, resource_request_work: entries that start with `!` are refused, the others allowed; an empty field, or
    one of refusals alone, allows everybody who is not refused.
    """
    names = tuple(owners)
    refused = tuple(entry[1:].strip() for entry in posted if entry.startswith("!"))
    allowed = tuple(entry for entry in posted if not entry.startswith("!"))
    if any(name in refused for name in names) or ANY in refused:
        return False
    return not allowed or matches(names, allowed)
