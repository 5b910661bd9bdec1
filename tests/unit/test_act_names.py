"""Activations named as TransformerLens prints them."""

import inspect

import pytest

import knockgrid as kg

HOOKS = {
    "hook_resid_post": "resid_post",
    "hook_resid_pre": "resid_pre",
    "hook_mlp_out": "mlp_out",
    "hook_attn_out": "attn_out",
    "mlp.hook_post": "post",
    "attn.hook_z": "z",
    "attn.hook_v": "v",
}


@pytest.mark.parametrize("given", HOOKS)
def test_the_name_of_a_hook_is_its_short_name(given, tiny_llama, prompts):
    rows = [kg.patch(name, "subject", kg.zero()) for name in (given, HOOKS[given])]
    assert rows[0] == rows[1]
    table = kg.sweep(tiny_llama, prompts[0], rows[0], layers=[1], progress=False)
    assert table["intervention"].unique().tolist() == [f"{HOOKS[given]}@subject"]
    assert table["js"].max() > 0


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ("blocks.3.hook_resid_post", ("'resid_post'", "layers=[3]")),
        ("blocks.12.attn.hook_z", ("'z'", "layers=[12]")),
        ("k3", ("'k'", "layers=[3]")),  # TransformerLens takes the 3 for a layer
        ("ln2.hook_scale", ("no short name", "'resid_mid'")),
        ("attn.hook_in", ("no short name", "'attn_out'")),
        ("", ("is ''", "'resid_post'")),
    ],
)
def test_a_name_that_says_something_else_is_refused_with_what_to_write(given, parts):
    with pytest.raises(kg.InputError) as refusal:
        kg.patch(given, "last")
    assert all(part in str(refusal.value) for part in parts)


def test_an_unknown_name_is_never_compared_with_itself(tiny_llama, prompts):
    with pytest.raises(kg.InputError, match="'resid_pots'; did you mean 'resid_post'") as refusal:
        kg.sweep(tiny_llama, prompts[0], kg.patch("resid_pots", "last"), progress=False)
    assert "hook_" not in str(refusal.value)


def test_analyses_take_the_name_of_a_hook():
    from knockgrid.host.act_names import act_name_of

    assert act_name_of("hook_resid_post") == "resid_post"
    for name in ("last_similarity", "subject_norm"):
        assert "act_name_of(act_name)" in inspect.getsource(getattr(kg.evidence, name))
