"""Prompt files as people have them: public schemas, other formats, dirty and repeated rows.

All rows are of our own making, in the columns that the data sets have.
"""

import csv
import io
import json
import warnings

import pandas as pd
import pytest

import knockgrid as kg
from knockgrid.cli import sweeps
from knockgrid.errors import unknown
from knockgrid.runs import choose
from knockgrid.runs.choose import choose_prompts
from knockgrid.runs.study import read_spec
from knockgrid.spec import Spec

ROME = [
    {"known_id": 7, "subject": "Lake Oro", "attribute": "Peru",
     "template": "{} lies in the country",
     "prediction": " of Peru, on the", "prompt": "Lake Oro lies in the country of",
     "relation_id": "P17"},
    {"known_id": 8, "subject": "Ana Roca", "attribute": "Quechua", "template": "In Lima {} speaks",
     "prediction": " Quechua", "prompt": "In Lima Ana Roca speaks", "relation_id": "P103"},
    {"known_id": 9, "subject": "Oro", "attribute": "Oro Press", "template": "Oro, {} is printed by",
     "prediction": " the Oro Press", "prompt": "Oro, Oro is printed by the", "relation_id": "P123"},
]  # fmt: skip
COUNTERFACT = [
    {"case_id": i, "pararel_idx": 40 + i,
     "requested_rewrite": {
         "prompt": prompt, "relation_id": "P103", "subject": subject,
         "target_new": {"str": "Welsh", "id": "Q1"}, "target_true": {"str": true, "id": "Q2"}},
     "paraphrase_prompts": ["x"], "neighborhood_prompts": ["y"], "attribute_prompts": [],
     "generation_prompts": []}
    for i, (prompt, subject, true) in enumerate(
        [("{} grew up with", "Ana Roca", "Quechua"), ("At home {} speaks", "Bo Li", "Hakka"),
         ("The language of {} is", "Ida Ek", "Swedish")])
]  # fmt: skip
POPQA = [
    {"id": 11, "subj": "Ana Roca", "prop": "occupation", "obj": "baker", "subj_id": 1,
     "prop_id": 22, "obj_id": 2, "s_aliases": "[]", "o_aliases": '["bread maker"]', "s_pop": 9,
     "question": "What is Ana Roca's occupation?", "possible_answers": '["baker", "bread maker"]'},
    {"id": 12, "subj": "In", "prop": "country", "obj": "Peru", "subj_id": 3, "prop_id": 182,
     "obj_id": 4, "s_aliases": "[]", "o_aliases": "[]", "s_pop": 5,
     "question": "In what country is In?", "possible_answers": '["Peru"]'},
    {"id": 13, "subj": "sport", "prop": "sport", "obj": "golf", "subj_id": 5, "prop_id": 560,
     "obj_id": 6, "s_aliases": "[]", "o_aliases": "[]", "s_pop": 2,
     "question": "What sport does sport play?", "possible_answers": '["golf"]'},
]  # fmt: skip
LRE = {
    "name": "town river",
    "prompt_templates": ["{} lies on the", "Through {} flows the", "In {} they bathe in the"],
    "properties": {"relation_type": "factual", "domain_name": "town", "symmetric": False},
    "samples": [
        {"subject": "Lima", "object": "Rimac"},
        {"subject": "Bon ", "object": "Rhine"},
        {"subject": "Rome", "object": "Tiber"},
    ],
}
QUESTIONS = [
    {"Question": "Who baked the first loaf of Oro?", "Answer": "Ana Roca"},
    {"Question": "Which river, or brook, runs by Lima?", "Answer": "Rimac"},
    {"Question": "Who 'sang' in Oro?", "Answer": "Ida Ek"},
]
ANSWERED = [
    {"raw_question": "Who baked?", "question": "Q: Who baked?\n        A:", "model_answer": " Bo",
     "correct_answer": "['Ana Roca', 'A. Roca']", "automatic_correctness": 0},
    {"raw_question": "Who sang?", "question": "Q: Who sang?\n        A:", "model_answer": " Ida",
     "correct_answer": "[\"Ida D'Ek\", 'Ek']", "automatic_correctness": 1},
    {"raw_question": "Where?", "question": "Q: Where?\n        A:", "model_answer": " Lima",
     "correct_answer": "Lima", "automatic_correctness": 1},
]  # fmt: skip
PARAREL = [
    {"sub_label": "Oro Valley", "obj_label": "Lima", "uuid": "u1"},
    {"sub_label": "Ek Islands", "obj_label": "Roca", "uuid": "u2"},
    {"sub_label": "Li County", "obj_label": "Bo", "uuid": "u3"},
]
FRAMED = [{**row, "pattern": "[X], whose capital is [Y] ."} for row in PARAREL]


