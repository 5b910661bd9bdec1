from .free_run import free_run as free_run
from .reference import reference as reference
from .staircase import rectangle as rectangle
from .staircase import staircase as staircase
