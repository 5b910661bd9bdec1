"""The architectures that knockgrid is tried on: how each is built, and what is expected of it.

`table.py` makes the documentation's table of architectures from this list.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from transformer_lens.model_bridge import TransformerBridge
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.pytorch_utils import Conv1D

VOCABULARY = 48
SHARED = {
    "vocab_size": VOCABULARY,
    "initializer_range": 0.3,  # large enough that every edit moves the logits
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "attn_implementation": "eager",
    "tie_word_embeddings": False,
}
BODY = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
GROUPED = {**BODY, "num_key_value_heads": 2}
HEAD = {**GROUPED, "head_dim": 8}
FOUR = {"num_hidden_layers": 4}
LOCAL = {**FOUR, "sliding_window": 4}  # shorter than the prompts
ALTERNATING = {**LOCAL, "layer_types": ["sliding_attention", "full_attention"] * 2}
EXPERTS = {"num_experts_per_tok": 2, "experts_implementation": "eager"}
FOUR_EXPERTS = {**EXPERTS, "num_experts": 4, "moe_intermediate_size": 16}
FOUR_LOCAL_EXPERTS = {**EXPERTS, "num_local_experts": 4}
SHARED_EXPERT = {**FOUR_EXPERTS, "shared_expert_intermediate_size": 16}
LATENT = {
    **BODY,
    "num_key_value_heads": 4,
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
ROUTED = {**EXPERTS, "n_routed_experts": 4, "moe_intermediate_size": 16, "first_k_dense_replace": 1}
GPT2 = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}
LINEAR = {
    **FOUR,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
STATE = {"hidden_size": 32, "num_hidden_layers": 3, "state_size": 8}
GEMMA_4 = {
    **HEAD,
    **ALTERNATING,
    "global_head_dim": 8,
    "vocab_size_per_layer_input": VOCABULARY,
    "hidden_size_per_layer_input": 8,
}

DISCARDED = "do not reach the logits"
LAYOUT = r"not \[batch, pos, ...\]"
SILENT = "never fires"
ABSENT = "unknown activation"
NO_SCORES = {"knockout": DISCARDED}
FLAT = {"patch q": LAYOUT, "patch k": LAYOUT, "patch v": LAYOUT, "edge_patch": LAYOUT}
NO_HEADS = {f"patch {name}": ABSENT for name in "zqkv"}
NO_ATTENTION = {**NO_HEADS, "patch attn_out": ABSENT, "patch mlp_out": ABSENT}

ROWS_FIRST = "reshapes by batch row before its blocks"
NO_CACHE = "takes no cache of keys and values"
RECURRENT = "recurrent state instead of keys and values in some layers"
SINGLE = 5e-7  # JS; for models that compute in float32 inside, whatever their dtype is


@dataclass(frozen=True)
class Family:
    """One architecture, a tiny random model of it, and what is expected of it.

    `refused` maps a kind of edit to a pattern of the refusal; `within` bounds the distance in JS
    between executors; `layers` are those that a kind can be asked for, where not all; `stretch`
    makes up for an initialisation that leaves `initializer_range` out of account.
    """

    name: str
    model: str
    sizes: Mapping[str, Any]
    executor: str = "staircase"
    refused: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    within: float = 1e-12
    layers: Mapping[str, Sequence[int]] = field(default_factory=dict)
    architecture: str = ""
    dtype: torch.dtype = torch.float64
    stretch: float = 1.0

    @property
    def hf_name(self) -> str:
        """The architecture's name in a `transformers` configuration."""
        return self.architecture or self.model

    def build(self) -> PreTrainedModel:
        """A random model that depends on nothing but this description."""
        build = getattr(transformers, self.model)
        config = build.config_class(**{**SHARED, **self.sizes}, architectures=[self.hf_name])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = build(config).to(self.dtype).eval()
        for part in model.modules():
            if isinstance(part, Conv1D) and self.stretch != 1:
                part.weight.data *= self.stretch
        return model


def bridge(family: Family, tokenizer: PreTrainedTokenizerFast) -> TransformerBridge:
    """The model of a family in TransformerLens."""
    return TransformerBridge.boot_transformers(
        f"tiny-{family.name}",
        hf_model=family.build(),
        tokenizer=tokenizer,
        dtype=family.dtype,
        device="cpu",
    )


