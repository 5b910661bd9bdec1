"""exceeds: at which layers a treatment moves more than its contrasts, and at which it does not."""

from collections.abc import Callable, Hashable, Sequence
from itertools import product

import numpy as np
import pandas as pd

from knockgrid._errors import InputError, unknown
from knockgrid._intervention import ROLES
from knockgrid._table import KEY, cells, metadata_of
from knockgrid._table import grid as grid_of

Paired = Callable[[np.ndarray, np.ndarray, Sequence[Hashable]], float]
FEWEST = 6  # relations: with 5, even the most extreme of 32 sign flips has p = 1/16
EXACT = 14  # relations up to which all sign flips are listed
FLIPS = 20_000


def sign_flip(one: np.ndarray, other: np.ndarray, clusters: Sequence[Hashable]) -> float:
    """The two-sided p-value of paired values, by flipping the sign of whole clusters.

    Example:
        >>> one, other = np.array([0.5, 0.6, 0.7, 0.8]), np.zeros(4)
        >>> sign_flip(one, other, ["a", "b", "c", "d"]), sign_flip(one, other, ["a", "a", "b", "b"])
        (0.125, 0.5)

    The statistic is the mean over clusters of their mean difference. Up to 14 clusters all
    sign flips are listed and the test is exact; beyond, 20,000 of them are drawn with a fixed seed
    and the observed one is counted with them.

    Limit: exact where the clusters' differences are symmetric around 0 without an effect.
    """
    apart = pd.Series(one - other).groupby(pd.Series(list(clusters))).mean().to_numpy(float)
    if len(apart) <= EXACT:
        signs = np.array(list(product((1.0, -1.0), repeat=len(apart))))
    else:
        drawn = np.random.default_rng(0).choice((1.0, -1.0), size=(FLIPS, len(apart)))
        signs = np.concatenate([np.ones((1, len(apart))), drawn])
    means = np.abs(signs @ apart)
    # the flips' sums round apart in their last places, and ties count
    return float(np.mean(means >= means[0] * (1 - 1e-12)))


def exceeds(
    table: pd.DataFrame,
    metric: str = "js",
    *,
    role: str = "contrast",
    alpha: float = 0.05,
    paired: Paired = sign_flip,
) -> pd.DataFrame:
    """Per treatment, contrast and layer: whether the treatment moves more, and how sure that is.

    Example:
        >>> from knockgrid._table import build
        >>> rows = [
        ...     {"prompt": p, "intervention": name, "layer": layer, "js": js + p / 100}
        ...     for p in range(6)
        ...     for name, layer, js in [
        ...         ("subject", 0, 0.1), ("subject", 1, 0.3), ("subject | bos", 0, 0.2),
        ...         ("subject | bos", 1, 0.1)
        ...     ]
        ... ]
        >>> contrast = {"name": "subject | bos", "role": "contrast", "of": "subject"}
        >>> sides = [{"id": str(p), "relation": f"r{p}"} for p in range(6)]
        >>> made = exceeds(build(rows, {"interventions": [contrast], "prompts": sides}))
        >>> made[["layer", "exceeds"]].to_numpy().tolist()
        [[0, 'no'], [1, 'yes']]
        >>> exceeds_in_words(made)
        ['Subj. exceeds bos at layer 1; not at 0 (6 prompts, 6 relations)']

    Columns: `treatment, contrast, layer, difference` (the mean of treatment minus contrast over the
    relations' means, in the metric's unit), `n` (prompts that have both), `relations`, `p`, and
    `exceeds`: "yes", "no" (it moves less, or exactly as much), or "undecided" where p > alpha or
    fewer than 6 relations are there. Rows are told apart by their `role` and `of`; `role="null"`
    compares with the nulls instead. Prompts that lack one of the two leave the pair.

    Args:
        table: a sweep of treatments together with their contrasts.
        metric: a column of the table.
        role: "contrast" or "null".
        alpha: what p must not exceed, layer by layer.
        paired: `(treatment, contrast, relation)`, each one entry per prompt → p.

    Raises:
        InputError: no such rows, a treatment that is not in the table, an infinite value; and as
            `grid`.

    Limit: p is that of one layer; over many layers some are below alpha by chance.
    """
    if role not in ROLES[1:]:
        raise unknown("role", role, ROLES[1:])
    metadata = metadata_of(table)
    pairs = [
        (str(one["of"]), str(one["name"]))
        for one in metadata.get("interventions", [])
        if one.get("role") == role
    ]
    if not pairs:
        raise InputError(f"the table has no {role}s; sweep treatments together with {role}s()")
    layers = list(grid_of(table, metric).columns)
    values = _by_prompt(table, metric)
    relation = {side["id"]: side.get("relation") for side in metadata.get("prompts", [])}
    found = [
        {"treatment": of, "contrast": name, "layer": int(layer)}
        | _compared(values, relation, (of, name), layer, alpha, paired)
        for of, name in pairs
        for layer in layers
    ]
    made = pd.DataFrame(found)
    labels = {"subject": "Subj.", "attention": "Attn.", "last": "Last."}
    kept = {"metric": metric, "alpha": alpha, "labels": labels | metadata.get("labels", {})}
    made.attrs = {KEY: {**metadata, **kept}}
    return made


