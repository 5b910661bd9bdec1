"""What reads tables and runs, and draws nothing; public names in the stub."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
