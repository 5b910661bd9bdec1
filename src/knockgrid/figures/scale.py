"""The scale, size and names that several panels share."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.ticker import MaxNLocator

from knockgrid.figures.canvas import heatmap_size, letter, root


def mesh_of(ax: Axes) -> QuadMesh | None:
    """The cells of a heatmap, None for other figures."""
    return next((item for item in ax.collections if isinstance(item, QuadMesh)), None)


def common(sketches: list[Axes]) -> tuple[float, float]:
    """The limits that hold all panels."""
    scales = [mesh.get_clim() if (mesh := mesh_of(ax)) else ax.get_ylim() for ax in sketches]
    return min(low for low, _ in scales), max(high for _, high in scales)


def size_of(sketches: list[Axes]) -> tuple[float, float]:
    """Inches for one panel, the largest that any of them needs."""
    meshes = [mesh for mesh in map(mesh_of, sketches) if mesh]
    if not meshes:
        return 7.4, 3.0
    rows, columns = np.max([np.asarray(mesh.get_array()).shape for mesh in meshes], axis=0)
    labels = [label.get_text() for ax in sketches for label in ax.get_yticklabels()]
    return heatmap_size(int(rows), int(columns), max(map(len, labels), default=0))


def one_colour_bar(places: Sequence[Axes]) -> None:
    """One colour bar for heatmaps on one scale, in the place of those that each of them has."""
    meshes = [mesh for mesh in map(mesh_of, places) if mesh is not None]
    bars = [mesh.colorbar for mesh in meshes if mesh.colorbar is not None]
    if len(bars) < len(places):
        return
    label, whole = bars[0].ax.get_ylabel(), root(places[0])
    extend = {bar.extend for bar in bars} - {"neither"}
    for bar in bars:
        bar.remove()
    aspect = 6 * max(whole.get_figheight(), 2.0)  # as wide as the bar of one panel
    ends = "neither" if not extend else extend.pop() if len(extend) == 1 else "both"
    look = {"label": label, "pad": 0.02, "aspect": aspect, "extend": ends}
    shared = whole.colorbar(meshes[0], ax=list(places), **look)
    shared.outline.set_linewidth(0)
    shared.locator = MaxNLocator(5, steps=[1, 2, 5, 10])
    letter(shared.ax)


def inner_names_away(places: Sequence[Axes]) -> None:
    """Leave out what the first panel of the same row says on its axis in the same words."""
    row: dict[object, Axes] = {}
    for ax in places:
        spec = ax.get_subplotspec()
        if spec is None:
            continue
        first = row.setdefault(spec.rowspan.start, ax)
        names = [[label.get_text() for label in one.get_yticklabels()] for one in (first, ax)]
        if ax is not first and names[0] == names[1] and first.get_ylabel() == ax.get_ylabel():
            ax.tick_params(labelleft=False)
            ax.set_ylabel("")
