"""planted: models whose mechanism was put there by hand, with prompts, and the truth about them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformer_lens.model_bridge import TransformerBridge
from transformers import PreTrainedTokenizerFast

from knockgrid.errors import InputError, check_counts, shown, unknown
from knockgrid.host.weights import SHAPES, Weights
from knockgrid.prompts.prompt import Prompt

VARIANTS = ("plain", "backup", "parallel", "decoy", "presence", "two_hops", "nothing", "last_mlp")
VARIANTS += ("by_relation",)
FEWEST_LAYERS = 6
MOST_EACH = 4
TURNS = 3
FLAGS = ("bos", "subject", "between", "relation", "last", "done")
FILLERS = ("of", "in", "by", "to")
Head = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Planted:
    """What `planted` gives: a model, prompts that it answers right, and what was put into it.

    `writes` is the layer whose MLP writes the subject's attribute; `reads` are the heads (layer,
    head) by which the last token gets it, one for every third relation in turn where they differ;
    `relation` is the head that tells the last token of its relation, `hop` the one that brings the
    attribute to a token between, `decoy` one that looks at the subject and is not read, `last_mlp`
    the layer whose MLP turns what was read into the answer.
    """

    variant: str
    model: TransformerBridge
    prompts: tuple[Prompt, ...]
    writes: int
    reads: tuple[Head, ...]
    relation: Head
    hop: Head | None = None
    decoy: Head | None = None
    last_mlp: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)


def planted(
    variant: str = "plain",
    *,
    shape: str = "llama",
    n_layers: int = 8,
    n_heads: int = 4,
    n_relations: int = 8,
    prompts_each: int = 3,
    leak: float = 0.1,
    seed: int = 0,
) -> Planted:
    """A model whose mechanism is known, and prompts of whose answers it is sure.

    Example:
        >>> import knockgrid as kg
        >>> made = kg.evidence.planted("plain", n_layers=6, seed=1)
        >>> table = kg.sweep(made.model, made.prompts, kg.knockout(window=1), progress=False)
        >>> bool(kg.grid(table).iloc[0].idxmax() == made.reads[0][0])
        True

    An MLP writes the subject's attribute at the subject, a head carries it to the last token, and
    another head the relation; both together are the answer. Where they are is drawn by `seed`.
    `variant` changes that:

    - "backup": a second head in a later layer, which reads only where the first did not;
    - "parallel": two heads in two layers, each with half of it;
    - "decoy": one more head that looks at the subject, of which nothing is read;
    - "presence": the head carries that there is a subject, and not which one;
    - "two_hops": the attribute comes through a token between the subject and the last one;
    - "nothing": the answer is the relation's alone, whatever the subject;
    - "last_mlp": an MLP at the last token turns what the head brought into the answer;
    - "by_relation": three heads in three layers, of which each relation uses one.

    The model is an ordinary Llama or GPT-2 (`shape`) in float32, of `n_layers` with `n_heads`
    each; `leak` is the scale of random weights in all its matrices. There are `n_relations`
    relations with `prompts_each` prompts; subjects have one or two tokens, and each prompt has the
    next one of its relation as its `swap`.

    Raises:
        InputError: an unknown variant or shape, fewer than six layers, two heads or two relations,
            fewer than two or more than four prompts each, a leak that is negative or no number, or
            one so large that the model no longer answers right.
    """
    _check(variant, shape, leak)
    check_counts(least=FEWEST_LAYERS, n_layers=n_layers)
    check_counts(least=2, n_heads=n_heads, n_relations=n_relations, prompts_each=prompts_each)
    if prompts_each > MOST_EACH:
        raise InputError(f"prompts_each={prompts_each}; give {MOST_EACH} at most")
    settings = {"shape": shape, "n_layers": n_layers, "n_heads": n_heads, "leak": leak}
    settings |= {"n_relations": n_relations, "prompts_each": prompts_each, "seed": seed}
    truth = _drawn(variant, n_layers, n_heads, np.random.default_rng(seed))
    words = _vocabulary(n_relations, prompts_each)
    made = Weights(_dims(n_relations, prompts_each), words, n_layers, n_heads, n_relations)
    _words(made, variant, n_relations, prompts_each)
    _mechanism(made, variant, truth, n_relations, prompts_each)
    made.leak(leak, torch.Generator("cpu").manual_seed(seed))
    prompts = _prompts(variant, n_relations, prompts_each)
    name = f"planted-{variant}-{seed}"
    model = TransformerBridge.boot_transformers(
        name, hf_model=made.model(shape, 32), tokenizer=_tokenizer(words, name), device="cpu"
    )
    _check_answers(model, prompts, leak)
    return Planted(variant, model, prompts, settings=settings, **truth)


def _check(variant: str, shape: str, leak: float) -> None:
    if variant not in VARIANTS:
        raise unknown("variant", variant, VARIANTS)
    if shape not in SHAPES:
        raise unknown("shape", shape, SHAPES)
    if isinstance(leak, bool) or not isinstance(leak, int | float) or not 0 <= leak < np.inf:
        raise InputError(f"leak={shown(leak)}; give the scale of random weights, such as 0.1")


def _check_answers(model: TransformerBridge, prompts: Sequence[Prompt], leak: float) -> None:
    with torch.no_grad():
        for prompt in prompts:
            said = model(model.to_tokens(prompt.text))[0, -1].argmax()
            if model.tokenizer.decode(said).strip() not in prompt.answers:
                raise InputError(
                    f"leak={leak:g} drowns the mechanism: {prompt.text!r} is no longer answered "
                    f"by {prompt.answers[0]!r}; give a smaller one"
                )


def _drawn(variant: str, n_layers: int, n_heads: int, rng: np.random.Generator) -> dict[str, Any]:
    """Where everything is: layers in the order in which they must be, and free heads."""
    n = {"backup": 3, "parallel": 3, "two_hops": 3, "by_relation": 1 + TURNS, "last_mlp": 3}
    layers = np.sort(rng.choice(n_layers, n.get(variant, 2), replace=False)).tolist()
    heads = [int(head) for head in rng.integers(n_heads, size=8)]
    found: dict[str, Any] = {"writes": layers[0]}
    if variant == "two_hops":
        found |= {"hop": (layers[1], heads[0]), "reads": ((layers[2], heads[1]),)}
    elif variant == "last_mlp":
        found |= {"reads": ((layers[1], heads[1]),), "last_mlp": layers[2]}
    else:
        found["reads"] = tuple(zip(layers[1:], heads[1:], strict=False))
    if variant == "nothing":
        found["reads"] = ()
    taken = {*found["reads"], found.get("hop")}
    free = [
        (layer, head)
        for layer in range(n_layers)
        for head in range(n_heads)
        if (layer, head) not in taken
    ]
    found["relation"] = free.pop(int(rng.integers(len(free))))
    if variant == "decoy":
        after = [one for one in free if one[0] > layers[0]]
        found["decoy"] = after[int(rng.integers(len(after)))]
    return found


def _attribute(relation: int, i: int) -> int:
    return (relation + i) % MOST_EACH


def _subject(relation: int, i: int) -> list[str]:
    """Every other relation has subjects of two tokens."""
    return ([f"title{relation}"] if relation % 2 else []) + [f"name{relation}x{i}"]


def _numbered(name: str, n: int) -> list[str]:
    return [f"{name}{i}" for i in range(n)]


def _dims(n_relations: int, each: int) -> list[str]:
    of_relations = _numbered("relation", n_relations) + _numbered("about", n_relations)
    of_attributes = [
        one for n in ("attr", "said", "raw", "junk") for one in _numbered(n, MOST_EACH)
    ]
    names = [f"name{r}x{i}" for r in range(n_relations) for i in range(each)]
    return [*FLAGS, *_numbered("turn", TURNS), *of_attributes, *of_relations, *names]


def _vocabulary(n_relations: int, each: int) -> list[str]:
    own = [word for r in range(n_relations) for i in range(each) for word in _subject(r, i)]
    answers = [f"answer{r}x{j}" for r in range(n_relations) for j in range(MOST_EACH)]
    words = ["<s>", "</s>", *FILLERS, *_numbered("is", TURNS), "which", *own]
    return list(dict.fromkeys([*words, *_numbered("relation", n_relations), *answers]))


def _words(made: Weights, variant: str, n_relations: int, each: int) -> None:
    """What the embeddings of words hold, and what words are said for."""
    made.word("<s>", "bos")
    made.word("which", "between")
    for turn in range(TURNS):
        always = ["said0"] if variant == "nothing" else []
        made.word(f"is{turn}", "last", f"turn{turn}", *always)
    for r in range(n_relations):
        made.word(f"relation{r}", "relation", f"relation{r}")
        for i in range(each):
            made.word(_subject(r, i)[-1], "subject", f"name{r}x{i}")
        for j in range(MOST_EACH):
            made.answer(f"answer{r}x{j}", f"about{r}", f"said{j}")


def _mechanism(
    made: Weights, variant: str, truth: dict[str, Any], n_relations: int, each: int
) -> None:
    for r in range(n_relations):
        for i in range(each):
            made.neuron(truth["writes"], [f"name{r}x{i}"], f"attr{_attribute(r, i)}")
    about = {f"relation{r}": f"about{r}" for r in range(n_relations)}
    made.head(truth["relation"], "last", "relation", about)
    into = "raw" if variant == "last_mlp" else "said"
    moves = {f"attr{j}": f"{into}{j}" for j in range(MOST_EACH)}
    if variant == "presence":
        moves = {"subject": "said0"}
    if variant == "backup":
        moves |= {"subject": "done"}
    key = "between" if variant == "two_hops" else "subject"
    for turn, head in enumerate(truth["reads"]):
        query = f"turn{turn}" if variant == "by_relation" else "last"
        spare = "done" if variant == "backup" and turn else ""
        strength = {"parallel": 0.5, "last_mlp": 1.5}.get(variant, 1.0)
        made.head(head, query, key, moves, unless=spare, strength=strength)
    if variant == "two_hops":
        made.head(truth["hop"], "between", "subject", {f"attr{j}": f"attr{j}" for j in range(4)})
    if variant == "decoy":
        made.head(
            truth["decoy"], "last", "subject", {f"attr{j}": f"junk{j}" for j in range(MOST_EACH)}
        )
    if variant == "last_mlp":
        for j in range(MOST_EACH):
            made.neuron(truth["last_mlp"], ["last", f"raw{j}"], f"said{j}")


def _prompts(variant: str, n_relations: int, each: int) -> tuple[Prompt, ...]:
    found = []
    for r in range(n_relations):
        turn = r % TURNS if variant == "by_relation" else 0
        mine = []
        for i in range(each):
            subject = " ".join(_subject(r, i))
            same = variant in ("nothing", "presence")
            answer = f"answer{r}x{0 if same else _attribute(r, i)}"
            text = f"{FILLERS[r % len(FILLERS)]} {subject} which relation{r} is{turn}"
            mine.append(
                Prompt(
                    text,
                    spans={"subject": subject},
                    answers=[answer],
                    relation=f"relation{r}",
                    id=f"{r}x{i}",
                )
            )
        found += [one.replace(swap=mine[(i + 1) % each]) for i, one in enumerate(mine)]
    return tuple(found)


def _tokenizer(words: Sequence[str], name: str) -> PreTrainedTokenizerFast:
    """A tokenizer with a token for every word, which puts BOS in front."""
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="</s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="</s>",
        name_or_path=name,
        add_bos_token=True,
    )
