"""What figures say in words: the name and unit of a metric, the rows, the number of prompts."""

import matplotlib
import pandas as pd
from matplotlib.axes import Axes

from knockgrid.display.escape import latex, mathtext
from knockgrid.errors import printable
from knockgrid.table.measures import MEASURES, measure_of
from knockgrid.table.metadata import at_temperature
from knockgrid.table.table import metadata_of

ROWS = {"subject": "Subj.", "attention": "Attn.", "last": "Last."}
NAME, SENTENCE = 60, 200
"""Letters of a name, and of a sentence, in a figure, whose size grows with its labels."""


def plain(data: object, longest: int = NAME) -> str:
    r"""Text from data as a figure shows it: letter by letter, on one line, not too long.

    All names that come from tables (rows, groups, modules, positions, tokens, prompts) go through
    here; a `title=` is the caller's own and may hold a formula.

    SVG cannot hold control characters, and matplotlib would leave a name that begins with an
    underscore out of the legend.
    """
    text = str(data)
    if len(text) > longest:
        text = f"{text[: longest // 2]}…{text[1 - longest // 2 :]}"
    text = printable(text.replace("\n", "⏎"))
    if text.startswith("_"):
        text = f" {text}"
    if matplotlib.rcParams["text.usetex"]:
        return latex(text)
    return mathtext(text) if matplotlib.rcParams["text.parse_math"] else text


def metric_label(table: pd.DataFrame, metric: str) -> str:
    """The axis label of `metric`: name and unit; a user's column is called as `statistics` says.

    Example:
        >>> table = pd.DataFrame()
        >>> table.attrs = {"knockgrid": {"unit": "bits"}}
        >>> metric_label(table, "js"), metric_label(table, "p_change")
        ('Avg. JS divergence (bits)', 'Avg. change of p(answer) (%)')
    """
    measure = measure_of(table, metric)
    known = metric in MEASURES  # whose label is ours, and no text from data
    name = measure.label if known else metadata_of(table).get("statistics", {}).get(metric)
    unit = plain(metadata_of(table).get("unit", "unit not recorded"))
    suffix = {"information": f" ({unit})", "percent": " (%)"}.get(measure.unit, "")
    suffix += plain(at_temperature(metadata_of(table)))
    return f"Avg. {name if known else plain(name or measure.label)}{suffix}"


def row_labels(table: pd.DataFrame, names: list) -> list[str]:
    """The axis labels of interventions; a name without a label appears as itself."""
    labels = {**ROWS, **metadata_of(table).get("labels", {})}
    return [plain(labels.get(name, name)) for name in names]


def set_title(ax: Axes, title: str | None, count: str) -> None:
    """Title a figure with its number of prompts, behind the user's own words; "" is no title."""
    said = f"{title} ({count})" if title else count
    ax.set_title("" if title == "" else said, fontsize="medium")


def prompt_count(cells: pd.DataFrame) -> str:
    """How many prompts stand behind a figure, as a range where cells lack some of them."""
    counts = set(cells.groupby(["row", "column"])["value"].count())
    counts.discard(0)  # cells without any value are marked as such
    if not counts:
        return "n = 0 prompts"
    if len(counts) > 1:
        return f"n = {min(counts)}–{max(counts)} prompts per cell"
    # cells that share no prompt would otherwise be counted once
    named = cells.loc[cells["value"].notna(), "prompt"].astype(str)
    everyone = named.nunique()
    # the rows of a probe are its seeds, and stand for no prompt
    what = "seed" if named.str.fullmatch(r"seed \d+").all() else "prompt"
    return f"n = {everyone} {what}{'s' * (everyone > 1)}"
