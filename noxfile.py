"""The project's tasks: `nox -l` lists them, `nox -s NAME` runs one, `nox` runs all checks."""

import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = True
nox.options.reuse_venv = "yes"
nox.options.sessions = ["tests", "browser", "lint", "typecheck", "docs"]

PYTHON = "3.11"
CONSTRAINTS = "constraints/py311.txt"


def install(session: nox.Session, *what: str) -> None:
    """Install what a session needs, in the versions that `CONSTRAINTS` pins."""
    session.install("-c", CONSTRAINTS, *what)


def compile_on_first_use(session: nox.Session) -> str:
    """The pip option that leaves compiling to the first import: halves the time of an install."""
    session.env["PYTHONDONTWRITEBYTECODE"] = ""
    return "--no-compile"


@nox.session(python=PYTHON)
def demo(session: nox.Session) -> None:
    """Install knockgrid as a user does and measure the demo model: writes runs/demo."""
    install(session, compile_on_first_use(session), ".")
    session.run("knockgrid", "demo", "--out", "runs/demo", *session.posargs)


@nox.session(python=PYTHON)
def tests(session: nox.Session) -> None:
    """Run the tests, doctests included, on the installed package (`-- ARGS` go to pytest)."""
    install(session, ".[probes,test]")
    chosen = any(Path(argument.split("::")[0]).exists() for argument in session.posargs)
    targets = [] if chosen else ["tests", "--pyargs", "knockgrid"]
    # Two processes of one thread each: tiny models gain nothing from a second thread.
    two = ["-n", "2", "--dist", "loadfile"]
    one_thread = {"OMP_NUM_THREADS": "1"}
    session.run("pytest", "--durations=15", *two, *targets, *session.posargs, env=one_thread)


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
    """Check the types in src with pyright; Node.js comes as a Python package."""
    packages = [".[probes,ray]", "pandas-stubs", "pyright[nodejs]"]
    install(session, compile_on_first_use(session), *packages)
    session.run("pyright", *session.posargs)


@nox.session(python=PYTHON)
def docs(session: nox.Session) -> None:
    """Execute and build the documentation into docs/_build/html; any warning is an error."""
    install(session, compile_on_first_use(session), ".[docs,probes]")
    options = ["-W", "--keep-going", "-E", "-b", "html", *session.posargs]
    session.run("sphinx-build", *options, "docs", "docs/_build/html")


@nox.session(python=PYTHON)
def build(session: nox.Session) -> None:
    """Build the wheel and the source distribution into dist/ and check their metadata."""
    install(session, "build", "hatchling", "twine")
    session.run("python", "-m", "build", "--no-isolation", "--outdir", "dist")
    session.run("twine", "check", "--strict", *(str(path) for path in Path("dist").iterdir()))
