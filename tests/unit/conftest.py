"""Fixtures of the unit tests: prompts, a plain copy of a model, and an executor that tells."""

import copy
import sys
from pathlib import Path

import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode: `recipes` and others are ours


@pytest.fixture(scope="session")
def answer_in():
    """The shortest beginning of a text that counts as its answer."""
    from knockgrid.prompts.matching import is_answer

    def find(said):
        # "\ufffd" is a part of a character, which the next token may complete
        starts = (said[:i] for i in range(1, len(said)) if said[i] != "\ufffd")
        return next(word for word in starts if is_answer(said, [word]))

    return find


@pytest.fixture(scope="session")
def prompts():
    """Three prompts; the first and the last are equally long and each other's swap partners."""
    import knockgrid as kg

    france = kg.Prompt("The capital of France is", spans={"subject": "France"}, id="france")
    italy = kg.Prompt("The capital of Italy is", spans={"subject": "Italy"}, id="italy")
    text = "The Eiffel Tower is located in the city of"
    tower = kg.Prompt(text, spans={"subject": "The Eiffel Tower"}, id="tower")
    return [france.replace(swap=italy), tower, italy.replace(swap=france)]


@pytest.fixture(scope="session")
def tower():
    """One prompt of ten tokens, with all that a prompt can have but a partner."""
    import knockgrid as kg

    return kg.Prompt(
        "The Eiffel Tower is located in the city of",
        spans={"subject": "The Eiffel Tower"},
        answers=("Paris", "Rome"),
        group="landmarks",
        relation="city",
        id="tower",
    )


PIECES = ("The", "capital", "of", "France", "Italy", "is", "Paris", "Rome", "He", "said", "(", '"')
CHARACTERS = sorted({*"".join(PIECES), *"首都は東京北。"})


@pytest.fixture(params=["legacy", "first", "always", "never"])
def pieces(request):
    """A tokenizer of the SentencePiece kind: Llama's published one, and newer ones."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["▁", *(f"▁{word}" for word in PIECES), "Paris", "Rome", *CHARACTERS]
    words = list(dict.fromkeys(words))
    scores = [(word, -float(len(words) - i) / 10) for i, word in enumerate(words)]
    scores = [(word, -1.0 if len(word) > 2 else -9.0) for word, _ in scores]
    special = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0)]
    tokenizer = Tokenizer(models.Unigram([*special, *scores], unk_id=0))
    if request.param == "legacy":
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=request.param)
    tokenizer.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        name_or_path="pieces",
    )  # fmt: skip


@pytest.fixture
def sweep(tiny_llama):
    """`kg.sweep` on the tiny Llama, silently."""
    import knockgrid as kg

    def run(prompts, rows, model=tiny_llama, **options):
        return kg.sweep(model, prompts, rows, progress=False, **options)

    return run


@pytest.fixture(scope="session")
def plain(tiny_llama, plain_of):
    """A plain Hugging Face model with the weights of the tiny Llama."""
    return plain_of(tiny_llama)


@pytest.fixture
def boot(tiny_tokenizer, plain):
    """A fresh bridge around a copy of the tiny Llama, changed by a function."""

    def make(change=lambda model: None):
        model = copy.deepcopy(plain)
        change(model)
        options = {"tokenizer": tiny_tokenizer, "dtype": torch.float64, "device": "cpu"}
        return TransformerBridge.boot_transformers("tiny-llama", hf_model=model, **options)

    return make


@pytest.fixture(scope="session")
def ids_of(tiny_tokenizer):
    """Token ids `[1, pos]` of a text, BOS included."""

    return lambda text: torch.tensor([tiny_tokenizer(text)["input_ids"]])


@pytest.fixture(scope="session")
def outputs(plain, ids_of):
    """What every block of the plain model puts out for a text, `[layer, pos, d_model]`."""

    def run(text):
        kept = []

        def keep(_, __, out):
            kept.append((out if torch.is_tensor(out) else out[0])[0])

        handles = [block.register_forward_hook(keep) for block in plain.model.layers]
        plain(ids_of(text))
        for handle in handles:
            handle.remove()
        return torch.stack(kept)

    return run


class Telling:
    """The reference executor, with all it was given and all it gave."""

    name, needs_kv = "telling", False

    def __init__(self):
        self.edits, self.logits, self.null = {}, {}, {}

    def __call__(self, model, runs, cells):
        import knockgrid as kg

        for outcome in kg.executors.reference(model, runs, cells):
            cell = outcome.cell
            prompt = runs[cell.runs[outcome.sample]].prompt.id
            key = (prompt, cell.intervention.name, cell.layer, outcome.sample)
            self.edits[key] = cell.samples[outcome.sample]
            self.logits[key], self.null[key] = outcome.logits.clone(), outcome.null.clone()
            yield outcome


@pytest.fixture
def telling():
    """A fresh executor that remembers the edits and the logits of every cell."""
    return Telling()
