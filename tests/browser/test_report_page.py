"""The report as a reader uses it: pointer, keyboard, filters, selectors, tokens."""

import math
import re

import pytest
from browser import MADE, number
from made_runs import Made
from selenium.webdriver.common.keys import Keys

INTERVAL = r"95 % interval ([\d.]+) to ([\d.]+) \(.*7 relations"


def test_a_cell_opens_its_prompts_and_a_prompt_its_tokens(page):
    page.open(1, 2)
    assert page.one("#cell-title").text == "Attn., layer 2"
    assert page.cell(1, 2).get_attribute("aria-current") == "true"
    values = [number(text) for text in page.texts("#cell-prompts .value")]
    assert values == pytest.approx([MADE.js(i, 1, 2) for i in range(11, -1, -1)], rel=2e-3)
    assert page.texts("#cell-prompts .text")[0] == MADE.prompts[11].text
    page.click(page.all("#cell-prompts button")[1])
    assert page.one("#prompt-title").text == MADE.prompts[10].text
    assert page.one("#edited-title").text == "Edited: Attn., layer 2"
    ids, _ = MADE.tops(10, 1, 2)
    assert page.texts("#edited-tokens .token") == [f"␣word{i}" for i in ids]
    assert page.texts("#clean-tokens .token") == [f"␣word{10 + i}" for i in range(10)]
    assert page.texts("#edited-tokens .value")[:3] == ["50 %", "25 %", "13 %"]
    assert page.texts("#clean-tokens .value")[:2] == ["40 %", "24 %"]
    assert page.texts("#edited-tokens small")[0] == "▲5"
    assert "new" in page.texts("#edited-tokens small")
    assert "within 0.4 %" in page.one("#tokens-note").text
    widths = page.each("#edited-tokens .bar", "e.offsetWidth")
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 4 * widths[4] > 0
    assert page.texts("#prompt-tokens .subject") == ["␣Rome10"]
    assert "city" in page.one("#prompt-tokens").text


def test_steps_to_the_next_layer_keep_the_prompt(page):
    page.open(0, 3, 0)
    before = page.texts("#edited-tokens .token")
    page.click(page.one("#layer-up"))
    assert page.one("#edited-title").text == "Edited: Subj., layer 4"
    assert page.texts("#edited-tokens .token") != before
    assert [page.one(css).is_enabled() for css in ("#layer-down", "#layer-up")] == [True, False]
    assert page.one("#prompt-title").text == MADE.prompts[11].text
    page.click(page.all("#prompt-table .link")[4])  # a row of the table opens its prompt
    assert page.one("#prompt-title").text == MADE.prompts[4].text
    assert page.one("#edited-title").text == "Edited: Subj., layer 4"


def test_pointing_tells_mean_interval_null_and_floor(page):
    assert not page.one("#tip").is_displayed()
    page.hover(page.cell(0, 1))
    tip = page.one("#tip").text
    mean = sum(MADE.js(i, 0, 1) for i in range(12)) / 12
    assert page.one("#tip").is_displayed()
    shown = re.search(r"Subj\., layer 1: ([\d.]+)", tip)
    assert number(shown[1]) == pytest.approx(mean, rel=2e-3)
    low, high = re.search(INTERVAL, tip).groups()
    assert number(low) < mean < number(high)
    assert "null subject | ulp: 1.0e−10" in tip
    assert "noise floor 1.0e−9" in tip
    page.hover(page.one("h1"))
    assert not page.one("#tip").is_displayed()
    label = page.cell(0, 1).get_attribute("aria-label")
    assert "Subj., layer 1: " in label
    assert "95 % interval" in label


def test_every_cell_says_its_number(page):
    """Never the colour alone; the colour runs with the number."""
    buttons = page.all("#grid button")
    assert len(buttons) == 3 * 5
    assert all(re.search(r"\d", one.text) for one in buttons)
    colour = page.each('#grid button[data-y="0"]', "getComputedStyle(e).backgroundColor")
    light = [sum(map(int, re.findall(r"\d+", one))) for one in colour]
    assert light == sorted(light)
    assert light[0] < light[-1]


def test_rows_of_nulls_and_other_metrics_when_asked_for(page):
    rows, first = "#grid tbody th", "#cell-prompts .value"
    assert page.texts(rows) == ["Subj.", "Attn.", "last"]
    page.choose("#role", "null")
    assert page.texts(rows) == ["subject | ulp"]
    assert all("faint" in one.get_attribute("class") for one in page.all("#grid button"))
    page.choose("#role", "all")
    assert len(page.texts(rows)) == 4
    page.open(2, 0)
    js = number(page.texts(first)[0])
    page.choose("#metric", "kl")
    assert number(page.texts(first)[0]) == pytest.approx(3 * js, rel=5e-3)
    assert "KL divergence" in page.one("#scale").text
    assert "KL divergence" in page.cell(2, 0).get_attribute("aria-label")
    page.choose("#metric", "logp_clean")
    assert number(page.texts(first)[0]) < -1


