"""The evidence a reviewer asks for: noise floor, manifold, probes, labels, claims.

It may import `display`, `edits`, `engine`, `errors`, `host`, `passes`, `prompts`, `sources`,
`spec`, `stats`, `table`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
