"""Block what a language model knows at one place and layer; measure how far its output moves."""

import sys

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

if "ipykernel" in sys.modules:
    # A notebook: the bar is loaded before any other package loads it and warns (`_progress`).
    import knockgrid.display.progress  # noqa: F401
