"""Set-level statistics on disk: mean vectors and deviations that every part of a run must share."""

import json
from collections.abc import Mapping

from safetensors.torch import load, save

from knockgrid.engine.setup import SetLevel


def write_set_level(level: SetLevel) -> bytes:
    """Mean vectors and standard deviations as safetensors; σ stands in the manifest."""
    tensors = {}
    for place, (mean, std) in level.statistics.items():
        key = json.dumps(place)
        tensors[f"mean {key}"] = mean.detach().cpu().contiguous()
        tensors[f"std {key}"] = std.detach().cpu().reshape(1)
    return save(tensors)


def read_set_level(content: bytes, sigma: Mapping[str, float]) -> SetLevel:
    """What `write_set_level` kept.

    Example:
        >>> import torch
        >>> place = ("resid_post", 3, "'last'")
        >>> level = SetLevel({"subjects": 0.5}, {place: (torch.zeros(2), torch.tensor(1.0))})
        >>> read_set_level(write_set_level(level), {"subjects": 0.5}).statistics[place][1]
        tensor(1.)
    """
    tensors = load(content)
    places = [name.removeprefix("mean ") for name in tensors if name.startswith("mean ")]
    statistics = {}
    for key in places:
        act_name, layer, at = json.loads(key)
        pair = (tensors[f"mean {key}"], tensors[f"std {key}"].reshape(()))
        statistics[act_name, layer, at] = pair
    return SetLevel(dict(sigma), statistics)
