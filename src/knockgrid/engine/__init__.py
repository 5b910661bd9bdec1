"""From prompts and interventions to rows: recording, trial, memory, executors, measures.

It may import `display`, `divergences`, `edits`, `errors`, `host`, `passes`, `prompts`, `sources`,
`spec`, `table`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
