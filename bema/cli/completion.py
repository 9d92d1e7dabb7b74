"""`bema completion`: the script that teaches a shell our commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from bema.cli import output
from bema.core.errors import Refused

SHELLS = {
    "bash": "echo 'eval \"$(bema completion bash)\"' >> ~/.bashrc",
    "zsh": "echo 'eval \"$(bema completion zsh)\"' >> ~/.zshrc",
    "fish": "bema completion fish > ~/.config/fish/completions/bema.fish",
}


@click.command()
@click.argument("shell", type=click.Choice(list(SHELLS)))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell."""
    found = get_completion_class(shell)
    if found is None:
        raise Refused(f"this version of click knows no {shell}")
    output.print_text(found(ctx.find_root().command, {}, "bema", "_BEMA_COMPLETE").source())
    output.note(f"to have it in every shell: {SHELLS[shell]}")
