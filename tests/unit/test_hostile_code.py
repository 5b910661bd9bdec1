"""Pickles, scripts and weights that would run if they were loaded: they are not."""

import json
import pickle

import pytest
import torch
from refusals import MakesAFolder, refused
from transformer_lens.model_bridge import TransformerBridge
from transformers import LlamaConfig, LlamaForCausalLM

import knockgrid as kg
from knockgrid import read_prompts
from knockgrid.runs.study import read_spec


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet", "a.yaml", "t.parquet"])
def test_a_pickle_under_another_name_is_not_loaded(tmp_path, name, protocol):
    marker = tmp_path / "marker"
    content = pickle.dumps(MakesAFolder(marker), protocol)
    (tmp_path / name).write_bytes(content)
    if name[0] == "t":
        refused(kg.runs.read_table, tmp_path / name)
    elif name.endswith("yaml"):
        refused(read_spec, tmp_path / name, {})
    else:
        refused(read_prompts, tmp_path / name)
    assert not marker.exists()
    pickle.loads(content)
    assert marker.exists()  # it would have been made


def test_a_data_set_runs_no_code(tmp_path, monkeypatch):
    marker = tmp_path / "marker"
    (tmp_path / "data").mkdir()
    script = f"import os\nos.mkdir({str(marker)!r})\n"
    for name in ("data.py", "dataset.py"):
        (tmp_path / "data" / name).write_text(script)
    (tmp_path / "data" / "train.pkl").write_bytes(pickle.dumps(MakesAFolder(marker)))
    assert "could not be loaded" in refused(read_prompts, f"hf:{tmp_path / 'data'}")
    (tmp_path / "data" / "data.py").unlink()
    (tmp_path / "data" / "train.jsonl").write_bytes(b'{"text": "Rome is in"}')
    assert [p.text for p in read_prompts(f"hf:{tmp_path / 'data'}")] == ["Rome is in"]
    assert not marker.exists()

    import datasets

    given = {}
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: given.update(kwargs))
    refused(read_prompts, "hf:name\n\x1b[2J" + "x" * 10**5 + ":train")
    assert given == {"split": "train", "trust_remote_code": False}


SIZES = {"vocab_size": 400, "hidden_size": 8, "intermediate_size": 8}
SIZES |= {"num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture
def model_folder(tmp_path, tiny_tokenizer):
    """A folder with a tiny Llama's config and tokenizer, and no weights."""
    config = LlamaConfig(architectures=["LlamaForCausalLM"], **SIZES)
    config.save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("form", ["torch.save", "pickle"])
def test_weights_that_would_run_are_refused(model_folder, form):
    marker = model_folder / "marker"
    weights = model_folder / "pytorch_model.bin"
    if form == "pickle":
        weights.write_bytes(pickle.dumps(MakesAFolder(marker), 2))
    else:
        torch.save({"lm_head.weight": MakesAFolder(marker)}, weights)
    assert "a pickle that holds more than tensors" in refused(kg.load, model_folder)
    assert not marker.exists()


def test_weights_in_a_plain_pickle_are_read(model_folder):
    torch.manual_seed(0)
    weights = LlamaForCausalLM(LlamaConfig(**SIZES)).state_dict()
    torch.save(weights, model_folder / "pytorch_model.bin")
    loaded = kg.load(model_folder).original_model.state_dict()
    kept = {name.replace("_original_component.", ""): value for name, value in loaded.items()}
    for name in ("model.norm.weight", "model.embed_tokens.weight"):
        assert torch.equal(kept[name], weights[name])


def test_damaged_weights_are_refused(model_folder):
    (model_folder / "model.safetensors").write_bytes(b"\xff" * 100)
    assert "could not be loaded" in refused(kg.load, model_folder)


def test_code_that_a_model_brings_is_not_run(model_folder, monkeypatch, tiny_llama):
    marker = model_folder / "marker"
    (model_folder / "evil.py").write_text(
        f"import os\nos.mkdir({str(marker)!r})\n"
        "from transformers import LlamaConfig as C, LlamaForCausalLM as M\n"
    )
    config = json.loads((model_folder / "config.json").read_text())
    classes = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}
    config |= {"model_type": "evil", "auto_map": classes}
    (model_folder / "config.json").write_text(json.dumps(config))
    assert "could not be loaded" in refused(kg.load, model_folder)
    assert not marker.exists()
    given = {}
    monkeypatch.setattr(
        TransformerBridge, "boot_transformers", lambda _, **more: given.update(more) or tiny_llama
    )
    monkeypatch.setattr("knockgrid.host.bridge._LOADED_FROM", {})  # not from there
    kg.load(model_folder)
    assert given["trust_remote_code"] is False
