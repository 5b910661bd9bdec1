from ._modules import module_statistics as module_statistics
from ._rank_agreement import rank_agreement as rank_agreement
