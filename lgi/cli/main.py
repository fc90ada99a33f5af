"""The program `lgi`: its commands, each loaded when it is called, and what becomes of their errors."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import click
from click.shell_completion import CompletionItem

from lgi import __version__
from lgi.cli.options import Options, common_options, pass_options
from lgi.cli.screen import standard_screen

INTERRUPTED = 130  # what shells say of a process that Ctrl-C has ended

# Name, where it is, what it is for: here, so that `lgi --help` need not load them all.
COMMANDS = {
    "submit": ("lgi.cli.submit:submit", "Submit a job with its files."),
    "list": ("lgi.cli.list:list_command", "List jobs, chosen and sorted as you like."),
    "status": ("lgi.cli.jobs:status", "Show all about some jobs, or list them all."),
    "wait": ("lgi.cli.wait:wait", "Follow jobs until they are over."),
    "logs": ("lgi.cli.logs:logs", "Print what a job writes, also while it is written."),
    "files": ("lgi.cli.files:files", "List, download, upload or remove files of a job."),
    "cancel": ("lgi.cli.delete:cancel", "End jobs, and keep them with their files."),
    "delete": ("lgi.cli.delete:delete", "Delete jobs with their files; running ones are aborted."),
    "resources": ("lgi.cli.resources:resources", "List the project's resources and their applications."),
    "servers": ("lgi.cli.servers:servers", "List the project's servers and whether they answer."),
    "whoami": ("lgi.cli.whoami:whoami", "Show your certificate: who you are, and until when."),
    "completion": ("lgi.cli.completion:completion", "Print the completion script for your shell."),
    "init": ("lgi.cli.init:init", "Make a new project: its authority, server and first administrator."),
    "admin": ("lgi.cli.admin:admin", "Manage a project: grants, resources, servers, updates, database."),
    "daemon": ("lgi.cli.daemon:daemon", "Verify the configuration of a resource daemon."),
    "batch": ("lgi.cli.batch:batch", "Submit, watch and steer jobs on this machine's batch system."),
    "ca": ("lgi.cli.ca:ca", "Issue, list and revoke the certificates of a project."),
}


class LazyGroup(click.Group):
    """A group whose commands are loaded when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names in the order in which they are met in use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name][0].split(":")
        command = getattr(import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands by their names in the table, and the options."""
        found = [
            CompletionItem(name, help=text) for name, (_, text) in COMMANDS.items() if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands in the help, from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    metavar="DIR",
    envvar="LGI_CONFIG",
    type=click.Path(path_type=Path),
    help="Configuration directory; ~/.LGI, or what LGI_CONFIG says.",
)
@click.option("--server", metavar="URL", default="", help="Project server to use, and no other.")
@click.option("--project", metavar="NAME", default="", help="Project, in place of the configured one.")
@common_options
@click.version_option(__version__, prog_name="lgi", message="%(prog)s %(version)s")
@pass_options
def lgi(options: Options, config: Path | None, server: str, project: str) -> None:
    """Leiden Grid Infrastructure: jobs on the machines of a project.

    Who you are and which server you use is in the directory ~/.LGI, which the project's administrator hands out.
    Jobs go to any server of the project; a job is 12, or 12@SERVER where there are several servers.

    \b
    Examples:
      lgi submit -a hello_world --input "hi" --wait
      lgi submit -a lj_md -i example.input argon38.xyz --get results
      lgi list --state queued,running
    """
    options.config, options.server, options.project = config, server, project


def _ended(arguments: list[str], options: Options) -> int:
    try:
        return lgi.main(arguments, prog_name="lgi", standalone_mode=False, obj=options) or 0
    except click.exceptions.NoArgsIsHelpError as problem:
        problem.show()
        return problem.exit_code
    except click.UsageError as problem:
        help_command = f" (see {problem.ctx.command_path} --help)" if problem.ctx else ""
        message = " ".join(problem.format_message().split()).removesuffix(".")
        click.echo(f"lgi: {message}{help_command}", err=True)
        return problem.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        raise  # to main(), since what is left in the stream must not be written either
    except Exception as problem:
        standard_screen(json=options.json, verbose=options.verbose).complain(problem)
        return 1


def main() -> NoReturn:
    """The program: exits 0 when it worked, 1 when not, 2 on a usage error, 130 after Ctrl-C."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who started us; its number must not become that of a connection
            setattr(sys, name, Path(os.devnull).open("r+"))  # noqa: SIM115, it stays open
    try:
        status = _ended(sys.argv[1:], Options())
        sys.stdout.flush()
    except OSError:
        # Standard output is gone or full, which has been said where there was somebody to say it to. What is left in
        # the stream would fail once more when Python closes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    sys.exit(status)
