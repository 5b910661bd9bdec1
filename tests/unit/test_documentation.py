"""README and documentation: every block runs, every command parses, every link leads somewhere.

Each check is a function from a text to a list of faults. The tests ask for none in the pages, and
for one in a text with a planted fault, so that none of them can pass by looking at nothing.
"""

import inspect
import json
import re
import runpy
import shlex
import types
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import knockgrid as kg

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
BESIDE = [path for path in sorted(ROOT.glob("*.md")) if path.name != "CHANGELOG.md"]
PYTHON = {"python", "py", "python3", "ipython", "pycon"}
PROSE = 40
"""Lines of prose, at most, before something that is none."""


@dataclass(frozen=True)
class Block:
    """A fenced or indented block: what is written after its fence, its text, its first line."""

    info: str
    text: str
    line: int


FENCE = re.compile(r"^(\s*)(`{3,}|~{3,}|:{3,})\s*(.*?)\s*$")


def blocks(text):
    """All blocks of a page, those inside colon fences too."""
    found, inside, start, indent, kept = [], None, 0, 0, []
    for number, line in enumerate(text.split("\n"), 1):
        fence = FENCE.match(line)
        if inside is None and fence and fence[2][0] != ":":
            inside, start, indent, kept = fence, number, len(fence[1]), []
        elif inside and fence and fence[2].startswith(inside[2]) and not fence[3]:
            found.append(Block(inside[3], "\n".join(kept), start))
            inside = None
        elif inside:
            kept.append(line[indent:])
    assert inside is None, f"the block in line {start} does not end"
    return found


def without_blocks(text):
    """The lines of a page that are in no fenced block, each with its number."""
    inside = set()
    for block in blocks(text):
        inside |= set(range(block.line, block.line + block.text.count("\n") + 3))
    # An empty block has no text between its fences.
    lines = enumerate(text.split("\n"), 1)
    return [(number, line) for number, line in lines if number not in inside]


def indented(text):
    """Blocks that are indented by four spaces, as the README has them."""
    plain = "\n".join(line for _, line in without_blocks(text))
    return re.findall(r"(?:(?<=\n\n)|^)((?: {4}[^\n]*\n?)+)", plain)


def headings(text):
    """The anchors of a page: headings as GitHub and MyST name them, and explicit targets."""
    found = set()
    for _, line in without_blocks(text):
        if heading := re.match(r"#{1,6} (.+)", line):
            words = re.sub(r"[`*]|\[|\]\([^)]*\)", "", heading[1]).lower()
            slug = re.sub(r"[^\w\- ]", "", words).strip().replace(" ", "-")
            found.add(slug)
        elif target := re.match(r"\(([\w-]+)\)=$", line):
            found.add(target[1])
    return found


# The checks


def unexecuted(text):
    """Python that nobody runs: plain blocks, cells of a page that is no notebook, skipped cells."""
    notebook = text.startswith("---\nfile_format: mystnb\n")
    return [
        f"line {block.line}: {block.info}"
        for block in blocks(text)
        if (
            not notebook or "skip-execution" in block.text
            if block.info.startswith("{code-cell}")
            else PYTHON & set(re.split(r"[{} ]", block.info))
        )
    ]


def not_included(text):
    """Includes of files, and of functions in them, that are not there."""
    found = []
    for block in blocks(text):
        if not block.info.startswith("{literalinclude}"):
            continue
        file = DOCS / block.info.split()[1]
        name = re.search(r":pyobject: (\w+)", block.text)
        if not file.is_file() or name and f"def {name[1]}(" not in read(file):
            found.append(f"line {block.line}: {block.info}")
    return found


