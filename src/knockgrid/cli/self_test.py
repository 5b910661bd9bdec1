"""The self-test: what an installation must get right, on a model of two blocks made in memory."""

import math
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from knockgrid.edits import information_flow, patch
from knockgrid.engine.slower import FallbackWarning
from knockgrid.host.versions import install_tested
from knockgrid.prompts.prompt import Prompt
from knockgrid.sources import corrupted_run, donor, fixed, swap
from knockgrid.sweep import sweep

REINSTALL = f"install the versions that were tested: {install_tested()}"
EXACT = 1e-9
"""Nats between two ways to the same number in float64: far above rounding, far below an effect."""
NOTHING = 1e-12


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; `advice` says in a sentence what to do where it is not well."""

    name: str
    ok: bool
    advice: str = ""


def self_test() -> Iterator[Check]:
    """All checks, each by itself: one that breaks is one that fails."""
    patient = Patient()
    for name, test, advice in (
        ("an edit that changes nothing gives 0", no_op, REINSTALL),
        ("the staircase executor equals one full pass per cell", executors, REINSTALL),
        ("a sweep runs on the staircase executor here", fast, REINSTALL),
        ("a planted effect is the one that plain PyTorch computes", planted, REINSTALL),
        ("a run that was cut short goes on and is the same", resumed, "look at the disk"),
    ):
        yield tried(name, lambda test=test: test(patient), advice)


def tried(name: str, test: Callable[[], str | None], advice: str) -> Check:
    """A check by a function that returns what is wrong, or nothing."""
    try:
        wrong = test()
    except Exception as error:
        wrong = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return Check(name, wrong is None, "" if wrong is None else f"{wrong}; {advice}")


class Patient:
    """A random Llama of two blocks in float64, a byte tokenizer, and two prompts."""

    @cached_property
    def plain(self) -> LlamaForCausalLM:
        """The model as `transformers` makes it; no draw of the process's generator is used up."""
        settings: dict[str, Any] = {
            **{"vocab_size": 258, "hidden_size": 16, "intermediate_size": 32},
            **{"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1},
            **{"initializer_range": 0.3, "attn_implementation": "eager"},
            **{"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None},
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            made: Any = LlamaForCausalLM(LlamaConfig(**settings))
        return made.to(torch.float64).eval()

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """One token per byte, and two that are none."""
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        words = {word: i for i, word in enumerate(["<s>", "</s>", *letters])}
        made = Tokenizer(models.BPE(words, []))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        bos = [("<s>", 0)]
        made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=bos)
        # TransformerLens asks for the name and for `add_bos_token`
        return PreTrainedTokenizerFast(
            tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="</s>",
            name_or_path="doctor", add_bos_token=True,
        )  # fmt: skip

    @cached_property
    def model(self) -> TransformerBridge:
        """The bridge around it."""
        same = {"dtype": torch.float64, "device": "cpu", "tokenizer": self.tokenizer}
        return TransformerBridge.boot_transformers("doctor", hf_model=self.plain, **same)

    @cached_property
    def prompts(self) -> list[Prompt]:
        """Two prompts of equal length, each other's partners."""
        names, text = ("Italy", "Spain"), "{} has the capital"
        one, other = (Prompt(text.format(n), spans={"subject": n}, id=n.lower()) for n in names)
        return [one.replace(swap=other), other.replace(swap=one)]

    def sweep(self, rows: Any, **options: Any) -> Any:
        """A sweep of both prompts."""
        return sweep(self.model, self.prompts, rows, progress=False, **options)


def no_op(patient: Patient) -> str | None:
    """Every prompt is given its own activations, at the subject and at the last token."""
    itself = donor({str(one.id): one for one in patient.prompts})
    rows = [patch("resid_post", at, itself, name=at) for at in ("subject", "last")]
    largest = float(patient.sweep(rows)["js"].max())
    return None if largest <= NOTHING else f"the largest divergence is {largest:.2g} nats"


def executors(patient: Patient) -> str | None:
    """The exchange of the subject by both executors."""
    rows = information_flow(corrupted_run(by=swap()))
    one, other = (patient.sweep(rows, executor=name)["js"] for name in ("staircase", "reference"))
    apart = float((one - other).abs().max())
    return None if apart < EXACT else f"they are {apart:.2g} nats apart"


def fast(patient: Patient) -> str | None:
    """A sweep that was asked for no executor takes the fast one, or says why it cannot."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", FallbackWarning)
        rows = information_flow(corrupted_run(by=swap()))
        name = patient.sweep(rows).attrs["knockgrid"]["receipt"]["executor"]
    reasons = [one.message.plain for one in said if isinstance(one.message, FallbackWarning)]
    return None if name == "staircase" and not reasons else "; ".join(reasons) or name


def planted(patient: Patient) -> str | None:
    """The last block's output at the last token becomes a given vector: what follows is known."""
    vector = torch.linspace(-1, 1, 16, dtype=torch.float64)
    table = patient.sweep(patch("resid_post", "last", fixed(vector)), layers=[1])
    plain: Any = patient.plain
    norm, unembed = plain.model.norm.weight.detach(), plain.lm_head.weight.detach()
    scale = (vector.pow(2).mean() + plain.config.rms_norm_eps).sqrt()
    after = unembed @ (vector / scale * norm)
    for prompt, js in zip(patient.prompts, table["js"], strict=True):
        ids = torch.tensor([patient.tokenizer(prompt.text)["input_ids"]])
        with torch.no_grad():
            wanted = divergence(patient.model(ids)[0, -1], after)
        if not math.isclose(js, wanted, abs_tol=EXACT) or wanted < 0.01:
            return f"the divergence is {js:.6g} nats, expected {wanted:.6g}"
    return None


def divergence(one: Tensor, other: Tensor) -> float:
    """JS divergence of two rows of logits in nats, straight from its definition."""
    p, q = one.softmax(-1), other.softmax(-1)
    m = (p + q) / 2
    return float(((p * (p / m).log()).sum() + (q * (q / m).log()).sum()) / 2)


def resumed(patient: Patient) -> str | None:
    """Half of a run, then the whole of it in the same folder, against the same in memory."""
    rows = information_flow(corrupted_run(by=swap()))
    scratch = Path(tempfile.mkdtemp(prefix="knockgrid-doctor-"))
    try:
        out, shards = scratch / "run", scratch / "run" / "shards"
        patient.sweep(rows, batch=1, out=out)
        sorted(shards.glob("*.parquet"))[0].unlink()
        again = patient.sweep(rows, batch=1, out=out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    same = again["js"].equals(patient.sweep(rows, batch=1)["js"])
    return None if same else "the run that went on differs from the one in memory"
