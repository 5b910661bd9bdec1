from .rules import farther_than as farther_than
from .rules import not_self as not_self
from .rules import random_share as random_share
from .rules import to_earlier_spans as to_earlier_spans
from .rules import within as within
