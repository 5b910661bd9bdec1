"""Prompts with their spans and positions, the files they are read from, and the bundled facts.

It may import `display`, `errors`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