def commands_of(line):
    """The calls of knockgrid in a line of shell, each as a list of arguments."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|()")
    lexer.whitespace_split, lexer.commenters = True, "#"
    calls = [[]]
    for word in lexer:
        if re.fullmatch(r"[;&|()]+", word):
            calls.append([])
        else:
            calls[-1].append(word)
    return [call[call.index("knockgrid") + 1 :] for call in calls if "knockgrid" in call]


def shell_calls(text):
    """Every call in the shell blocks of a page, and the error that is shown below it, if one is."""
    shells = ("", "bash", "sh", "shell", "console", "text")
    for block in [*(b.text for b in blocks(text) if b.info in shells), *indented(text)]:
        lines = re.sub(r"\\\n|(?<=&&)\n", " ", block).split("\n")
        for line, below in zip(lines, [*lines[1:], ""], strict=True):
            line = re.sub(r'"?\$\(|\)"?', " ; ", line.removeprefix("$ "))
            line = re.sub(r'"?\$\w+"?', "1", line)  # a variable is some value
            if not re.search(r"(^|[\s;])knockgrid\s", line) or line.startswith("knockgrid:"):
                continue
            shown = below if below.startswith("knockgrid: ") else None
            for call in commands_of(line):
                yield call, shown


def parsed(call):
    """What the command line says of a call, '' where it can be parsed; nothing is carried out."""
    import typer

    from knockgrid.cli.app import app, usage
    from knockgrid.errors import InputError

    group = typer.main.get_command(app)
    try:
        with group.make_context("knockgrid", list(call[:1]), resilient_parsing=False) as context:
            name, command, _ = group.resolve_command(context, list(call[:1]))
            with command.make_context(name, list(call[1:]), parent=context):
                return ""
    except InputError as error:
        return str(error)
    except Exception as error:
        if hasattr(error, "format_message"):
            return str(usage(error))
        if type(error).__name__ == "Exit":  # --help
            return ""
        raise


def unparsed(text):
    """Calls in blocks that would be refused, and shown refusals that would not come."""
    found = []
    for call, shown in shell_calls(text):
        if not call or call[0].startswith("-") and "completion" in call[0]:
            continue
        said = parsed(call)
        if shown is None and said:
            found.append(f"{shlex.join(call)}: {said}")
        elif shown is not None and said:
            start = shown.removeprefix("knockgrid: ").split("…")[0].strip()
            if not said.startswith(start):
                found.append(f"{shlex.join(call)}: {said!r} is not {start!r}")
    return found


def unknown_options(text):
    """Options after a command's name in running text that the command does not have."""
    import typer

    from knockgrid.cli.app import app

    commands = typer.main.get_command(app).commands
    found = []
    for _, line in without_blocks(text):
        for code in re.findall(r"`knockgrid ([^`]+)`", line):
            name, *rest = code.split()
            if name.startswith("-") or name == "COMMAND":
                continue
            if name not in commands:
                found.append(f"knockgrid {name}")
                continue
            params = commands[name].params
            have = {"--help"}.union(*((*one.opts, *one.secondary_opts) for one in params))
            asked = {word.split("=")[0].rstrip(",.;") for word in rest if word.startswith("--")}
            found += [f"knockgrid {name} {option}" for option in sorted(asked - have)]
    return found


def links(text):
    """Targets of links and pictures in running text, and in the fences that show pictures."""
    lines = "\n".join(line for _, line in without_blocks(text))
    plain = re.sub(r"(`+)[^`].*?\1", "", lines, flags=re.S)
    inline = re.findall(r"\]\(\s*<?([^)\s>]+)>?[^)]*\)", plain)
    shown = [b.info for b in blocks(text) if b.info.startswith(("{figure}", "{image}"))]
    figures = [info.split("}", 1)[1].strip() for info in shown]
    return inline + re.findall(r"<(https?://[^>]+)>", plain) + [f for f in figures if f]


def broken(text, folder=ROOT):
    """Links that lead nowhere: files and anchors that do not exist, addresses that cannot be."""
    return [f"{target}: {why}" for target in links(text) if (why := fault_of(target, text, folder))]


