from ._corrupted_run import corrupted_run as corrupted_run
from ._donor import donor as donor
from ._fixed import fixed as fixed
from ._mean import mean as mean
from ._noise import noise as noise
from ._swap import swap as swap
from ._zero import zero as zero
