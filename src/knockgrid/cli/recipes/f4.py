"""F4: what a probe can read at each position beside what the model uses there."""

from knockgrid.cli.recipes.recipe import RELATIONS, Recipe, depth, every
from knockgrid.edits import patch, per_position
from knockgrid.evidence import probe_auc, readable_not_used
from knockgrid.figures import probe_beside_effect
from knockgrid.prompts import facts
from knockgrid.sources import corrupted_run, noise
from knockgrid.sweep import sweep

POSITIONS = (
    "last_q",
    "first_answer",
    "second_answer",
    "exact_answer_before_first",
    "exact_answer_first",
    "exact_answer_last",
    "exact_answer_after_last",
    *(f"-{k}" for k in range(8, 0, -1)),
)

N_TOKENS = 9  # positions are found in eight tokens of output


def _make(model, quick):
    share = 24 if quick else 48
    prompts = [p for r in RELATIONS for p in facts(r, tokenizer=model.tokenizer)[:share]]
    positions = [*POSITIONS[:7], "-1"] if quick else list(POSITIONS)
    layers = every(depth(model), 6 if quick else 2)
    probes = probe_auc(model, prompts, positions, layers=layers, n_tokens=N_TOKENS)
    family = per_position(patch("resid_post", "last", corrupted_run(by=noise(3.0))), positions)
    some = prompts[:: 4 if quick else 1]
    return {
        "f4_probes": probes,
        "f4_divergence": sweep(model, some, family, layers=layers, n_tokens=N_TOKENS),
    }


def _draw(tables):
    probes, moved = tables["f4_probes"], tables["f4_divergence"]
    return {
        "f4_probe_beside_effect_js": probe_beside_effect(
            probes, moved, readable_not_used(probes, moved)
        )
    }


f4 = Recipe("layer × token position: probe AUC beside divergence", _make, _draw, extra="probes")
