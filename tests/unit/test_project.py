"""Guards of the project itself: the way of the imports, sizes, names, start-up cost, versions.

Each check of the source tree is a function of the tree's folder, so that a second test can feed it
a small tree with the fault planted: no guard counts until it has been seen to fail.
"""

import ast
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import version
from pathlib import Path
from textwrap import fill

import pytest
import wheel_contents
import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
# `nox -s tests` takes src/ away from beside the tests, and says where the guards may read it.
SOURCE = Path(os.environ.get("KNOCKGRID_SOURCE") or ROOT / "src" / "knockgrid")

# The rooms, in the way the data go, with the rooms that each may import from (and from itself).
# `errors` is open to all. A new room, or a new arrow, gets its place here and in its `__init__`.
BELOW = {
    "errors": "",
    "display": "",
    "host": "display",
    "prompts": "display",
    "passes": "display host prompts",
    "table": "display",
    "sources": "passes prompts",
    "edits": "display host passes prompts sources table",
    "divergences": "table",
    "engine": "display divergences edits host passes prompts sources spec table",
    "stats": "table",
    "figures": "display stats table",
    "evidence": "display edits engine host passes prompts sources spec stats table",
    "runs": "display divergences edits engine evidence host passes prompts sources spec table",
    "spec": "divergences edits host prompts table",
    "sweep": "edits engine prompts runs spec table",
    "reports": "display edits evidence figures runs spec stats table",
    "cli": "display edits engine evidence figures host passes prompts reports runs sources spec "
    "stats sweep table",
    "__init__": "",  # the public names, which are loaded on first use
}
ROOMS = {room: {"errors", *below.split()} - {room} for room, below in BELOW.items()}
MOST_ROOMS, MOST_FLOORS, MOST_FLAT, LARGEST = 20, 12, 4, 0.25
FACE = {
    ("__init__", "knockgrid.display.progress")
}  # in a notebook, before another package loads a bar
DRAWING = {"matplotlib", "seaborn"}
DRAWING_ROOMS = {"figures", "reports", "cli"}
MODELS = {"torch", "transformer_lens", "transformers", "tokenizers", "accelerate"}
HEAVY = MODELS | DRAWING | {"pandas", "pyarrow", "scipy", "sklearn", "datasets", "duckdb", "ray"}

LONGEST = 400
SAYS_NOTHING = {"util", "utils", "helper", "helpers", "common", "misc"}
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b")


def modules(source: Path) -> list[Path]:
    """All Python files and stubs of the package, none skipped."""
    return sorted([*source.rglob("*.py"), *source.rglob("*.pyi")])


def room_of(file: Path, source: Path) -> str:
    return file.relative_to(source).parts[0].split(".")[0]


