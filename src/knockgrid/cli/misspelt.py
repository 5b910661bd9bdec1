"""Misspelt: commands and options that do not exist, in the one line that every error has."""

import difflib
from collections.abc import Collection
from typing import Any

from knockgrid.errors import InputError


def no_such_command(given: str, commands: Collection[str]) -> InputError:
    """The error for a command that does not exist, with the nearest one."""
    near = did_you_mean(given, commands)
    return InputError(f"no such command {given!r}{near} Commands: {', '.join(commands)}")


def did_you_mean(given: str, names: Collection[str]) -> str:
    """The nearest of some names as the end of a sentence, or only its end."""
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else "."


def usage(error: Any, asked: str = "knockgrid") -> InputError:
    """What the parser says of a command line, as one sentence with what to do next.

    typer carries a copy of click, or needs one, depending on its version, so that errors are told
    by what they hold and not by their class. Some do not know in which command they arose; that is
    then what was `asked`.
    """
    context = getattr(error, "ctx", None)
    command = asked if context is None else context.command_path
    if not hasattr(error, "possibilities"):  # which only an unknown option has
        said = " ".join(error.format_message().split()).rstrip(".")
        return InputError(f"{said[:1].lower()}{said[1:]}; see {command} --help")
    option = error.option_name
    written = [] if context is None else [*context.help_option_names]
    for one in [] if context is None else context.command.params:
        if one.param_type_name == "option":
            written += [*one.opts, *one.secondary_opts]
    near = did_you_mean(option, written)
    return InputError(f"no such option {option!r} of {command}{near} All are in {command} --help")
