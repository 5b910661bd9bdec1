"""Figures: each takes the table and an Axes, draws, and returns the Axes; none sees a model.

A figure of a sweep is a function `(table, metric, *, ax, limits, title, **options) -> Axes` under
`Figure.of()`, which says what it needs; `knockgrid figure --kind` offers it by its name.

It may import `display`, `errors`, `stats`, `table`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
