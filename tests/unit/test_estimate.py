"""What a sweep of settings will take, from the config of its model alone."""

import pytest

import knockgrid as kg
from knockgrid.runs.estimate import estimate
from knockgrid.runs.running import run
from knockgrid.spec import Spec


@pytest.fixture(scope="module")
def seven(tmp_path_factory):
    """The config of a model of seven billion parameters, and nothing else."""
    from transformers import LlamaConfig

    path = tmp_path_factory.mktemp("seven")
    sizes = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32}
    LlamaConfig(**sizes, num_attention_heads=32, vocab_size=32000).save_pretrained(path)
    return path


def never():
    pytest.fail("weights were loaded")


def test_seven_billion_parameters_from_the_config_alone(seven):
    config = Spec(model=str(seven), dtype="bfloat16", limit=100)
    found = estimate(config, 100.0, never)
    assert found.parameters == pytest.approx(6.74e9, rel=0.01)
    assert found.weights == 2 * found.parameters
    assert (found.prompts, found.cells) == (100, 100 * 3 * 32)
    for part in ("100 TFLOP/s that were given", "no tokenizer"):
        assert any(part in one for one in found.assumed)
    assert estimate(config, 1000.0, never).seconds < found.seconds
    for part in ("100 prompts, 9600 cells, about", "6.74 billion", "13.5 GB of weights", "disk:"):
        assert part in str(found)


def test_sampled_texts_are_counted(seven):
    free = Spec(model=str(seven), dtype="bfloat16", limit=9, mode="free_run", n_tokens=4)
    one, ten = (estimate(free.but(sampled_runs=n), 100.0, never).seconds for n in (1, 10))
    assert ten > 5 * one


def test_rows_that_a_model_makes_are_not_counted_without_it(seven):
    spec = Spec(model=str(seven), interventions=[{"kind": "per_module", "pos": "subject"}])
    with pytest.raises(kg.InputError, match=r"per_module asks what a model has.*name its rows"):
        estimate(spec, 100.0, never)


@pytest.mark.parametrize("flops", [0.0, -1.0])
def test_no_device_computes_nothing(seven, flops):
    with pytest.raises(kg.InputError, match="give the device's TFLOP/s"):
        estimate(Spec(model=str(seven)), flops, never)


def test_a_folder_without_a_config_is_refused(tmp_path):
    with pytest.raises(kg.InputError, match=r"config of model .* could not be read"):
        estimate(Spec(model=str(tmp_path)), load=never)


@pytest.mark.parametrize("top", [0, 20])
def test_the_disk_of_a_run(demo_model, tmp_path, top):
    """Within a tenth; the most probable tokens, which a report needs, take as much as the rest."""
    relations = ("country_language", "element_symbol")
    config = Spec(relations=relations, limit=8, top=top, noise_floor=False)
    found = estimate(config, load=lambda: demo_model)
    run(config, tmp_path / "run", load=lambda: demo_model, progress=False)
    disk = sum(path.stat().st_size for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert found.disk == pytest.approx(disk, rel=0.1)
