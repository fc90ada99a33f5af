"""What a daemon would say of a configuration, found out without starting one and without changing anything."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import attrs

from lgi.daemon.config import UPDATE, ConfigErrors, DaemonConfig, read_config
from lgi.daemon.papers import NOTICE, Papers, PapersError, missing_program, read_papers
from lgi.daemon.place import in_use, process_of
from lgi.daemon.sandbox import SandboxError, examine_sandbox
from lgi.daemon.seal import KEY_FILE, SealError, load_seal


@attrs.frozen(kw_only=True)
class Findings:
    """What was found: `mistakes` keep a daemon from starting, `warnings` do not; None for what is no good."""

    mistakes: tuple[str, ...]
    warnings: tuple[str, ...]
    config: DaemonConfig | None
    papers: Papers | None
    daemon: int | None
    """The process number of the daemon in the run directory; 0 where it has left none; None without a daemon."""


def check(path: Path, *, for_reload: bool = False, sandbox: bool = True, now: datetime | None = None) -> Findings:
    """Look at a configuration and all that it names, as a daemon does when it starts.

    With `for_reload` a daemon works in its run directory and is to read it again, otherwise none may. Without
    `sandbox` it is for a daemon that has none although it is root's. `now` is an aware time.
    """
    mistakes: list[str] = []
    warnings: list[str] = []
    config: DaemonConfig | None = None
    usable: DaemonConfig | None
    papers, daemon = None, None
    try:
        config = usable = read_config(path)
    except ConfigErrors as errors:
        mistakes += errors.mistakes
        usable = errors.config
    if usable is not None:
        papers = _papers(usable, mistakes, warnings, now or datetime.now(UTC))
        if usable.run_directory.is_dir():
            daemon = _daemon(usable.run_directory, mistakes)
            _occupied(usable.run_directory, daemon, for_reload, mistakes)
    missing = missing_program()
    if missing is not None:
        mistakes.append(f"the program {missing} is not in PATH, no script could be started")
    if config is not None:
        warnings += _sandbox_warnings(config)
        if os.geteuid() == 0 and sandbox:
            _examine(config.run_directory, mistakes)
        warnings += [
            f"project {project.name} offers {UPDATE}: its owners run any script here, as the user that jobs run as"
            for project in config.projects
            if any(application.name == UPDATE for application in project.applications)
        ]
    return Findings(mistakes=tuple(mistakes), warnings=tuple(warnings), config=config, papers=papers, daemon=daemon)


def _papers(config: DaemonConfig, mistakes: list[str], warnings: list[str], now: datetime) -> Papers | None:
    files = (config.resource_certificate_file, config.resource_key_file, config.ca_certificate_file)
    if not all(file.is_file() and os.access(file, os.R_OK) for file in files):
        return None  # which is among the mistakes
    try:
        papers = read_papers(config)
    except PapersError as problem:
        mistakes += problem.reasons
        return None
    for file, end in papers.ends:
        if end - now <= NOTICE:
            warnings.append(f"{file} is valid until {end:%Y-%m-%d %H:%M} UTC only, {days_left(end, now)} days more")
    if config.resource_key_file.stat().st_mode & 0o044:
        warnings.append(f"{config.resource_key_file}: others can read the private key, make its mode 0600")
    return papers


def days_left(end: datetime, now: datetime) -> int:
    """Whole days from now to the end; negative after it."""
    return (end - now).days


def _daemon(run_directory: Path, mistakes: list[str]) -> int | None:
    try:
        if (run_directory / KEY_FILE).exists():
            load_seal(run_directory)
        return (process_of(run_directory) or 0) if in_use(run_directory) else None
    except SealError as problem:
        mistakes.append(str(problem))
    except OSError as problem:
        mistakes.append(f"{problem.filename or run_directory}: {problem.strerror}")
    return None


def _occupied(run_directory: Path, daemon: int | None, for_reload: bool, mistakes: list[str]) -> None:
    who = f" (process {daemon})" if daemon else ""
    if daemon is not None and not for_reload:
        mistakes.append(
            f"{run_directory}: a daemon{who} works in this run directory; with --reload that is as it should be"
        )
    elif daemon is None and for_reload:
        mistakes.append(f"{run_directory}: no daemon works in this run directory, so that none can read this again")


def _examine(run_directory: Path, mistakes: list[str]) -> None:
    try:
        examine_sandbox(run_directory, os.environ)
    except SandboxError as problem:
        mistakes += problem.reasons
    except OSError as problem:
        mistakes.append(f"{problem.filename or run_directory}: {problem.strerror}")


def _sandbox_warnings(config: DaemonConfig) -> list[str]:
    uid = os.geteuid()
    if uid != 0 and config.sandbox_uids:
        return [f"job_sandbox_uid is ignored: jobs run under the daemon's own uid, here {uid}"]
    return []
