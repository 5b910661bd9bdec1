"""Progress: the one bar, in terminals and in notebooks.

`tqdm.auto` warns when it is first imported in a notebook without `ipywidgets`; the bar is then one
of text, as good as the other, so that the warning is kept from the page.
"""

import sys
import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from tqdm.auto import tqdm


def bar(total: int, unit: str, desc: str, progress: bool) -> tqdm:
    """A bar on standard error, if `progress` asks for one and somebody can see it move.

    In a file or a pipe there is none: each of its steps would be a line of its own.
    """
    return tqdm(total=total, unit=unit, desc=desc, disable=not (progress and visible()))


def visible() -> bool:
    """Whether standard error is a terminal or the page of a notebook."""
    return in_notebook() or (sys.stderr is not None and sys.stderr.isatty())


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")