def fault_of(target, text, folder):
    """Why a link of a page in a folder leads nowhere, if it does."""
    if "://" in target:
        address = urlsplit(target)
        host = address.hostname or ""
        sound = address.scheme == "https" and "." in host and target[-1] not in ".,;'\""
        return None if sound else "it is no https address"
    if target.startswith("mailto:"):
        return "no address of a person"
    path, _, anchor = target.partition("#")
    file = folder / path if path else None
    if file is not None and not file.exists():
        return "there is no such file"
    reach = DOCS if folder == DOCS else ROOT
    if file is not None and reach not in [file.resolve(), *file.resolve().parents]:
        return f"it is outside {reach.name}"
    if anchor and (file is None or file.suffix == ".md"):
        there = headings(text if file is None else read(file))
        return None if anchor in there else "there is no such heading"
    return None


def long_prose(text, most=PROSE):
    """Stretches of prose without a picture, a table, a block, or a list item with code."""
    plain, found, length = without_blocks(text), [], 0
    last = 0
    for number, line in plain:
        relief = number > last + 1 or re.match(r"\s*(\||!\[|<img)", line)
        item = re.match(r"\s*([-*]|\d+\.) .*`", line)
        length = 0 if relief or item else length + bool(line.strip())
        if line.strip() and length == most + 1:
            found.append(f"line {number}: more than {most} lines of prose")
        last = number
    return found


def unreachable(pages, start="index"):
    """Pages that no toctree leads to, and entries of toctrees without a page; {name: text}."""
    seen, todo, missing = set(), [start], []
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        for entry in entries(pages[name]):
            shape = re.escape(entry).replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
            found = [each for each in pages if re.fullmatch(shape, each)]
            todo += found
            missing += [] if found else [f"{name} names {entry}, which is no page"]
    return missing + [f"no toctree leads to {each}" for each in sorted(set(pages) - seen)]


def entries(text):
    """The pages that the toctrees of a page name, as patterns where they are globbed."""
    for block in blocks(text):
        for line in block.text.split("\n") if block.info.startswith("{toctree}") else ():
            entry = re.sub(r".*<(.+)>$", r"\1", line.strip())
            entry = entry.removesuffix(".md").removesuffix(".ipynb")
            if entry and not entry.startswith(":") and "://" not in entry and entry != "self":
                yield entry


# The pages


def read(path):
    return path.read_text("utf-8")


# The pages

page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
beside = pytest.mark.parametrize("path", [*PAGES, *BESIDE], ids=lambda path: path.stem)


@page
@pytest.mark.parametrize("check", [unexecuted, not_included, long_prose])
def test_pages_run_and_show_what_is_there(path, check):
    assert check(read(path)) == []


@beside
@pytest.mark.parametrize("check", [unparsed, unknown_options])
def test_commands_are_ones_that_the_command_line_takes(path, check):
    assert check(read(path)) == []


@beside
def test_links_lead_somewhere(path):
    assert broken(read(path), path.parent) == []


def test_every_page_can_be_reached():
    deeper = [path for path in DOCS.rglob("*.md") if "_build" not in path.parts]
    pages = {path.relative_to(DOCS).with_suffix("").as_posix(): read(path) for path in deeper}
    notebooks = {path.stem: "" for path in DOCS.glob("*.ipynb")}
    assert unreachable({**notebooks, **pages}) == []


def test_every_study_is_shown_on_a_page():
    from knockgrid.cli.reproduce import studies

    text = "".join(map(read, PAGES))
    assert [name for name in studies() if f"../experiments/{name}.py" not in text] == []


def test_the_reference_holds_every_public_name_once():
    conf = runpy.run_path(str(DOCS / "conf.py"))
    rooms = conf["names_by_room"]()
    asked = conf["ROOM"].findall(read(DOCS / "reference.md"))
    assert sorted(asked) == sorted(rooms)
    names = [name for some in rooms.values() for name in some]
    assert len(set(names)) == len(names)
    drawers = [name for name in kg.__all__ if isinstance(getattr(kg, name), types.ModuleType)]
    every = {f"knockgrid.{name}" for name in kg.__all__ if name not in drawers}
    for drawer in drawers:
        exported = getattr(kg, drawer).__all__
        every |= {f"knockgrid.{drawer}.{name}" for name in exported if name not in kg.__all__}
    assert set(names) == every
    for name in names:
        assert conf["entry"](name).startswith((".. autofunction::", ".. autoclass::"))


