"""Reports in a headless Chromium: `nox -s browser` runs these, the default run leaves them out."""

import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # importlib mode: `made_runs` is ours
sys.path.insert(0, str(Path(__file__).parent))

if not os.environ.get("KNOCKGRID_BROWSER"):
    collect_ignore_glob = ["*.py"]  # all of them, as doctests are looked for in each


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    """A browser in which nothing but the pages happens."""
    from browser import started

    paths = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    binary = next((path for path in paths if path), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.fail("there is no Chromium; install the packages chromium and chromium-driver")
    found = started(binary, driver, tmp_path_factory.mktemp("profile"))
    yield found
    found.quit()


@pytest.fixture
def show(chromium):
    """Opens a file; afterwards nothing may have been logged or asked for."""
    from browser import Page

    opened = []

    def page(path: Path, **options) -> Page:
        if opened:
            opened.pop().close()
        opened.append(Page(chromium, path, **options))
        return opened[-1]

    yield page
    for one in opened:
        one.close()


@pytest.fixture
def made(show, tmp_path):
    """Opens the page of a made-up run."""
    from browser import page_of
    from made_runs import Made

    def page(kind=Made, look=None, beside=None, **options):
        folder = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        return show(page_of(folder, kind(**options), beside), **(look or {}))

    return page


@pytest.fixture(scope="session")
def path(tmp_path_factory):
    from browser import MADE, page_of

    return page_of(tmp_path_factory.mktemp("runs") / "plain", MADE)


@pytest.fixture
def page(show, path):
    """The page of an ordinary run."""
    return show(path)
