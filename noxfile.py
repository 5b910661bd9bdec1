"""The project's tasks: `nox -l` lists them, `nox -s NAME` runs one, `nox` runs all checks."""

import os
import shutil
import subprocess
from pathlib import Path

import nox
from packaging.requirements import Requirement

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = True
nox.options.reuse_venv = "yes"
nox.options.sessions = ["tests", "architectures", "browser", "lint", "typecheck", "docs"]

PYTHON = "3.11"
CONSTRAINTS = "constraints/py311.txt"  # on 3.12 and 3.13 as well
OTHERS = {"3.10": "constraints/py310.txt"}  # what differs on a Python, by its version
PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PYPROJECT)  # the oldest first, as the classifiers name them
HOSTS = ["tests/architectures/test_host.py", "tests/equivalence/test_executors.py"]
FAMILIES = "tests/architectures"
FAST = ["tests/unit", "tests/property"]  # what runs on other Pythons and on other versions
TWO = ["-n", "2", "--dist", "loadfile"]  # processes of one thread: tiny models gain from no second
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


def install(session: nox.Session, *what: str) -> None:
    """Install what a session needs, in the versions that are pinned for its Python."""
    ask = "import sys; print('.'.join(map(str, sys.version_info[:2])))"
    python = session.run("python", "-c", ask, silent=True) or PYTHON
    session.install("-c", OTHERS.get(python.strip(), CONSTRAINTS), *what)


def newest_python() -> str | None:
    """The newest supported Python on the path or in pyenv; None, for nox's own, without any."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv", "versions")
    for version in reversed(PYTHONS):
        for path in (shutil.which(f"python{version}"), *pyenv.glob(f"{version}.*/bin/python")):
            runs = path and not subprocess.run([path, "-c", ""], capture_output=True).returncode
            if runs:
                return str(path)
    return None


def compile_on_first_use(session: nox.Session) -> str:
    """The pip option that leaves compiling to the first import: halves the time of an install."""
    session.env["PYTHONDONTWRITEBYTECODE"] = ""
    return "--no-compile"


def built(session: nox.Session) -> tuple[Path, Path]:
    """The wheel, compared with the tree file by file, and the source distribution without `src/`.

    It holds the studies of `experiments/` too. It is made from the source distribution, as an
    installer does that finds no wheel.
    """
    install(session, "build", "hatchling")
    made = Path(session.virtualenv.location, "dist").absolute()
    shutil.rmtree(made, ignore_errors=True)
    session.run("python", "-m", "build", "--no-isolation", "--outdir", str(made), silent=True)
    (wheel,), (sdist,) = made.glob("*.whl"), made.glob("*.tar.gz")
    session.run("python", "tests/unit/wheel_contents.py", str(wheel), "src/knockgrid")
    shutil.unpack_archive(sdist, made)
    unpacked = made / sdist.name.removesuffix(".tar.gz")
    shutil.rmtree(unpacked / "src")
    return wheel, unpacked


def lower_bounds() -> list[str]:
    """Each dependency of pyproject.toml, extras included, in the oldest version that it allows."""
    project = PYPROJECT["project"]
    lines = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    return [
        f"{one.name}=={bound.version}" + (f"; {one.marker}" if one.marker else "")
        for one in map(Requirement, lines)
        for bound in one.specifier
        if bound.operator == ">="
    ]


@nox.session
def demo(session: nox.Session) -> None:
    """Install knockgrid as a user does and measure the demo model: writes runs/demo."""
    install(session, compile_on_first_use(session), ".")
    session.run("knockgrid", "demo", "--out", "runs/demo", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests, doctests included, on the wheel, out of reach of `src/` (`-- ARGS` to pytest).

    Those of every architecture are a session of their own, `architectures`.
    """
    on_the_wheel(session, "tests", f"--ignore={FAMILIES}", "--pyargs", "knockgrid")


@nox.session
def architectures(session: nox.Session) -> None:
    """Run the tests of every architecture on the wheel, as `tests` does."""
    on_the_wheel(session, FAMILIES)


def on_the_wheel(session: nox.Session, *targets: str) -> None:
    """Run tests on the wheel, all of them or those that the arguments name.

    They run in the unpacked source distribution, from which `src/` is taken away; only the guards
    of the source tree are told where it lies, and read it without importing it.
    """
    wheel, unpacked = built(session)
    install(session, f"{wheel}[probes,test]")
    # pip would leave an older wheel of the same version where it is
    session.install("--force-reinstall", "--no-deps", str(wheel))
    chosen = any(Path(argument.split("::")[0]).exists() for argument in session.posargs)
    env = {**ONE_THREAD, "KNOCKGRID_SOURCE": str(Path("src/knockgrid").absolute())}
    with session.chdir(unpacked):
        every = () if chosen else targets
        session.run("pytest", "--durations=15", *TWO, *every, *session.posargs, env=env)


@nox.session(python=PYTHONS[0])
def oldest(session: nox.Session) -> None:
    """Run the fast tests with the oldest dependencies that pyproject.toml allows; not in CI.

    `-- NAME==VERSION` takes another version of a package: `nox -s oldest --force-python 3.11 --
    torch==2.13.0` where an old torch cannot be had. Old packages warn of much that has come since,
    so that warnings are no errors here.
    """
    others = {Requirement(line).name for line in session.posargs}
    lines = [line for line in lower_bounds() if Requirement(line).name not in others]
    bounds = Path(session.virtualenv.location, "oldest.txt")
    bounds.write_text("\n".join([*lines, *session.posargs]) + "\n", encoding="utf-8")
    session.install("-c", str(bounds), ".[probes,test]")
    session.run("pytest", *TWO, "-W", "default", *FAST, env=ONE_THREAD)


