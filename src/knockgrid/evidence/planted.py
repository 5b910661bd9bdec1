"""planted: models whose mechanism was put there by hand, with prompts, and the truth about them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformer_lens.model_bridge import TransformerBridge
from transformers import PreTrainedTokenizerFast

from knockgrid.engine.answers import known
from knockgrid.errors import InputError, check_counts, shown, unknown
from knockgrid.host.weights import SHAPES, Weights
from knockgrid.prompts.prompt import Prompt

FEWEST_LAYERS = 6
MOST_EACH = 4
TURNS = 3
FLAGS = ("bos", "subject", "between", "relation", "last", "done")
FILLERS = ("of", "in", "by", "to")
Head = tuple[int, int]


@dataclass(frozen=True)
class Variant:
    """How a mechanism differs from the plain one.

    `reads` counts the heads that bring the attribute to the last token, with `strength`; `spare`
    ones wait for the first to fail, and `by_turn` each relation has one of them. They carry
    `moves` (an attribute, that there is a subject, or nothing) `into` what is said, or what an MLP
    at the last token makes of it; `hop` is a head to a token between, before them.
    """

    reads: int = 1
    strength: float = 1.0
    moves: str = "attr"
    into: str = "said"
    spare: bool = False
    by_turn: bool = False
    hop: bool = False
    decoy: bool = False
    last_mlp: bool = False

    @property
    def same(self) -> bool:
        """Whether all subjects of a relation have the same answer."""
        return self.moves != "attr"


VARIANTS = {
    "plain": Variant(),
    "backup": Variant(reads=2, spare=True),
    "parallel": Variant(reads=2, strength=0.5),
    "decoy": Variant(decoy=True),
    "presence": Variant(moves="subject"),
    "two_hops": Variant(hop=True),
    "nothing": Variant(moves=""),
    "last_mlp": Variant(strength=1.5, into="raw", last_mlp=True),
    "by_relation": Variant(reads=TURNS, by_turn=True),
}


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
    kind, words = VARIANTS[variant], _vocabulary(n_relations, prompts_each)
    truth = _drawn(kind, n_layers, n_heads, np.random.default_rng(seed))
    made = Weights(_dims(n_relations, prompts_each), words, n_layers, n_heads, n_relations)
    _words(made, kind, n_relations, prompts_each)
    _mechanism(made, kind, truth, n_relations, prompts_each)
    made.leak(leak, torch.Generator("cpu").manual_seed(seed))
    name = f"planted-{variant}-{seed}"
    model = TransformerBridge.boot_transformers(
        name, hf_model=made.model(shape, 32), tokenizer=_tokenizer(words, name), device="cpu"
    )
    prompts = _prompts(kind, n_relations, prompts_each)
    if left := known(model, prompts, n_tokens=1).dropped:
        raise InputError(
            f"leak={leak:g} drowns the mechanism: {left[0].text!r} is no longer answered by "
            f"{left[0].answers[0]!r}; give a smaller one"
        )
    return Planted(variant, model, prompts, **truth)


def _check(variant: str, shape: str, leak: float) -> None:
    if variant not in VARIANTS:
        raise unknown("variant", variant, list(VARIANTS))
    if shape not in SHAPES:
        raise unknown("shape", shape, list(SHAPES))
    if isinstance(leak, bool) or not isinstance(leak, int | float) or not 0 <= leak < np.inf:
        raise InputError(f"leak={shown(leak)}; give the scale of random weights, such as 0.1")


def _drawn(kind: Variant, n_layers: int, n_heads: int, rng: np.random.Generator) -> dict[str, Any]:
    """Where everything is: layers in the order in which they must be, and free heads."""
    n = 1 + kind.reads + kind.hop + kind.last_mlp
    layers = np.sort(rng.choice(n_layers, n, replace=False)).tolist()
    heads = rng.integers(n_heads, size=8).tolist()
    places = list(zip(layers, heads, strict=False))[1:]
    found: dict[str, Any] = {"writes": layers[0]}
    if kind.hop:
        found["hop"] = places.pop(0)
    if kind.last_mlp:
        found["last_mlp"] = places.pop()[0]
    found["reads"] = tuple(places) if kind.moves else ()
    taken = {*found["reads"], found.get("hop")}
    every = ((layer, head) for layer in range(n_layers) for head in range(n_heads))
    free = [one for one in every if one not in taken]
    found["relation"] = free.pop(int(rng.integers(len(free))))
    if kind.decoy:
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


def _words(made: Weights, kind: Variant, n_relations: int, each: int) -> None:
    """What the embeddings of words hold, and what words are said for."""
    made.word("<s>", "bos")
    made.word("which", "between")
    for turn in range(TURNS):
        always = [] if kind.moves else ["said0"]
        made.word(f"is{turn}", "last", f"turn{turn}", *always)
    for r in range(n_relations):
        made.word(f"relation{r}", "relation", f"relation{r}")
        for i in range(each):
            made.word(_subject(r, i)[-1], "subject", f"name{r}x{i}")
        for j in range(MOST_EACH):
            made.answer(f"answer{r}x{j}", f"about{r}", f"said{j}")


def _mechanism(
    made: Weights, kind: Variant, truth: dict[str, Any], n_relations: int, each: int
) -> None:
    for r in range(n_relations):
        for i in range(each):
            made.neuron(truth["writes"], [f"name{r}x{i}"], f"attr{_attribute(r, i)}")
    made.head(truth["relation"], "last", "relation", _moved("relation", "about", n_relations))
    key = "between" if kind.hop else "subject"
    moves = {kind.moves: "said0"} if kind.same else _moved("attr", kind.into)
    moves |= {"subject": "done"} if kind.spare else {}
    for turn, head in enumerate(truth["reads"]):
        query = f"turn{turn}" if kind.by_turn else "last"
        unless = "done" if kind.spare and turn else ""
        made.head(head, query, key, moves, unless=unless, strength=kind.strength)
    if kind.hop:
        made.head(truth["hop"], "between", "subject", _moved("attr", "attr"))
    if kind.decoy:
        made.head(truth["decoy"], "last", "subject", _moved("attr", "junk"))
    for j in range(MOST_EACH if kind.last_mlp else 0):
        made.neuron(truth["last_mlp"], ["last", f"{kind.into}{j}"], f"said{j}")


def _moved(source: str, into: str, n: int = MOST_EACH) -> dict[str, str]:
    return dict(zip(_numbered(source, n), _numbered(into, n), strict=True))


def _prompts(kind: Variant, n_relations: int, each: int) -> tuple[Prompt, ...]:
    found = list[Prompt]()
    for r in range(n_relations):
        turn, mine = r % TURNS if kind.by_turn else 0, list[Prompt]()
        for i in range(each):
            subject = " ".join(_subject(r, i))
            answer = f"answer{r}x{0 if kind.same else _attribute(r, i)}"
            text = f"{FILLERS[r % len(FILLERS)]} {subject} which relation{r} is{turn}"
            told = {"answers": [answer], "relation": f"relation{r}", "id": f"{r}x{i}"}
            mine.append(Prompt(text, spans={"subject": subject}, **told))
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
