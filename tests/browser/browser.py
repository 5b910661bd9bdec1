"""A page in Chromium: what is on it, what a user does, and whatever it asks the network for."""

import json
from pathlib import Path
from typing import Any

from made_runs import Made, made_run
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from knockgrid.reports.write import report

MADE = Made(n=12, relations=7, layers=[0, 1, 2, 3, 4])
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--hide-scrollbars", "--lang=en"),
)


def started(binary: str, driver: str, profile: Path) -> webdriver.Chrome:
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(driver))
    found.execute_cdp_cmd("Network.enable", {})
    return found


def page_of(folder: Path, made: Made, beside: Made | None = None) -> Path:
    """The report of a made-up run, `beside` a second one if there is one."""
    made_run(folder, made)
    if beside is None:
        return report(folder)
    other = folder.with_name(f"{folder.name} beside")
    made_run(other, beside)
    return report(folder, compare=other)


def number(text: str) -> float:
    return float(text.replace("−", "-").replace("∞", "inf"))


class Page:
    """One file in the browser; `before` runs in the page ahead of its own script."""

    def __init__(self, driver, path, width=1280, height=1000, dark=False, media="", before=""):
        self.driver, self.path = driver, path
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": [scheme]})
        script = None
        if before:
            added = driver.execute_cdp_cmd(
                "Page.addScriptToEvaluateOnNewDocument", {"source": before}
            )
            script = added["identifier"]
        driver.get_log("performance"), driver.get_log("browser")
        driver.get(path.as_uri())
        if script:
            driver.execute_cdp_cmd(
                "Page.removeScriptToEvaluateOnNewDocument", {"identifier": script}
            )

    def requests(self) -> list[str]:
        """Every address that was asked for since the page was opened, itself included."""
        logged = [
            json.loads(line["message"])["message"] for line in self.driver.get_log("performance")
        ]
        sent = [one for one in logged if one["method"] == "Network.requestWillBeSent"]
        return [one["params"]["request"]["url"] for one in sent]

    def close(self) -> None:
        """Nothing but the file itself and data inside it was asked for, and nothing was logged."""
        asked = [url for url in self.requests() if not url.startswith("data:")]
        assert set(asked) <= {self.path.as_uri()}, asked
        assert self.driver.get_log("browser") == []
        assert not self.run("return window.alerted === true")

    def run(self, script: str, *given: Any) -> Any:
        return self.driver.execute_script(script, *given)

    def one(self, css: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def all(self, css: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def texts(self, css: str) -> list[str]:
        return self.each(css, "e.textContent")

    def each(self, css: str, what: str) -> list[Any]:
        """What a script says of each element, `e`."""
        return self.run(
            f"return [...document.querySelectorAll(arguments[0])].map(e => {what})", css
        )

    def cell(self, row: int, layer: int) -> WebElement:
        return self.one(f'#grid button[data-y="{row}"][data-x="{layer}"]')

    def open(self, row: int, layer: int, prompt: int | None = None) -> None:
        """Click a cell, and one of the prompts behind it."""
        self.click(self.cell(row, layer))
        if prompt is not None:
            self.click(self.all("#cell-prompts button")[prompt])

    def click(self, element: WebElement) -> None:
        """With the pointer, at where the element is."""
        self.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
        ActionChains(self.driver).move_to_element(element).click().perform()

    def hover(self, element: WebElement) -> None:
        self.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
        # the page hides what it shows when it scrolls, and hears of that one frame later
        waits = (
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(done))"
        )
        self.driver.execute_async_script(waits)
        ActionChains(self.driver).move_to_element(element).perform()

    def press(self, *keys: str) -> None:
        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def focused(self) -> dict[str, str]:
        return self.run(
            "const e = document.activeElement; return {id: e.id, text: e.textContent,"
            "x: e.dataset.x, y: e.dataset.y, outline: getComputedStyle(e).outlineStyle}"
        )

    def choose(self, css: str, value: str) -> None:
        self.run(
            "const e = document.querySelector(arguments[0]); e.value = arguments[1];"
            "e.dispatchEvent(new Event('change'))",
            css,
            value,
        )

    def type(self, css: str, text: str) -> None:
        box = self.one(css)
        box.clear()
        box.send_keys(text)
