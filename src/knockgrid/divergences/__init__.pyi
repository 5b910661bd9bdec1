__all__: list[str]

from .js import js as js
from .kl import kl as kl
from .kl_between import kl_between as kl_between
from .kl_reverse import kl_reverse as kl_reverse
from .kl_within_answers import kl_within_answers as kl_within_answers
from .kl_within_rest import kl_within_rest as kl_within_rest
from .logit_diff import logit_diff as logit_diff
from .logp_answer import logp_answer as logp_answer
from .logp_clean import logp_clean as logp_clean
from .p_change import p_change as p_change
from .rank_answer import rank_answer as rank_answer
from .rank_clean import rank_clean as rank_clean
from .recovered import recovered as recovered
from .tv import tv as tv
