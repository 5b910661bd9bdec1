"""README and documentation: every block runs, every command parses, every link leads somewhere.

Each check is a function from a text to a list of faults. The tests ask for none in the pages, and
for one in a text with a planted fault, so that none of them can pass by looking at nothing. What a
page includes, and whether a toctree leads to it, is for Sphinx to say (`nox -s docs`).
"""

import re
import runpy
import shlex
import types
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import typer
from markdown_it import MarkdownIt  # rich brings it

import knockgrid as kg
from knockgrid.cli.app import app, usage
from knockgrid.cli.reproduce import studies

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
BESIDE = [path for path in sorted(ROOT.glob("*.md")) if path.name != "CHANGELOG.md"]
PYTHON = {"python", "py", "python3", "ipython", "pycon"}


def read(path):
    return path.read_text("utf-8")


def tokens(text, *kinds):
    """The parts of these kinds of a page, and of its lines, in order."""
    lines = text.split("\n")
    for one in MarkdownIt("commonmark").parse(text):
        if one.type == "fence":
            assert lines[one.map[1] - 1].strip() == one.markup, (
                f"the block in {one.map} does not end"
            )
        yield from (part for part in (one, *(one.children or ())) if part.type in kinds)


def prose(text):
    """The numbered lines of a page that are in no block."""
    inside = {i for block in tokens(text, "fence") for i in range(*block.map)}
    return [(i, line) for i, line in enumerate(text.split("\n")) if i not in inside]


def headings(text):
    """The anchors of a page: headings as GitHub and MyST name them, and explicit targets."""
    found = set()
    for _, line in prose(text):
        if heading := re.match(r"#{1,6} (.+)", line):
            words = re.sub(r"[`*]|\[|\]\([^)]*\)", "", heading[1]).lower()
            found.add(re.sub(r"[^\w\- ]", "", words).strip().replace(" ", "-"))
        elif target := re.match(r"\(([\w-]+)\)=$", line):
            found.add(target[1])
    return found


# The checks


def unexecuted(text):
    """Python that nobody runs: plain blocks, cells of a page that is no notebook, skipped cells."""
    notebook = text.startswith("---\nfile_format: mystnb\n")
    return [
        block.info
        for block in tokens(text, "fence")
        if (
            not notebook or "skip-execution" in block.content
            if block.info.startswith("{code-cell}")
            else PYTHON & set(re.split(r"[{} ]", block.info))
        )
    ]


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
    for block in tokens(text, "fence", "code_block"):
        if block.info not in shells:
            continue
        lines = re.sub(r"\\\n|(?<=&&)\n", " ", block.content).split("\n")
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
    group = typer.main.get_command(app)
    try:
        with group.make_context("knockgrid", list(call[:1]), resilient_parsing=False) as context:
            name, command, _ = group.resolve_command(context, list(call[:1]))
            with command.make_context(name, list(call[1:]), parent=context):
                return ""
    except kg.InputError as error:
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
        said, start = parsed(call), (shown or "").removeprefix("knockgrid: ").split("…")[0].strip()
        if said and not (start and said.startswith(start)):
            found.append(f"{shlex.join(call)}: {said}")
    return found


def unknown_options(text):
    """Options after a command's name in running text that the command does not have."""
    commands = typer.main.get_command(app).commands
    found = []
    for code in tokens(text, "code_inline"):
        program, name, *rest = [*code.content.split(), "", ""]
        if program != "knockgrid" or not name or name.startswith("-") or name == "COMMAND":
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
    for one in tokens(text, "link_open", "image", "fence"):
        if one.type != "fence":
            yield one.attrs.get("href") or one.attrs["src"]
        elif shown := re.match(r"\{(?:figure|image)\} *(\S+)", one.info):
            yield shown[1]


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


PROSE = 40
"""Lines of prose, at most, before something that is none."""


def long_prose(text, most=PROSE):
    """Stretches of prose without a picture, a table, a block, or a list item with code."""
    found, length = [], 0
    for line in re.sub(r"^( *)```.*?^\1```$", "```", text, flags=re.M | re.S).split("\n"):
        relief = re.match(r"\s*(\||!\[|<img|```|([-*]|\d+\.) .*`)", line)
        length = 0 if relief else length + bool(line.strip())
        if line.strip() and length == most + 1:
            found.append(f"more than {most} lines of prose, up to {line!r}")
    return found


# The pages


@pytest.mark.parametrize("path", [*PAGES, *BESIDE], ids=lambda path: path.stem)
def test_a_page_has_no_fault(path):
    checks = [unparsed, unknown_options]
    checks += [unexecuted, long_prose] if path in PAGES else []
    faults = {check.__name__: check(read(path)) for check in checks}
    assert not any(faults.values()), faults
    assert broken(read(path), path.parent) == []


def test_every_study_is_shown_on_a_page():
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
    assert any("ray:address=10.0.0.1:6379" in call for call in calls)  # a line that goes on
    assert sum(len(list(links(read(path)))) for path in [*PAGES, *BESIDE]) > 50
    cells = [b for path in PAGES for b in tokens(read(path), "fence") if "{code-cell}" in b.info]
    assert len(cells) > 20


# The checks, on planted faults

CELL = "---\nfile_format: mystnb\n---\n\n```{code-cell} python\nimport knockgrid\n```\n"


LONG = [("", "word\n"), ("| a |\n", "word\n\n"), ("", "- word\n")]


def bash(*lines):
    return [f"```bash\n{line}\n```\n" for line in lines]


def link(*targets):
    return [f"# Here\n\n[a]({target})\n" for target in targets]


def in_docs(text):
    return broken(text, DOCS)


PLANTED = {
    long_prose: [a + b * (PROSE + 1) for a, b in LONG],
    unexecuted: [
        "a\n\n```python\nimport knockgrid\n```\n",
        "a\n\n````{code-block} python\nimport knockgrid\n````\n",
        ":::{note}\n```py\n1\n```\n:::\n",
        CELL.removeprefix("---\nfile_format: mystnb\n---\n"),
        CELL.replace("import", ":tags: [skip-execution]\nimport"),
    ],
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
}
FINE = {
    long_prose: ["word\n" * PROSE + "```text\n```\n" + "word\n" * PROSE, "- `word`\n" * 99],
    unexecuted: [CELL, *bash("ls")],
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
}


@pytest.mark.parametrize(
    ("check", "text", "faults"),
    [(check, text, 1) for check, texts in PLANTED.items() for text in texts]
    + [(check, text, 0) for check, texts in FINE.items() for text in texts],
)
def test_a_planted_fault_is_seen(check, text, faults):
    assert len(check(text)) == faults
