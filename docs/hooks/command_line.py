"""The reference of the command line, generated from the commands."""

import re
from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from flows.cli import app


def page() -> str:
    return "\n".join(_page())


def _page() -> Iterator[str]:
    command: Any = get_command(app)
    yield "# The command line\n"
    yield "`metaopt COMMAND --help` shows the same on a terminal.\n"
    yield _text(command.help) + "\n"
    yield _text(command.epilog) + "\n"
    yield from _parameters(command)
    for name, one in _commands(command):
        yield f"\n## `metaopt {name}`\n"
        yield _text(one.help) + "\n"
        yield f"```text\n{_usage(name, one)}\n```\n"
        yield from _parameters(one)
        if one.epilog:
            yield _text(one.epilog) + "\n"


def _commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Every command by its words, those of groups included."""
    for name, one in group.commands.items():
        if hasattr(one, "commands"):
            yield from _commands(one, f"{before}{name} ")
        else:
            yield f"{before}{name}", one


def _usage(name: str, command: Any) -> str:
    arguments = [parameter.metavar for parameter in command.params if parameter.param_type_name == "argument"]
    return " ".join(["metaopt", name, *arguments, "[OPTIONS]"])


def _parameters(command: Any) -> Iterator[str]:
    shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    if not shown:
        return
    yield "| | default | |"
    yield "|---|---|---|"
    for parameter in shown:
        yield f"| `{_name(parameter)}` | {_default(parameter)} | {_text(parameter.help or '').replace('|', '&#124;')} |"
    yield ""


def _name(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return str(parameter.metavar)
    value = "" if parameter.is_flag else f" {parameter.metavar or parameter.name.rsplit('_', 1)[-1].upper()}"
    return ", ".join(reversed(parameter.opts)) + value


def _default(parameter: Any) -> str:
    if isinstance(parameter.show_default, str):
        return parameter.show_default
    return "" if parameter.default in (None, False) or parameter.required else f"`{parameter.default}`"


def _text(text: str) -> str:
    """Rich's markup as Markdown."""
    text = re.sub(r"\[cyan\](.*?)\[/cyan\]", r"`\1`", text)
    return re.sub(r"\[bold\](.*?)\[/bold\]", r"**\1**", text)