def imported(file: Path, source: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of each import in a file, wherever it stands in it."""
    package = (source.name, *file.relative_to(source).parent.parts)
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            for name in node.names:
                yield node.lineno, f"{base}.{name.name}"


def imported_room(name: str, source: Path) -> str | None:
    """The room that an imported name lies in; None for other packages."""
    package, *rest = name.split(".")
    if package != source.name:
        return None
    room = rest[0] if rest else "__init__"
    places = [source / room, source / f"{room}.py", source / f"{room}.pyi"]
    return room if room in ROOMS or any(place.exists() for place in places) else "__init__"


def unknown_rooms(source: Path) -> list[str]:
    return [
        f"{room} has no place in BELOW (tests/unit/test_project.py): put it after all it imports"
        for room in sorted({room_of(file, source) for file in modules(source)} - set(ROOMS))
    ]


def wrong_way_imports(source: Path) -> list[str]:
    faults = []
    for file in modules(source):
        room = room_of(file, source)
        for line, name in imported(file, source):
            other = imported_room(name, source)
            if other is None or other == room or file.name == "__init__.pyi":
                continue
            if other in ROOMS.get(room, ()) or (room, name) in FACE:
                continue
            faults.append(f"{file.relative_to(source)}:{line}: {room} may not import {other}")
    return faults


def floors(below: dict[str, set[str]]) -> dict[str, int]:
    """The floor of every room: one above the highest that it may import from.

    Raises:
        graphlib.CycleError: two rooms that may import each other.
    """
    found: dict[str, int] = {}
    for room in TopologicalSorter(below).static_order():
        found[room] = 1 + max((found[other] for other in below.get(room, ())), default=0)
    return found


def too_large_a_house(source: Path) -> list[str]:
    """More rooms, floors or files beside the rooms than fit a glance, or a room that is a house."""
    lines: dict[str, int] = {}
    for file in source.rglob("*.py"):
        room = room_of(file, source)
        lines[room] = lines.get(room, 0) + len(file.read_text(encoding="utf-8").splitlines())
    flat = sorted(path.stem for path in source.glob("*.py"))
    rooms = sorted(set(lines) - set(flat))
    total = max(sum(lines.values()), 4 * LONGEST)
    faults = [
        f"{room}: {n} of {total} lines; split it"
        for room, n in lines.items()
        if n > LARGEST * total
    ]
    if len(rooms) > MOST_ROOMS:
        faults.append(f"{len(rooms)} rooms, at most {MOST_ROOMS}: {', '.join(rooms)}")
    if len(flat) > MOST_FLAT:
        faults.append(f"{len(flat)} files beside the rooms, at most {MOST_FLAT}: {', '.join(flat)}")
    return faults


def rooms_without_a_sign(source: Path) -> list[str]:
    """Rooms whose `__init__` does not say, in its last sentence, what they may import."""
    faults = []
    for room in ROOMS:
        file = source / room / "__init__.py"
        text = file.read_text(encoding="utf-8") if file.exists() else None
        if text is not None and sign(room) not in (ast.get_docstring(ast.parse(text)) or ""):
            faults.append(f"{room}/__init__.py: end its docstring with: {sign(room)}")
    return faults


def sign(room: str) -> str:
    """What a room may import, as its docstring says it, in lines as ruff wants them."""
    return fill(f"It may import {', '.join(f'`{one}`' for one in sorted(ROOMS[room]))}.", 99)


def drawing_outside_figures(source: Path) -> list[str]:
    faults = []
    for file in modules(source):
        room = room_of(file, source)
        for line, name in imported(file, source):
            if name.split(".")[0] in DRAWING and room not in DRAWING_ROOMS:
                faults.append(f"{file.relative_to(source)}:{line}: {room} draws ({name})")
    return faults


def figures_that_see_a_model(source: Path) -> list[str]:
    """Imports of a model package in `figures` or in any room that `figures` reaches."""
    faults, waiting, seen = [], ["figures"], {"figures"}
    while waiting:
        room = waiting.pop()
        for file in modules(source):
            if room_of(file, source) != room:
                continue
            for line, name in imported(file, source):
                if name.split(".")[0] in MODELS:
                    faults.append(f"{file.relative_to(source)}:{line}: figures reach {name}")
                other = imported_room(name, source)
                if other is not None and other not in seen:
                    seen.add(other)
                    waiting.append(other)
    return faults


PLAIN = {
    "transformer_lens": {"ActivationCache", "model_bridge.TransformerBridge"},
    "transformers": {
        *("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer", "PreTrainedTokenizerFast"),
        *("LlamaConfig", "LlamaForCausalLM", "utils.logging"),
    },
}


def inside_the_hosts(source: Path) -> list[str]:
    """Imports of what TransformerLens and `transformers` keep inside, outside the room for it."""
    return [
        f"{file.relative_to(source)}:{line}: {name} may change any week; ask for it in host/"
        for file in modules(source)
        for line, name in imported(file, source)
        if name.split(".")[0] in PLAIN and room_of(file, source) != "host"
        if name.partition(".")[2] not in PLAIN[name.split(".")[0]]
    ]


def long_modules(source: Path) -> list[str]:
    lengths = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in modules(source)}
    return [
        f"{file.relative_to(source)}: {length} lines, at most {LONGEST}: split it along the data"
        for file, length in lengths.items()
        if length > LONGEST
    ]


def names_that_say_nothing(source: Path) -> list[str]:
    return [
        f"{path.relative_to(source)}: name it after what it does"
        for path in sorted(source.rglob("*"))
        if path.name.split(".")[0].strip("_").lower() in SAYS_NOTHING
    ]


def unfinished_work(source: Path) -> list[str]:
    return [
        f"{file.relative_to(source)}:{number}: {line.strip()}"
        for file in modules(source)
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if UNFINISHED.search(line)
    ]


PICKLING = {"runs/ray_actor.py"}  # what the driver itself has sent through Ray, never a file
PICKLES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
RUNS_CODE = {
    *("eval", "exec", "compile", "__import__"),  # not `model.eval` or `re.compile`
    *("os.system", "os.popen", "pd.read_pickle", "pandas.read_pickle"),
}
UNSAFE_YAML = {"load", "load_all", "full_load", "unsafe_load", "full_load_all", "unsafe_load_all"}
OPENS_A_DOOR = {"trust_remote_code": True, "allow_pickle": True, "shell": True}


def opens_a_door(call: ast.Call) -> str | None:
    """What lets data run as code in one call, if anything does; a value not known yet counts."""
    words = {word.arg: ast.unparse(word.value) for word in call.keywords}
    for door in OPENS_A_DOOR:
        if words.get(door, "False") != "False":
            return f"{door}={words[door]}"
    name = ast.unparse(call.func)
    owner, _, last = name.rpartition(".")
    if name.removeprefix("builtins.") in RUNS_CODE:
        return name
    if owner.endswith("torch") and last == "load" and words.get("weights_only") != "True":
        return f"{name} without weights_only=True"
    return name if owner == "yaml" and last in UNSAFE_YAML else None


def code_from_data(source: Path) -> list[str]:
    """Whatever could run what a prompt file, a settings file, a run folder or a model brings."""
    faults = []
    for file in modules(source):
        place = file.relative_to(source)
        room = place.as_posix()
        for line, name in imported(file, source):
            # the names of errors are the only things of pickle that are needed elsewhere
            if name in ("pickle.UnpicklingError", "pickle.PicklingError") or room in PICKLING:
                continue
            if name.split(".")[0] in PICKLES:
                faults.append(f"{place}:{line}: {name} can run code from data")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and (how := opens_a_door(node)):
                faults.append(f"{place}:{node.lineno}: {how} can run code from data")
    return faults


CHECKS = (
    unknown_rooms,
    wrong_way_imports,
    too_large_a_house,
    rooms_without_a_sign,
    drawing_outside_figures,
    figures_that_see_a_model,
    inside_the_hosts,
    long_modules,
    names_that_say_nothing,
    unfinished_work,
    code_from_data,
)
PLANTED = (
    (unknown_rooms, "new.py", ""),
    (unknown_rooms, "new/file.py", ""),
    (wrong_way_imports, "prompts/prompt.py", "from knockgrid.passes.run import Run"),
    (wrong_way_imports, "prompts/prompt.py", "from ..passes.run import Run"),
    (wrong_way_imports, "passes/run.py", "def f():\n    from knockgrid import sweep"),
    (wrong_way_imports, "host/bridge.py", "import knockgrid"),
    (wrong_way_imports, "host/bridge.py", "from knockgrid import load"),
    (wrong_way_imports, "host/bridge.py", "import knockgrid.engine.executors.reference"),
    (wrong_way_imports, "sources/zero.py", "from ..edits import patch"),
    (wrong_way_imports, "sources/__init__.py", "from ..edits import patch"),
    (wrong_way_imports, "evidence/labels.py", "from knockgrid.runs.store import open_run"),
    (wrong_way_imports, "prompts/prompt.py", "from knockgrid.new import thing"),
    (wrong_way_imports, "evidence/labels.py", "from knockgrid.figures import panels"),
    *(
        (wrong_way_imports, f"{room}/planted.py", "import knockgrid.cli")
        for room in BELOW
        if room not in ("errors", "sweep", "cli", "__init__")
    ),
    (too_large_a_house, "table/long.py", "x = 1\n" * 401),
    (too_large_a_house, "six.py", ""),
    (rooms_without_a_sign, "table/__init__.py", '"""The table."""'),
    (drawing_outside_figures, "evidence/labels.py", "import seaborn as sns"),
    (drawing_outside_figures, "sweep.py", "import matplotlib.pyplot as plt"),
    (figures_that_see_a_model, "figures/heat.py", "import torch"),
    (figures_that_see_a_model, "figures/heat.py", "from transformer_lens import utilities"),
    (figures_that_see_a_model, "table/table.py", "import torch"),
    (inside_the_hosts, "passes/run.py", "from transformers.cache_utils import Cache"),
    (inside_the_hosts, "passes/run.py", "from transformers import DynamicCache"),
    (inside_the_hosts, "passes/run.py", "import transformers"),
    (inside_the_hosts, "engine/run.py", "from transformer_lens.utilities import get_act_name"),
    (inside_the_hosts, "runs/speed.py", "def f():\n    import transformer_lens.tools"),
    (long_modules, "prompts/prompt.py", "\n" * 401),
    (names_that_say_nothing, "utils.py", ""),
    (names_that_say_nothing, "figures/_helpers.py", ""),
    (names_that_say_nothing, "common/_file.py", ""),
    (unfinished_work, "prompts/prompt.py", "x = 1  # TODO: more"),
    (unfinished_work, "prompts/prompt.py", "raise NotImplementedError"),
    (code_from_data, "prompts/prompt.py", "import pickle"),
    (code_from_data, "prompts/prompt.py", "def f():\n    from pickle import loads"),
    (code_from_data, "prompts/prompt.py", "import joblib"),
    (code_from_data, "host/bridge.py", "import torch\ntorch.load('w.bin')"),
    (code_from_data, "host/bridge.py", "import torch\ntorch.load('w.bin', weights_only=False)"),
    (code_from_data, "host/bridge.py", "load('m', trust_remote_code=True)"),
    (code_from_data, "host/bridge.py", "load('m', trust_remote_code=given)"),
    (code_from_data, "table/table.py", "import numpy as np\nnp.load('a.npy', allow_pickle=True)"),
    (code_from_data, "table/table.py", "import pandas as pd\npd.read_pickle('a.csv')"),
    (code_from_data, "runs/study.py", "import yaml\nyaml.load('a: b', yaml.SafeLoader)"),
    (code_from_data, "runs/study.py", "import yaml\nyaml.unsafe_load('a: b')"),
    (code_from_data, "runs/study.py", "x = eval('1')"),
    (code_from_data, "runs/study.py", "exec('x = 1')"),
    (code_from_data, "runs/study.py", "import subprocess\nsubprocess.run('ls', shell=True)"),
    (code_from_data, "runs/study.py", "import os\nos.system('ls')"),
)
SOUND = {
    "__init__.py": "import lazy_loader",
    "__init__.pyi": "from .prompts.prompt import Prompt\nfrom .runs.store import open_run",
    "errors.py": "import difflib",
    "sweep.py": "from knockgrid.engine.in_memory import sweep_in_memory",
    "spec.py": "",
    "prompts/prompt.py": "class Prompt: ...",
    "host/bridge.py": "import torch\nfrom pickle import UnpicklingError\n\n"
    "from knockgrid.errors import InputError\n\ntorch.load('w.bin', weights_only=True)\n"
    "load('m', trust_remote_code=False)\nmodel.eval()",
    "passes/run.py": "from knockgrid.host.bridge import load\nfrom transformers import AutoConfig",
    "host/cache.py": "from transformers.cache_utils import Cache",
    "table/table.py": "import pandas",
    "table/__init__.py": f'"""The table.\n\n{sign("table")}\n"""',
    "sources/__init__.pyi": "from .zero import zero",
    "sources/zero.py": "from knockgrid.passes.run import Run",
    "edits/patch.py": "from knockgrid.sources.zero import zero",
    "figures/heat.py": "import matplotlib\n\nfrom knockgrid.table.table import grid",
    "evidence/labels.py": "from knockgrid.table.table import grid",
    "cli/app.py": "from knockgrid import sweep\nfrom knockgrid.sweep import sweep",
    "runs/store.py": "from knockgrid.table.table import grid",
}


def plant(source: Path, file: str, text: str) -> None:
    (source / file).parent.mkdir(parents=True, exist_ok=True)
    (source / file).write_text(text, encoding="utf-8")


@pytest.fixture
def sound_tree(tmp_path: Path) -> Path:
    source = tmp_path / "knockgrid"
    for file, text in SOUND.items():
        plant(source, file, text)
    return source


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_source_tree(check: Callable[[Path], list[str]]) -> None:
    assert modules(SOURCE), "no source found"
    faults = check(SOURCE)
    assert not faults, "\n" + "\n".join(faults)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_guards_pass_a_sound_tree(check, sound_tree: Path) -> None:
    assert check(sound_tree) == []


@pytest.mark.parametrize(("check", "file", "text"), PLANTED)
def test_guards_see_a_planted_fault(check, file: str, text: str, sound_tree: Path) -> None:
    plant(sound_tree, file, text)
    (fault,) = check(sound_tree)
    assert file.split("/")[0].split(".")[0] in fault


def test_the_house_has_few_floors_and_no_circle() -> None:
    assert max(floors(ROOMS).values()) <= MOST_FLOORS
    with pytest.raises(CycleError):
        floors({**ROOMS, "table": {"stats"}})


def run(*command: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """A finished command and the processor seconds it cost."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    return done, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def script() -> str:
    path = Path(sys.executable).with_name("knockgrid")
    assert path.exists(), f"{path} is missing: install the package into this environment"
    return str(path)


def heavy_imports(*command: str) -> set[str]:
    """The heavy packages that a Python command imports, by the interpreter's own account."""
    done, _ = run(sys.executable, "-X", "importtime", *command)
    names = re.findall(r"^import time:.*\|\s*(\S+)$", done.stderr, re.MULTILINE)
    assert "knockgrid" in names, done.stderr
    return HEAVY & {name.split(".")[0] for name in names}


def cheapest(*command: str) -> float:
    return min(run(*command)[1] for _ in range(3))


def test_import_is_light() -> None:
    assert heavy_imports("-c", "import knockgrid") == set()
    assert cheapest(sys.executable, "-c", "import knockgrid") < 0.5


def test_help_is_light() -> None:
    assert heavy_imports(script(), "--help") == set()
    assert cheapest(sys.executable, script(), "--help") < 1.0


def test_a_heavy_import_is_seen() -> None:
    assert heavy_imports("-c", "import knockgrid, pandas") >= {"pandas"}


def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints" / "py311.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_constraints_are_names_and_versions() -> None:
    text = (ROOT / "constraints" / "py311.txt").read_text(encoding="utf-8")
    assert "://" not in text
    for line in text.splitlines():
        assert re.fullmatch(r"#.*|[A-Za-z0-9_.-]+==[A-Za-z0-9_.!]+", line), line
    assert constraints()["torch"] == "2.13.0"


def test_the_versions_that_doctor_names_are_the_pinned_ones() -> None:
    from knockgrid.host.versions import TESTED

    assert {name: constraints()[name] for name in TESTED} == TESTED


def test_constraints_of_another_python_agree_with_the_common_ones() -> None:
    lines = (ROOT / "constraints" / "py310.txt").read_text(encoding="utf-8").splitlines()
    other = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert other.items() <= constraints().items()
    assert len(constraints()) * 0.7 < len(other) < len(constraints())


def test_every_dependency_is_pinned() -> None:
    def normal(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    project = pyproject()["project"]
    wanted = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    names = {normal(re.match(r"[A-Za-z0-9_.-]+", item).group()) for item in wanted}
    not_here = {"knockgrid", "tomli"}  # the package itself, and what only Python 3.10 needs
    assert names - not_here <= {normal(name) for name in constraints()}


def test_commit_hooks_run_the_pinned_ruff() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    pins = {
        pin
        for repo in hooks["repos"]
        for hook in repo["hooks"]
        for pin in hook["additional_dependencies"]
    }
    assert pins == {f"ruff=={constraints()['ruff']}"}


def test_one_version_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = pyproject()["project"]
    assert str(citation["version"]) == project["version"] == version("knockgrid")
    assert citation["license"] == project["license"]
    assert project["version"] in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_installed_package_is_this_tree() -> None:
    """A stale install, or one without its data files, would make every other test worthless."""
    import knockgrid
    from knockgrid.cli.reproduce import studies

    found = Path(knockgrid.__file__).parent
    if "KNOCKGRID_SOURCE" in os.environ:  # then it is the wheel that is to be tested
        assert not found.samefile(SOURCE), "src/ is on the way of the imports: unset PYTHONPATH"
    tree, installed = wheel_contents.tree(SOURCE), wheel_contents.package(found)
    # in an editable install they are beside the package
    installed |= {f"knockgrid/experiments/{s.name}": s.read_bytes() for s in studies().values()}
    assert {"knockgrid/py.typed", "knockgrid/experiments/paths.py"} <= tree.keys()
    assert sorted(tree) == sorted(installed)
    assert [name for name in tree if tree[name] != installed[name]] == []
