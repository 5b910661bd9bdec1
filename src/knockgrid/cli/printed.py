"""What a command prints: lines as they come, or with --json one document at the end."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

from knockgrid.display.terminal import colours

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of lines.")]


class Printer:
    """Standard output of a command."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.document: dict[str, Any] = {}

    def line(self, text: str) -> None:
        """A line for people, which no document holds."""
        if not self.as_json:
            typer.echo(text, color=colours(sys.stdout))

    def note(self, text: str) -> None:
        """A line on standard error, which no reader of the output has to skip."""
        typer.echo(f"knockgrid: {text}", err=True)

    def wrote(self, path: Path) -> None:
        """A file or folder that was written: alone on its line, so that it can be copied."""
        self.document.setdefault("written", []).append(str(path))
        self.line(str(path))

    def add(self, **entries: Any) -> None:
        """Entries of the document, which no line shows."""
        self.document |= entries


@contextmanager
def printed(as_json: bool) -> Iterator[Printer]:
    """A printer for a command's body; beside a document, all other prints go to standard error."""
    said = Printer(as_json)
    with redirect_stdout(sys.stderr) if as_json else nullcontext():
        yield said
    if as_json:  # ASCII, as not every standard output takes what a path or a prompt may hold
        typer.echo(json.dumps(said.document, indent=2, allow_nan=False))
