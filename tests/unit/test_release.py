"""What a release consists of: the wheel, its requirements, its extras, and the files about it.

As in `test_project`, each check is a function of the thing that it checks, and a second test feeds
it the fault that it is there for.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest
import wheel_contents
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import knockgrid as kg
from knockgrid.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


ROOT = Path(__file__).parents[2]
SOURCE = Path(kg.__file__).parent
PROJECT = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]


class TestWheel:
    """`wheel_contents`, which `nox -s tests` and `nox -s build` hold against the real wheel."""

    MODULE, TYPED, DATA = (
        "knockgrid/__init__.py",
        "knockgrid/py.typed",
        "knockgrid/data/facts.jsonl",
    )
    STUDY = "knockgrid/experiments/paths.py"
    ABOUT = "knockgrid-1.dist-info/"

    @pytest.fixture
    def source(self, tmp_path) -> Path:
        files = {
            f"src/{self.MODULE}": "import x",
            f"src/{self.TYPED}": "",
            f"src/{self.DATA}": "{}",
            "src/knockgrid/__pycache__/x.pyc": "no",
            "experiments/paths.py": "study(__file__)",
            "experiments/benchmark.py": "print(1)",
        }
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text, "utf-8")
        return tmp_path / "src" / "knockgrid"

    def wheel(self, source: Path, name="one.whl", **changes: str | None) -> Path:
        """A wheel of the source in which some files are others, or missing (None)."""
        files: dict[str, bytes | None] = dict(wheel_contents.tree(source))
        files |= {self.ABOUT + told: b"" for told in wheel_contents.TOLD}
        files |= {k: None if v is None else v.encode() for k, v in changes.items()}
        with ZipFile(source.parent / name, "w") as archive:
            for file, content in files.items():
                if content is not None:
                    archive.writestr(file, content)
        return source.parent / name

    def test_a_whole_one(self, source, capsys):
        wheel = self.wheel(source)
        assert wheel_contents.faults(wheel, source) == []
        assert wheel_contents.main(str(wheel), str(source), str(self.wheel(source, "two.whl"))) == 0
        assert "holds the 4 files" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({DATA: None}, f"{DATA}: not in the wheel"),
            ({TYPED: None}, f"{TYPED}: not in the wheel"),
            ({MODULE: "import y"}, f"{MODULE}: other bytes in the wheel"),
            ({STUDY: None}, f"{STUDY}: not in the wheel"),
            ({STUDY: "study()"}, f"{STUDY}: other bytes in the wheel"),
            *(
                ({name: ""}, f"{name}: not in the source")
                for name in (
                    *("knockgrid/experiments/benchmark.py", "knockgrid/old.py"),
                    *("tests/test_x.py", "knockgrid/__pycache__/x.pyc"),
                )
            ),
            ({f"{ABOUT}entry_points.txt": None}, "entry_points.txt: not in the wheel"),
            ({f"{ABOUT}licenses/LICENSE": None}, "licenses/LICENSE: not in the wheel"),
            ({f"{ABOUT}notes.txt": ""}, "notes.txt: does not belong into a wheel"),
        ],
    )
    def test_a_fault(self, source, changes, said, capsys):
        wheel = self.wheel(source, **changes)
        assert wheel_contents.main(str(wheel), str(source)) == 1
        assert capsys.readouterr().out == said + "\n"

    @pytest.mark.parametrize("changes", [{DATA: None}, {DATA: "[]"}, {"knockgrid/new.py": ""}])
    def test_another_wheel(self, source, changes):
        one, two = self.wheel(source), self.wheel(source, "two.whl", **changes)
        assert wheel_contents.main(str(one), str(source), str(two)) == 1

    def test_an_empty_source_is_no_source(self, source):
        (source.parent / "empty").mkdir()
        assert wheel_contents.faults(self.wheel(source), source.parent / "empty")


# Requirements

IMPORTED_AS = {"yaml": "PyYAML", "sklearn": "scikit-learn"}  # where the two names differ
BROUGHT = {"datasets": "TransformerLens brings it, and `hf:` says in a sentence when it is missing"}
STANDARD = sys.stdlib_module_names | {"tomllib"}  # that of the newest Python
NOT_IMPORTED = {
    "gguf": "transformers reads the demo model with it",
    "rich": "typer draws its help with it",
}


def imports(source: Path) -> Iterator[tuple[str, str, bool]]:
    """Of each import of another package: module, its top name, whether it is at the top."""
    for file in sorted(source.rglob("*.py")):
        parsed = ast.parse(read(file))
        inside = {
            id(node)
            for function in ast.walk(parsed)
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
            for node in ast.walk(function)
        }
        for node in ast.walk(parsed):
            if isinstance(node, ast.Import):
                names = [one.name for one in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            else:
                continue
            for top in {name.split(".")[0] for name in names}:
                if top != "knockgrid" and top not in STANDARD:
                    yield file.relative_to(source).as_posix(), top, id(node) not in inside


def distribution(top: str) -> str:
    """What installs a module of this name."""
    return canonicalize_name(IMPORTED_AS.get(top, top))


def names(lines: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in lines}


def every_requirement(project: dict) -> list[str]:
    return [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]


def undeclared(source: Path, project: dict) -> list[str]:
    """Imports without a requirement, and imports of an extra that everyone would pay for."""
    needed = names(project["dependencies"])
    extra = names(sum(project["optional-dependencies"].values(), []))
    found = []
    for file, top, at_the_top in imports(source):
        name = distribution(top)
        if name in needed or (top in BROUGHT and not at_the_top):
            continue
        if name not in extra:
            found.append(f"{file}: {top} is no dependency")
        elif at_the_top:
            found.append(f"{file}: {top} is an extra, import it in the function that needs it")
    return found


def unused(source: Path, project: dict) -> set[str]:
    """Dependencies that no module imports."""
    tops = {distribution(top) for _, top, _ in imports(source)}
    return names(project["dependencies"]) - tops - NOT_IMPORTED.keys()


def without_one_lower_bound(project: dict) -> list[str]:
    """Requirements from which `nox -s oldest` could not tell the oldest version."""
    return [
        line
        for line in every_requirement(project)
        if not line.startswith("knockgrid[")
        and [bound.operator for bound in Requirement(line).specifier].count(">=") != 1
    ]


class TestRequirements:
    def test_what_is_imported_is_declared_with_one_lower_bound(self):
        assert undeclared(SOURCE, PROJECT) == []
        assert unused(SOURCE, PROJECT) == set()
        assert without_one_lower_bound(PROJECT) == []

    def test_the_oldest_python_is_that_of_the_classifiers(self):
        versions = [
            Version(line.rsplit(" ", 1)[1])
            for line in PROJECT["classifiers"]
            if re.fullmatch(r"Programming Language :: Python :: 3\.\d+", line)
        ]
        assert versions == sorted(versions)
        assert PROJECT["requires-python"] == f">={versions[0]}"

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("import humanize", "humanize is no dependency"),
            ("from humanize.time import x", "humanize is no dependency"),
            ("import ray", "ray is an extra"),
            ("class A:\n    import sklearn.metrics", "sklearn is an extra"),
            ("import datasets", "datasets is no dependency"),
        ],
    )
    def test_a_planted_import(self, tmp_path, text, said):
        (tmp_path / "x.py").write_text(text, "utf-8")
        (fault,) = undeclared(tmp_path, PROJECT)
        assert said in fault

    def test_planted_imports_that_are_sound(self, tmp_path):
        text = "import os, torch.nn\nfrom . import b\ndef f():\n    import ray\n    import yaml\n"
        (tmp_path / "x.py").write_text(text, "utf-8")
        assert undeclared(tmp_path, PROJECT) == []
        assert "numpy" in unused(tmp_path, PROJECT)
        assert "torch" not in unused(tmp_path, PROJECT)

    @pytest.mark.parametrize("line", ["numpy", "numpy<3", "numpy==1.26"])
    def test_a_planted_bound(self, line):
        project = {"dependencies": [line], "optional-dependencies": {"x": ["knockgrid[ray]"]}}
        assert without_one_lower_bound(project) == [line]


# Extras

HIDDEN = {"probes": ("sklearn", "scikit-learn"), "ray": ("ray", "Ray")}
"""The extras that users install: the module to hide, and the name that is told."""
FOR_DEVELOPERS = {"test", "docs", "browser", "all"}


def ask_for_probes(model, prompts, folder):
    kg.evidence.probe_auc(model, prompts, ["last"], layers=[0], progress=False)


def ask_for_label_probe(model, prompts, folder):
    from knockgrid.evidence.probes import label_probe

    label_probe(model, prompts, kg.sweep(model, prompts, kg.patch("resid_post", "last")))


def ask_for_figure_four(model, prompts, folder):
    from knockgrid.cli.reproduce import read_study, studies

    read_study(studies()["error_detection"])


def ask_for_ray(model, prompts, folder):
    row = kg.patch("resid_post", "last", kg.zero())
    options = {"out": folder / "run", "engine": kg.runs.RayEngine(), "progress": False}
    kg.sweep(lambda: model, prompts, [row], **options)


def ask_for_ray_in_a_shell(model, prompts, folder):
    from knockgrid.runs.ray_cluster import needs_ray

    needs_ray()


ASKS = {
    "probes": (ask_for_probes, ask_for_label_probe, ask_for_figure_four),
    "ray": (ask_for_ray, ask_for_ray_in_a_shell),
}


class TestExtras:
    @pytest.mark.parametrize(("extra", "ask"), [(e, ask) for e in ASKS for ask in ASKS[e]])
    def test_a_missing_one_is_named_in_a_sentence(
        self, extra, ask, monkeypatch, tiny_llama, prompts, tmp_path
    ):
        module, package = HIDDEN[extra]
        for name in [one for one in sys.modules if one.split(".")[0] == module]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, module, None)  # found nowhere, and its import fails
        with pytest.raises(InputError) as refused:
            ask(tiny_llama, prompts, tmp_path)
        end = f'needs {package}, which is not installed; pip install "knockgrid[{extra}]"'
        assert str(refused.value).endswith(end)
        assert "\n" not in str(refused.value)
        assert list(tmp_path.iterdir()) == []  # refused before anything was begun

    def test_every_extra_is_asked_for(self):
        extras = PROJECT["optional-dependencies"].keys() - FOR_DEVELOPERS
        assert extras == HIDDEN.keys() == ASKS.keys()

    def test_all_brings_every_extra(self):
        (line,) = PROJECT["optional-dependencies"]["all"]
        assert Requirement(line).extras == HIDDEN.keys()

    def test_every_module_of_an_extra_is_hidden_by_a_test(self):
        extra = {names(PROJECT["optional-dependencies"][one]).pop() for one in HIDDEN}
        assert extra <= {distribution(top) for _, top, _ in imports(SOURCE)}
        assert extra == {distribution(module) for module, _ in HIDDEN.values()}


# Files about the project

FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"))
CITATION = ROOT / "CITATION.cff"


def refused(schema: str, *files: Path) -> str:
    """What `check-jsonschema` has against files, by a schema that lies in its package."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    done = subprocess.run([*command, *map(str, files)], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout if done.returncode else ""


