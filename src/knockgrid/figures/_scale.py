"""The scale and size that several panels share."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh

from knockgrid.figures._canvas import heatmap_size


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
