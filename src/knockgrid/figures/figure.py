"""Figure: a figure that says what it draws, so that the shell and the tests need no list of it."""

import ast
import inspect
import re
from collections.abc import Callable
from functools import update_wrapper
from typing import TYPE_CHECKING, Concatenate, Generic, Literal, ParamSpec, TypeVar

from knockgrid.display.drawers import functions
from knockgrid.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

Options = ParamSpec("Options")
Drawn = TypeVar("Drawn")
By = Literal["panels", "itself", "no"]


class Figure(Generic[Options, Drawn]):
    """A function that draws a table of a sweep, and what is known about it before it draws.

    Example:
        >>> @Figure.of(needs="head")
        ... def mine(table, metric="js", *, ax=None, limits=None, title=None):
        ...     "Draw the heads. And more."
        ...     return ax
        >>> mine.name, mine.metric, mine.needs, mine.by, mine.help
        ('mine', 'js', 'head', 'panels', 'Draw the heads.')

    A call draws the rows that fill the column `needs`: `mine(table, "kl", title="A")`.
    `knockgrid figure --kind` offers each figure that `figures/__init__.pyi` names.

    Attributes:
        name: the name in Python and in the shell; `help` is the first sentence of its docstring.
        metric: the column that it draws unless you name a different one.
        needs: a column that only some sweeps fill, such as "head", or None.
        by: how it makes several panels: by `panels`, by an option `by` of its own, or not at all.
        each: a column with one picture for each of its values in the shell, or None.
    """

    def __init__(
        self,
        draw: Callable[Concatenate["pd.DataFrame", Options], Drawn],
        *,
        needs: str | None = None,
        by: By = "panels",
        each: str | None = None,
    ) -> None:
        update_wrapper(self, draw)
        self.draw, self.needs, self.by, self.each = draw, needs, by, each
        self.name: str = draw.__name__
        self.metric: str = inspect.signature(draw).parameters["metric"].default
        self.help = re.split(r"(?<=\.)\s", inspect.getdoc(draw) or "", maxsplit=1)[0]

    @staticmethod
    def of(
        *, needs: str | None = None, by: By = "panels", each: str | None = None
    ) -> "Callable[[Callable[Concatenate[pd.DataFrame, Options], Drawn]], Figure[Options, Drawn]]":
        """The decorator that makes a figure of a function `(table, metric, *, ax, …) -> Axes`."""
        return lambda draw: Figure(draw, needs=needs, by=by, each=each)

    def __call__(
        self, table: "pd.DataFrame", *args: Options.args, **kwargs: Options.kwargs
    ) -> Drawn:
        """Draw the rows of a table that have what the figure needs; some must."""
        if self.needs is not None and self.needs in table:
            filled = table[self.needs].notna()
            if len(table) and not filled.any():
                raise InputError(
                    f"column {self.needs!r} is empty in this table; sweep with per_{self.needs}()"
                )
            table = table[filled]
        return self.draw(table, *args, **kwargs)

    def __reduce__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<figure {self.name}: {self.help}>"


def figure_names() -> tuple[str, ...]:
    """The figures that the drawer's stub names, known by their decorator."""
    return tuple(
        name
        for name, made in functions("figures").items()
        if any("Figure" in ast.unparse(one) for one in made.decorator_list)
    )
