"""The pairs drawer: rules that say which edges between two sets of positions a knockout cuts."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