DOI = r"10\.\d{4,9}/[-._;()/:a-zA-Z0-9]+"
ARXIV = r"arXiv:((0[7-9]|1[0-4])(0[1-9]|1[0-2])\.\d{4}|(1[5-9]|[2-9]\d)(0[1-9]|1[0-2])\.\d{5})"
"""From April 2007 on: year and month, then four digits, and five from 2015 on."""


def malformed(citation: dict) -> list[str]:
    """DOIs and arXiv numbers that cannot be ones."""
    works = [citation, *citation.get("references", [])]
    others = [(one["type"], one["value"]) for work in works for one in work.get("identifiers", [])]
    others += [("doi", work["doi"]) for work in works if "doi" in work]
    return [one for kind, one in others if not re.fullmatch(DOI if kind == "doi" else ARXIV, one)]


def told_otherwise(version: str, citation: dict, changelog: str) -> list[str]:
    """Where citation and changelog tell of another version than `version`."""
    found = []
    if citation["version"] != version:
        found.append(f"CITATION.cff: {citation['version']}")
    entries = re.findall(r"^## (.*)$", changelog, re.MULTILINE)
    released = [title for title in entries if title != "Unreleased"]
    if released:
        if not re.fullmatch(rf"{re.escape(version)} – \d{{4}}-\d\d-\d\d", released[0]):
            found.append(f"CHANGELOG.md: {released[0]}")
        if "date-released" not in citation:
            found.append("CITATION.cff: no date-released")
    elif f"## Unreleased\n\nTo be released as {version}.\n" not in changelog:
        found.append(f"CHANGELOG.md: no release, and none announced as {version}")
    if "Unreleased" in entries[1:]:
        found.append("CHANGELOG.md: Unreleased is not the first")
    return found


