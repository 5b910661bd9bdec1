"""Ticks: which members of an axis are shown, how they are called, and which of them are named."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, Locator, NullLocator

from knockgrid.errors import InputError, unknown

Shown = Mapping[Any, str] | Iterable[Any]
EVERY = (1, 2, 3, 4, 5, 10, 20, 25, 50, 100)
"""Steps between ticks."""


def chosen(name: str, there: Sequence[Any], wanted: Shown | None) -> list[Any]:
    """The members of an axis that are asked for, each once; 3 is also "3"."""
    known = {str(one): one for one in there}
    if wanted is None:
        return list(there)
    found = [wanted] if isinstance(wanted, str) else list(wanted)
    for one in found:
        if str(one) not in known:
            raise unknown(name, str(one), list(known))
    if not found or len(set(map(str, found))) < len(found):
        raise InputError(f"{name} {found!r} must name some of {list(known)}, each once")
    return [known[str(one)] for one in found]


def relabelled(there: Sequence[Any], names: Sequence[str], wanted: Shown | None) -> list[str]:
    """Names, those that the user gives in a dict first, which may hold a formula."""
    own = {str(k): str(v) for k, v in wanted.items()} if isinstance(wanted, Mapping) else {}
    return [own.get(str(one), name) for one, name in zip(there, names, strict=True)]


def name_layers(
    axis: Any,
    at: Sequence[float],
    layers: Sequence[int],
    ticks: int | Iterable[Any] | None,
    step: int = 2,
    names: Sequence[str] = (),
) -> None:
    """Name layers, which stand `at` these places: those that are asked for, or what has room."""
    names = names or list(map(str, layers))
    if ticks is None:
        wanted = tick_places(layers, step)
    elif not isinstance(ticks, int | np.integer):
        wanted = [layers.index(one) for one in chosen("tick", layers, ticks)]
    elif ticks < 1:
        raise InputError(f"ticks is {ticks}; give 1 or more, or the layers to name")
    else:
        wanted = range(0, len(layers), int(ticks))
    axis.set_major_locator(Places(at, names, wanted, fixed=ticks is not None))
    known = dict(zip(at, names, strict=True))
    axis.set_major_formatter(FuncFormatter(lambda place, _: known.get(place, "")))
    axis.set_minor_locator(NullLocator())


class Places(Locator):
    """Ticks at some places of an axis; unless they are fixed, so few that names do not touch."""

    def __init__(
        self, at: Sequence[float], names: Sequence[str], wanted: Sequence[int], fixed: bool
    ) -> None:
        self.at, self.names, self.wanted, self.fixed = at, names, wanted, fixed

    def __call__(self) -> Any:
        if self.fixed:
            return np.array([self.at[place] for place in self.wanted])
        return np.array(self.at[:: self._step()])

    def tick_values(self, vmin: float, vmax: float) -> Any:
        return self()

    def _step(self) -> int:
        axis: Any = self.axis
        wide = axis.axis_name == "x"
        points = axis.get_tick_params()["labelsize"]
        length = axis.axes.bbox.size[0 if wide else 1] / axis.axes.figure.dpi * 72
        need = points * (0.65 * max(map(len, self.names)) + 0.5 if wide else 1.1)
        first = self.wanted[1] if len(self.wanted) > 1 else 1
        steps = (first, *(step for step in EVERY if step > first))
        most = len(self.names)
        return next((step for step in steps if step * length / most >= need), most)


def tick_places(layers: Sequence[int], step: int = 2) -> range:
    """Which of the layers get a label: every second of a long consecutive run, else all of them."""
    consecutive = all(b == a + 1 for a, b in zip(layers, layers[1:], strict=False))
    # beyond 48 layers, every second label would no longer fit
    step = step * math.ceil(len(layers) / 48) if consecutive and len(layers) > 8 else 1
    return range(0, len(layers), step)
