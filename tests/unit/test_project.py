"""Guards of the project itself: the way of the imports, sizes, names, start-up cost.

Each check of the source tree is a function of the tree's folder, so that a second test can feed it
a small tree with the fault planted: no guard counts until it has been seen to fail.
"""

import ast
import os
import re
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from textwrap import fill

import pytest

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
    "spec": "display divergences edits host prompts table",
    "sweep": "edits engine prompts runs spec table",
    "reports": "display edits evidence figures runs spec stats table",
    "cli": "display edits engine evidence figures host passes prompts reports runs sources spec "
    "stats sweep table",
    "__init__": "",  # the public names, which are loaded on first use
}
ROOMS = {room: {"errors", *below.split()} - {room} for room, below in BELOW.items()}
MOST_ROOMS, MOST_FLOORS, MOST_FLAT, LARGEST = 20, 12, 4, 0.25
# in a notebook, before another package loads a bar
FACE = {("__init__", "knockgrid.display.progress")}
DRAWING = {"matplotlib", "seaborn"}
DRAWING_ROOMS = {"figures", "reports", "cli"}
MODELS = {"torch", "transformer_lens", "transformers", "tokenizers", "accelerate"}
HEAVY = MODELS | DRAWING | {"pandas", "pyarrow", "scipy", "sklearn", "datasets", "duckdb", "ray"}
LONGEST = 400
SAYS_NOTHING = {"util", "utils", "helper", "helpers", "common", "misc"}
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b")


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def modules(source: Path) -> list[Path]:
    """All Python files and stubs of the package, none skipped."""
    return sorted([*source.rglob("*.py"), *source.rglob("*.pyi")])


def room_of(file: Path, source: Path) -> str:
    return file.relative_to(source).parts[0].split(".")[0]


def imports(source: Path) -> Iterator[tuple[str, str, str]]:
    """Place, room and dotted name of each import, wherever it stands in its file."""
    for file in modules(source):
        package = (source.name, *file.relative_to(source).parent.parts)
        for node in ast.walk(ast.parse(read(file))):
            base = ""
            if isinstance(node, ast.ImportFrom):
                above = package[: len(package) - node.level + 1] if node.level else ()
                base = "".join(f"{part}." for part in (*above, node.module) if part)
            elif not isinstance(node, ast.Import):
                continue
            place = f"{file.relative_to(source).as_posix()}:{node.lineno}"
            yield from ((place, room_of(file, source), base + one.name) for one in node.names)


def imported_room(name: str, source: Path) -> str | None:
    """The room that an imported name lies in; None for other packages."""
    package, *rest = name.split(".")
    if package != source.name:
        return None
    room = rest[0] if rest else "__init__"
    places = [source / room, source / f"{room}.py", source / f"{room}.pyi"]
    return room if room in ROOMS or any(place.exists() for place in places) else "__init__"


def unknown_rooms(source: Path) -> list[str]:
    found = {room_of(file, source) for file in modules(source)} - set(ROOMS)
    return [f"{room} has no place in BELOW: put it after all it imports" for room in found]


def wrong_way_imports(source: Path) -> list[str]:
    return [
        f"{place}: {room} may not import {other}"
        for place, room, name in imports(source)
        if (other := imported_room(name, source)) not in (None, room)
        if other not in ROOMS.get(room, ()) and "__init__.pyi" not in place
        if (room, name) not in FACE
    ]


def floors(below: dict[str, set[str]]) -> dict[str, int]:
    """The floor of every room: one above the highest that it may import from."""
    found: dict[str, int] = {}
    for room in TopologicalSorter(below).static_order():
        found[room] = 1 + max((found[other] for other in below.get(room, ())), default=0)
    return found


def too_large_a_house(source: Path) -> list[str]:
    """More rooms or files beside the rooms than fit a glance, or a room that is a house."""
    lines: Counter[str] = Counter()
    for file in source.rglob("*.py"):
        lines[room_of(file, source)] += len(read(file).splitlines())
    flat = {path.stem for path in source.glob("*.py")}
    total = max(lines.total(), 4 * LONGEST)
    faults = [f"{room}: {n} of {total} lines" for room, n in lines.items() if n > LARGEST * total]
    for there, most in ((set(lines) - flat, MOST_ROOMS), (flat, MOST_FLAT)):
        faults += [f"at most {most}: {', '.join(there)}"] if len(there) > most else []
    return faults


def rooms_without_a_sign(source: Path) -> list[str]:
    """Rooms whose `__init__` does not say, in its last sentence, what they may import."""
    return [
        f"{room}/__init__.py: end its docstring with: {sign(room)}"
        for room in ROOMS
        if (file := source / room / "__init__.py").exists()
        if sign(room) not in (ast.get_docstring(ast.parse(read(file))) or "")
    ]


