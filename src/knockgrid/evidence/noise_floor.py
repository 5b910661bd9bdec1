"""noise_floor: how far rounding alone moves a measurement, site by site."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.edits import information_flow
from knockgrid.edits.flow import rounded
from knockgrid.edits.intervention import Intervention
from knockgrid.engine.in_memory import sweep_in_memory
from knockgrid.errors import InputError, check_counts, unknown
from knockgrid.evidence.frames import described
from knockgrid.host.bridge import load
from knockgrid.prompts.prompt import Prompt
from knockgrid.table.measures import DISTANCES
from knockgrid.table.table import KEY, metadata_of, numbers

METRICS = tuple(name for name in DISTANCES if name != "js_mean_dist")


def noise_floor(
    model: str | Path | TransformerBridge,
    prompts: Sequence[Prompt] | Prompt,
    interventions: Sequence[Intervention] | None = None,
    *,
    quantile: float = 0.99,
    metrics: Sequence[str] = METRICS,
    draws: int = 1,
    seed: int = 0,
    **options: Any,
) -> pd.DataFrame:
    """The noise floor of some interventions: a high percentile of ±1-ulp edits at their sites.

    Example:
        >>> import knockgrid as kg
        >>> prompt = kg.Prompt("The capital of Italy is", spans={"subject": "Italy"})
        >>> row = kg.patch("resid_post", "subject", name="subject")
        >>> floor = kg.evidence.noise_floor("demo", prompt, [row], layers=[0, 20], progress=False)
        >>> floor[["intervention", "layer", "n"]].to_numpy().tolist()
        [['subject', 0, 1], ['subject', 20, 1]]
        >>> bool((floor.js < 1e-9).all())
        True

    Every intervention (by default those of `information_flow`) is replaced by the edit that moves
    each entry of the activation it edits by one unit in the last place (`ulp`), attention rows by
    that of `attn_out` at the query, over the same layers. What these edits move is rounding. Give
    the prompts (a few dozen are enough), layers and other `options` that the sweep itself has, so
    that dtype, batches and code path are the same.

    One row per intervention and layer: the `quantile` of every metric (of js, kl, kl_reverse, tv)
    over prompts, measured tokens and `draws` of signs (the first with `seed`), in the table's unit,
    and `n`, the number of edits behind it. `attrs["knockgrid"]["noise_floor"]` holds the same as
    JSON, and under `overall` the quantile over all rows and layers.

    Raises:
        InputError: as `sweep`; an unknown metric, a quantile outside (0, 1), or no draws.

    Limit: with few edits per cell a high quantile is close to the largest of them; the pooled
    `overall` is the steadier number.
    """
    if not 0 < quantile < 1:
        raise InputError(f"quantile is {quantile!r}; give a share between 0 and 1, such as 0.99")
    check_counts(draws=draws)
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    for name in set(names) - set(METRICS):
        raise unknown("metric", name, METRICS)
    model = load(model)
    rows = information_flow() if interventions is None else list(interventions)
    edits = [replace(rounded(row), name=row.name, label=row.label) for row in rows]
    tables = [
        sweep_in_memory(model, prompts, edits, metrics=names, seed=seed + i, **options)
        for i in range(draws)
    ]
    return _summed_up(tables, names, quantile)


def floor_of_nulls(table: pd.DataFrame, quantile: float = 0.99) -> pd.DataFrame:
    """The noise floor as `noise_floor` gives it, from a table that was swept with its `nulls()`."""
    of = {
        one["name"]: one["of"]
        for one in metadata_of(table).get("interventions", [])
        if one.get("role") == "null" and one.get("source") == "ulp()"
    }
    part = table[table["intervention"].isin(of)].copy()
    if part.empty:
        raise InputError("the table has no ±1-ulp rows; sweep it with nulls(), or call noise_floor")
    part["intervention"] = part["intervention"].map(of).astype("string")
    part.attrs = table.attrs
    return _summed_up([part], [name for name in METRICS if name in part], quantile)


def _summed_up(tables: list[pd.DataFrame], metrics: list[str], quantile: float) -> pd.DataFrame:
    """Quantiles per intervention and layer, and over everything."""
    every = pd.concat(
        [one.assign(**{m: numbers(one, m) for m in metrics}) for one in tables], ignore_index=True
    )
    every = every[every[metrics].notna().all(axis=1)]
    if every.empty:
        raise InputError("no ±1-ulp edit gave a value: all cells are NA; see the sweep's status")
    cells = every.groupby(["intervention", "layer"], sort=False, dropna=False)[metrics]
    made = cells.quantile(quantile)
    made.insert(0, "n", cells.size())
    made = made.reset_index()
    json = {
        metric: {
            "overall": float(every[metric].quantile(quantile)),
            "cells": {
                str(name): dict(zip(part["layer"].astype(str), part[metric].tolist(), strict=True))
                for name, part in made.groupby("intervention", sort=False)
            },
        }
        for metric in metrics
    }
    kept = ("unit", "mode", "model", "versions", "prepend_bos", "seed")
    told = {name: value for name, value in metadata_of(tables[0]).items() if name in kept}
    made.attrs = {KEY: {**told, "quantile": quantile, "noise_floor": json}}
    return made


def with_noise_floor(
    table: pd.DataFrame, floor: pd.DataFrame | Mapping[str, Any] | float
) -> pd.DataFrame:
    """The table with a noise floor in its metadata, so that figures mark the cells below it.

    Example:
        >>> from knockgrid.table.table import build
        >>> row = {"prompt": "rome", "intervention": "last", "layer": 0, "js": 0.4}
        >>> table = with_noise_floor(build([row], {"unit": "nats"}), 2e-12)
        >>> table.attrs["knockgrid"]["noise_floor"]
        2e-12

    `floor` is what `noise_floor` gave, or numbers of your own: one for JS, one per metric
    (`{"js": 2e-12}`), or one per metric and cell, with one for all others
    (`{"js": {"overall": 2e-12, "cells": {"last": {"0": 1e-12}}}}`).

    Raises:
        InputError: a floor in another unit, or of another model or dtype; not a number ≥ 0.
    """
    if isinstance(floor, pd.DataFrame):
        told = [metadata_of(one) for one in (table, floor)]
        for name in ("unit", "dtype", "weights_digest"):
            mine, theirs = ({**(one.get("model") or {}), **one}.get(name) for one in told)
            if mine is not None and theirs is not None and mine != theirs:
                raise InputError(
                    f"the table has {name} {mine!r} and the noise floor {theirs!r}; measure the "
                    "floor with the same model, dtype and unit"
                )
        floor = told[1].get("noise_floor", {})
    _check_floor(floor)
    return described(table.copy(deep=False), table, noise_floor=floor)


def _check_floor(floor: Any, inside: bool = False) -> None:
    """Refuse what is neither a number nor numbers by name."""
    if isinstance(floor, Mapping) and (floor or inside):
        for part in floor.values():
            _check_floor(part, inside=True)
    elif isinstance(floor, bool) or not isinstance(floor, int | float) or not 0 <= floor < math.inf:
        raise InputError(f"the noise floor holds {floor!r}; give numbers ≥ 0, or noise_floor()'s")
