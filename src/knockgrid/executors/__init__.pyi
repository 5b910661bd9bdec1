from ._free_run import free_run as free_run
from ._reference import reference as reference
from ._staircase import rectangle as rectangle
from ._staircase import staircase as staircase
