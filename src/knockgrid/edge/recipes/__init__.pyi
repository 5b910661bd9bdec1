from ._f1 import f1 as f1
from ._f2 import f2 as f2
from ._f3 import f3 as f3
from ._f4 import f4 as f4
from ._f5 import f5 as f5
from ._heads import heads as heads
from ._paths import paths as paths
from ._positions import positions as positions
