"""One pass of a model: edits hooked in, logits, activations, keys and values taken out.

It may import `display`, `errors`, `host`, `prompts`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
