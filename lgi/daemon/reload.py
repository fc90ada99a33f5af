"""What a new configuration may change while the daemon works, and what it changes, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from lgi.daemon.config import JOB_SCRIPTS, ApplicationConfig, DaemonConfig, Limits, ProjectConfig
from lgi.identity import Identity

_LIMITS = {"allow": "owner_allow", "deny": "owner_deny", "job_limit": "job_limit"}
_PATHS = {
    "ca_certificate_file": "ca_certificate_file",
    "resource_certificate_file": "resource_certificate_file",
    "resource_key_file": "resource_key_file",
}


def obstacles(old: DaemonConfig, new: DaemonConfig, before: Identity, after: Identity) -> list[str]:
    """Why a daemon that works by the `old` configuration cannot go on by the `new` one; empty: it can."""
    reasons = []
    if old.run_directory != new.run_directory:
        reasons.append(
            f"run_directory: {new.run_directory} in place of {old.run_directory} needs a restart, as the jobs that "
            "are held are there"
        )
    if before.name != after.name:
        reasons.append(
            f"resource_certificate_file: it is the certificate of {after.name}, and the jobs that are held were "
            f"given to {before.name}"
        )
    return reasons


def changes(old: DaemonConfig, new: DaemonConfig) -> list[str]:
    """What is different, a phrase for each."""
    found = _fields(old, new, _PATHS, "")
    found += _limits(old.limits, new.limits, "")
    before = {project.name: project for project in old.projects}
    after = {project.name: project for project in new.projects}
    found += _named(before, after, "project")
    for name in (name for name in after if name in before):
        found += _project(before[name], after[name])
    return found


def _project(old: ProjectConfig, new: ProjectConfig) -> list[str]:
    where = f" of project {new.name}"
    found = _fields(old, new, {"master_server": "project_master_server"}, where)
    found += _limits(old.limits, new.limits, where)
    before = {application.name: application for application in old.applications}
    after = {application.name: application for application in new.applications}
    found += _named(before, after, "application", where)
    for name in (name for name in after if name in before):
        found += _application(before[name], after[name], f" of application {name}{where}")
    return found


def _application(old: ApplicationConfig, new: ApplicationConfig, where: str) -> list[str]:
    names = {
        "max_output_size": "max_output_size",
        "sandbox_uid": "job_sandbox_uid",
        "check_system_limits_script": "check_system_limits_script",
        "capabilities": "capabilities",
    }
    found = _limits(old.limits, new.limits, where) + _fields(old, new, names, where)
    return found + [
        f"{tag}{where}: {_shown(new.scripts.get(tag))}"
        for tag in JOB_SCRIPTS
        if old.scripts.get(tag) != new.scripts.get(tag)
    ]


def _named(old: Mapping[str, object], new: Mapping[str, object], what: str, where: str = "") -> list[str]:
    gone = [f"{what} {name}{where} removed" for name in old if name not in new]
    return gone + [f"{what} {name}{where} added" for name in new if name not in old]


def _limits(old: Limits, new: Limits, where: str) -> list[str]:
    return _fields(old, new, _LIMITS, where)


def _fields(old: attrs.AttrsInstance, new: attrs.AttrsInstance, names: Mapping[str, str], where: str) -> list[str]:
    return [
        f"{tag}{where}: {_shown(getattr(new, name))}"
        for name, tag in names.items()
        if getattr(old, name) != getattr(new, name)
    ]


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{owner} {limit}" for owner, limit in value.items()) or "empty"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value)) or "empty"
    return str(value) if value not in (None, "") else "empty"
