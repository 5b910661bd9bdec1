"""evidence: one command from a model to panels with bands, contrasts and floor, and a claims card.

It is made of ordinary runs, each in a folder of its own that `verify` and `methods` can read:
`main` with known and unknown prompts, labels, contrasts and nulls; `sources` with more corruptions;
and the known prompts without BOS, behind another text and in a chat model's turn.
"""

from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from knockgrid import figures
from knockgrid.display.escape import file_name
from knockgrid.errors import InputError
from knockgrid.evidence.claims import claims
from knockgrid.evidence.labels import threshold_sensitivity
from knockgrid.runs.job import LABEL_ORDER, load_model
from knockgrid.runs.run_folder import FIGURES, LABELS
from knockgrid.runs.running import run
from knockgrid.spec import Spec, rows_as_data
from knockgrid.stats import exceeds, exceeds_in_words, surviving_claims
from knockgrid.stats.source_comparison import source_comparison
from knockgrid.table.parquet import read_table, whole_file, write_table
from knockgrid.table.table import metadata_of
from knockgrid.table.treatments import only_prompts, only_rows, treatments

TEMPLATE = "It is a well-known fact: {}"
SOURCES = ("noise:1", "noise", "noise:5", "swap", "mean_activation", "zero")
CARD, WORDS = "claims.parquet", "report.md"
LEAST = 12
"""Known prompts of a form: with fewer, neither half could have six clusters."""


def plan(base: Spec) -> dict[str, Spec]:
    """The runs by the name of their folder."""
    rows = rows_as_data(sources=("noise", "swap"), windows=(5, 1))
    main = base.but(
        known=True, interventions=rows, labels=base.unknown > 0, contrasts=True, nulls=True
    )
    again = main.but(unknown=0, labels=False, nulls=False)
    corrupted = rows_as_data(("subject", "last"), SOURCES)
    return {
        "main": main,
        "sources": again.but(interventions=corrupted, contrasts=False),
        "no_bos": again.but(prepend_bos=False),
        "template": again.but(form=TEMPLATE),
        "chat": again.but(form="chat"),
    }


def evidence(base: Spec, out: Path) -> Iterator[Path]:
    """Carry out the runs that are missing, then draw everything from their tables.

    A model without BOS or chat template leaves those runs out.
    """
    if base.limit is not None and base.limit < LEAST:
        raise InputError(f"limit {base.limit} is too few to find and confirm; give {LEAST} or more")
    tables: dict[str, pd.DataFrame] = {}
    left_out: dict[str, str] = {}
    load = cache(partial(load_model, base))
    for name, spec in plan(base).items():
        try:
            tables[name] = run(spec, out / name, load=load)
        except InputError as reason:
            if name in ("main", "sources"):
                raise
            left_out[name] = str(reason)
        else:
            yield out / name
    yield from draw(tables, out, left_out)


def draw(tables: dict[str, pd.DataFrame], out: Path, left_out: dict[str, str]) -> Iterator[Path]:
    """All figures and the report of an evidence folder, from its tables."""
    main = tables["main"]
    parts = {said(name): known_of(table) for name, table in tables.items()}
    for form in [form for form, part in parts.items() if part["prompt"].nunique() < LEAST]:
        n = parts.pop(form)["prompt"].nunique()
        left_out[form] = f"{n} known prompts are too few to find and confirm a claim on"
    if not parts:
        raise InputError(
            f"fewer than {LEAST} known prompts in every form; give more with --limit or --relation"
        )
    found = claims(parts)
    # the runs of more sources have the same prompts: what is new there joins the plain ones
    found["form"] = found["form"].replace(said("sources"), said("main"))
    kept = ~found.duplicated(["claim", "form", "corruption", "window"])
    found = found[kept].reset_index(drop=True)
    write_table(found, out / CARD)
    yield out / CARD
    pictures = dict(of_main(main, out / "main" / LABELS))
    pictures["claims_card"] = figures.claims_card(found)
    pictures["scaled_curves_js"] = figures.scaled_curves(tables["sources"])
    for name, drawn in pictures.items():
        yield from figures.save(drawn, out / FIGURES / name)
    with whole_file(out / WORDS) as file:
        file.write(report(main, known_of(main), tables["sources"], found, left_out).encode())
    yield out / WORDS


def said(name: str) -> str:
    """The name of a run as a form of its prompts."""
    return {"main": "plain", "sources": "plain, more sources", "no_bos": "no BOS"}.get(name, name)


def known_of(table: pd.DataFrame) -> pd.DataFrame:
    """The prompts that were answered right; all, where prompts have no labels."""
    if metadata_of(table).get("group_order") != list(LABEL_ORDER):
        return table  # groups, if there are any, are the user's own
    sides = metadata_of(table)["prompts"]
    return only_prompts(table, [s["id"] for s in sides if str(s["group"]).startswith("FA")])


def of_main(table: pd.DataFrame, labels: Path) -> Iterator[tuple[str, Axes | Figure]]:
    """Panels per label where there are labels, else one panel: heatmaps, curves, contrasts."""
    by = "group" if table["group"].notna().any() else None
    rows = treatments(table)
    for source in dict.fromkeys(one.source for one in rows if one.source):
        part = only_rows(table, [one.name for one in rows if one.source in (source, None)])
        name = file_name(str(source).split("(")[0])
        for kind, figure in (("heatmap", figures.layer_heatmap), ("curve", figures.layer_curve)):
            drawn = figures.panels(part, figure, by=by) if by else figure(part)
            yield f"layer_{kind}_{name}_js", drawn
    yield "contrast_curves_js", figures.contrast_curves(table, by=by)
    if by:
        frame = read_table(labels)
        yield "reliance", figures.reliance_plot(frame)
        yield "threshold", figures.threshold_curve(threshold_sensitivity(frame))


def report(
    main: pd.DataFrame,
    known: pd.DataFrame,
    sources: pd.DataFrame,
    found: pd.DataFrame,
    left_out: dict[str, str],
) -> str:
    """What the tables say in words: contrasts, nulls, sources, claims."""
    compared = source_comparison(sources)
    survival = list(surviving_claims(compared)["words"]) + [
        f"{row}: rank correlations of the curves are {value:.2f} or more"
        for row, value in metadata_of(compared)["rank"].items()
        if value == value
    ]
    counts = found["outcome"].value_counts()
    sides = metadata_of(main)["prompts"]
    groups = pd.Series([one["group"] or "no label" for one in sides]).value_counts()
    parts = {
        "Prompts": [f"{n} {name}" for name, n in groups.items()],
        "More than what? (known prompts)": exceeds_in_words(exceeds(known)),
        "More than the nulls? (known prompts)": exceeds_in_words(exceeds(known, role="null")),
        "What survives another source": survival,
        "Claims": [f"{counts[name]} {name}" for name in counts.index],
        "Left out": [f"{name}: {reason}" for name, reason in left_out.items()],
    }
    lines = ["# What was found\n"]
    for title, sentences in parts.items():
        if sentences:
            lines += [f"## {title}\n", *(f"- {one}" for one in sentences), ""]
    return "\n".join(lines)
