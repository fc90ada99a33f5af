"""`lgi daemon`: looking after a resource daemon."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from lgi.cli.options import Options, common_options, pass_options
from lgi.cli.screen import Screen, standard_screen
from lgi.daemon.check import Findings, check, days_left
from lgi.daemon.config import DaemonConfig, Limits
from lgi.daemon.papers import Papers


@click.group()
def daemon() -> None:
    """Look after a resource daemon."""


@daemon.command("check")
@click.argument("file", metavar="LGI.cfg", type=click.Path(path_type=Path))
@click.option("--reload", is_flag=True, help="For a daemon that is running, and is to read the file again (SIGHUP).")
@click.option("--no-sandbox", is_flag=True, help="For a daemon of root's that is started with --no-sandbox.")
@common_options
@pass_options
@click.pass_context
def check_command(context: click.Context, options: Options, file: Path, reload: bool, no_sandbox: bool) -> None:
    """Verify a configuration file and all that it names, as the daemon does when it starts.

    Nothing is changed. Every mistake is listed; the exit status is 1 if there is one.
    """
    screen = standard_screen(json=options.json, verbose=options.verbose)
    findings = check(file, for_reload=reload, sandbox=not no_sandbox)
    screen.result(_record(file, findings, not no_sandbox))
    _tell(screen, file, findings, not no_sandbox)
    context.exit(1 if findings.mistakes else 0)


def _tell(screen: Screen, file: Path, findings: Findings, sandbox: bool) -> None:
    for line in findings.mistakes:
        screen.line(f"mistake: {line}")
    for line in findings.warnings:
        screen.line(f"warning: {line}")
    if findings.papers is not None:
        screen.line(_certificate_line(findings.papers))
    if findings.config is not None:
        for project in findings.config.projects:
            names = ", ".join(application.name for application in project.applications)
            screen.line(f"project {project.name} at {project.master_server}: {names}")
        screen.line(f"run directory {findings.config.run_directory}{_daemon_words(findings)}")
        screen.line(_sandbox_line(findings.config, sandbox))
    number = len(findings.mistakes)
    screen.line(f"{file}: {'in order' if not number else '1 mistake' if number == 1 else f'{number} mistakes'}")


def _certificate_line(papers: Papers) -> str:
    end = papers.ends[0][1]
    projects = papers.identity.projects
    return (
        f"certificate of {papers.identity.name} for {'any project' if projects is None else ', '.join(projects)}, "
        f"valid until {end:%Y-%m-%d} ({days_left(end, datetime.now(UTC))} days)"
    )


def _daemon_words(findings: Findings) -> str:
    if findings.daemon is None:
        return ""
    return f", process {findings.daemon} works there" if findings.daemon else ", a daemon works there"


def _sandbox_line(config: DaemonConfig, sandbox: bool) -> str:
    if os.geteuid() == 0 and not sandbox:
        return "sandbox: none, jobs run as root"
    if os.geteuid() != 0:
        return f"sandbox: none, jobs run as the daemon's user (here uid {os.geteuid()})"
    uids = ", ".join(map(str, sorted(config.sandbox_uids)))
    return f"sandbox: a uid for each job, as this is root{f'; configured: {uids}' if uids else ''}"


def _record(file: Path, findings: Findings, sandbox: bool) -> dict[str, Any]:
    config, papers = findings.config, findings.papers
    return {
        "file": str(file),
        "ok": not findings.mistakes,
        "mistakes": list(findings.mistakes),
        "warnings": list(findings.warnings),
        "certificate": papers and _certificate(papers),
        "run_directory": config and {"path": str(config.run_directory), "daemon": findings.daemon},
        "sandbox": config
        and {"uid": os.geteuid(), "used": sandbox and os.geteuid() == 0, "uids": sorted(config.sandbox_uids)},
        "limits": config and _limits(config.limits),
        "projects": config
        and [
            {
                "name": project.name,
                "master_server": project.master_server,
                "limits": _limits(project.limits),
                "applications": [
                    {
                        "name": application.name,
                        "limits": _limits(application.limits),
                        "max_output_size": application.max_output_size,
                        "job_sandbox_uid": application.sandbox_uid,
                    }
                    for application in project.applications
                ],
            }
            for project in config.projects
        ],
    }


def _certificate(papers: Papers) -> dict[str, Any]:
    projects = papers.identity.projects
    return {
        "name": papers.identity.name,
        "projects": None if projects is None else list(projects),
        "valid_until": papers.ends[0][1].isoformat(),
        "days_left": days_left(papers.ends[0][1], datetime.now(UTC)),
        "authority_valid_until": papers.ends[1][1].isoformat(),
    }


def _limits(limits: Limits) -> dict[str, Any]:
    return {"owner_allow": dict(limits.allow), "owner_deny": list(limits.deny), "job_limit": limits.job_limit}
