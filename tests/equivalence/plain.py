"""Plain passes of the Hugging Face model with hooks, and plain divergences, for what uses them."""

import numpy as np
import torch
from scipy.special import log_softmax, rel_entr


def logits_of(raw, ids, *hooked):
    """Logits `[pos, d_vocab]` of a whole pass with hooks, before or behind modules."""
    handles = [
        module.register_forward_pre_hook(hook, with_kwargs=True)
        if hook.__name__.startswith("before")
        else module.register_forward_hook(hook)
        for module, hook in hooked
    ]
    with torch.no_grad():
        found = raw(torch.tensor([ids]), use_cache=False).logits[0].double()
    for handle in handles:
        handle.remove()
    return found


def cut(layer, pairs):
    """A hook that hides the key of each pair from its query."""

    queries, keys = zip(*pairs, strict=True)

    def before(module, args, kwargs):
        mask = kwargs["attention_mask"].clone()
        mask[..., queries, keys] = torch.finfo(mask.dtype).min
        return args, {**kwargs, "attention_mask": mask}

    return layer.self_attn, before


def reading(module, kept):
    """A hook that keeps what a module gives, `[pos, d]`."""

    def keep(module, args, output):
        kept.append(first(output)[0].clone())

    return module, keep


def putting(module, at, kept):
    """A hook that puts the states kept last in place of what a module gives at some positions."""

    def put(module, args, output):
        changed = first(output).clone()
        changed[0, at] = kept[-1][at]
        return changed if torch.is_tensor(output) else (changed, *output[1:])

    return module, put


def first(output):
    return output if torch.is_tensor(output) else output[0]


def kl(p, q):
    p, q = (np.exp(log_softmax(one.numpy(), axis=-1)) for one in (p, q))
    return rel_entr(p, q).sum(-1)


def js(p, q):
    p, q = (np.exp(log_softmax(one.numpy(), axis=-1)) for one in (p, q))
    return (rel_entr(p, (p + q) / 2) + rel_entr(q, (p + q) / 2)).sum(-1) / 2
