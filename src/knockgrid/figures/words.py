"""What figures say in words: the name and unit of a metric, the rows, the number of prompts."""

import matplotlib
import pandas as pd

from knockgrid.display.escape import latex, mathtext
from knockgrid.errors import printable
from knockgrid.table.measures import MEASURES, measure_of
from knockgrid.table.table import metadata_of

ROWS = {"subject": "Subj.", "attention": "Attn.", "last": "Last."}
AVERAGES = {"mean": "Avg.", "median": "Median", "min": "Min.", "max": "Max."}
NAME, SENTENCE = 60, 200
"""Letters of a name, and of a sentence, in a figure, whose size grows with its labels."""


def plain(data: object, longest: int = NAME) -> str:
    r"""Text from data as a figure shows it: letter by letter, on one line, not too long.

    All names that come from tables (rows, groups, modules, positions, tokens, prompts) go through
    here; a `title=` is the caller's own and may hold a formula.

    Example:
        >>> plain("$a"), plain("one\ntwo"), plain("_x")
        ('\\$a', 'one⏎two', ' _x')

    A dollar sign begins no formula; line breaks and control characters become visible, as SVG
    cannot hold them; the middle of a long name is left out; a name that begins with an underscore,
    which matplotlib would leave out of the legend, gets a space in front.
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


def metric_label(table: pd.DataFrame, metric: str, statistic: str = "mean") -> str:
    """The axis label of `metric`: statistic, name and unit.

    Example:
        >>> table = pd.DataFrame()
        >>> table.attrs = {"knockgrid": {"unit": "bits"}}
        >>> metric_label(table, "js"), metric_label(table, "tv")
        ('Avg. JS divergence (bits)', 'Avg. total variation')

    A column of the user's is called as the metadata key `statistics` says, or by its own name.
    """
    measure = measure_of(table, metric)
    known = metric in MEASURES  # whose label is ours, and no text from data
    name = measure.label if known else metadata_of(table).get("statistics", {}).get(metric)
    unit = plain(metadata_of(table).get("unit", "unit not recorded"))
    suffix = f" ({unit})" if measure.unit == "information" else ""
    return f"{AVERAGES[statistic]} {name if known else plain(name or measure.label)}{suffix}"


def row_labels(table: pd.DataFrame, names: list) -> list[str]:
    """The axis labels of interventions; a name without a label appears as itself.

    Example:
        >>> row_labels(pd.DataFrame(), ["subject", "mlp"])
        ['Subj.', 'mlp']
    """
    labels = {**ROWS, **metadata_of(table).get("labels", {})}
    return [plain(labels.get(name, name)) for name in names]


def titled(title: str | None, count: str) -> str:
    """A figure's title with the number of prompts in it.

    Example:
        >>> titled(None, "n = 24 prompts"), titled("FA", "n = 24 prompts")
        ('n = 24 prompts', 'FA (n = 24 prompts)')
    """
    return f"{title} ({count})" if title else count


def prompt_count(cells: pd.DataFrame) -> str:
    """How many prompts stand behind a figure, as a range where cells lack some of them.

    Example:
        >>> lines = {"row": ["last"] * 2, "column": [0, 0], "prompt": ["a", "b"]}
        >>> prompt_count(pd.DataFrame(lines | {"value": [0.1, 0.2]}))
        'n = 2 prompts'
    """
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


def mode_of(table: pd.DataFrame) -> str:
    """The mode of a sweep, where it measured more than the first token.

    Example:
        >>> table = pd.DataFrame()
        >>> table.attrs = {"knockgrid": {"mode": "free_run", "n_tokens": 3}}
        >>> mode_of(table)
        'free_run'
    """
    metadata = metadata_of(table)
    return plain(metadata.get("mode", "")) if metadata.get("n_tokens", 1) > 1 else ""
