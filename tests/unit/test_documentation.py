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
    found = []
    notebook = text.startswith("---\nfile_format: mystnb\n")
    for block in blocks(text):
        said = f"line {block.line}: {block.info}"
        words = block.info.replace("{", " ").replace("}", " ").split()
        if block.info.startswith("{code-cell}"):
            if not notebook:
                found.append(f"{said}, in a page without `file_format: mystnb`")
            if "skip-execution" in block.text:
                found.append(f"{said} is skipped")
        elif {"python", "py", "python3", "ipython", "pycon"} & set(words):
            found.append(said)
    return found


def commands_of(line):
    """The calls of knockgrid in a line of shell, each as a list of arguments."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|()")
    lexer.whitespace_split, lexer.commenters = True, "#"
    calls, call = [], []
    for word in [*lexer, ";"]:
        if re.fullmatch(r"[;&|()]+", word):
            if "knockgrid" in call:
                calls.append(call[call.index("knockgrid") + 1 :])
            call = []
        else:
            call.append(word)
    return calls


def shell_calls(text):
    """Every call in the shell blocks of a page, and the error that is shown below it, if one is."""
    texts = [
        b.text for b in blocks(text) if b.info in ("", "bash", "sh", "shell", "console", "text")
    ]
    for block in [*texts, *indented(text)]:
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

    from knockgrid.cli.app import app
    from knockgrid.cli.misspelt import usage
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
            have = {opt for param in commands[name].params for opt in param.opts} | {"--help"}
            have |= {opt for param in commands[name].params for opt in param.secondary_opts}
            asked = {word.split("=")[0].rstrip(",.;") for word in rest if word.startswith("--")}
            found += [f"knockgrid {name} {option}" for option in sorted(asked - have)]
    return found


def links(text):
    """Targets of links and pictures in running text, and in the fences that show pictures."""
    lines = "\n".join(line for _, line in without_blocks(text))
    plain = re.sub(r"(`+)[^`].*?\1", "", lines, flags=re.S)
    inline = re.findall(r"\]\(\s*<?([^)\s>]+)>?[^)]*\)", plain)
    figures = [
        b.info.split("}", 1)[1].strip() for b in blocks(text) if b.info.startswith("{figure}")
    ]
    figures += [
        b.info.split("}", 1)[1].strip() for b in blocks(text) if b.info.startswith("{image}")
    ]
    return inline + re.findall(r"<(https?://[^>]+)>", plain) + [f for f in figures if f]


def broken(text, folder):
    """Links that lead nowhere: files and anchors that do not exist, addresses that cannot be."""
    found = []
    for target in links(text):
        if "://" in target:
            address = urlsplit(target)
            host = address.hostname or ""
            if address.scheme != "https" or "." not in host or target[-1] in ".,;'\"":
                found.append(f"{target} is no https address")
            continue
        if target.startswith("mailto:"):
            found.append(f"{target}: no address of a person")
            continue
        path, _, anchor = target.partition("#")
        file = folder / path if path else None
        if file is not None and not file.exists():
            found.append(f"{target}: there is no such file")
        elif file is not None and ROOT not in [file.resolve(), *file.resolve().parents]:
            found.append(f"{target} is outside the project")
        elif folder == DOCS and file is not None and DOCS not in file.resolve().parents:
            found.append(f"{target}: a page of the documentation reaches docs/ only")
        elif anchor and (file is None or file.suffix == ".md"):
            there = headings(text if file is None else file.read_text("utf-8"))
            if anchor not in there:
                found.append(f"{target}: there is no such heading")
    return found


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
        for block in blocks(pages[name]) if pages[name] else []:
            if not block.info.startswith("{toctree}"):
                continue
            entries = [line.strip() for line in block.text.split("\n")]
            globbed = ":glob:" in entries
            for entry in entries:
                if not entry or entry.startswith(":"):
                    continue
                if titled := re.match(r".*<(.+)>$", entry):
                    entry = titled[1]
                entry = entry.removesuffix(".md").removesuffix(".ipynb")
                if "://" in entry or entry == "self":
                    continue
                if globbed and re.search(r"[*?\[]", entry):
                    shape = re.escape(entry).replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
                    todo += [each for each in pages if re.fullmatch(shape, each)]
                elif entry in pages:
                    todo.append(entry)
                else:
                    missing.append(f"{name} names {entry}, which is no page")
    return missing + [f"no toctree leads to {each}" for each in sorted(set(pages) - seen)]


# The pages


def read(path):
    return path.read_text("utf-8")


page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
beside = pytest.mark.parametrize("path", [*PAGES, *BESIDE], ids=lambda path: path.stem)


@page
def test_no_python_is_left_unexecuted(path):
    assert unexecuted(read(path)) == []


@beside
def test_commands_are_ones_that_the_command_line_takes(path):
    assert unparsed(read(path)) == []
    assert unknown_options(read(path)) == []


@beside
def test_links_lead_somewhere(path):
    assert broken(read(path), path.parent) == []


@page
def test_no_page_is_a_wall_of_text(path):
    assert long_prose(read(path)) == []


def test_every_page_can_be_reached():
    pages = {path.relative_to(DOCS).with_suffix("").as_posix(): read(path) for path in PAGES}
    deeper = (path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
    pages |= {path.relative_to(DOCS).with_suffix("").as_posix(): read(path) for path in deeper}
    notebooks = {path.stem: "" for path in DOCS.glob("*.ipynb")}
    assert unreachable({**notebooks, **pages}) == []


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
PLANTED = [
    (unexecuted, "a\n\n```python\nimport knockgrid\n```\n"),
    (unexecuted, "a\n\n````{code-block} python\nimport knockgrid\n````\n"),
    (unexecuted, ":::{note}\n```py\n1\n```\n:::\n"),
    (unexecuted, CELL.removeprefix("---\nfile_format: mystnb\n---\n")),
    (unexecuted, CELL.replace("import", ":tags: [skip-execution]\nimport")),
    (unparsed, "```bash\nknockgrid swep\n```\n"),
    (unparsed, "```bash\nA=1 exec knockgrid sweep --modle demo\n```\n"),
    (unparsed, "```bash\nknockgrid sweep --model demo \\\n  --no-such-thing 3 &\n```\n"),
    (unparsed, "    knockgrid facts --relations x      # indented\n"),
    (unparsed, '```bash\nrun=$(knockgrid sweep --jsonn) && knockgrid verify "$run"\n```\n'),
    (unparsed, "```bash\ntorchrun --no-python \\\n  knockgrid sweep --shart auto\n```\n"),
    (unparsed, "```bash\nknockgrid figure\n```\n"),
    (unparsed, "```bash\nknockgrid sweep --samples many\n```\n"),
    (unparsed, "```console\n$ knockgrid swep\nknockgrid: no such command 'sweep'; …\n```\n"),
    (unknown_options, "See `knockgrid verify --jsonn`.\n"),
    (unknown_options, "See `knockgrid verfy RUN`.\n"),
    (lambda text: broken(text, ROOT), "[a](docs/nowhere.md)\n"),
    (lambda text: broken(text, ROOT), "![a](docs/figures/nowhere.png)\n"),
    (lambda text: broken(text, ROOT), "[a](docs/guarantees.md#nowhere)\n"),
    (lambda text: broken(text, ROOT), "# Here\n\n[a](#there)\n"),
    (lambda text: broken(text, ROOT), "[a](http://docs.python.org)\n"),
    (lambda text: broken(text, ROOT), "[a](https://nowhere)\n"),
    (lambda text: broken(text, ROOT), "<http://docs.python.org>\n"),
    (lambda text: broken(text, ROOT), "[a](../pyproject.toml)\n"),
    (lambda text: broken(text, DOCS), "[a](../README.md)\n"),
    (lambda text: broken(text, DOCS), "```{figure} figures/nowhere.png\n```\n"),
    (long_prose, "word\n" * (PROSE + 1)),
    (long_prose, "| a |\n" + "word\n\n" * (PROSE + 1)),
    (long_prose, "- word\n" * (PROSE + 1)),
    (lambda text: unreachable({"index": text, "a": "", "b": ""}), "```{toctree}\na\n```\n"),
    (lambda text: unreachable({"index": text, "a": ""}), "```{toctree}\na\nc\n```\n"),
    (
        lambda text: unreachable({"index": text, "a": "", "d/b": ""}),
        "```{toctree}\n:glob:\n*\n```\n",
    ),
]
FINE = [
    (unexecuted, CELL),
    (unexecuted, "```bash\nls\n```\n"),
    (unparsed, "```bash\nknockgrid sweep --model demo --out runs/a  # again: goes on\n```\n"),
    (unparsed, "```console\n$ knockgrid swep\nknockgrid: no such command 'swep'; did …\n```\n"),
    (unparsed, "```bash\nknockgrid export runs/a --out a.csv | wc -l\n```\n"),
    (unknown_options, "See `knockgrid sweep --out RUN`, `knockgrid COMMAND --help`.\n"),
    (
        lambda text: broken(text, ROOT),
        "# A b, `c`\n\n[a](#a-b-c) [b](https://docs.python.org/3/)\n",
    ),
    (lambda text: broken(text, ROOT), "`[a](nowhere)`\n\n```text\n[a](nowhere)\n```\n"),
    (long_prose, "word\n" * PROSE + "```text\n```\n" + "word\n" * PROSE),
    (long_prose, "- `word`\n" * (PROSE + 1)),
    (lambda text: unreachable({"index": text, "a": "", "b": ""}), "```{toctree}\n:glob:\n*\n```\n"),
    (
        lambda text: unreachable({"index": text, "a": "```{toctree}\nb\n```\n", "b": ""}),
        "```{toctree}\n:caption: Start\nTitle <a>\n```\n",
    ),
]


@pytest.mark.parametrize(("check", "text"), PLANTED)
def test_a_planted_fault_is_seen(check, text):
    assert len(check(text)) == 1


@pytest.mark.parametrize(("check", "text"), FINE)
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