def sign(room: str) -> str:
    """What a room may import, as its docstring says it, in lines as ruff wants them."""
    return fill(f"It may import {', '.join(f'`{one}`' for one in sorted(ROOMS[room]))}.", 99)


def figures_that_see_a_model(source: Path) -> list[str]:
    """Imports of a model package in `figures` or in any room that `figures` reaches."""
    every, reached, before = list(imports(source)), {"figures"}, set()
    while reached != before:
        before = set(reached)
        reached |= {imported_room(name, source) for _, room, name in every if room in before}
    return [
        f"{place}: figures reach {name}"
        for place, room, name in every
        if room in reached and name.split(".")[0] in MODELS
    ]


PLAIN = {
    "transformer_lens": {"ActivationCache", "model_bridge.TransformerBridge"},
    "transformers": {
        *("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer", "PreTrainedTokenizerFast"),
        *("LlamaConfig", "LlamaForCausalLM", "utils.logging"),
    },
}


def misplaced_packages(source: Path) -> list[str]:
    """Drawing where nothing is drawn, and what the hosts keep inside, outside the room for it."""
    faults = []
    for place, room, name in imports(source):
        package, _, inside = name.partition(".")
        if package in DRAWING and room not in DRAWING_ROOMS:
            faults.append(f"{place}: {room} draws ({name})")
        if room != "host" and inside not in PLAIN.get(package, {inside}):
            faults.append(f"{place}: {name} may change any week; ask for it in host/")
    return faults


def long_modules(source: Path) -> list[str]:
    return [
        f"{file.relative_to(source)}: {length} lines, at most {LONGEST}: split it along the data"
        for file in modules(source)
        if (length := len(read(file).splitlines())) > LONGEST
    ]


def names_that_say_nothing(source: Path) -> list[str]:
    return [
        f"{path.relative_to(source)}: name it after what it does"
        for path in source.rglob("*")
        if path.name.split(".")[0].strip("_").lower() in SAYS_NOTHING
    ]


def unfinished_work(source: Path) -> list[str]:
    return [
        f"{file.relative_to(source)}:{number}: {line.strip()}"
        for file in modules(source)
        for number, line in enumerate(read(file).splitlines(), 1)
        if UNFINISHED.search(line)
    ]


PICKLING = "runs/ray_actor.py"  # what the driver itself has sent through Ray, never a file
PICKLES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
ERRORS = ("pickle.UnpicklingError", "pickle.PicklingError")
PROCESSES = ("joblib.Parallel", "joblib.delayed")  # what they pickle is the program's own
RUNS_CODE = {
    *("eval", "exec", "compile", "__import__"),  # not `model.eval` or `re.compile`
    *("os.system", "os.popen", "pd.read_pickle", "pandas.read_pickle"),
}
UNSAFE_YAML = {"load", "load_all", "full_load", "unsafe_load", "full_load_all", "unsafe_load_all"}
DOORS = ("trust_remote_code", "allow_pickle", "shell")


def opens_a_door(call: ast.Call) -> str | None:
    """What lets data run as code in one call, if anything does; a value not known yet counts."""
    words = {word.arg: ast.unparse(word.value) for word in call.keywords}
    for door in DOORS:
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
    faults = [
        (place, name)
        for place, _, name in imports(source)
        if name.split(".")[0] in PICKLES and name not in (*ERRORS, *PROCESSES)
        if place.split(":")[0] != PICKLING
    ]
    for file in modules(source):
        for node in ast.walk(ast.parse(read(file))):
            if isinstance(node, ast.Call) and (how := opens_a_door(node)):
                faults.append((f"{file.relative_to(source)}:{node.lineno}", how))
    return [f"{place}: {how} can run code from data" for place, how in faults]