def not_told(public: list[str], changelog: str) -> list[str]:
    """Public names of which users would not hear."""
    return [name for name in public if not re.search(rf"`{name}\b", changelog)]


class TestChangelog:
    def test_it_tells_of_every_public_name(self):
        changelog = read(ROOT / "CHANGELOG.md")
        assert 40 < len(kg.__all__) <= 60
        rooms = {n: getattr(kg, n) for n in kg.__all__ if hasattr(getattr(kg, n), "__all__")}
        names = {*kg.__all__, *(name for room in rooms.values() for name in room.__all__)}
        assert not_told(sorted(names - rooms.keys()), changelog) == []

    def test_a_planted_name(self):
        assert not_told(["js", "kl"], "`kl` and `json`, but no js") == ["js"]


PLAIN, DATED = {"version": "1.0.0"}, {"version": "1.0.0", "date-released": "x"}
FIRST = "## 1.0.0 – 2030-01-02\n\n### Added"


class TestCitation:
    @pytest.fixture
    def citation(self) -> dict:
        return yaml.safe_load(read(CITATION))

    def test_it_is_a_citation_file(self):
        assert refused("citation-file-format", CITATION) == ""

    @pytest.mark.parametrize(
        ("old", "new", "said"),
        [
            ("cff-version: 1.2.0", "cff-version: 9", "cff-version"),
            ("type: software", "type: program", "program"),
            ("license: MIT", "license: MITT", "MITT"),
            ("doi: 10.1109", "doi: 11.1109", "doi"),
            ("given-names: Kevin", "given-name: Kevin", "given-name"),
            ("message:", "massage:", "massage"),
        ],
    )
    def test_a_planted_fault(self, tmp_path, old, new, said):
        text = read(CITATION)
        assert old in text
        (tmp_path / "CITATION.cff").write_text(text.replace(old, new, 1), "utf-8")
        assert said in refused("citation-file-format", tmp_path / "CITATION.cff")

    def test_identifiers(self, citation):
        assert sum(len(work.get("identifiers", [])) for work in citation["references"]) >= 8
        assert malformed(citation) == []

    @pytest.mark.parametrize(
        "work",
        [
            {"doi": "https://doi.org/10.1109/18.61115"},
            {"doi": "10.1109"},
            {"identifiers": [{"type": "doi", "value": "18.61115"}]},
            {"identifiers": [{"type": "other", "value": "arXiv:2202.526"}]},
            {"identifiers": [{"type": "other", "value": "arXiv:2213.05262"}]},
            {"identifiers": [{"type": "other", "value": "2202.05262"}]},
            {"identifiers": [{"type": "other", "value": "arXiv:1202.05262"}]},
        ],
    )
    def test_a_planted_identifier(self, work):
        assert len(malformed({"references": [work]})) == 1

    def test_one_version(self, citation):
        changelog = read(ROOT / "CHANGELOG.md")
        assert told_otherwise(PROJECT["version"], citation, changelog) == []

    @pytest.mark.parametrize(
        ("changelog", "citation", "sound"),
        [
            ("## Unreleased\n\nTo be released as 1.0.0.\n", PLAIN, True),
            ("## Unreleased\n\nTo be released as 1.1.0.\n", PLAIN, False),
            ("## Unreleased\n\nTo be released as 1.0.0.\n", {"version": "0.9.0"}, False),
            ("# Changelog\n", PLAIN, False),
            (FIRST, DATED, True),
            (FIRST, PLAIN, False),
            ("## 1.0.0\n\n### Added", DATED, False),
            (f"## Unreleased\n\n\n{FIRST}\n\n## 0.9.0 – 2029-01-02\n\nX", DATED, True),
            (f"{FIRST}\n\n## Unreleased\n\nX", DATED, False),
        ],
    )
    def test_planted_versions(self, changelog, citation, sound):
        assert (told_otherwise("1.0.0", citation, changelog) == []) is sound


