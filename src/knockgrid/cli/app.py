"""The command line. Heavy imports happen inside commands only, so that `--help` stays fast."""

import difflib
import os
import sys
import warnings
from collections.abc import Collection
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from knockgrid.cli import drawing, looks, runs, sweeps
from knockgrid.cli.values import completed
from knockgrid.errors import InputError
from knockgrid.runs.disk import DISK

COMMANDS = (
    *(sweeps.demo, sweeps.sweep, drawing.figure, drawing.reproduce, drawing.evidence),
    *(runs.verify, runs.report, runs.methods, runs.compact, runs.export),
    *(looks.check, looks.facts, looks.doctor),
)
# The lone \b keeps the lines of a paragraph apart
EXIT_CODES = """\b
Exit codes:
  0         done
  1         verify: the run does not hold; doctor: a check failed
  2         bad input, or a disk that cannot be written
  3         some prompts of a run failed, the others are there
  4         memory ran out even on one prompt at a time
  130, 143  stopped by Ctrl-C or SIGTERM, after the shard in hand
  141       what read the output has closed it, as `head` does

What went wrong is one line on standard error. With --json standard output is one JSON document.
"""
WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
"""Threads that wait leave the processor to others: GNU's OpenMP, and Intel's and LLVM's."""
CLOSED_PIPE = 141
CODES = {"PromptsFailed": 3, "TooLittleMemory": 4}
"""Errors by name, since the rooms that raise them are imported inside commands only."""


class Ended(Exception):
    """Ctrl-C or SIGTERM, as an error that typer does not make an empty exit of."""

    def __init__(self, cause: KeyboardInterrupt) -> None:
        super().__init__(
            str(cause) or "stopped; the same command goes on with a run that was begun"
        )
        self.code = 128 + getattr(cause, "number", 2)


class Commands(TyperGroup):
    """The commands, with a word for those who stop one or miss one by a letter."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        known = self.list_commands(ctx)
        asks = ctx.resilient_parsing  # a shell, how to go on
        if args and not args[0].startswith("-") and args[0] not in known and not asks:
            raise no_such_command(args[0], known)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            found = super().invoke(ctx)
            sys.stdout.flush()
            return found
        except KeyboardInterrupt as error:
            raise Ended(error) from None
        except BrokenPipeError:  # `head` has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(CLOSED_PIPE) from None


app = typer.Typer(
    name="knockgrid",
    cls=Commands,
    help="Block what a language model knows at one place and layer; measure how far its output "
    "distribution moves.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in COMMANDS:
    app.command()(completed(command))


def say_version(asked: bool | None) -> bool:
    """Print the version and end."""
    if asked:
        typer.echo(f"knockgrid {version('knockgrid')}")
        raise typer.Exit
    return False


@app.callback()
def whole(
    version: Annotated[
        bool,
        typer.Option("--version", callback=say_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Take what stands before the command; the help is the app's."""


def wait_passively() -> None:
    """Let OpenMP's threads sleep while they wait, unless the user said how; torch reads it once."""
    said = {*WAITING, "GOMP_SPINCOUNT", "KMP_LIBRARY"} & os.environ.keys()
    if not said and "torch" not in sys.modules:
        os.environ.update(WAITING)


def main() -> None:
    """The entry point: what went wrong is one line on standard error and an exit code."""
    wait_passively()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = tell
            # not standalone: errors of usage are said here, as all others are
            code = app(prog_name="knockgrid", standalone_mode=False)
    except Exception as error:
        code, said = outcome(error)
        tell(said)
    if code:
        sys.exit(code)


def outcome(error: Exception) -> tuple[int, object]:
    """The exit code of an error, and what to say; an error of the program is raised again."""
    name = type(error).__name__
    if isinstance(error, InputError):
        return 2, error
    if isinstance(error, Ended):
        return error.code, error
    if isinstance(error, OSError) and error.errno in DISK:
        return 2, f"{error.filename or 'a file'} cannot be read or written ({error.strerror})"
    if name in CODES:
        return CODES[name], error
    if name == "NoArgsIsHelpError":
        typer.echo(error.format_message(), err=True)  # type: ignore[attr-defined]
        sys.exit(2)
    if hasattr(error, "format_message"):
        names = [command.__name__ for command in COMMANDS]
        given = [one for one in sys.argv[1:] if one in names][:1]
        return 2, usage(error, " ".join(["knockgrid", *given]))
    raise error


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


def tell(said: object, *_: object, **__: object) -> None:
    """An error, or a warning without its place in the code, as one line on standard error."""
    print(f"knockgrid: {' '.join(str(said).split())}", file=sys.stderr)


if __name__ == "__main__":
    main()
