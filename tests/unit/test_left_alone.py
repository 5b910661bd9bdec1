"""The model after a sweep, and after one that failed; hooks of the user's own."""

import warnings

import pytest
import torch


@pytest.fixture
def flow():
    import knockgrid as kg

    return kg.information_flow()


@pytest.fixture(autouse=True)
def warm(tiny_llama):
    """TransformerLens sets hooks of its own in a model's first forward."""
    tiny_llama(torch.tensor([[1, 40]]))


def hooks_of(model):
    """All hooks, TransformerLens's and PyTorch's, by the name of what carries them."""
    ours = {n: (list(p.fwd_hooks), list(p.bwd_hooks)) for n, p in model.hook_dict.items()}
    theirs = {
        name: (len(part._forward_hooks), len(part._forward_pre_hooks), len(part._backward_hooks))
        for name, part in model.original_model.named_modules()
    }
    return ours, theirs


def failing_cases():
    import knockgrid as kg

    nan = kg.fixed(torch.full((32,), float("nan")))
    france = kg.Prompt("The capital of France is", spans={"subject": "France"})
    return {
        "success": kg.information_flow(),
        "an edge patch": kg.edge_patch(),
        "logits": kg.patch("resid_post", "last", nan),
        "a donor": kg.patch("resid_post", "subject", kg.donor(france)),
        "a head": kg.knockout(heads=[9]),
    }


@pytest.mark.parametrize("case", ["success", "an edge patch", "logits", "a donor", "a head"])
@pytest.mark.parametrize("executor", ["reference", "staircase", "auto"])
def test_the_model_is_left_as_it_was(tiny_llama, tower, case, executor):
    import knockgrid as kg

    state = {name: value.clone() for name, value in tiny_llama.original_model.state_dict().items()}
    before, random = hooks_of(tiny_llama), torch.get_rng_state()
    failed = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            kg.sweep(tiny_llama, tower, failing_cases()[case], executor=executor, progress=False)
        except kg.InputError:
            failed = True
    assert failed is (case not in ("success", "an edge patch"))
    assert hooks_of(tiny_llama) == before
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert not tiny_llama.training
    assert not any(part.training for part in tiny_llama.original_model.modules())
    for name, value in tiny_llama.original_model.state_dict().items():
        assert torch.equal(value, state[name])
        assert value.requires_grad == state[name].requires_grad


def test_an_executor_that_fails_leaves_no_hook(tiny_llama, tower, flow):
    """An error in the middle of a forward."""
    import knockgrid as kg

    class Failing:
        name, needs_kv = "failing", False

        def __call__(self, model, runs, cells):
            def fail(activation, hook):
                raise RuntimeError("in the middle")

            yield from kg.reference(model, runs, cells)
            model.run_with_hooks(runs[0].ids[None], fwd_hooks=[("blocks.2.hook_resid_pre", fail)])

    before = hooks_of(tiny_llama)
    with pytest.raises((RuntimeError, kg.InputError), match="in the middle"):
        kg.sweep(tiny_llama, tower, flow, executor=Failing(), progress=False)
    assert hooks_of(tiny_llama) == before


def test_the_user_s_own_hooks_survive_and_take_part(tiny_llama, tower, flow):
    """They force the reference executor, with a warning, and stay for whoever set them."""
    import knockgrid as kg
    from knockgrid._preflight import FallbackWarning

    lengths = []

    def halve(activation, hook):
        lengths.append(activation.shape[1])
        return activation * 0.5

    without = kg.sweep(tiny_llama, tower, flow, layers=[0], progress=False)
    tiny_llama.add_hook("blocks.1.hook_mlp_out", halve)
    try:
        with pytest.warns(FallbackWarning) as caught:
            table = kg.sweep(tiny_llama, tower, flow, layers=[0], progress=False)
        point = tiny_llama.hook_dict["blocks.1.hook_mlp_out"]
        assert len(point.fwd_hooks) == 1
        silent = kg.sweep(tiny_llama, tower, flow, layers=[0], executor="reference", progress=False)
    finally:
        tiny_llama.reset_hooks()
    assert len(caught) == 1
    message = str(caught[0].message)
    assert "the model carries hooks of your own (at blocks.1." in message
    assert message.endswith("the sweep runs on the reference executor")
    receipt = table.attrs["knockgrid"]["receipt"]
    assert receipt["executor"] == "reference"
    assert len(receipt["user_hooks"]) == 1
    assert set(lengths) == {10}, "a hook for whole prompts met a part of one"
    assert (table.js - without.js).abs().min() > 1e-6
    assert (table.js == silent.js).all()
    again = kg.sweep(tiny_llama, tower, flow, layers=[0], progress=False)
    assert again.attrs["knockgrid"]["receipt"]["executor"] == "staircase"
    assert (again.js == without.js).all()
