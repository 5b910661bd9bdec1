from ._edge_patch import edge_patch as edge_patch
from ._information_flow import information_flow as information_flow
from ._knockout import knockout as knockout
from ._patch import patch as patch
from ._per_alpha import per_alpha as per_alpha
from ._per_head import per_head as per_head
from ._per_module import per_module as per_module
from ._per_position import per_position as per_position
