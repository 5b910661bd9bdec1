"""The Axes that a figure draws on when it is given none."""

import sys

from matplotlib.axes import Axes
from matplotlib.figure import Figure


def new_axes(width: float, height: float) -> Axes:
    """Axes on a figure of their own, `width` × `height` inches, that leave no trace in pyplot.

    Example:
        >>> new_axes(4.0, 2.0).figure.get_size_inches().tolist()
        [4.0, 2.0]

    In a notebook the figure is pyplot's, because a notebook shows (and then closes) only those.
    """
    options = {"figsize": (width, height), "layout": "constrained"}
    if "ipykernel" in sys.modules:
        import matplotlib.pyplot as plt

        return plt.figure(**options).subplots()
    return Figure(**options).subplots()


def new_figure(width: float, height: float) -> Figure:
    """A figure of `width` × `height` inches for several panels, which leaves no trace in pyplot.

    Example:
        >>> new_figure(4.0, 2.0).get_size_inches().tolist()
        [4.0, 2.0]

    A cell that ends with it shows it. A notebook learns how from pyplot, and not before pyplot has
    made a figure, without which `<Figure size …>` is all that stands there.
    """
    if "ipykernel" in sys.modules:
        import matplotlib.pyplot as plt

        plt.close(plt.figure())
    return Figure(figsize=(width, height), layout="constrained")


def heatmap_size(rows: int, columns: int, label: int) -> tuple[float, float]:
    """Inches for a heatmap of `rows` × `columns` cells whose longest row label has `label` letters.

    Example:
        >>> heatmap_size(3, 30, 5)
        (8.95, 2.6)
    """
    width = 1.4 + 0.07 * label + (0.55 if columns <= 16 else 0.24) * columns
    height = 0.55 * max(rows, 3) if rows <= 12 else 0.22 * rows
    return round(min(max(width, 4.0), 14.0), 2), round(0.95 + height, 2)
