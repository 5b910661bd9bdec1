"""What a release consists of: the wheel, its requirements and their versions, its extras.

As in `test_project`, each check is a function of the thing that it checks, and a second test feeds
it the fault that it is there for.
"""

import ast
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest
import wheel_contents
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import knockgrid as kg

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


ROOT = Path(__file__).parents[2]
SOURCE = Path(kg.__file__).parent
PROJECT = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]
EXTRAS = PROJECT["optional-dependencies"]

# The wheel: `wheel_contents`, which `nox -s tests` and `nox -s build` hold against the real one

MODULE, TYPED, DATA = "knockgrid/__init__.py", "knockgrid/py.typed", "knockgrid/data/facts.jsonl"
STUDY = "knockgrid/experiments/paths.py"
ABOUT = "knockgrid-1.dist-info/"


@pytest.fixture
def source(tmp_path) -> Path:
    files = {
        f"src/{MODULE}": "import x",
        f"src/{TYPED}": "",
        f"src/{DATA}": "{}",
        "src/knockgrid/__pycache__/x.pyc": "no",
        "experiments/paths.py": "study(__file__)",
        "experiments/benchmark.py": "print(1)",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    return tmp_path / "src" / "knockgrid"


def wheel(source: Path, name="one.whl", **changes: str | None) -> Path:
    """A wheel of the source in which some files are others, or missing (None)."""
    files: dict[str, bytes | None] = dict(wheel_contents.tree(source))
    files |= {ABOUT + told: b"" for told in wheel_contents.TOLD}
    files |= {k: None if v is None else v.encode() for k, v in changes.items()}
    with ZipFile(source.parent / name, "w") as archive:
        for file, content in files.items():
            if content is not None:
                archive.writestr(file, content)
    return source.parent / name


def compared(source: Path, *wheels: Path) -> int:
    first, *others = map(str, wheels)
    return wheel_contents.main(first, str(source), *others)


def test_a_whole_wheel(source, capsys):
    assert wheel_contents.faults(wheel(source), source) == []
    assert compared(source, wheel(source), wheel(source, "two.whl")) == 0
    assert "holds the 4 files" in capsys.readouterr().out
    (source.parent / "empty").mkdir()
    assert wheel_contents.faults(wheel(source), source.parent / "empty")


NO_FILES = ["experiments/benchmark.py", "old.py", "__pycache__/x.pyc"]


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        *((file, None, f"{file}: not in the wheel") for file in (DATA, TYPED, STUDY)),
        *((file, "y", f"{file}: other bytes in the wheel") for file in (MODULE, STUDY)),
        *((f"knockgrid/{one}", "", f"knockgrid/{one}: not in the source") for one in NO_FILES),
        ("tests/test_x.py", "", "tests/test_x.py: not in the source"),
        (f"{ABOUT}entry_points.txt", None, "entry_points.txt: not in the wheel"),
        (f"{ABOUT}licenses/LICENSE", None, "licenses/LICENSE: not in the wheel"),
        (f"{ABOUT}notes.txt", "", "notes.txt: does not belong into a wheel"),
    ],
)
def test_a_fault_in_a_wheel(source, file, text, said, capsys):
    assert compared(source, wheel(source, **{file: text})) == 1
    assert capsys.readouterr().out == said + "\n"


@pytest.mark.parametrize("changes", [{DATA: None}, {DATA: "[]"}, {"knockgrid/new.py": ""}])
def test_another_wheel(source, changes):
    assert compared(source, wheel(source), wheel(source, "two.whl", **changes)) == 1


