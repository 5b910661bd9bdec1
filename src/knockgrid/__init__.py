"""Block what a language model knows at one place and layer; measure how far its output moves."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