# For each check, sources with one fault each: the file, and its text.
PLANTED: dict[Callable[[Path], list[str]], list[tuple[str, str]]] = {
    unknown_rooms: [("new.py", ""), ("new/file.py", "")],
    wrong_way_imports: [
        ("prompts/prompt.py", "from knockgrid.passes.run import Run"),
        ("prompts/prompt.py", "from ..passes.run import Run"),
        ("passes/run.py", "def f():\n    from knockgrid import sweep"),
        ("host/bridge.py", "import knockgrid"),
        ("host/bridge.py", "from knockgrid import load"),
        ("host/bridge.py", "import knockgrid.engine.executors.reference"),
        ("sources/__init__.py", "from ..edits import patch"),
        ("prompts/prompt.py", "from knockgrid.new import thing"),
        *((f"{r}/x.py", "import knockgrid.cli") for r in BELOW if r not in ("cli", "__init__")),
    ],
    too_large_a_house: [("table/long.py", "x = 1\n" * 401), ("six.py", "")],
    rooms_without_a_sign: [("table/__init__.py", '"""The table."""')],
    figures_that_see_a_model: [
        ("figures/heat.py", "import torch"),
        ("figures/heat.py", "from transformer_lens import utilities"),
        ("table/table.py", "import torch"),
    ],
    misplaced_packages: [
        ("evidence/labels.py", "import seaborn as sns"),
        ("sweep.py", "import matplotlib.pyplot as plt"),
        ("passes/run.py", "from transformers.cache_utils import Cache"),
        ("passes/run.py", "from transformers import DynamicCache"),
        ("passes/run.py", "import transformers"),
        ("runs/weights.py", "def f():\n    import transformer_lens.tools"),
    ],
    long_modules: [("prompts/prompt.py", "\n" * 401)],
    names_that_say_nothing: [("utils.py", ""), ("figures/_helpers.py", ""), ("common/_f.py", "")],
    unfinished_work: [("errors.py", "x = 1  # TODO: more"), ("spec.py", "NotImplementedError")],
    code_from_data: [
        ("host/bridge.py", text)
        for text in (
            "import pickle",
            "def f():\n    from pickle import loads",
            "import joblib",
            "torch.load('w.bin')",
            "torch.load('w.bin', weights_only=False)",
            "load('m', trust_remote_code=True)",
            "load('m', trust_remote_code=given)",
            "np.load('a.npy', allow_pickle=True)",
            "pd.read_pickle('a.csv')",
            "yaml.load('a: b', yaml.SafeLoader)",
            "yaml.unsafe_load('a: b')",
            "x = eval('1')",
            "exec('x = 1')",
            "subprocess.run('ls', shell=True)",
            "os.system('ls')",
        )
    ],
}
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
    "cli/app.py": "from knockgrid import sweep\nfrom knockgrid.sweep import sweep",
    "runs/store.py": "from knockgrid.table.table import grid",
}


def plant(source: Path, file: str, text: str) -> None:
    (source / file).parent.mkdir(parents=True, exist_ok=True)
    (source / file).write_text(text, encoding="utf-8")


@pytest.fixture
def sound_tree(tmp_path: Path) -> Path:
    for file, text in SOUND.items():
        plant(tmp_path / "knockgrid", file, text)
    return tmp_path / "knockgrid"


@pytest.mark.parametrize("check", PLANTED, ids=lambda check: check.__name__)
def test_source_tree(check: Callable[[Path], list[str]], sound_tree: Path) -> None:
    assert modules(SOURCE), "no source found"
    faults = check(SOURCE)
    assert not faults, "\n" + "\n".join(faults)
    assert check(sound_tree) == []


@pytest.mark.parametrize(
    ("check", "file", "text"), [(c, *case) for c, cases in PLANTED.items() for case in cases]
)
def test_guards_see_a_planted_fault(check, file: str, text: str, sound_tree: Path) -> None:
    plant(sound_tree, file, text)
    (fault,) = check(sound_tree)
    assert file.split("/")[0].split(".")[0] in fault


def test_the_house_has_few_floors_and_no_circle() -> None:
    assert max(floors(ROOMS).values()) <= MOST_FLOORS
    with pytest.raises(CycleError):
        floors({**ROOMS, "table": {"stats"}})


def run(*command: str) -> tuple[str, float]:
    """What a command writes to standard error, and the processor seconds it cost."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    return done.stderr, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def heavy_imports(*command: str) -> set[str]:
    """The heavy packages that a Python command imports, by the interpreter's own account."""
    said, _ = run(sys.executable, "-X", "importtime", *command)
    names = re.findall(r"^import time:.*\|\s*(\S+)$", said, re.MULTILINE)
    assert "knockgrid" in names, said
    return HEAVY & {name.split(".")[0] for name in names}


SCRIPT = str(Path(sys.executable).with_name("knockgrid"))


@pytest.mark.parametrize(
    ("command", "seconds"), [(("-c", "import knockgrid"), 0.5), ((SCRIPT, "--help"), 1.0)]
)
def test_import_and_help_are_light(command: tuple[str, ...], seconds: float) -> None:
    assert heavy_imports(*command) == set()
    assert min(run(sys.executable, *command)[1] for _ in range(3)) < seconds
    assert heavy_imports("-c", "import knockgrid, pandas") >= {"pandas"}


def test_every_room_names_what_the_top_takes_from_it():
    """A room that does not name it has it only where something else has loaded it before."""
    stub = (SOURCE / "__init__.pyi").read_text("utf-8")
    for room, name in re.findall(r"^from \.(\w+) import (\w+)", stub, re.MULTILINE):
        if (own := SOURCE / room / "__init__.pyi").is_file():
            assert f" import {name} as {name}\n" in own.read_text("utf-8")
