__all__: list[str]

from .js import js as js
from .kl import kl as kl
from .kl_reverse import kl_reverse as kl_reverse
from .logp_answer import logp_answer as logp_answer
from .logp_clean import logp_clean as logp_clean
from .rank_answer import rank_answer as rank_answer
from .rank_clean import rank_clean as rank_clean
from .total_variation import total_variation as total_variation