def test_sorting_by_a_click_and_by_a_key(page):

    def column(n):
        return page.texts(f"#prompt-table td:nth-child({n})")

    def sorts():
        return page.each("#prompt-table th", "e.ariaSort")

    titles = page.texts("#prompt-table th")
    relation, rank = titles.index("relation") + 1, titles.index("rank of answer") + 1
    assert column(relation)[:3] == ["relation0", "relation1", "relation2"]
    page.click(page.one('[data-sort="relation"]'))
    assert column(relation) == sorted(column(relation))
    assert sorts()[relation - 1] == "ascending"
    page.press(Keys.ENTER)  # the focus has stayed
    assert column(relation) == sorted(column(relation), reverse=True)
    assert sorts()[relation - 1] == "descending"
    assert sorts().count("none") == len(titles) - 1
    page.click(page.one('[data-sort="rank"]'))
    assert list(map(float, column(rank))) == sorted(range(1, 13))  # as numbers: 2 before 10
    page.open(0, 0)
    page.click(page.one('[data-sort="value"]'))
    values = list(map(number, column(len(titles))))
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == 12


def test_filters(page):
    def kept():
        count = page.one("#prompt-count").text
        rows = page.texts("#prompt-table tbody tr")
        assert count.startswith(f"{len(rows)} of 12 prompts")
        return rows

    page.open(0, 0)
    page.type("#filter", "oSLo11")
    (row,) = kept()
    assert "Oslo" in row
    assert len(page.all("#cell-prompts li")) == 1
    page.type("#filter", "")
    page.press(" ", Keys.BACKSPACE)
    assert len(page.texts("#prompt-table tbody tr")) == 12
    page.choose("#group", "group:AH")
    assert len(kept()) == 4
    page.choose("#relation", "relation:relation0")
    assert len(kept()) == 1
    page.type("#filter", "nowhere")
    assert kept() == []


def test_with_the_keyboard_alone(page):
    """Skip link, theme, sections, metric, rows, one stop for the grid, arrows, Enter, tokens."""
    seen = []
    for _ in range(14):
        page.press(Keys.TAB)
        seen.append(page.focused())
        assert seen[-1]["outline"] == "solid", seen[-1]  # the page's own, in every theme
        if seen[-1]["x"] is not None:
            break
    assert [one["text"] for one in seen][:2] == ["Skip to the content", "Dark or light"]
    assert "metric" in [one["id"] for one in seen]
    assert (seen[-1]["x"], seen[-1]["y"]) == ("0", "0")
    page.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    assert (page.focused()["x"], page.focused()["y"]) == ("2", "1")
    assert "Attn., layer 2" in page.one("#tip").text
    (stop,) = page.all('#grid button[tabindex="0"]')  # Tab comes back to where the arrows led
    assert (stop.get_attribute("data-x"), stop.get_attribute("data-y")) == ("2", "1")
    page.press(Keys.ESCAPE)
    assert not page.one("#tip").is_displayed()
    page.press(Keys.END)
    assert page.focused()["x"] == "4"
    page.press(Keys.ARROW_RIGHT)
    assert page.focused()["x"] == "4"
    page.press(Keys.ENTER)
    assert page.one("#cell-title").text == "Attn., layer 4"
    assert page.focused()["id"] == "cell-title"
    page.press(Keys.TAB)
    while "prompt" not in (page.run("return document.activeElement.className") or ""):
        page.press(Keys.TAB)
    page.press(Keys.ENTER)
    assert page.focused()["id"] == "prompt-title"
    assert page.texts("#edited-tokens .token")
    stops = page.run("return document.querySelectorAll('#grid button[tabindex=\"0\"]').length")
    assert stops == 1


def test_tokens_of_one_measured_token_are_never_mixed(made):
    page = made(n=6, tokens=2, rows=Made().rows[:2])
    page.open(0, 0)
    first = number(page.texts("#cell-prompts .value")[0])
    assert page.one("#cell-title").text == "Subj., layer 0, token 0"
    page.choose("#token", "1")  # what is open follows
    assert page.one("#cell-title").text == "Subj., layer 0, token 1"
    mean = sum(Made(n=6).js(i, 0, 0, token=1) for i in range(6)) / 6
    label = page.cell(0, 0).get_attribute("aria-label")
    assert number(re.search(r"token 1: ([\d.]+)", label)[1]) == pytest.approx(mean, rel=2e-3)
    assert number(page.texts("#cell-prompts .value")[0]) == pytest.approx(first / 2, rel=2e-3)
    assert len(page.all("#grid button")) == 2 * 4


def test_what_a_prompt_lacks_is_named(made):
    page = made(n=6, dropped={"subject": {"p001": "no <partner>"}})
    page.open(0, 0)
    assert page.texts("#cell-prompts .value")[-1] == "NA"
    assert page.texts("#cell-prompts small") == ["NA: no <partner>"]
    page.click(page.all("#cell-prompts button")[-1])
    assert page.one("#tokens-note").text == "NA: no <partner>"
    assert page.texts("#edited-tokens .token") == []