def test_the_checks_see_something():
    """A page that is parsed wrongly has no faults either."""
    calls = [call for path in [*PAGES, *BESIDE] for call, _ in shell_calls(read(path))]
    assert {call[0] for call in calls if call} >= {"sweep", "verify", "evidence", "facts", "figure"}
    demo = ["sweep", "--model", "demo", "--prompts", "facts.jsonl", "--known"]
    assert [*demo, "--dry-run"] in calls
    assert any("ray:address=10.0.0.1:6379" in call for call in calls), (
        "a line that goes on is read whole"
    )
    assert sum(len(links(read(path))) for path in [*PAGES, *BESIDE]) > 50
    assert sum("{code-cell}" in b.info for path in PAGES for b in blocks(read(path))) > 20


# The checks, on planted faults

CELL = "---\nfile_format: mystnb\n---\n\n```{code-cell} python\nimport knockgrid\n```\n"
LONG = [("", "word\n"), ("| a |\n", "word\n\n"), ("", "- word\n")]
INCLUDE = "```{literalinclude} ../experiments/paths.py\n:pyobject: make\n```\n"


def bash(*lines):
    return [f"```bash\n{line}\n```\n" for line in lines]


def link(*targets):
    return [f"# Here\n\n[a]({target})\n" for target in targets]


def in_docs(text):
    return broken(text, DOCS)


def with_pages(**pages):
    """The check of the toctrees, with the planted text as the index of these pages."""
    return lambda text: unreachable({"index": text, **pages})


TREE = "```{toctree}\n%s\n```\n"
PLANTED = {
    unexecuted: [
        "a\n\n```python\nimport knockgrid\n```\n",
        "a\n\n````{code-block} python\nimport knockgrid\n````\n",
        ":::{note}\n```py\n1\n```\n:::\n",
        CELL.removeprefix("---\nfile_format: mystnb\n---\n"),
        CELL.replace("import", ":tags: [skip-execution]\nimport"),
    ],
    not_included: [INCLUDE.replace("paths", "nowhere"), INCLUDE.replace("make", "nothing")],
    unparsed: [
        *bash("knockgrid swep", "knockgrid figure", "knockgrid sweep --samples many"),
        *bash("A=1 exec knockgrid sweep --modle demo"),
        *bash("knockgrid sweep --model demo \\\n  --no-such-thing 3 &"),
        *bash('run=$(knockgrid sweep --jsonn) && knockgrid verify "$run"'),
        *bash("torchrun --no-python \\\n  knockgrid sweep --shart auto"),
        "    knockgrid facts --relations x      # indented\n",
        "```console\n$ knockgrid swep\nknockgrid: no such command 'sweep'; …\n```\n",
    ],
    unknown_options: ["See `knockgrid verify --jsonn`.\n", "See `knockgrid verfy RUN`.\n"],
    broken: [
        *link("docs/nowhere.md", "docs/guarantees.md#nowhere", "#there", "../pyproject.toml"),
        *link("http://docs.python.org", "https://nowhere"),
        "<http://docs.python.org>\n",
        "![a](docs/figures/nowhere.png)\n",
    ],
    in_docs: [*link("../README.md"), "```{figure} figures/nowhere.png\n```\n"],
    long_prose: [a + b * (PROSE + 1) for a, b in LONG],
    with_pages(a="", b=""): [TREE % "a"],
    with_pages(a=""): [TREE % "a\nc"],
    with_pages(**{"a": "", "d/b": ""}): [TREE % ":glob:\n*"],
}
FINE = {
    unexecuted: [CELL, *bash("ls")],
    not_included: [INCLUDE, INCLUDE.replace(":pyobject: make\n", "")],
    unparsed: [
        *bash("knockgrid sweep --model demo --out runs/a  # again: goes on"),
        *bash("knockgrid export runs/a --out a.csv | wc -l"),
        "```console\n$ knockgrid swep\nknockgrid: no such command 'swep'; did …\n```\n",
    ],
    unknown_options: ["See `knockgrid sweep --out RUN`, `knockgrid COMMAND --help`.\n"],
    broken: [
        "# A b, `c`\n\n[a](#a-b-c) [b](https://docs.python.org/3/)\n",
        "`[a](nowhere)`\n\n```text\n[a](nowhere)\n```\n",
    ],
    long_prose: ["word\n" * PROSE + "```text\n```\n" + "word\n" * PROSE, "- `word`\n" * 99],
    with_pages(a="", b=""): [TREE % ":glob:\n*"],
    with_pages(a=TREE % "b", b=""): [TREE % ":caption: Start\nTitle <a>"],
}