def test_the_installed_package_is_this_tree():
    """A stale install, or one without its data files, would make every other test worthless."""
    from knockgrid.cli.reproduce import folder, studies

    given = os.environ.get("KNOCKGRID_SOURCE")  # where the wheel is what is to be tested
    there = Path(given or ROOT / "src" / "knockgrid")
    assert not (given and SOURCE.samefile(there)), "src/ is on the way of the imports"
    tree, installed = wheel_contents.tree(there), wheel_contents.package(SOURCE)
    # in an editable install they are beside the package
    beside = [*studies().values(), *folder().glob("*.yaml")]
    installed |= {f"knockgrid/experiments/{one.name}": one.read_bytes() for one in beside}
    assert {TYPED, STUDY} <= tree.keys()
    assert sorted(tree) == sorted(installed)
    assert [name for name in tree if tree[name] != installed[name]] == []


# Requirements

IMPORTED_AS = {"yaml": "PyYAML", "sklearn": "scikit-learn"}  # where the two names differ
BROUGHT = {"datasets": "TransformerLens brings it, and `hf:` says in a sentence when it is missing"}
STANDARD = sys.stdlib_module_names | {"tomllib"}  # that of the newest Python
NOT_IMPORTED = {
    "gguf": "transformers reads the demo model with it",
    "rich": "typer draws its help with it",
}


def imports(source: Path) -> Iterator[tuple[str, str, bool]]:
    """Of each import of another package: module, what installs it, whether it is at the top."""
    for file in sorted(source.rglob("*.py")):
        parsed = ast.parse(read(file))
        functions = [
            node
            for node in ast.walk(parsed)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        inside = {id(node) for function in functions for node in ast.walk(function)}
        for node in ast.walk(parsed):
            if isinstance(node, ast.Import):
                found = [one.name for one in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found = [node.module or ""]
            else:
                continue
            for top in {name.split(".")[0] for name in found} - {"knockgrid"} - STANDARD:
                name = canonicalize_name(IMPORTED_AS.get(top, top))
                yield file.relative_to(source).as_posix(), name, id(node) not in inside


def names(lines: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in lines}


def undeclared(source: Path) -> list[str]:
    """Imports without a requirement, and imports of an extra that everyone would pay for."""
    needed, extra = names(PROJECT["dependencies"]), names(sum(EXTRAS.values(), []))
    found = []
    for file, name, at_the_top in imports(source):
        if name in needed or (name in BROUGHT and not at_the_top):
            continue
        if name not in extra:
            found.append(f"{file}: {name} is no dependency")
        elif at_the_top:
            found.append(f"{file}: {name} is an extra, import it in the function that needs it")
    return found


def unused(source: Path) -> set[str]:
    """Dependencies that no module imports."""
    found = {name for _, name, _ in imports(source)}
    return names(PROJECT["dependencies"]) - found - NOT_IMPORTED.keys()


def without_one_lower_bound(lines: list[str]) -> list[str]:
    """Requirements from which `nox -s oldest` could not tell the oldest version."""
    bounds = {line: [one.operator for one in Requirement(line).specifier] for line in lines}
    return [
        line
        for line, found in bounds.items()
        if found.count(">=") != 1 and not line.startswith("knockgrid[")
    ]


def test_what_is_imported_is_declared_with_one_lower_bound():
    assert undeclared(SOURCE) == []
    assert unused(SOURCE) == set()
    assert without_one_lower_bound([*PROJECT["dependencies"], *sum(EXTRAS.values(), [])]) == []
    planted = ["numpy", "numpy<3", "numpy==1.26"]
    assert without_one_lower_bound([*planted, "knockgrid[ray]", "numpy>=2"]) == planted


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import humanize", "humanize is no dependency"),
        ("from humanize.time import x", "humanize is no dependency"),
        ("import ray", "ray is an extra"),
        ("class A:\n    import sklearn.metrics", "scikit-learn is an extra"),
        ("import datasets", "datasets is no dependency"),
        ("import os, torch.nn\nfrom . import b\ndef f():\n    import ray\n    import yaml\n", None),
    ],
)
def test_a_planted_import(tmp_path, text, said):
    (tmp_path / "x.py").write_text(text, "utf-8")
    faults = undeclared(tmp_path)
    assert said in faults[0] if said else not faults
    assert "numpy" in unused(tmp_path)
    assert ("torch" in unused(tmp_path)) == ("torch" not in text)