def _by_prompt(table: pd.DataFrame, metric: str) -> dict[tuple[str, object], pd.Series]:
    """Values by prompt, for every row and layer."""
    long = cells(table, metric, "intervention", "layer")
    if np.isinf(long["value"]).any():
        raise InputError(f"{metric!r} is infinite in some cells, and has no mean there; take 'js'")
    long = long[long["value"].notna()]
    return {
        (str(row), layer): part.set_index("prompt")["value"]
        for (row, layer), part in long.groupby(["row", "column"], sort=False)
    }


def _compared(
    values: dict[tuple[str, object], pd.Series],
    relation: dict[str, str | None],
    pair: tuple[str, str],
    layer: object,
    alpha: float,
    paired: Paired,
) -> dict[str, object]:
    """One layer of a treatment and a contrast, over the prompts that have both."""
    if not any(row == pair[0] for row, _ in values):
        raise InputError(f"the table has no row {pair[0]!r}, of which {pair[1]!r} is a contrast")
    one, other = (values.get((row, layer), pd.Series(dtype=float)) for row in pair)
    both = [prompt for prompt in one.index if prompt in other.index]
    # prompts without a relation may all be alike: they count as one
    clusters = [relation.get(str(prompt)) or "none" for prompt in both]
    mine, theirs = (each.reindex(both).to_numpy(float) for each in (one, other))
    counted = {"n": len(both), "relations": len(set(clusters))}
    if not both:
        return {"difference": np.nan, **counted, "p": np.nan, "exceeds": "undecided"}
    apart = float(pd.Series(mine - theirs).groupby(pd.Series(clusters)).mean().mean())
    p = paired(mine, theirs, clusters)
    sure = counted["relations"] >= FEWEST and (p <= alpha or bool((mine == theirs).all()))
    verdict = ("yes" if apart > 0 else "no") if sure else "undecided"
    return {"difference": apart, **counted, "p": p, "exceeds": verdict}


def exceeds_in_words(made: pd.DataFrame) -> list[str]:
    """What `exceeds` found, one sentence per treatment and contrast.

    Example:
        >>> rows = [("subject", "subject | rest", i, v, 9, 7) for i, v in enumerate(["no", "yes"])]
        >>> names = ["treatment", "contrast", "layer", "exceeds", "n", "relations"]
        >>> exceeds_in_words(pd.DataFrame(rows, columns=names))
        ['subject exceeds rest at layer 1; not at 0 (9 prompts, 7 relations)']
    """
    labels = metadata_of(made).get("labels", {})
    return [
        _sentence(part, str(labels.get(of, of)), str(labels.get(name, name)))
        for (of, name), part in made.groupby(["treatment", "contrast"], sort=False)
    ]


def _sentence(part: pd.DataFrame, treatment: str, contrast: str) -> str:
    order = [int(layer) for layer in part["layer"]]
    at = {
        verdict: [
            layer for layer, said in zip(order, part["exceeds"], strict=True) if said == verdict
        ]
        for verdict in ("yes", "no", "undecided")
    }
    where = f"at layer{'s' * (len(at['yes']) > 1)} {ranges(at['yes'])}" if at["yes"] else "nowhere"
    said = f"{treatment} exceeds {contrast.split(' | ')[-1]} {where}"
    said += f"; not at {ranges(at['no'])}" if at["no"] else ""
    said += f"; undecided at {ranges(at['undecided'])}" if at["undecided"] else ""
    few = int(part["relations"].max()) < FEWEST
    why = f": fewer than {FEWEST} decide nothing" if few else ""
    return f"{said} ({_span(part['n'])} prompts, {_span(part['relations'])} relations{why})"


def ranges(layers: Sequence[int]) -> str:
    """Layers with runs of neighbours drawn together.

    Example:
        >>> ranges([0, 1, 2, 5, 7, 8])
        '0–2, 5, 7–8'
    """
    runs: list[list[int]] = []
    for layer in sorted(layers):
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ", ".join(f"{r[0]}–{r[-1]}" if len(r) > 1 else str(r[0]) for r in runs)


def _span(counts: pd.Series) -> str:
    low, high = int(counts.min()), int(counts.max())
    return str(low) if low == high else f"{low}–{high}"
