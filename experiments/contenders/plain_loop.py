"""A `run_with_hooks` loop, one pass per cell, as a competent TransformerLens user writes it."""

from functools import partial

import torch

from contenders._task import Task, js

ROWS = ("subject", "attention", "last")


def patch(resid, hook, pos, vector):
    resid[:, pos] = vector
    return resid


def block(scores, hook, src):
    scores[:, :, -1, src] = torch.finfo(scores.dtype).min
    return scores


def hook_of(row, layer, subject, vector):
    """The hook of one cell."""
    if row == "attention":
        return f"blocks.{layer}.attn.hook_attn_scores", partial(block, src=subject)
    pos = subject if row == "subject" else [-1]
    return f"blocks.{layer}.hook_out", partial(patch, pos=pos, vector=vector)


@torch.inference_mode()
def js_of(task: Task) -> list[float]:
    """JS of every prompt, row and layer, in this order."""
    found = []
    for case in task.cases:
        clean = task.bridge(case.ids)[0, -1]
        for row in ROWS:
            for layer, vector in enumerate(task.vectors):
                hooks = [hook_of(row, layer, case.subject, vector)]
                found.append(
                    js(clean, task.bridge.run_with_hooks(case.ids, fwd_hooks=hooks)[0, -1])
                )
    return found
