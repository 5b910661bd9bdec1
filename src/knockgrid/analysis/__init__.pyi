from ._readable import auc_interval as auc_interval
from ._readable import readable_not_used as readable_not_used
from .probes import probe_auc as probe_auc
