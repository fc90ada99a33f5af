"""`lgi completion`: the script by which a shell completes commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from lgi.cli.options import Options, common_options, pass_options
from lgi.cli.screen import standard_screen

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@common_options
@pass_options
def completion(options: Options, shell: str) -> None:
    """Print the script that makes SHELL complete the commands and options of lgi.

    \b
    Examples:
      lgi completion bash > ~/.local/share/bash-completion/completions/lgi
      lgi completion zsh > ~/.zfunc/_lgi        (with ~/.zfunc in your fpath)
      lgi completion fish > ~/.config/fish/completions/lgi.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    program = click.get_current_context().find_root().command
    made = kind(program, {}, "lgi", "_LGI_COMPLETE")
    # The template itself: asking for the whole would start the shell, which need not be installed here.
    script = made.source_template % made.source_vars()
    screen = standard_screen(json=options.json, verbose=options.verbose)
    screen.result({"shell": shell, "script": script})
    screen.line(script.rstrip())