@nox.session(python=newest_python())
def newest(session: nox.Session) -> None:
    """Run the tests of the hosts on the newest packages there are; any warning is an error.

    `-- --pre` takes pre-releases, for once a week by hand. CONTRIBUTING says what to do where this
    turns red.
    """
    eager = ["--upgrade", "--upgrade-strategy", "eager", *session.posargs]
    session.install(compile_on_first_use(session), *eager, ".[test]")
    session.run("pip", "list", "--format=freeze")
    session.run("pytest", *TWO, "--durations=10", *HOSTS, env=ONE_THREAD)
    session.run("knockgrid", "doctor")


@nox.session(python=PYTHONS)
def pythons(session: nox.Session) -> None:
    """Run the fast tests on each Python, with the newest dependencies that it can have; not in CI.

    `-- light` installs no torch: the package compiles, is imported and prints its help.
    """
    if session.posargs == ["light"]:
        wheel, _ = built(session)
        session.install("lazy-loader", "typer")
        session.install("--force-reinstall", "--no-deps", str(wheel))
        session.run("python", "-W", "error", "-m", "compileall", "-q", "-f", "src", "tests")
        session.run("python", "-W", "error", "-c", "import knockgrid; knockgrid.__all__")
        session.run("knockgrid", "--help", silent=True)
        return
    session.install(".[probes,test]")
    session.run("pytest", *TWO, *FAST, *session.posargs, env=ONE_THREAD)


@nox.session(python=PYTHON)
def fuzz(session: nox.Session) -> None:
    """Feed the readers and escapes more than 100,000 hostile inputs (about 5 minutes)."""
    install(session, ".[test]")
    full = {"KNOCKGRID_FUZZ": "full"}
    session.run("pytest", "tests/fuzz", "--no-header", *session.posargs, env=full)


@nox.session(python=PYTHON)
def faults(session: nox.Session) -> None:
    """Kill, fill, cut and race runs, and soak one: a table of what was lost (`-- NAMES` of some).

    5 to 10 minutes on two cores. The demo model comes from its package or the user's cache.
    """
    install(session, ".[test]")
    session.run("python", "tests/faults/run.py", *session.posargs)


@nox.session(python=PYTHON)
def browser(session: nox.Session) -> None:
    """Open reports in a headless Chromium: clicks, keys, narrow windows, hostile text."""
    if not shutil.which("chromedriver"):
        session.error("there is no Chromium; install the packages chromium and chromium-driver")
    install(session, ".[browser,test]")
    wanted = {"KNOCKGRID_BROWSER": "1"}
    session.run("pytest", "tests/browser", *session.posargs, env=wanted)


@nox.session(python=PYTHON)
def lint(session: nox.Session) -> None:
    """Check style and formatting with ruff (`ruff check --fix` and `ruff format` repair both)."""
    install(session, "ruff")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session(python=PYTHON)
def typecheck(session: nox.Session) -> None:
    """Check the types in src with pyright, for the oldest and the newest Python."""
    packages = [".[probes,ray]", "pandas-stubs", "pyright[nodejs]"]
    install(session, compile_on_first_use(session), *packages)
    for python in (PYTHONS[0], PYTHONS[-1]):
        session.run("pyright", "--pythonversion", python, *session.posargs)


@nox.session(python=PYTHON)
def docs(session: nox.Session) -> None:
    """Execute and build the documentation into docs/_build/html; any warning is an error."""
    install(session, compile_on_first_use(session), ".[docs,probes]")
    options = ["-W", "--keep-going", "-E", "-b", "html", *session.posargs]
    session.run("sphinx-build", *options, "docs", "docs/_build/html")


@nox.session(python=PYTHON)
def build(session: nox.Session) -> None:
    """Build wheel and source distribution into an empty dist/, and check what they hold.

    The wheel of the source distribution and that of the tree must be the same, byte for byte.
    """
    wheel, unpacked = built(session)
    install(session, "twine")
    direct = wheel.parent / "direct"
    make = ["python", "-m", "build", "--no-isolation", "--wheel", "--outdir", str(direct)]
    session.run(*make, silent=True)
    check = ["python", "tests/unit/wheel_contents.py", str(wheel), "src/knockgrid"]
    session.run(*check, *map(str, direct.iterdir()))
    shutil.rmtree("dist", ignore_errors=True)
    Path("dist").mkdir()
    for path in (wheel, unpacked.with_name(f"{unpacked.name}.tar.gz")):
        shutil.copy(path, "dist")
    session.run("twine", "check", "--strict", *(str(path) for path in Path("dist").iterdir()))


@nox.session(python=PYTHON)
def links(session: nox.Session) -> None:
    """Follow the documentation's links to other sites; needs a network, so it is no part of CI."""
    install(session, compile_on_first_use(session), ".[docs,probes]")
    options = ["-b", "linkcheck", "-D", "nb_execution_mode=off", *session.posargs]
    session.run("sphinx-build", *options, "docs", "docs/_build/linkcheck")
