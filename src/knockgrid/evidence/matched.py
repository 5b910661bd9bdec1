"""pair_prompts: pairs of prompts from two labels that agree in relation and entropy."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from knockgrid.errors import InputError, unknown
from knockgrid.evidence.frames import described
from knockgrid.evidence.labels import check_labelled

SIDES = {
    "FA": ("FA-high", "FA-low"),
    "wrong": ("AH", "UH"),
    **{name: (name,) for name in ("FA-high", "FA-low", "AH", "UH")},
}


def pair_prompts(
    frame: pd.DataFrame,
    on: Sequence[str] = ("relation", "entropy"),
    between: Sequence[str] = ("FA", "AH"),
    caliper: float = 0.2,
) -> pd.DataFrame:
    """Pair prompts of two labels that are alike, so that what differs is not what they differ in.

    Example:
        >>> given = {"prompt": list("abcd"), "label": ["FA-high", "FA-low", "AH", "AH"]}
        >>> given |= {"correct": [True] * 2 + [False] * 2, "relation": "city", "reliance": 0.5}
        >>> pairs = pair_prompts(pd.DataFrame({**given, "entropy": [1.0, 2.0, 2.1, 9.0]}))
        >>> pairs[["prompt_FA", "prompt_AH"]].values.tolist()
        [['b', 'c']]
        >>> pairs.attrs["knockgrid"]["unmatched"]
        {'FA': ['a'], 'AH': ['d']}

    Pairs are equal in the columns of `on` that hold text, and near in those that hold numbers: the
    distance is the Euclidean one, each number in units of its pooled standard deviation (the root
    of the mean of both sides' variances), and at most `caliper`. No prompt is in two pairs. Of all
    ways to pair, one with the most pairs is taken, and among these the one with the smallest sum of
    distances. `between` names two of FA (both of its labels), FA-high, FA-low, wrong, AH and UH.

    One row per pair: `prompt_FA`, `prompt_AH` (as `between` says), the text columns of `on`, both
    values of each number column, and `distance`. Metadata: `unmatched` prompts by side, and
    `smd_before` and `smd_after`, the standardised mean difference of each number column over all
    prompts and over the pairs, on the same scale. No pair at all is an empty frame.

    Raises:
        InputError: a frame without labels, an unknown or empty side, sides that share prompts, an
            unknown column, a prompt without a value there, or a caliper that is not positive.

    Source: optimal matching after Rosenbaum 1989 (Journal of the American Statistical Association
    84); the caliper is that of Austin 2011 (Pharmaceutical Statistics 10) for propensity scores.

    Limit: results hold for the prompts that found a partner, and those may be few; report how many.
    """
    check_labelled(frame)
    if not caliper > 0:
        raise InputError(f"caliper is {caliper!r}; give a positive number of standard deviations")
    exact, near = _columns(frame, on)
    check_sides(between)
    sides = [frame[frame["label"].isin(SIDES[name])] for name in between]
    for name, part in zip(between, sides, strict=True):
        if part.empty:
            raise InputError(f"no prompt has the label {name!r}, so there is nothing to match")
        for column in (*exact, *near):
            lacking = part.loc[part[column].isna(), "prompt"]
            if len(lacking):
                raise InputError(
                    f"prompt {lacking.iloc[0]!r} has no {column!r} to match on; leave it out, or "
                    "match on something else"
                )
    # the root of the mean variance of both sides; a side of one prompt has none to give
    scale = {
        name: float(np.sqrt(np.mean([one[name].var() for one in sides if len(one) > 1] or [0.0])))
        for name in near
    }
    rows, columns, distance = _pairs(sides, exact, scale, caliper)
    kept = [part.iloc[at] for part, at in zip(sides, (rows, columns), strict=True)]
    named = list(zip(between, kept, strict=True))
    pairs = pd.DataFrame(
        {
            **{f"prompt_{side}": part["prompt"].to_numpy() for side, part in named},
            **{name: kept[0][name].to_numpy() for name in exact},
            **{f"{n}_{side}": part[n].to_numpy(float) for n in near for side, part in named},
            "distance": distance,
        }
    )
    return described(
        pairs,
        frame,
        matched_on=list(on),
        between=list(between),
        caliper=float(caliper),
        unmatched={
            side: [str(p) for p in part["prompt"] if p not in set(pairs[f"prompt_{side}"])]
            for side, part in zip(between, sides, strict=True)
        },
        smd_before={name: _smd(sides, name, scale[name]) for name in near},
        smd_after={name: _smd(kept, name, scale[name]) for name in near},
    )


def _columns(frame: pd.DataFrame, on: Sequence[str]) -> tuple[list[str], list[str]]:
    """The columns to be equal in, and those to be near in."""
    names = [on] if isinstance(on, str) else list(on)
    if not names:
        raise InputError("on is empty; name a column to match on, such as 'entropy'")
    for name in names:
        if name not in frame:
            raise unknown("column to match on", name, frame.columns)
    near = [name for name in names if pd.api.types.is_float_dtype(frame[name])]
    return [name for name in names if name not in near], near


def check_sides(between: Sequence[str]) -> None:
    """Refuse what does not name two labels, or sets of labels, without a prompt in both."""
    if isinstance(between, str) or len(between) != 2:
        raise InputError(f"between is {between!r}; give two of {', '.join(SIDES)}")
    for name in between:
        if name not in SIDES:
            raise unknown("label", name, SIDES)
    if set(SIDES[between[0]]) & set(SIDES[between[1]]):
        raise InputError(f"{between[0]!r} and {between[1]!r} share prompts; give two that do not")


def _smd(sides: Sequence[pd.DataFrame], name: str, scale: float) -> float | None:
    """The difference of the means in standard deviations; None without a scale or pairs."""
    one, other = (side[name].mean() for side in sides)
    return float((one - other) / scale) if len(sides[0]) and scale else None


def _pairs(
    sides: Sequence[pd.DataFrame], exact: Sequence[str], scale: dict[str, float], caliper: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row numbers on both sides and distance of every pair, in the order of the first side."""
    one, other = sides
    distance = np.zeros((len(one), len(other)))
    for name, unit in scale.items():
        gap = np.subtract.outer(one[name].to_numpy(float), other[name].to_numpy(float))
        # without a spread, only equal numbers are near
        distance += (gap / unit) ** 2 if unit else np.where(gap == 0, 0, np.inf)
    distance = np.sqrt(distance)
    allowed = distance <= caliper
    for name in exact:
        allowed &= np.equal.outer(one[name].to_numpy(object), other[name].to_numpy(object))
    # a forbidden pair costs more than all allowed ones together, so that most pairs come first
    forbidden = 1 + caliper * min(distance.shape)
    rows, columns = linear_sum_assignment(np.where(allowed, distance, forbidden))
    kept = allowed[rows, columns].astype(bool)
    rows, columns = rows[kept], columns[kept]
    return rows, columns, distance[rows, columns]
