"""How the cost of a sweep grows with depth, length and suffix."""

from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForCausalLM

import knockgrid as kg
from contenders._field import task_of, warm_up
from contenders._knockgrid import js_of
from contenders._measure import timed
from contenders._prompts import from_the_start, of_length
from contenders.plain_loop import js_of as plain


def exponent(sizes, seconds) -> float:
    """The slope of seconds against size in logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def of_depth(bridge, folder: Path, depth: int):
    """The demo model with its blocks repeated or cut to a depth."""
    hf = AutoModelForCausalLM.from_pretrained(str(bridge.cfg.model_name))
    blocks = [deepcopy(hf.model.layers[i % len(hf.model.layers)]) for i in range(depth)]
    hf.model.layers = nn.ModuleList(blocks)
    hf.config.num_hidden_layers, hf.config.layer_types = depth, None
    hf.save_pretrained(folder / str(depth))
    bridge.tokenizer.save_pretrained(folder / str(depth))
    return kg.load(folder / str(depth))


def seconds_of(bridge, prompts) -> float:
    """CPU seconds per prompt of the three-row sweep."""
    vectors = torch.randn(bridge.cfg.n_layers, bridge.cfg.d_model) * 4
    warm_up("staircase", bridge, prompts[:1], vectors)
    task = task_of(bridge, None, prompts, vectors)
    return timed(lambda: js_of(task, prompts, "staircase"))[1] / len(prompts)


def by_depth(bridge, depths=(8, 15, 30, 60), length=30) -> dict[int, float]:
    """CPU seconds per prompt for models of several depths."""
    with TemporaryDirectory() as folder:
        models = {depth: of_depth(bridge, Path(folder), depth) for depth in depths}
        prompts = of_length(bridge.tokenizer, length, 16)
        return {depth: seconds_of(model, prompts) for depth, model in models.items()}


def by_length(bridge, lengths=(10, 30, 60, 120, 240)) -> dict[int, float]:
    """CPU seconds per prompt for several lengths, subjects near the end."""
    return {n: seconds_of(bridge, of_length(bridge.tokenizer, n, 8)) for n in lengths}


def by_suffix(bridge, lengths=(30, 60, 120)) -> dict[int, tuple[float, float]]:
    """CPU seconds per prompt of staircase and plain loop where the subject is the first word."""
    found = {}
    for length in lengths:
        prompts = from_the_start(bridge.tokenizer, length, 2)
        vectors = torch.randn(bridge.cfg.n_layers, bridge.cfg.d_model) * 4
        slow = timed(lambda p=prompts, v=vectors: plain(task_of(bridge, None, p[:1], v)))[1]
        found[length] = seconds_of(bridge, prompts), slow
    return found
