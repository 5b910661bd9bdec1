"""What `knockgrid reproduce` computes and draws; one file per published or own figure."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
