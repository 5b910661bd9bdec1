"""How large a model is and how fast a device computes it, measured, supposed or as stated."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.divergences.evaluate import evaluate
from knockgrid.divergences.divergence import measures_of
from knockgrid.errors import InputError
from knockgrid.host.sizes import Sizes, lens_config, sizes_in, sizes_of
from knockgrid.passes.prepared import default_bos
from knockgrid.passes.run import input_device
from knockgrid.spec import METRICS

EFFICIENCY = 0.5
"""Share of its best matrix products that a CPU reaches in the passes of a sweep, as measured."""
STATED = 0.4
"""The same of an accelerator's stated peak, which nobody has measured here."""
BLOCK_CALL = 1.5e-3
"""Seconds that one block of one pass takes beside its products: modules, hooks, edits."""
CELL = 6e-4
"""Seconds that one cell takes beside passes: to bind it, to make its row of the table."""
TRIALS = 14
"""Whole passes that preflight makes for every row of a sweep, one cell each."""
SMALL = 2 * 10**9
"""Bytes of weights up to which a model in a local folder is loaded to be timed."""


@dataclass(frozen=True, eq=False)
class Shape:
    """A model as an estimate sees it; `block` counts the parameters of one block."""

    sizes: Sizes
    parameters: int
    block: int
    weights: int
    tokenizer: Any
    bos: bool


def worth_loading(model: str) -> bool:
    """Whether a model is loaded to be timed: the demo, or small weights in a local folder."""
    if model == "demo":
        return True
    files = [path for kind in ("*.safetensors", "*.bin") for path in Path(model).glob(kind)]
    return bool(files) and sum(path.stat().st_size for path in files) <= SMALL


def of_model(model: TransformerBridge) -> Shape:
    """The shape of a loaded model."""
    bos = default_bos(model, None)
    return _shape(model.original_model, sizes_of(model), model.tokenizer, bos)


def of_config(model: str, revision: str | None, dtype: torch.dtype) -> Shape:
    """The shape that a config gives: the model is built without memory for its weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(model, revision=revision, trust_remote_code=False)
        with torch.device("meta"):
            whole = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
        cfg = lens_config(config)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(
            f"the config of model {model!r} could not be read ({first}); give 'demo', a folder "
            "with a config.json, or a hub name that this machine can reach"
        ) from error
    sizes = sizes_in(cfg, int(config.get_text_config().vocab_size), dtype)
    tokenizer = _tokenizer(model, revision)
    bos = tokenizer is None or getattr(tokenizer, "bos_token_id", None) is not None
    return _shape(whole, sizes, tokenizer, bos)


def _shape(whole: Any, sizes: Sizes, tokenizer: Any, bos: bool) -> Shape:
    parameters = list(whole.parameters())
    total = sum(one.numel() for one in parameters)
    weights = sum(one.numel() * one.itemsize for one in parameters)
    tied = bool(getattr(whole.config.get_text_config(), "tie_word_embeddings", False))
    outside = sizes.d_vocab * sizes.d_model * (1 if tied else 2)
    return Shape(sizes, total, max(1, total - outside) // sizes.n_layers, weights, tokenizer, bos)


def _tokenizer(model: str, revision: str | None) -> Any:
    """The tokenizer, or None where there is none: prompts can then be guessed at."""
    from transformers import AutoTokenizer

    try:
        found = AutoTokenizer.from_pretrained(model, revision=revision, trust_remote_code=False)
    except Exception:  # it raises whatever its files make it stumble over
        return None
    return found if getattr(found, "is_fast", False) and len(found) > 1 else None


@dataclass(frozen=True)
class Speed:
    """FLOP per second, seconds per block call and per measured row of logits."""

    flops: float
    call: float
    row: float
    device: str
    where: str
    assumed: str = ""

    def seconds(
        self, shape: Shape, block_tokens: int, attended: int, passes: int, measured: int
    ) -> float:
        """Time of a sweep: products of blocks, attention and unembedding, calls, divergences."""
        sizes = shape.sizes
        products = 2 * shape.block * block_tokens + 4 * sizes.n_heads * sizes.d_head * attended
        products += 2 * sizes.d_model * sizes.d_vocab * measured
        return products / self.flops + self.call * passes + (self.row + CELL) * measured

    def trial(self, shape: Shape, length: int, rows: int) -> float:
        """Time of preflight, which carries out some cells of every row by whole passes."""
        depth, passes = shape.sizes.n_layers, TRIALS * rows
        return self.seconds(shape, passes * depth * length, 0, passes * depth, passes)


def measured(model: TransformerBridge) -> Speed:
    """The speed of a loaded model, from a short and a long pass."""
    shape, device = of_model(model), input_device(model)
    sizes = shape.sizes
    products = 2 * shape.block * sizes.n_layers + 2 * sizes.d_model * sizes.d_vocab

    def passing(rows: int, length: int) -> Callable[[], Any]:
        ids = torch.full((rows, length), 1).to(device)
        return lambda: model(ids)

    short, long = _least(passing(1, 1)), _least(passing(16, 16))
    flops = 255 * products / max(1e-9, long - short)
    call = max(0.0, short - products / flops) / sizes.n_layers + BLOCK_CALL / 2
    dtype = next(model.original_model.parameters()).dtype
    return Speed(flops, call, per_row(sizes.d_vocab, dtype, device), device.type, "here")


def supposed(shape: Shape, dtype: torch.dtype) -> Speed:
    """The speed of a model that is not loaded, from matrix products of its dtype here."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    best = matmul_flops(dtype, device)
    row = per_row(shape.sizes.d_vocab, dtype, device)
    said = f"{EFFICIENCY:.0%} of the {best / 1e12:.2g} TFLOP/s that matrix products reach here"
    return Speed(best * EFFICIENCY, BLOCK_CALL, row, device.type, "here", said)


def stated(tera: float) -> Speed:
    """The speed of a device that is somewhere else."""
    said = f"{STATED:.0%} of the {tera:g} TFLOP/s that were given"
    return Speed(tera * 1e12 * STATED, BLOCK_CALL, 2e-5, "cuda", "there", said)


def matmul_flops(dtype: torch.dtype, device: torch.device, rows: int = 256) -> float:
    """FLOP per second of a matrix product with as many rows as a pass has tokens."""
    one = torch.ones(rows, 1024, dtype=dtype, device=device)
    other = torch.ones(1024, 1024, dtype=dtype, device=device)
    return 2 * rows * 1024**2 / _least(lambda: one @ other)


def per_row(d_vocab: int, dtype: torch.dtype, device: torch.device) -> float:
    """Seconds that all default divergences of one row of logits take."""
    logits = torch.linspace(-4, 4, 8 * d_vocab, device=device).reshape(8, -1).to(dtype)
    measures = measures_of(METRICS)
    answers = torch.zeros(1, dtype=torch.long, device=device)
    return _least(lambda: evaluate(measures, logits[0], logits, answers=answers)) / 8


def _least(call: Callable[[], Any], times: int = 3) -> float:
    """The shortest of a few times, the first of which warms up."""
    found = []
    with torch.inference_mode():
        call()
        for _ in range(times):
            started = time.perf_counter()
            result = call()
            if torch.is_tensor(result) and result.device.type == "cuda":
                torch.cuda.synchronize()
            found.append(time.perf_counter() - started)
    return min(found)
