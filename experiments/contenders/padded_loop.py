"""The same loop, batched over prompts with left padding."""

import torch

from contenders._task import Task, js

ROWS = ("subject", "attention", "last")


def pad(task: Task):
    """Ids and mask `[prompt, pos]`, and each subject's positions after padding."""
    length = max(case.ids.shape[1] for case in task.cases)
    ids = torch.zeros(len(task.cases), length, dtype=torch.long)
    mask = torch.zeros_like(ids)
    subjects = []
    for i, case in enumerate(task.cases):
        shift = length - case.ids.shape[1]
        ids[i, shift:], mask[i, shift:] = case.ids[0], 1
        subjects.append([pos + shift for pos in case.subject])
    return ids, mask, subjects


def hook_of(row, layer, subjects, vector):
    """The hook of one row and layer for the whole batch."""

    def patch(resid, hook):
        for i, subject in enumerate(subjects):
            resid[i, subject if row == "subject" else [-1]] = vector
        return resid

    def block(scores, hook):
        for i, subject in enumerate(subjects):
            scores[i, :, -1, subject] = torch.finfo(scores.dtype).min
        return scores

    if row == "attention":
        return f"blocks.{layer}.attn.hook_attn_scores", block
    return f"blocks.{layer}.hook_out", patch


@torch.inference_mode()
def js_of(task: Task) -> list[float]:
    """JS of every prompt, row and layer, in this order."""
    ids, mask, subjects = pad(task)
    clean = task.bridge(ids, attention_mask=mask)[:, -1]
    found = {}
    for r, row in enumerate(ROWS):
        for layer, vector in enumerate(task.vectors):
            hooks = [hook_of(row, layer, subjects, vector)]
            out = task.bridge.run_with_hooks(ids, fwd_hooks=hooks, attention_mask=mask)[:, -1]
            for i in range(len(ids)):
                found[i, r, layer] = js(clean[i], out[i])
    return [found[key] for key in sorted(found)]
