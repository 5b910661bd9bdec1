"""Statistics of tables: intervals that know the clusters, tests, onset and peak.

It may import `errors`, `table`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
