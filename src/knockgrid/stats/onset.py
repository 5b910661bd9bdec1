"""onset: the layers at which a curve rises and falls through half of its maximum."""

import numpy as np
import pandas as pd

from knockgrid.errors import InputError
from knockgrid.stats.clusters import FEWEST, By, clusters
from knockgrid.stats.mean_interval import check_level, check_share, why_no_interval, widened
from knockgrid.stats.resample import RESAMPLES, resample
from knockgrid.table.by_prompt import by_prompt
from knockgrid.table.floor import highest_floors
from knockgrid.table.table import KEY, metadata_of, with_layers


def onset(
    table: pd.DataFrame,
    metric: str = "js",
    by: By = "auto",
    *,
    share: float = 0.5,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Where each row's mean curve rises to half of its maximum, and where it falls below it.

    Example:
        >>> from knockgrid.table.table import build
        >>> rows = [
        ...     {"prompt": f"{p}", "intervention": "last", "layer": i, "js": js * (1 + p / 9)}
        ...     for p in range(8) for i, js in enumerate([0.0, 0.0, 0.1, 0.5, 0.6])
        ... ]
        >>> found = onset(build(rows, {"unit": "nats"}))
        >>> found[["onset", "rise_width", "note"]].round(2).values.tolist()
        [[2.5, 1.8, 'no offset: at half of its maximum up to the last layer']]

    Columns: the row's labels, `maximum` in the metric's unit, and in layers, interpolated linearly
    between those of the table: `onset`, the first crossing upward, `offset`, the last crossing
    downward, `rise_width` and `fall_width`, from 10 to 90 % of the maximum and back; `onset_low`,
    `onset_high`, `offset_low`, `offset_high` at `level`, and `n_clusters`, `cluster`, `note`. A
    curve that is above half from the first layer on has no onset, one that is still above at the
    last layer no offset, and one that is above half everywhere, or whose maximum is not above the
    metadata's `noise_floor`, has neither.

    The interval resamples whole clusters and reads the expanded percentiles; a resample that
    crosses outside the layers counts with the outermost one. With fewer than six clusters there is
    none.

    Raises:
        InputError: a share outside (0, 1), layers that do not increase or of which there are fewer
            than two, and as `mean_interval`.

    Source: Kiesel et al. 2008 (half-maximum onset of evoked potentials); Hesterberg 2015.
    Limit: among sparsely swept layers the crossing is a line between two of them.
    """
    check_level(level)
    check_share("share", share, "0.5 for half the maximum")
    made = by_prompt(with_layers(table), metric)
    groups = clusters(table, by)
    drawn = resample(made.values, groups.codes(), resamples, seed)
    floors, rows = highest_floors(table, metric), list[dict]()
    for labels, here in made.rows():
        layers = _increasing(made.cells["layer"][here])
        floor = floors.get(made.cells["intervention"][here].iloc[0], 0.0)
        found, note = _row(drawn.mean[here], layers, share, floor)
        n = int(drawn.n_clusters[here].min())
        ends = _ends(drawn.means[:, here], layers, share, level, n, found)
        told = {"n_clusters": n, "cluster": groups.words}
        told["note"] = "; ".join(filter(None, (note, why_no_interval(groups, n))))
        rows.append({**labels, **found, **ends, **told})
    result = pd.DataFrame(rows)
    result.attrs = {KEY: {**metadata_of(table), "metric": metric, "level": level, "share": share}}
    return result


def rising(curves: np.ndarray, layers: np.ndarray, share: float) -> np.ndarray:
    """The first crossing upward of a share of the maximum, of curves `[…, layer]`.

    A curve that begins above it crosses at the first layer.
    """
    height = share * curves.max(-1, keepdims=True)
    after = (curves >= height).argmax(-1)
    before = np.maximum(after - 1, 0)
    low = np.take_along_axis(curves, before[..., None], -1)[..., 0]
    high = np.take_along_axis(curves, after[..., None], -1)[..., 0]
    step = np.where(after > 0, (height[..., 0] - low) / np.where(high > low, high - low, 1.0), 0.0)
    return np.asarray(layers[before] + step * (layers[after] - layers[before]))


def falling(curves: np.ndarray, layers: np.ndarray, share: float) -> np.ndarray:
    """The last crossing downward of a share of the maximum, of curves `[…, layer]`."""
    return rising(curves[..., ::-1], layers[::-1], share)


def _row(
    curve: np.ndarray, layers: np.ndarray, share: float, floor: float
) -> tuple[dict[str, float], str]:
    names = ("onset", "offset", "rise_width", "fall_width")
    most = float(curve.max())
    found = {"maximum": most, **dict.fromkeys(names, np.nan)}
    told = "half" if share == 0.5 else f"{100 * share:g} %"
    if np.isnan(curve).any():
        return found, "a layer has no value"
    if most <= floor:
        return found, "the maximum is not above the noise floor"
    if curve.min() >= share * most:
        return found, f"flat: above {told} of its maximum at every layer"
    notes = []
    for name, width, crossing, first, where in (
        ("onset", "rise_width", rising, curve[0], "from the first layer on"),
        ("offset", "fall_width", falling, curve[-1], "up to the last layer"),
    ):
        if first < share * most:
            low, at, high = (float(crossing(curve, layers, part)) for part in (0.1, share, 0.9))
            found |= {name: at, width: abs(high - low)}
        else:
            notes.append(f"no {name}: at {told} of its maximum {where}")
    return found, "; ".join(notes)


def _ends(
    curves: np.ndarray, layers: np.ndarray, share: float, level: float, n: int, found: dict
) -> dict[str, float]:
    ends = {}
    usable = curves[~np.isnan(curves).any(1)]
    for name, crossing in (("onset", rising), ("offset", falling)):
        low = high = np.nan
        if found[name] == found[name] and n >= FEWEST and len(usable):
            crossings = crossing(usable, layers, share)
            low, high = np.quantile(crossings, widened(level, n)).tolist()
        ends |= {f"{name}_low": low, f"{name}_high": high}
    return ends


def _increasing(layers: pd.Series) -> np.ndarray:
    found = layers.to_numpy(float)
    if len(found) < 2 or not (np.diff(found) > 0).all():
        raise InputError(
            f"an onset needs two layers or more, in increasing order; got "
            f"{', '.join(f'{one:g}' for one in found[:8])}; sort the table by layer"
        )
    return found
