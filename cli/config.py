"""The verbs of ``config``: the settings as they hold, and their schema."""

import json

import typer
import yaml

from cli.context import CommandContext
from cli.options import JsonOption
from passport.configuration import without_secrets
from passport.settings import Settings

commands = typer.Typer(no_args_is_help=True, help="Show the settings and their schema.")


@commands.command()
def show(ctx: typer.Context, as_json: JsonOption = False) -> None:
    """Print all settings as they hold, with stars in place of secrets."""
    context: CommandContext = ctx.obj
    tree = without_secrets(context.settings)
    if as_json:
        context.print_json(tree)
    else:
        print(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True), end="")  # noqa: T201


@commands.command()
def schema() -> None:
    """Print the JSON Schema of the settings file, for editors."""
    print(json.dumps(Settings.model_json_schema(), indent=2))  # noqa: T201
