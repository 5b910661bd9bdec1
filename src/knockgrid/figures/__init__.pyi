from .layer_curve import layer_curve as layer_curve
from .layer_heatmap import layer_heatmap as layer_heatmap
from .panels import panels as panels
from .save import save as save