def test_tokens_of_one_text_are_told_apart_by_their_ids(made):
    """Pieces of a letter read all alike; the edited run says them in another order."""

    class Turned(Made):
        def tops(self, prompt, row, layer):
            ids = [(prompt + k) % len(self.words) for k in (2, 0, 1, 9, 30)]
            return ids, [-0.5, -1.0, -2.0, -3.0, -25.0]

    page = made(Turned, n=4, words=("\ufffd",) * 40)
    page.open(0, 0, 0)
    assert page.texts("#edited-tokens .token") == ["\ufffd"] * 5
    assert page.texts("#edited-tokens small") == ["▲2", "▼1", "▼1", "▲6", "new"]
    assert page.texts("#edited-tokens .value")[-1] == "<0.01 %"
    assert page.each("#edited-tokens .token", "e.title") == [
        f"token {3 + k}" for k in (2, 0, 1, 9, 30)
    ]
    assert page.one("#clean-tokens .token").get_attribute("title") == "token 3"


MIXED = {
    "n": 4,
    "rows": tuple((name, "knockout", None, 1, "treatment", None) for name in ("heads", "modules")),
    "places": {
        "heads": [{"head": 0}, {"head": 1}],
        "modules": [{"module": "attn"}, {"module": "mlp"}],
    },
}


def test_only_what_there_is_can_be_chosen(made):
    page = made(**MIXED)

    def offered(css):
        return [e.text for e in page.all(f"{css} option") if e.is_enabled()]

    assert offered("#head") == ["all", "0", "1", "none"]
    page.choose("#head", "=null")
    assert offered("#module") == ["all", "attn", "mlp"]
    page.choose("#head", "=0")
    assert offered("#module") == ["all", "none"]
    assert offered("#head") == ["all", "0", "1", "none"]
    page.choose("#module", "=attn")  # which leaves no cell
    assert page.all("#grid button") == []
    assert page.one("#grid").text == "No such cell: no row has head 0 and module attn."
    assert not page.one("#scale").is_displayed()
    page.click(page.all("#prompt-table .link")[0])  # throws nothing, which the fixture sees
    assert page.one("#prompt-title").text == Made(**MIXED).prompts[0].text
    assert page.one("#edited-title").text == "Edited: no such cell"
    assert page.texts("#clean-tokens .token") == [f"␣word{i}" for i in range(10)]
    assert page.texts("#edited-tokens .token") == []
    assert not page.one("#layer-up").is_enabled()
    assert not page.one("#cell").is_displayed()
    page.choose("#module", "")
    page.open(0, 1)
    assert page.one("#edited-title").text.startswith("Edited: heads head 0, layer 1")


def test_infinite_and_missing_values_are_sorted_apart(made):
    class Infinite(Made):
        def js(self, prompt, row, layer, token=0):
            return [5.0, math.inf, 1.0, 2.0, math.inf, 3.0][prompt]

    page = made(Infinite, n=6, dropped={"subject": {"p003": "no partner"}})
    page.open(0, 0)
    assert page.texts("#cell-prompts .value") == ["∞", "∞", "5", "3", "1", "NA"]
    bars = page.each("#cell-prompts .bar", "parseFloat(e.style.width)")
    assert bars == pytest.approx([100, 100, 100, 60, 20, 0], rel=1e-3)
    last = f"#prompt-table td:nth-child({len(page.all('#prompt-table th'))})"
    page.click(page.one('[data-sort="value"]'))
    assert page.texts(last) == ["∞", "∞", "5", "3", "1", "–"]
    page.click(page.one('[data-sort="value"]'))
    assert page.texts(last) == ["1", "3", "5", "∞", "∞", "–"]


def test_minus_infinity_is_the_least(made):
    class Gone(Made):
        def js(self, prompt, row, layer, token=0):
            return math.inf if layer == 1 else 0.25 * (1 + layer)

    page = made(Gone, n=4)
    page.choose("#metric", "logp_clean")  # -1 minus js
    assert page.cell(0, 1).text == "−∞"

    def colour(x):
        return page.run("return getComputedStyle(arguments[0]).backgroundColor", page.cell(0, x))

    assert colour(1) == colour(3) != colour(0)  # layer 3 has the least finite mean
    page.choose("#metric", "kl")
    assert page.cell(0, 1).text == "∞"
    assert colour(1) == colour(3)


def test_one_prompt_is_one(made):
    page = made(n=1)
    page.open(0, 0)
    assert "mean of 1 prompt;" in page.cell(0, 0).get_attribute("aria-label") + ";"
    assert page.one("#cell-count").text == "1 prompt, largest first"
    assert page.one("#prompt-count").text == "1 of 1 prompt"
    assert "over 1 prompt: 16 rows of values" in page.one(".headline").text
