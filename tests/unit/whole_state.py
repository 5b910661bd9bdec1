"""Everything that a call could leave behind: of the process, and of a model with its tokenizer."""

import logging
import os
import random
import signal
import sys
import threading
import warnings

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import transformers
from torch.nn.modules import module as global_hooks

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
PLAIN = (bool, int, float, str, torch.dtype, torch.device)


def of_process() -> dict:
    """The state that all code of a process shares."""
    return {
        "torch random state": torch.get_rng_state().numpy().tobytes(),
        "NumPy random state": numpy_random_state(),
        "gradient mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "deterministic": (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        "autocast": torch.is_autocast_enabled("cpu"),
        "anomaly mode": torch.is_anomaly_enabled(),
        "matmul precision": torch.get_float32_matmul_precision(),
        "backends": (
            torch.backends.cudnn.deterministic,
            torch.backends.cudnn.benchmark,
            torch.backends.mkldnn.enabled,
            torch.backends.cuda.flash_sdp_enabled(),
            torch.backends.cuda.math_sdp_enabled(),
            torch.backends.cuda.mem_efficient_sdp_enabled(),
        ),
        "torch modes": torch._C._len_torch_function_stack(),
        "hooks on all modules": {
            kind: list(getattr(global_hooks, f"_global{kind}").items()) for kind in HOOKS
        },
        "warnings": (list(warnings.filters), warnings.showwarning),
        "matplotlib": dict(matplotlib.rcParams),
        "colour maps": sorted(matplotlib.colormaps),
        "open figures": plt.get_fignums(),
        "pandas options": pandas_options(),
        "NumPy options": (np.geterr(), repr(np.get_printoptions())),
        "environment": {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"},
        "folder": os.getcwd(),
        "signal handlers": {one: signal.getsignal(one) for one in signal.valid_signals()},
        "streams": (sys.stdout, sys.stderr, sys.excepthook, sys.getrecursionlimit()),
        "logging": {
            name: (logger.level, list(logger.handlers), logger.propagate, logger.disabled)
            for name in ("", "transformers", "transformer_lens", "knockgrid", "matplotlib", "torch")
            for logger in [logging.getLogger(name)]
        },
        "transformers' verbosity": (
            transformers.utils.logging.get_verbosity(),
            transformers.utils.logging.is_progress_bar_enabled(),
        ),
        "threads alive": {one.name for one in threading.enumerate()} - {"tqdm_monitor"},
    }


def numpy_random_state() -> tuple:
    name, keys, *rest = np.random.get_state()
    return name, keys.tobytes(), *rest


def python_draws() -> dict:
    """What changes the state of Python's `random`, but for what beartype draws in these tests."""
    shared = random.seed.__self__
    names = (name for name in random.__all__ if name not in ("getstate", "getrandbits"))
    found = {name: getattr(random, name) for name in names}
    return {n: draw for n, draw in found.items() if getattr(draw, "__self__", None) is shared}


def pandas_options() -> dict:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some options are deprecated
        return {name: pd.get_option(name) for name in pd._config.config._registered_options}


def of_model(model) -> dict:
    """The state of a bridge, of the model inside it and of its tokenizer."""
    parts = {**{f"bridge.{n}": p for n, p in model.named_modules()}}
    parts.update({f"model.{n}": p for n, p in model.original_model.named_modules()})
    weights = dict(model.original_model.named_parameters())
    buffers = dict(model.original_model.named_buffers())
    config = model.original_model.config
    return {
        "hooks of TransformerLens": {
            n: (list(p.fwd_hooks), list(p.bwd_hooks), dict(p.ctx), p.backward_scale)
            for n, p in model.hook_dict.items()
        },
        "hooks of PyTorch": {
            (n, kind): list(getattr(p, kind).items()) for n, p in parts.items() for kind in HOOKS
        },
        "training": {n: p.training for n, p in parts.items()},
        # flags and counters of modules, the bridge's own included
        "attributes": {
            (n, key): value
            for n, p in parts.items()
            for key, value in vars(p).items()
            if isinstance(value, PLAIN)
        },
        "forward methods": {n: p.__dict__.get("forward") for n, p in parts.items()},
        "weights": {
            n: (w.data_ptr(), w._version, w.dtype, str(w.device), as_bytes(w))
            for n, w in {**weights, **buffers}.items()
        },
        "requires_grad": {n: w.requires_grad for n, w in weights.items()},
        "gradients": {n: None if w.grad is None else as_bytes(w.grad) for n, w in weights.items()},
        "configuration": (config.to_dict(), config._attn_implementation),
        "generation": model.original_model.generation_config.to_dict(),
        "cfg": {name: repr(value) for name, value in vars(model.cfg).items()},
        "compatibility mode": bool(model.compatibility_mode),
        "tokenizer": of_tokenizer(model.tokenizer),
    }


def as_bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().numpy().tobytes()


def of_tokenizer(tokenizer) -> dict:
    backend = tokenizer.backend_tokenizer
    return {
        "sides": (tokenizer.padding_side, tokenizer.truncation_side),
        "special tokens": dict(tokenizer.special_tokens_map),
        "length": (len(tokenizer), tokenizer.model_max_length),
        "attributes": {k: v for k, v in vars(tokenizer).items() if isinstance(v, PLAIN)},
        "template": tokenizer.chat_template,
        "padding": backend.padding,
        "truncation": backend.truncation,
        "backend": backend.to_str(),
    }


def changed(one: dict, other: dict) -> list:
    missing = object()
    keys = one.keys() | other.keys()
    return [key for key in keys if one.get(key, missing) != other.get(key, missing)]


def differences(before: dict, after: dict) -> list[str]:
    """What differs, by name; one level down where that is a mapping."""
    found = []
    for name in changed(before, after):
        one, other, inside = before.get(name), after.get(name), ""
        if isinstance(one, dict) and isinstance(other, dict):
            inside = f" ({', '.join(map(str, changed(one, other)[:3]))})"
        found.append(f"{name}{inside}")
    return sorted(found)
