"""exceeds: at which layers a treatment moves more than its contrasts, and at which it does not."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from knockgrid.errors import InputError, unknown
from knockgrid.stats.clusters import FEWEST, By, clusters
from knockgrid.stats.compare import compare
from knockgrid.table.summary import ranges
from knockgrid.table.table import KEY, cells, grid, metadata_of, with_layers
from knockgrid.table.treatments import ROLES, with_all


def exceeds(
    table: pd.DataFrame,
    metric: str = "js",
    by: By = "auto",
    *,
    role: str = "contrast",
    alpha: float = 0.05,
    seed: int = 0,
) -> pd.DataFrame:
    """Per treatment, contrast and layer: whether the treatment moves more, and how sure that is.

    Example:
        >>> from knockgrid.table.table import build
        >>> curves = {"subject": [0.1, 0.3], "subject | bos": [0.2, 0.1]}
        >>> rows = [
        ...     {"prompt": str(p), "intervention": name, "layer": layer, "js": js * (1 + p / 9)}
        ...     for p in range(6) for name in curves for layer, js in enumerate(curves[name])
        ... ]
        >>> contrast = {"name": "subject | bos", "role": "contrast", "of": "subject"}
        >>> made = exceeds(build(rows, {"interventions": [contrast]}))
        >>> made[["layer", "exceeds"]].to_numpy().tolist()
        [[0, 'no'], [1, 'yes']]
        >>> exceeds_in_words(made)
        ['Subj. exceeds bos at layer 1; not at 0 (6 prompts, 6 prompts)']

    Columns: `treatment, contrast, layer, difference` (mean of treatment minus contrast over
    prompts, in the metric's unit), `n` (prompts that have both), `n_clusters`, `clusters` (in
    words), `p`, `p_max`, and `exceeds`: "yes", "no" (it moves less, or exactly as much), or
    "undecided" where `p_max`, which holds for all layers of a pair at once, exceeds `alpha` or
    there are fewer than six clusters (`by`, as for `compare`). Rows are told apart by their `role`
    and `of`; `role="null"` compares with the nulls instead. Prompts that lack one of the two leave
    the pair.

    Raises:
        InputError: no such rows, a treatment that is not in the table, an infinite value; and as
            `compare`.
    """
    if role not in ROLES[1:]:
        raise unknown("role", role, ROLES[1:])
    metadata = metadata_of(table)
    described = metadata.get("interventions", [])
    pairs = [(str(o["of"]), str(o["name"])) for o in described if o.get("role") == role]
    if not pairs:
        raise InputError(f"the table has no {role}s; sweep treatments together with {role}s()")
    swept = set(table["intervention"])
    for of, name in pairs:
        if of not in swept:
            raise InputError(f"the table has no row {of!r}, of which {name!r} is a {role}")
    table = with_layers(table)
    layers = [int(layer) for layer in grid(table, metric).columns]
    made = pd.concat(
        [_compared(table, metric, by, pair, layers, alpha, seed) for pair in pairs],
        ignore_index=True,
    )
    labels = {"subject": "Subj.", "attention": "Attn.", "last": "Last."}
    kept = {"metric": metric, "alpha": alpha, "labels": labels | metadata.get("labels", {})}
    made.attrs = {KEY: {**metadata, **kept}}
    return made


def _compared(
    table: pd.DataFrame,
    metric: str,
    by: By,
    pair: tuple[str, str],
    layers: Sequence[int],
    alpha: float,
    seed: int,
) -> pd.DataFrame:
    """All layers of a treatment and a contrast, over the prompts that have both."""
    shared = with_all(table, pair, metric)
    made = pd.DataFrame({"treatment": pair[0], "contrast": pair[1], "layer": layers})
    if shared.empty:
        told = {"difference": np.nan, "n": 0, "n_clusters": 0, "clusters": "no clusters"}
        return made.assign(**told, p=np.nan, p_max=np.nan, exceeds="undecided")
    long = cells(shared, metric, "intervention", "layer").dropna(subset="value")
    at = [set(shared.loc[shared["intervention"] == name, "layer"]) for name in pair]
    shared = shared[shared["layer"].isin(at[0] & at[1])]
    found = compare(shared, *pair, metric, by, seed=seed).set_index("layer").reindex(list(layers))
    groups = clusters(shared, by)
    apart = found["estimate"].to_numpy(float)
    sure = (found["p_max"] <= alpha).to_numpy(bool)
    verdict = np.where(_alike(long, pair, layers), "no", "undecided")
    verdict = np.where(sure, np.where(apart > 0, "yes", "no"), verdict)
    return made.assign(
        difference=apart,
        n=found["n_prompts"].fillna(0).to_numpy(int),
        n_clusters=min(groups.counts),
        clusters=groups.words,
        p=found["p"].to_numpy(float),
        p_max=found["p_max"].to_numpy(float),
        exceeds="undecided" if groups.too_few else verdict,
    )


def _alike(long: pd.DataFrame, pair: tuple[str, str], layers: Sequence[int]) -> np.ndarray:
    """At which layers both rows have the very same values, such as 0."""
    wide = long.pivot(index=["prompt", "column"], columns="row", values="value").dropna()
    same = (wide[pair[0]] == wide[pair[1]]).groupby(level="column").all()
    return same.reindex(list(layers), fill_value=False).to_numpy(bool)


def exceeds_in_words(made: pd.DataFrame) -> list[str]:
    """What `exceeds` found, one sentence per treatment and contrast.

    Example:
        >>> names = ["treatment", "contrast", "layer", "exceeds", "n", "n_clusters", "clusters"]
        >>> pair = ("subject", "subject | rest")
        >>> rows = [(*pair, i, said, 9, 7, "7 relations") for i, said in enumerate(["no", "yes"])]
        >>> exceeds_in_words(pd.DataFrame(rows, columns=names))
        ['subject exceeds rest at layer 1; not at 0 (9 prompts, 7 relations)']
    """
    labels = metadata_of(made).get("labels", {})
    return [
        _sentence(part, str(labels.get(of, of)), str(labels.get(name, name)))
        for (of, name), part in made.groupby(["treatment", "contrast"], sort=False)
    ]


def _sentence(part: pd.DataFrame, treatment: str, contrast: str) -> str:
    layers, said = part["layer"].to_numpy(int), part["exceeds"].to_numpy(object)
    at = {verdict: layers[said == verdict].tolist() for verdict in ("yes", "no", "undecided")}
    where = f"at layer{'s' * (len(at['yes']) > 1)} {ranges(at['yes'])}" if at["yes"] else "nowhere"
    told = f"{treatment} exceeds {contrast.split(' | ')[-1]} {where}"
    told += f"; not at {ranges(at['no'])}" if at["no"] else ""
    told += f"; undecided at {ranges(at['undecided'])}" if at["undecided"] else ""
    few = int(part["n_clusters"].iloc[0]) < FEWEST
    why = f": fewer than {FEWEST} decide nothing" if few else ""
    n = "–".join(dict.fromkeys(str(end) for end in (part["n"].min(), part["n"].max())))
    return f"{told} ({n} prompts, {part['clusters'].iloc[0]}{why})"