def asked(form: Path) -> dict[str, bool]:
    """The ids of a form's fields, and whether they must be filled in."""
    body = yaml.safe_load(read(form))["body"]
    return {
        field["id"]: field.get("validations", {}).get("required", False)
        for field in body
        if field["type"] != "markdown"
    }


class TestForms:
    def test_they_are_forms(self):
        assert [form.stem for form in FORMS] == ["bug", "feature", "wrong_number"]
        assert refused("github-issue-forms", *FORMS) == ""
        assert refused("github-issue-config", FORMS[0].with_name("config.yml")) == ""

    @pytest.mark.parametrize(
        ("old", "new"),
        [("type: textarea", "type: textfield"), ("name:", "title:"), ("body:", "fields:")],
    )
    def test_a_planted_fault(self, tmp_path, old, new):
        form = tmp_path / "bug.yml"
        form.write_text(read(FORMS[0]).replace(old, new, 1), "utf-8")
        assert refused("github-issue-forms", form)

    def test_a_bug_comes_with_doctor_and_manifest(self):
        text = read(FORMS[0])
        assert "`knockgrid doctor`" in text
        assert "`manifest.json`" in text
        needed = dict.fromkeys(("code", "happened", "doctor"), True)
        assert asked(FORMS[0]) == {**needed, "manifest": False}

    def test_a_wrong_number_comes_with_all_that_is_needed_to_compute_it(self):
        fields = asked(FORMS[2])
        assert list(fields) == ["model", "prompt", "code", "expected", "check", "manifest"]
        assert all(fields.values())

    def test_commands_that_they_name_are_there(self):
        from knockgrid.cli.app import app

        there = {one.name or one.callback.__name__ for one in app.registered_commands}
        pages = [*FORMS, ROOT / ".github/pull_request_template.md", ROOT / "docs/policies.md"]
        text = " ".join(read(page) for page in pages)
        named = set(re.findall(r"`knockgrid (\w+)", text))
        assert named >= {"doctor", "check", "verify"}
        assert named <= there

    def test_files_that_they_name_are_there(self):
        text = read(ROOT / ".github/pull_request_template.md")
        files = re.findall(r"[\w/]+\.md", text + read(ROOT / "SECURITY.md"))
        assert len(files) >= 4
        assert [file for file in files if not (ROOT / file).exists()] == []
