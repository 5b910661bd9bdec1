"""The edits drawer: kinds of interventions, their families, and the controls of them.

It may import `display`, `errors`, `host`, `passes`, `prompts`, `sources`, `table`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
