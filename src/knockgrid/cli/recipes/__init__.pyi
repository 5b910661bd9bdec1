from .f1 import f1 as f1
from .f2 import f2 as f2
from .f3 import f3 as f3
from .f4 import f4 as f4
from .f5 import f5 as f5
from .heads import heads as heads
from .paths import paths as paths
from .positions import positions as positions