def constraints(name: str = "py311") -> dict[str, str]:
    lines = read(ROOT / "constraints" / f"{name}.txt").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[\w.-]+==[\w.!]+", pin)] == []
    return {canonicalize_name(name): pin for name, pin in (pin.split("==") for pin in pins)}


def test_every_requirement_is_pinned_and_to_the_same_version_everywhere():
    from knockgrid.host.versions import TESTED

    pinned, other = constraints(), constraints("py310")
    assert {name: pinned[canonicalize_name(name)] for name in TESTED} == TESTED
    assert other.items() <= pinned.items()
    assert len(pinned) * 0.7 < len(other) < len(pinned)
    wanted = names([*PROJECT["dependencies"], *sum(EXTRAS.values(), [])])
    # but the package itself, and what only Python 3.10 needs
    assert wanted - {"knockgrid", "tomli"} <= pinned.keys()
    repos = yaml.safe_load(read(ROOT / ".pre-commit-config.yaml"))["repos"]
    hooks = [hook for repo in repos for hook in repo["hooks"]]
    pins = {pin for hook in hooks for pin in hook["additional_dependencies"]}
    assert pins == {f"ruff=={pinned['ruff']}"}


def test_the_oldest_python_is_that_of_the_classifiers():
    said = re.findall(r"Programming Language :: Python :: (3\.\d+)", str(PROJECT["classifiers"]))
    assert PROJECT["requires-python"] == f">={said[0]}"
    assert said == sorted(said, key=lambda one: int(one[2:]))


# Extras

HIDDEN = {"probes": ("sklearn", "scikit-learn"), "ray": ("ray", "Ray")}
"""The extras that users install: the module to hide, and the name that is told."""
FOR_DEVELOPERS = {"test", "docs", "browser", "all"}


def sweep(model, prompts, **options):
    row = kg.patch("resid_post", "last", kg.zero())
    return kg.sweep(model, prompts, [row], progress=False, **options)


def label_probe(model, prompts, folder):
    from knockgrid.evidence.probes import label_probe

    label_probe(model, prompts, sweep(model, prompts))


def figure_four(model, prompts, folder):
    from knockgrid.cli.reproduce import read_study, studies

    read_study(studies()["error_detection"])


def probes(model, prompts, folder):
    kg.evidence.probe_auc(model, prompts, ["last"], layers=[0], progress=False)


def ray(model, prompts, folder):
    sweep(lambda: model, prompts, out=folder / "run", engine=kg.runs.RayEngine())


def ray_in_a_shell(model, prompts, folder):
    from knockgrid.runs.ray_cluster import needs_ray

    needs_ray()


ASKS = {"probes": (probes, label_probe, figure_four), "ray": (ray, ray_in_a_shell)}


@pytest.mark.parametrize(("extra", "ask"), [(e, ask) for e in ASKS for ask in ASKS[e]])
def test_a_missing_extra_is_named_in_a_sentence(
    extra, ask, monkeypatch, tiny_llama, prompts, tmp_path
):
    module, package = HIDDEN[extra]
    for name in [one for one in sys.modules if one.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)  # found nowhere, and its import fails
    with pytest.raises(kg.InputError) as refused:
        ask(tiny_llama, prompts, tmp_path)
    end = f'needs {package}, which is not installed; pip install "knockgrid[{extra}]"'
    assert str(refused.value).endswith(end)
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []  # refused before anything was begun


def test_every_extra_is_asked_for():
    assert EXTRAS.keys() - FOR_DEVELOPERS == HIDDEN.keys() == ASKS.keys()
    (line,) = EXTRAS["all"]
    assert Requirement(line).extras == HIDDEN.keys()
    imported = {name for _, name, _ in imports(SOURCE)}
    for extra, (module, _) in HIDDEN.items():
        assert canonicalize_name(IMPORTED_AS.get(module, module)) in names(EXTRAS[extra])
        assert names(EXTRAS[extra]) <= imported
