"""Run folders: begun, resumed, split over processes, verified, exported.

It may import `display`, `divergences`, `edits`, `engine`, `errors`, `evidence`, `host`, `passes`,
`prompts`, `sources`, `spec`, `table`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
