"""The divergences drawer: one file per measure of how far a distribution moved.

It may import `errors`, `table`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