def written(folder, name, rows):
    """A file of rows in the format that its name says."""
    path = folder / name
    if name.endswith(".jsonl"):
        path.write_text("\n".join(map(json.dumps, rows)))
    elif name.endswith(".json"):
        path.write_text(json.dumps(rows, indent=1))
    elif name.endswith(".parquet"):
        pd.DataFrame(rows).to_parquet(path)
    else:
        pd.DataFrame(rows).to_csv(path, index=True, sep="\t" if name.endswith("tsv") else ",")
    return path


def read(path, **options):
    """The prompts of a file, and what was said of it."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        prompts = kg.read_prompts(path, **options)
    return prompts, [str(one.message) for one in said]


@pytest.mark.parametrize(
    ("name", "rows", "options", "says", "texts", "subjects", "answers", "relation"),
    [
        ("k.json", ROME, {}, "ROME's known_1000",
         ["Lake Oro lies in the country of", "In Lima Ana Roca speaks",
          "Oro, Oro is printed by the"],
         [(0, 8), (8, 16), (5, 8)], [("Peru",), ("Quechua",), ("Oro Press",)], "P17"),
        *((name, COUNTERFACT, {}, "CounterFact",
           ["Ana Roca grew up with", "At home Bo Li speaks", "The language of Ida Ek is"],
           [(0, 8), (8, 13), (16, 22)], [("Quechua",), ("Hakka",), ("Swedish",)], "P103")
          for name in ("c.json", "c.parquet")),
        ("p.tsv", POPQA, {}, "PopQA",
         [f"Q: {row['question']}\nA:" for row in POPQA],
         [(11, 19), (22, 24), (19, 24)], [("baker", "bread maker"), ("Peru",), ("golf",)],
         "occupation"),
        ("p.jsonl", POPQA, {"columns": {"question": "text"}}, "PopQA",
         [row["question"] for row in POPQA],
         [(8, 16), (19, 21), (16, 21)], [("baker", "bread maker"), ("Peru",), ("golf",)],
         "occupation"),
        ("l.json", LRE, {}, "LRE", ["Lima lies on the", "Bon lies on the", "Rome lies on the"],
         [(0, 4), (0, 3), (0, 4)], [("Rimac",), ("Rhine",), ("Tiber",)], "town river"),
        ("l.json", LRE, {"columns": {"prompt_templates.1": "template"}}, "LRE",
         ["Through Lima flows the", "Through Bon flows the", "Through Rome flows the"],
         [(8, 12), (8, 11), (8, 12)], [("Rimac",), ("Rhine",), ("Tiber",)], "town river"),
        ("q.csv", QUESTIONS, {}, "LLMsKnow", [f"Q: {row['Question']}\nA:" for row in QUESTIONS],
         [None] * 3, [("Ana Roca",), ("Rimac",), ("Ida Ek",)], None),
        ("a.csv", ANSWERED, {}, "LLMsKnow", [row["question"] for row in ANSWERED],
         [None] * 3, [("Ana Roca", "A. Roca"), ("Ida D'Ek", "Ek"), ("Lima",)], None),
        ("P36.jsonl", PARAREL, {"template": "The capital of [X] is [Y]."}, "ParaRel",
         ["The capital of Oro Valley is", "The capital of Ek Islands is",
          "The capital of Li County is"],
         [(15, 25), (15, 25), (15, 24)], [("Lima",), ("Roca",), ("Bo",)], None),
        ("P36.jsonl", FRAMED, {}, "ParaRel",
         ["Oro Valley, whose capital is", "Ek Islands, whose capital is",
          "Li County, whose capital is"],
         [(0, 10), (0, 10), (0, 9)], [("Lima",), ("Roca",), ("Bo",)], None),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value else "",
)  # fmt: skip
def test_a_public_schema_is_read_and_said(
    tmp_path, name, rows, options, says, texts, subjects, answers, relation
):
    prompts, said = read(written(tmp_path, name, rows), **options)
    assert [one.text for one in prompts] == texts
    assert [one.spans.get("subject") for one in prompts] == subjects
    assert [one.answers for one in prompts] == answers
    assert prompts[0].relation == relation
    assert len(said) == 1
    assert f"{name} is read as {says}" in said[0]


def test_ids_of_a_data_set_stay(tmp_path):
    assert [p.id for p in read(written(tmp_path, "k.json", ROME))[0]] == ["7", "8", "9"]


def test_a_template_that_fits_its_prompt_gives_the_subject(tmp_path):
    row = {"template": "{} is in", "subject": "Lima", "prompt": "Lima is in"}
    assert read(written(tmp_path, "t.jsonl", [row]))[0][0].span_text("subject") == "Lima"


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({**ROME[0], "template": "{} is a lake of"}, "'Lake Oro is a.*'Lake Oro lies in the"),
        ({"template": "{} is", "subject": "Lima", "prompt": "Lima on"}, "'Lima is'.*'Lima on'"),
        ({"text": "a", "prompt": "b"}, "'a'.*'prompt' 'b'"),
        ({"text": "a is", "answers": ["b"], "object": "c"}, "'object' 'c'"),
        ({"text": "Rome is", "subject": "Rome", "subject_span": [5, 7]}, "'Rome'.*covers 'is'"),
        ({"text": "x is", "answers": [""]}, "answer 1 of 'x is' is ''"),
        ({"text": "x is", "answers": [" "]}, "answer 1 of 'x is' is ' '"),
        ({"text": "x is", "answers": "x|"}, "answer 2 of 'x is' is ''"),
        ({"text": "x is", "answers": "[NYC]"}, "answers is '.NYC.'.*list and is none"),
        ({"text": "x is", "answers": "['a' 'b']"}, "list and is none"),
        ({"text": "x is", "answers": [["a"]]}, "not list"),
        ({"text": "x is", "answers": '["a", null]'}, "without nulls"),
        ({"text": "x is", "answers": '[["a"]]'}, "not list"),
        ({"text": "Ma\u0301laga is", "subject": "M\u00e1laga"}, "in NFC and the other in NFD"),
        ({"text": "M\u00e1laga is", "subject": "Ma\u0301laga"}, "in NFD and the other in NFC"),
    ],
)
def test_a_dirty_row_is_refused_with_its_line(tmp_path, row, says):
    first = ROME[1] if "attribute" in row else {"text": "first is"}
    path = written(tmp_path, "d.jsonl", [first, row])
    with pytest.raises(kg.InputError, match=rf"d.jsonl line 2: .*{says}"):
        kg.read_prompts(path)


@pytest.mark.parametrize(
    "answers",
    ['["New York City", "NYC"]', "['New York City', 'NYC']", "('New York City', 'NYC')",
     [" New York City", "NYC "], "New York City | NYC", "\ufeffNew York City|\u200bNYC"],
)  # fmt: skip
def test_white_space_and_lists_written_as_text(tmp_path, answers):
    row = {"text": "Mara Quill lives in", "subject": "Mara Quill ", "answers": answers}
    (prompt,), said = read(written(tmp_path, "d.jsonl", [row]))
    assert prompt.answers == ("New York City", "NYC")
    assert prompt.span_text("subject") == "Mara Quill"
    assert said == []


def test_a_prompt_from_python_is_stripped_in_the_same_place(tiny_tokenizer):
    text = "The capital of France is"
    for span in ("France ", " France", (14, 22), (15, 22)):
        prompt = kg.Prompt(text, spans={"subject": span}, answers=[" Paris "])
        assert prompt.span_text("subject") == "France"
        assert prompt.answers == ("Paris",)
        assert kg.token_positions(prompt, "subject_last", tiny_tokenizer, True) == (4,)
    for answers in ([""], [" "], ["Paris", "\u200b"], ['["Paris"]']):
        with pytest.raises(kg.InputError, match=r"answer \d of 'The capital of France is'"):
            kg.Prompt(text, answers=answers)


@pytest.mark.parametrize("span", ["0:4", "[0, 4]", "(0, 4)", " 0 : 4 "])
def test_a_csv_gives_spans_and_lists(tmp_path, span):
    cells = [["text", " answers ", "subject_span", "spans"],
             ["Rome is in", '["Italy", "Lazio"]', span, '{"verb": [5, 7]}']]  # fmt: skip
    made = io.StringIO()
    csv.writer(made).writerows(cells)
    path = tmp_path / "s.csv"
    path.write_bytes(b"\xef\xbb\xbf" + made.getvalue().encode())
    (prompt,) = kg.read_prompts(path)
    assert prompt.spans == {"verb": (5, 7), "subject": (0, 4)}
    assert prompt.answers == ("Italy", "Lazio")


def test_columns_name_nested_fields_and_unread_ones_are_said_once(tmp_path):
    rows = [{"text": f"{n} is in", "who": {"name": n, "of": [{"str": c}]}, "note": 1, "year": 2}
            for n, c in (("Rome", "Italy"), ("Lima", "Peru"))]  # fmt: skip
    columns = {"who.name": "subject", "who.of.0.str": "answers"}
    prompts, said = read(written(tmp_path, "n.jsonl", rows), columns=columns)
    found = [(p.span_text("subject"), p.answers) for p in prompts]
    assert found == [("Rome", ("Italy",)), ("Lima", ("Peru",))]
    assert said == ["n.jsonl: columns that are not read: 'note', 'year'"]
    for says, columns in (
        ("no row of n.jsonl has the column 'who.nam'", {"who.nam": "subject"}),
        ("field 'anwers'; did you mean 'answers'", {"note": "anwers"}),
        ("two columns are to be 'answers'", {"note": "answers", "year": "object"}),
    ):
        with pytest.raises(kg.InputError, match=says):
            kg.read_prompts(tmp_path / "n.jsonl", columns=columns)


def test_repeated_prompts_are_numbered_and_named_with_their_lines(tmp_path):
    rows = [{"text": "Rome is in", "answers": ["Italy"]}, {"text": "Lima is in"},
            {"text": "Rome is in", "answers": ["Lazio"]}, {"text": "Rome is in"}]  # fmt: skip
    prompts, said = read(written(tmp_path, "r.jsonl", rows))
    first = prompts[0].id
    assert [p.id for p in prompts] == [first, prompts[1].id, f"{first}-2", f"{first}-3"]
    assert [p.answers for p in prompts] == [("Italy",), (), ("Lazio",), ()]
    assert len(said) == 1
    assert "numbered 2 of 4" in said[0]
    assert "r.jsonl line 1 and r.jsonl line 3" in said[0]
    named = [{"id": "a", "text": "Rome is in"}, {"id": "a", "text": "Lima is in"},
             {"id": "a-2", "text": "Oslo is in"}]  # fmt: skip
    assert [p.id for p in read(written(tmp_path, "i.jsonl", named))[0]] == ["a", "a-3", "a-2"]
    named.append({"id": "b", "text": "Bonn is in", "swap": "a"})
    with pytest.raises(kg.InputError, match=r"line 4.*'a', an id at .*line 1.*line 2"):
        kg.read_prompts(written(tmp_path, "i.jsonl", named))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "holds no prompts"),
        (" \n", "holds no prompts"),
        ("[]", "holds no prompts"),
        ('[{"text": "a"},\n 3]', r"row 2 \(line 2\) is not a JSON object"),
        ('[{"text": "a"},\n {"text": "b"}', "neither goes on nor ends"),
        ('[{"text": "a"}] x', "neither goes on nor ends"),
        ('[{"text": "a"},]', "not JSON"),
        ('[{"text": "a"},\n\n {"text": NaN}]', r"row 2 \(line 3\) is not JSON \(NaN"),
        ('{"a": [{"text": "a"}],\n "b": [{"text": "b"}]}', "several lists"),
        ("3", "not a JSON object"),
        ("[" * 100000, "not JSON|nested too deeply"),
    ],
)
def test_a_bad_json_file(tmp_path, content, says):
    path = tmp_path / "b.json"
    path.write_text(content)
    with pytest.raises(kg.InputError, match=says):
        kg.read_prompts(path)


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_json_as_programs_write_it(tmp_path, ends):
    path = tmp_path / "j.json"
    lines = ['{"text": "Rome is in"}', '{"text": "Lima is in"}']
    for content in (ends.join(lines), f"[{ends}{(',' + ends).join(lines)}{ends}]",
                    f'{{"data": [{",".join(lines)}]}}'):  # fmt: skip
        path.write_bytes(b"\xef\xbb\xbf" + content.encode())
        assert [p.text for p in kg.read_prompts(path)] == ["Rome is in", "Lima is in"]


def test_names_that_look_alike_are_told_apart():
    said = str(unknown("position", "Ma\u0301laga", ["M\u00e1laga", "last"]))
    assert "It is in NFC and the other in NFD" in said
    assert "look alike" not in str(unknown("position", "Malag", ["Malaga", "last"]))


def test_known_without_answers_says_so(tmp_path, tiny_llama):
    path = written(tmp_path, "n.jsonl", [{"text": "Rome is in"}, {"text": "Lima is in"}])
    with pytest.raises(kg.InputError, match="none of the 2 prompts has an answer.*--column"):
        choose_prompts(Spec(prompts=str(path), known=True), tiny_llama)
    with pytest.raises(kg.InputError, match="none of the 2 prompts has an answer"):
        kg.known(tiny_llama, kg.read_prompts(path))


def test_columns_and_template_from_the_shell(tmp_path, monkeypatch):
    path = written(tmp_path, "P36.jsonl", [{"who": "Oro", "city": "Lima"}])
    seen = []
    monkeypatch.setattr(sweeps, "sweep_and_draw", lambda _, __, flags, *___: seen.append(flags))
    sweeps.sweep(prompts=str(path), column=["who=subject", "city=answers"], template="{} is in")
    settings = {name: seen[0][name] for name in ("prompts", "columns", "template")}

    (prompt,) = choose.named(read_spec(None, settings), None)
    assert (prompt.text, prompt.span_text("subject")) == ("Oro is in", "Oro")
    assert prompt.answers == ("Lima",)
    with pytest.raises(kg.InputError, match="--column is 'who'"):
        sweeps.sweep(column=["who"])
