"""The sources drawer: where the value of a patch comes from.

It may import `errors`, `passes`, `prompts`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
