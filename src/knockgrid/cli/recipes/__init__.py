"""The recipes drawer: one file per figure that `knockgrid reproduce` makes."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
