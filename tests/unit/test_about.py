"""The files about the project: changelog, citation, and the forms for issues.

Each check is a function of the thing that it checks, and is fed planted faults as well.
"""

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

import knockgrid as kg

ROOT = Path(__file__).parents[2]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"))
CITATION, CHANGELOG = ROOT / "CITATION.cff", ROOT / "CHANGELOG.md"
VERSION = version("knockgrid")


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def refused(schema: str, *files: Path) -> str:
    """What `check-jsonschema` has against files, by a schema that lies in its package."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    done = subprocess.run([*command, *map(str, files)], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout if done.returncode else ""


# Changelog and citation

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
    found = [] if citation["version"] == version else [f"CITATION.cff: {citation['version']}"]
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


def test_the_changelog_tells_of_every_public_name():
    assert 40 < len(kg.__all__) <= 60
    rooms = {n: getattr(kg, n) for n in kg.__all__ if hasattr(getattr(kg, n), "__all__")}
    names = {*kg.__all__, *(name for room in rooms.values() for name in room.__all__)}
    assert not_told(sorted(names - rooms.keys()), read(CHANGELOG)) == []
    assert not_told(["js", "kl"], "`kl` and `json`, but no js") == ["js"]


def test_the_citation_is_one_of_this_version():
    assert refused("citation-file-format", CITATION) == ""
    citation = yaml.safe_load(read(CITATION))
    assert sum(len(work.get("identifiers", [])) for work in citation["references"]) >= 8
    assert malformed(citation) == []
    assert told_otherwise(VERSION, citation, read(CHANGELOG)) == []
    project = read(ROOT / "pyproject.toml")
    assert f'\nversion = "{VERSION}"\n' in project
    assert f'\nlicense = "{citation["license"]}"\n' in project


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
def test_a_planted_fault_in_the_citation(tmp_path, old, new, said):
    assert old in read(CITATION)
    (tmp_path / "CITATION.cff").write_text(read(CITATION).replace(old, new, 1), "utf-8")
    assert said in refused("citation-file-format", tmp_path / "CITATION.cff")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *(("doi", value) for value in ("https://doi.org/10.1109/18.61115", "10.1109", "18.61115")),
        *(("other", f"arXiv:{number}") for number in ("2202.526", "2213.05262", "1202.05262")),
        ("other", "2202.05262"),
    ],
)
def test_a_planted_identifier(kind, value):
    assert malformed({"references": [{"identifiers": [{"type": kind, "value": value}]}]}) == [value]
    assert malformed({"doi": value}) == [value]


PLAIN, DATED = {"version": "1.0.0"}, {"version": "1.0.0", "date-released": "x"}
FIRST = "## 1.0.0 – 2030-01-02\n\n### Added"


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
def test_planted_versions(changelog, citation, sound):
    assert (told_otherwise("1.0.0", citation, changelog) == []) is sound


# Forms


def required(form: Path) -> list[str]:
    """The ids of a form's fields that must be filled in."""
    body = yaml.safe_load(read(form))["body"]
    return [field["id"] for field in body if field.get("validations", {}).get("required")]


def test_the_forms_ask_for_what_is_needed():
    assert [form.stem for form in FORMS] == ["bug", "feature", "wrong_number"]
    assert refused("github-issue-forms", *FORMS) == ""
    assert refused("github-issue-config", FORMS[0].with_name("config.yml")) == ""
    assert required(FORMS[0]) == ["code", "happened", "doctor"]
    assert required(FORMS[2]) == ["model", "prompt", "code", "expected", "check", "manifest"]


@pytest.mark.parametrize(
    ("old", "new"),
    [("type: textarea", "type: textfield"), ("name:", "title:"), ("body:", "fields:")],
)
def test_a_planted_fault_in_a_form(tmp_path, old, new):
    form = tmp_path / "bug.yml"
    form.write_text(read(FORMS[0]).replace(old, new, 1), "utf-8")
    assert refused("github-issue-forms", form)


def test_commands_and_files_that_they_name_are_there():
    from knockgrid.cli.app import app

    there = {one.name or one.callback.__name__ for one in app.registered_commands}
    template = ROOT / ".github/pull_request_template.md"
    text = " ".join(read(page) for page in [*FORMS, template, ROOT / "docs/policies.md"])
    named = set(re.findall(r"`knockgrid (\w+)", text))
    assert named >= {"doctor", "check", "verify"}
    assert named <= there
    files = re.findall(r"[\w/]+\.md", read(template) + read(ROOT / "SECURITY.md"))
    assert len(files) >= 4
    assert [file for file in files if not (ROOT / file).exists()] == []
