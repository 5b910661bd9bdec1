"""What the page says of a run in words: headline, counts, warnings, settings, methods."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from knockgrid.errors import InputError
from knockgrid.reports.methods import methods
from knockgrid.reports.opened import Opened
from knockgrid.table.left_out import left_out

LONGEST = 20
NOT_SETTINGS = ("digests", "failed", "dropped", "noise_floor", "receipt")
"""Entries of a manifest that are told elsewhere, or are no words."""


class Methods(NamedTuple):
    """The methods paragraph and its BibTeX, or the reason why there is none."""

    paragraph: str
    bibtex: str
    reason: str


def headline(run: Opened) -> str:
    """What was measured, on which model, how much, in one sentence."""
    told, model = run.metadata, run.manifest["model"]
    if run.table is None:
        prompts, values = f"{_count(run.manifest['plan']['prompts'], 'prompt')} planned", 0
    else:
        prompts = _count(run.table["prompt"].nunique(), "prompt")
        values = int((run.table["status"] == "ok").sum())
    what = "restored in corrupted runs of" if told["direction"] == "denoising" else "edited in"
    return (
        f"{_count(len(told['intervention_order']), 'row')} × "
        f"{_count(len(told['layer_order']), 'layer')} {what} {model['name']} "
        f"({model['architecture']}, {model['n_layers']} layers), over {prompts}: "
        f"{_count(values, 'row')} of values, divergences in {told['unit']}"
    )


def _measured(run: Opened) -> str:
    """How many tokens are measured of a prompt; those of a continuation are as many as it has."""
    found = set() if run.table is None else {*run.table.groupby("prompt")["token"].nunique()}
    if len(found) < 2:
        return str(max(found, default=run.metadata["n_tokens"]))
    return f"{min(found)} to {max(found)}"


def counts(run: Opened) -> dict[str, str]:
    """Names and numbers that stand under the headline."""
    told = run.metadata
    found = {"metrics": ", ".join(told["metrics"]), "mode": told["mode"]}
    if run.table is not None:
        reasons = (told.get("dropped") or {}).values()
        found |= {
            "missing values": f"{int((run.table['status'] != 'ok').sum()):,}",
            "prompts that failed": f"{len(told.get('failed') or {}):,}",
            "prompts left out of a row": f"{len({id for some in reasons for id in some}):,}",
        }
    finished = str(run.manifest["finished"]) if run.whole else "no"
    return found | {
        "measured tokens": _measured(run),
        "seed": str(told["seed"]),
        "finished": finished,
    }


def warnings_of(run: Opened) -> Iterator[str]:
    """What a reader must know before looking at a number."""
    if not run.whole:
        yield _not_whole(run)
    failed = run.metadata.get("failed") or {}
    if run.table is None:
        why = "every prompt failed" if run.shards else "no shard is there"
        yield f"This run is empty: {why}, so there is nothing to draw."
    if failed:
        some = "; ".join(f"{id}: {error}" for id, error in list(failed.items())[:LONGEST])
        yield f"{_count(len(failed), 'prompt')} failed and {_is(len(failed))} missing ({some})."
    if run.table is None:
        return
    for line in islice(left_out(run.table), LONGEST):
        yield f"{line[0].upper()}{line[1:]}."
    if "top_tokens" not in run.tops:
        yield (
            "This run keeps no tokens, so prompts have numbers only; sweep with `--set top=10` (or "
            "`top=10`) in another folder to see what the model says instead."
        )


def _not_whole(run: Opened) -> str:
    """That a run has not ended, or has lost shards since."""
    plan, some = run.manifest["plan"], "until then every mean is one of some of the prompts"
    shards, n = _count(plan["shards"], "shard"), len(run.prompts)
    there = f"{n} of {_count(plan['prompts'], 'prompt')}"
    if run.manifest.get("finished"):
        lost = plan["shards"] - run.shards
        return (
            f"This run had ended, but {lost} of its {shards} {_is(lost)} no longer there: {there} "
            f"{_is(n)} left. The command that made it computes anew what is lost; {some}."
        )
    return (
        f"This run is not finished: {run.shards} of {shards} and {there} are there. The command "
        f"that began it goes on with it; {some}."
    )


def settings(run: Opened) -> list[tuple[str, list[tuple[str, str]]]]:
    """All settings of the manifest by section, as names and values."""
    told = {name: value for name, value in run.manifest.items() if name not in NOT_SETTINGS}
    nested = {name: value for name, value in told.items() if isinstance(value, Mapping) and value}
    simple = {name: value for name, value in told.items() if name not in nested}
    sections = {"Run": simple, **nested, "receipt": run.manifest.get("receipt", {})}
    return [(name, list(_flat(value))) for name, value in sections.items()]


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Names with dots, and values as text; what is in a list of entries is told one by one."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and any(isinstance(one, Mapping | list) for one in value):
        for i, inner in enumerate(value):
            yield from _flat(inner, f"{name}[{i}]")
    elif isinstance(value, list):
        yield name, ", ".join(map(str, value))
    else:
        yield name, "–" if value is None else str(value)


def methods_of(run: Opened) -> Methods:
    """The methods paragraph, or why it cannot be written."""
    if run.table is None:
        return Methods("", "", "No paragraph: the run is empty.")
    try:
        paragraph, bibtex = methods(run.folder).split("\n\n", 1)
    except InputError as error:
        return Methods("", "", f"No paragraph: {error}.")
    return Methods(paragraph, bibtex, "")


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"


def _is(n: int) -> str:
    return "is" if n == 1 else "are"
