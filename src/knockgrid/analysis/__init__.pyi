from ._correlation import cluster_correlation as cluster_correlation
from ._modules import module_statistics as module_statistics
from ._rank_agreement import rank_agreement as rank_agreement
from ._readable import auc_interval as auc_interval
from ._readable import readable_not_used as readable_not_used
from .probes import probe_auc as probe_auc
