from ._edge_patch import edge_patch as edge_patch
from ._information_flow import information_flow as information_flow
from ._knockout import knockout as knockout
from ._patch import patch as patch
