from ._reference import reference as reference
from ._staircase import rectangle as rectangle
from ._staircase import staircase as staircase
