"""The resource daemon's configuration file, `LGI.cfg`, as frozen values (LGI 1.41, Resource daemon)."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import attrs

from lgi.daemon.cfgfile import Section, read_sections
from lgi.lists import ANY
from lgi.wire.dialect import MalformedXML, parse_fragment

JOB_SCRIPTS = (
    "job_check_limits_script",
    "job_check_running_script",
    "job_check_finished_script",
    "job_prologue_script",
    "job_run_script",
    "job_epilogue_script",
    "job_abort_script",
)
MAY_BE_LEFT_OUT = frozenset(JOB_SCRIPTS) - {"job_run_script"}
"""Whose tag may be empty: what the run script does, and the end of its process, say it all."""
CHECKS = ("job_check_running_script", "job_check_finished_script")
UPDATE = "update"
"""The application that runs the scripts its users send, to manage the resource (LGI 1.41, Resource management)."""
SERVER_ADDRESS = re.compile(r"https://[^\s/?#]+(/[^\s?#]*)?")
_DIRECTORY_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_TAG_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


class ConfigErrors(Exception):
    """Every mistake of a configuration file, a line each: the file, the tags that lead to it, the reason.

    `config` has what could be understood all the same, for those who look for more mistakes; never to work with.
    """

    def __init__(self, mistakes: Sequence[str], config: DaemonConfig | None = None) -> None:
        self.mistakes = tuple(mistakes)
        self.config = config
        super().__init__("\n".join(self.mistakes))


@attrs.frozen(kw_only=True)
class Limits:
    """What one level (resource, project or application) allows.

    `allow` has the number of jobs each owner may have here at a time, `any` standing for each owner without an entry
    of his own; empty: no owner has a limit. `deny` has owners whose jobs are never taken. `job_limit` is the number
    of jobs held here at a time; 0 takes none.
    """

    allow: Mapping[str, int]
    deny: tuple[str, ...]
    job_limit: int


@attrs.frozen(kw_only=True)
class ApplicationConfig:
    """One application of a project; `scripts` has paths for those of JOB_SCRIPTS not left out, sizes are in bytes."""

    name: str
    limits: Limits
    max_output_size: int
    capabilities: str
    sandbox_uid: int | None
    check_system_limits_script: Path | None
    scripts: Mapping[str, Path]


@attrs.frozen(kw_only=True)
class ProjectConfig:
    """One project; `master_server` is an https:// address without a slash at its end."""

    name: str
    master_server: str
    limits: Limits
    applications: tuple[ApplicationConfig, ...]


@attrs.frozen(kw_only=True)
class DaemonConfig:
    """The whole file; all paths are absolute."""

    ca_certificate_file: Path
    resource_certificate_file: Path
    resource_key_file: Path
    run_directory: Path
    limits: Limits
    projects: tuple[ProjectConfig, ...]

    @property
    def sandbox_uids(self) -> frozenset[int]:
        """The uids that applications name."""
        uids = (app.sandbox_uid for project in self.projects for app in project.applications)
        return frozenset(uid for uid in uids if uid is not None)


def read_config(path: Path) -> DaemonConfig:
    """Read and verify a configuration file; paths in it are relative to its directory.

    Every tag of the document's example has to be there, but `job_sandbox_uid`, `capabilities` and the two
    `number_of_…` (which must agree if present). All scripts but `job_run_script` may be empty and are left out then;
    the two that say what a job is doing only together, and `job_abort_script` only with both. Raises ConfigErrors
    with all mistakes at once.
    """
    root, mistakes = read_sections(path)
    if root is None:
        raise ConfigErrors(mistakes)
    resource = root.section("resource")
    config = DaemonConfig(
        ca_certificate_file=_file(root, "ca_certificate_file"),
        resource_certificate_file=_file(resource, "resource_certificate_file"),
        resource_key_file=_file(resource, "resource_key_file"),
        run_directory=_run_directory(resource),
        limits=_limits(resource),
        projects=_several(resource, "project", _project, lambda project: project.name),
    )
    resource.finish()
    root.finish()
    if mistakes:
        raise ConfigErrors(mistakes, config)
    return config


_Value = TypeVar("_Value")


