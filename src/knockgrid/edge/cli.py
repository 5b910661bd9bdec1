"""The command line. Heavy imports happen inside commands only, so that `--help` stays fast."""

import sys
import warnings
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from knockgrid._errors import InputError
from knockgrid.edge.commands import figures, looks, runs, sweeps

COMMANDS = (
    sweeps.demo,
    sweeps.sweep,
    figures.figure,
    figures.reproduce,
    figures.evidence,
    runs.verify,
    runs.report,
    runs.methods,
    runs.compact,
    runs.export,
    looks.check,
    looks.facts,
)


class Ended(Exception):
    """Ctrl-C or SIGTERM, as an error that typer does not make an empty exit of."""

    def __init__(self, cause: KeyboardInterrupt) -> None:
        super().__init__(
            str(cause) or "stopped; the same command goes on with a run that was begun"
        )
        self.code = 128 + getattr(cause, "number", 2)


class Commands(TyperGroup):
    """The commands, with a word for those who stop one."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise Ended(error) from None


app = typer.Typer(
    name="knockgrid",
    cls=Commands,
    help="Block what a language model knows at one place and layer; measure how far its output "
    "distribution moves.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in COMMANDS:
    app.command()(command)


def main() -> None:
    """The entry point: what went wrong is one line on standard error and an exit code.

    1: a run does not hold (`verify`); 2: bad input; 3: some prompts of a run failed, the others are
    there; 130 or 143: stopped by Ctrl-C or SIGTERM, after the shard in hand.
    """
    try:
        with warnings.catch_warnings():
            warnings.showwarning = told
            app()
    except InputError as error:
        leave(2, error)
    except Ended as error:
        leave(error.code, error)
    except RuntimeError as error:
        if type(error).__name__ != "PromptsFailed":
            raise
        leave(3, error)


def leave(code: int, said: object) -> NoReturn:
    """End the process with one line on standard error."""
    print(f"knockgrid: {' '.join(str(said).split())}", file=sys.stderr)
    sys.exit(code)


def told(message: Warning | str, *_: object, **__: object) -> None:
    """A warning as one line on standard error, without the place in the code that gave it."""
    print(f"knockgrid: {' '.join(str(message).split())}", file=sys.stderr)


if __name__ == "__main__":
    main()
