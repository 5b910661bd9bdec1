from .activation_cache import from_activation_cache as from_activation_cache
from .activation_cache import to_activation_cache as to_activation_cache
from .edit import Edit as Edit