DENSE: Sequence[Family] = [
    Family("GPT-2", "GPT2LMHeadModel", GPT2),
    Family("GPT-BigCode", "GPTBigCodeForCausalLM", GPT2, "rectangle", note=ROWS_FIRST),
    Family("GPT-J", "GPTJForCausalLM", {**GPT2, "rotary_dim": 4}, refused=NO_SCORES, within=SINGLE),
    Family("CodeGen", "CodeGenForCausalLM", {**GPT2, "rotary_dim": 4}, within=SINGLE),
    Family(
        "GPT-Neo",
        "GPTNeoForCausalLM",
        {
            "hidden_size": 32,
            "num_layers": 4,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 2]],
            "window_size": 4,
            "max_position_embeddings": 64,
        },
        refused=NO_SCORES,
        within=SINGLE,
        note="global and local layers",
    ),
    Family("GPT-NeoX, Pythia", "GPTNeoXForCausalLM", BODY),
    Family(
        "OPT",
        "OPTForCausalLM",
        {**BODY, "ffn_dim": 48, "word_embed_proj_dim": 32},
        "rectangle",
        refused=NO_SCORES,
        note="staircase unless `mlp_out` is patched",
    ),
    Family(
        "BLOOM",
        "BloomForCausalLM",
        {"hidden_size": 32, "n_layer": 3, "n_head": 4},
        "rectangle",
        note="ALiBi is built per batch row",
    ),
    Family(
        "MPT", "MptForCausalLM", {"d_model": 32, "n_layers": 3, "n_heads": 4, "max_seq_len": 64}
    ),
    Family("Llama", "LlamaForCausalLM", GROUPED),
    Family("Mistral", "MistralForCausalLM", {**GROUPED, **LOCAL}, note="sliding window"),
    Family("Ministral 3", "Ministral3ForCausalLM", GROUPED),
    Family("Qwen 2, 2.5", "Qwen2ForCausalLM", GROUPED),
    Family("Qwen 3", "Qwen3ForCausalLM", HEAD),
    Family("Gemma", "GemmaForCausalLM", HEAD),
    Family(
        "Gemma 2",
        "Gemma2ForCausalLM",
        {**HEAD, **LOCAL, "query_pre_attn_scalar": 8},
        note="soft caps; global and local layers",
    ),
    Family(
        "Gemma 3",
        "Gemma3ForCausalLM",
        {**HEAD, **ALTERNATING, "query_pre_attn_scalar": 8},
        note="global and local layers",
    ),
    Family(
        "Gemma 4",
        "Gemma4ForCausalLM",
        {**GEMMA_4, "num_kv_shared_layers": 0},
        "rectangle",
        refused=NO_SCORES,
        note="tokens enter at every layer, so prompts cannot share a staircase",
    ),
    Family(
        "Gemma 4 (shared keys and values)",
        "Gemma4ForCausalLM",
        {**GEMMA_4, "num_kv_shared_layers": 2},
        "rectangle",
        refused={**NO_SCORES, "edge_patch": ABSENT},
        layers={"patch k": [0, 1], "patch v": [0, 1]},
        note="later layers reuse the keys of earlier ones",
    ),
    Family(
        "VaultGemma",
        "VaultGemmaForCausalLM",
        {**HEAD, "sliding_window": 4, "query_pre_attn_scalar": 8},
    ),
    Family("Phi", "PhiForCausalLM", BODY),
    Family("Phi-3", "Phi3ForCausalLM", GROUPED),
    Family("OLMo", "OlmoForCausalLM", GROUPED),
    Family("OLMo 2", "Olmo2ForCausalLM", GROUPED),
    Family("OLMo 3", "Olmo3ForCausalLM", {**GROUPED, **LOCAL}, note="global and local layers"),
    Family("StableLM", "StableLmForCausalLM", GROUPED),
    Family(
        "Falcon (rotary)",
        "FalconForCausalLM",
        {**BODY, "alibi": False, "multi_query": True, "new_decoder_architecture": False},
    ),
    Family(
        "Falcon (ALiBi)",
        "FalconForCausalLM",
        {
            **BODY,
            "alibi": True,
            "multi_query": False,
            "new_decoder_architecture": False,
            "parallel_attn": False,
            "bias": True,
        },
        "rectangle",
        note="ALiBi is built per batch row",
    ),
    Family(
        "Granite",
        "GraniteForCausalLM",
        {
            **GROUPED,
            "embedding_multiplier": 2.0,
            "attention_multiplier": 0.4,
            "residual_multiplier": 0.7,
            "logits_scaling": 0.5,
        },
    ),
    Family("Cohere", "CohereForCausalLM", {**GROUPED, "logit_scale": 1.0}),
    Family("Cohere 2", "Cohere2ForCausalLM", {**GROUPED, **LOCAL, "logit_scale": 1.0}),
    Family("SmolLM3", "SmolLM3ForCausalLM", {**GROUPED, **FOUR}),
    Family("StarCoder 2", "Starcoder2ForCausalLM", GROUPED),
    Family("Nemotron", "NemotronForCausalLM", GROUPED),
    Family("GLM", "GlmForCausalLM", HEAD),
    Family("GLM 4", "Glm4ForCausalLM", HEAD),
    Family("Hunyuan", "HunYuanDenseV1ForCausalLM", HEAD),
    Family("Apertus", "ApertusForCausalLM", GROUPED),
    Family("Arcee", "ArceeForCausalLM", GROUPED),
    Family("Ernie 4.5", "Ernie4_5ForCausalLM", HEAD),
    Family("EXAONE 4", "Exaone4ForCausalLM", {**GROUPED, **LOCAL, "sliding_window_pattern": 2}),
    Family("Seed-OSS", "SeedOssForCausalLM", HEAD),
    Family("NanoChat", "NanoChatForCausalLM", GROUPED, refused=NO_SCORES),
    Family("Youtu", "YoutuForCausalLM", LATENT, refused=FLAT, note="latent attention"),
    Family("Jais 2", "Jais2ForCausalLM", GROUPED),
    Family("BitNet", "BitNetForCausalLM", GROUPED),
    Family(
        "ModernBERT decoder",
        "ModernBertDecoderForCausalLM",
        {**BODY, "local_attention": 8, "global_attn_every_n_layers": 2},
        refused=NO_SCORES,
    ),
    Family(
        "OpenAI GPT",
        "OpenAIGPTLMHeadModel",
        GPT2,
        "reference",
        refused={"patch resid_post": SILENT},
        note=NO_CACHE,
        stretch=15.0,
    ),
]