def _several(
    parent: Section, tag: str, read: Callable[[Section], _Value], name: Callable[[_Value], str]
) -> tuple[_Value, ...]:
    sections = parent.sections(tag)
    if not sections:
        parent.mistake(tag, "there is none, at least one is needed")
    counter = f"number_of_{tag}s"
    said = parent.integer(counter) if parent.has(counter) else len(sections)
    if said is not None and said != len(sections):
        parent.mistake(counter, f"it says {said}, but there are {len(sections)}")
    values = []
    names: set[str] = set()
    for section in sections:
        value = read(section)
        section.finish()
        if name(value) and name(value) in names:
            section.mistake(f"{tag}_name", f"{name(value)!r} is there already")
        names.add(name(value))
        values.append(value)
    return tuple(values)


def _project(section: Section) -> ProjectConfig:
    master = section.text("project_master_server").rstrip("/")
    if master and not SERVER_ADDRESS.fullmatch(master):
        section.mistake("project_master_server", f"{master!r} is no https:// address")
    return ProjectConfig(
        name=_name(section, "project_name", _DIRECTORY_NAME),
        master_server=master,
        limits=_limits(section),
        applications=_several(section, "application", _application, lambda application: application.name),
    )


def _application(section: Section) -> ApplicationConfig:
    capabilities = section.inner("capabilities")
    try:
        parse_fragment(capabilities)
    except MalformedXML as problem:
        section.mistake("capabilities", f"not well-formed XML: {problem}")
    system = section.text("check_system_limits_script", empty=True)
    # It becomes a tag in the capabilities that the daemon signs up with.
    name = _name(section, "application_name", _TAG_NAME)
    limits = _limits(section)
    if name == UPDATE and (ANY in limits.allow or not limits.allow):
        section.mistake(
            "owner_allow",
            f"the application {UPDATE} runs whatever script it is sent: its owners have to be named, "
            + (f"and {ANY!r} is everybody" if limits.allow else "and nobody is (that would be everybody)"),
        )
    return ApplicationConfig(
        name=name,
        limits=limits,
        max_output_size=section.integer("max_output_size") or 0,
        capabilities=capabilities,
        sandbox_uid=section.integer("job_sandbox_uid", minimum=1) if section.has("job_sandbox_uid") else None,
        check_system_limits_script=_script(section, "check_system_limits_script") if system else None,
        scripts=_scripts(section),
    )


def _scripts(section: Section) -> dict[str, Path]:
    left_out = {tag for tag in MAY_BE_LEFT_OUT if section.has(tag) and section.is_empty(tag)}
    running, finished = CHECKS
    for tag, other in ((running, finished), (finished, running)):
        if tag in left_out and other not in left_out:
            section.mistake(
                tag, f"it is empty, but {other} is not: what a job is doing is said by both, or by neither"
            )
    if "job_abort_script" in left_out and not left_out.issuperset(CHECKS):
        section.mistake(
            "job_abort_script",
            f"it is empty, but {running} and {finished} are not: what they look at, nobody else could end",
        )
    return {tag: _script(section, tag) for tag in JOB_SCRIPTS if tag not in left_out}


def _name(section: Section, tag: str, form: re.Pattern[str]) -> str:
    name = section.text(tag)
    if name and not form.fullmatch(name):
        section.mistake(tag, f"{name!r} is no name: letters, digits, '_', '-' and '.', not beginning with '.' or '-'")
    return name


def _limits(section: Section) -> Limits:
    return Limits(
        allow=section.owner_limits("owner_allow"),
        deny=section.owner_names("owner_deny"),
        job_limit=section.integer("job_limit") or 0,
    )


def _file(section: Section, tag: str) -> Path:
    path = section.path(tag)
    if path is not None:
        if not path.is_file():
            section.mistake(tag, f"there is no file {path}")
        elif not os.access(path, os.R_OK):
            section.mistake(tag, f"{path} cannot be read by this user")
    return path or Path()


def _script(section: Section, tag: str) -> Path:
    path = _file(section, tag)
    if path.is_file() and os.access(path, os.R_OK) and not os.access(path, os.X_OK):
        section.mistake(tag, f"{path} is not executable")
    return path


def _run_directory(section: Section) -> Path:
    tag = "run_directory"
    path = section.path(tag)
    if path is None:
        return Path()
    if path.is_dir():
        if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            section.mistake(tag, f"{path} is not writable by this user")
    elif path.exists():
        section.mistake(tag, f"{path} is not a directory")
    elif not path.parent.is_dir():
        section.mistake(tag, f"neither {path} nor {path.parent} exists")
    elif not os.access(path.parent, os.W_OK | os.X_OK):
        section.mistake(tag, f"{path} does not exist and cannot be made in {path.parent} by this user")
    return path