def cases(planted):
    return [(check, text) for check, texts in planted.items() for text in texts]


@pytest.mark.parametrize(("check", "text"), cases(PLANTED))
def test_a_planted_fault_is_seen(check, text):
    assert len(check(text)) == 1


@pytest.mark.parametrize(("check", "text"), cases(FINE))
def test_what_is_right_passes(check, text):
    assert check(text) == []


# The README's code


def test_the_readme_runs(demo_model, monkeypatch, tmp_path):
    """Its blocks in order, as they stand, on fewer layers and with the model of all tests."""
    import knockgrid as kg

    found = [block for block in blocks(read(ROOT / "README.md")) if block.info == "python"]
    assert len(found) >= 3
    swept, loaded, tables = kg.sweep, [], []

    def few(model, prompts, rows, *, layers, **options):
        """The same calls on fewer layers."""
        layers = [0, 12, 24] if layers == "all" else layers[::2]
        tables.append(swept(model, prompts, rows, layers=layers, **options))
        return tables[-1]

    def trusted(*_, **__):
        """No trial of the executor, which costs more than these sweeps."""
        return kg.executors.staircase, {"executor": "staircase", "tried": [], "unseen": []}

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("knockgrid.engine.setup.choose", trusted)
    monkeypatch.setattr(kg, "sweep", few)
    monkeypatch.setattr(kg, "load", lambda name: loaded.append(name) or demo_model)
    names: dict = {}
    for block in found:
        place = f"README.md, line {block.line}"
        exec(compile("\n" * block.line + block.text, place, "exec"), names)
    assert loaded == ["demo"]
    assert (tmp_path / "flow.pdf").read_bytes().startswith(b"%PDF")
    manifest = json.loads((tmp_path / "runs/mine/manifest.json").read_text("utf-8"))
    assert manifest["finished"]
    flow, own, kept = tables
    assert flow.groupby("intervention")["js"].max().min() > 0
    assert flow["js"].max() > 0.1
    assert (own["status"] == "ok").all()
    assert names["table"].equals(kept)


def test_the_script_of_the_ray_page_runs_but_for_ray(tiny_llama, monkeypatch, tmp_path):
    """Ray itself is in `test_ray.py`."""
    import knockgrid as kg

    swept, calls = kg.sweep, []

    def here(model, prompts, rows, *, out, engine):
        """The same sweep by this process."""
        calls.append((model, engine))
        return swept(tiny_llama, prompts, rows, layers=[0, 1], out=out, progress=False)

    monkeypatch.chdir(tmp_path)
    line = {"text": "The capital of Italy is", "subject": "Italy", "answers": ["Rome"]}
    (tmp_path / "prompts.jsonl").write_text(json.dumps(line), "utf-8")
    monkeypatch.setattr(kg, "sweep", here)
    table = runpy.run_path(str(ROOT / "experiments/ray_sweep.py"), run_name="__main__")["table"]
    ((model, engine),) = calls
    assert model.func is kg.load
    inspect.signature(kg.load).bind(*model.args, **model.keywords)
    assert engine == kg.runs.RayEngine(workers=4, cpus=2)
    assert kg.open_run(tmp_path / "runs/big").equals(table)
