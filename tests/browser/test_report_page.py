"""The report as a reader uses it: pointer, keyboard, narrow window, dark, paper, hostile text."""

import json
import math
import re

import pytest
from made_runs import Made, made_run
from selenium.webdriver.common.keys import Keys

from knockgrid.reports.write import report

HOSTILE = (
    "<script>window.alerted = true</script>",
    "</script><script>window.alerted = true</script>",
    '"><img src=x onerror="window.alerted = true">',
    "&amp; &lt;b&gt; ' \" `${1}` {{ 7 * 7 }}",
    "\u202eright to left שלום مرحبا",
    "👩‍🚀 emoji \u2028 line \u2029 end",
    "javascript:window.alerted=true",
    "-->]]><!--",
)
INTERVAL = r"95 % interval ([\d.]+) to ([\d.]+) \(.*7 relations"
MADE = Made(n=12, relations=7, layers=[0, 1, 2, 3, 4])


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "plain"
    made_run(folder, MADE)
    return report(folder)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """Every text of the run is hostile: prompts, answers, tokens, an intervention's name."""
    folder = tmp_path_factory.mktemp("runs") / "<img src=x onerror=alert(1)>"
    rows = (("<b>bold</b> & co", "knockout", None, 5, "treatment", None),)
    texts = dict(enumerate(HOSTILE))
    words = tuple(HOSTILE[i % len(HOSTILE)] + str(i) for i in range(16))
    failed = {"p008": "ValueError: <script>window.alerted = true</script>"}
    made = Made(n=9, rows=rows, texts=texts, words=words, failed=failed)
    made_run(folder, made)
    return report(folder), made


def number(text: str) -> float:
    return float(text.replace("−", "-").replace("∞", "inf"))


def test_a_cell_opens_its_prompts_and_a_prompt_its_tokens(show, path):
    page = show(path)
    page.click(page.cell(1, 2))
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
    widths = page.run(
        "return [...document.querySelectorAll('#edited-tokens .bar')].map(e => e.offsetWidth)"
    )
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 4 * widths[4] > 0
    subject = [e.text for e in page.all("#prompt-tokens .subject")]
    assert subject == ["␣Rome10"]
    assert "city" in page.one("#prompt-tokens").text


def test_steps_to_the_next_layer_keep_the_prompt(show, path):
    page = show(path)
    page.click(page.cell(0, 3))
    page.click(page.all("#cell-prompts button")[0])
    before = page.texts("#edited-tokens .token")
    page.click(page.one("#layer-up"))
    assert page.one("#edited-title").text == "Edited: Subj., layer 4"
    assert page.texts("#edited-tokens .token") != before
    assert not page.one("#layer-up").is_enabled()
    assert page.one("#layer-down").is_enabled()
    assert page.one("#prompt-title").text == MADE.prompts[11].text


def test_pointing_tells_mean_interval_null_and_floor(show, path):
    page = show(path)
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


def test_every_cell_says_its_number(show, path):
    """Never the colour alone; the colour runs with the number."""
    page = show(path)
    buttons = page.all("#grid button")
    assert len(buttons) == 3 * 5
    assert all(re.search(r"\d", one.text) for one in buttons)
    colour = page.run(
        "return [...document.querySelectorAll('#grid button[data-y=\"0\"]')].map(e => "
        "getComputedStyle(e).backgroundColor)"
    )
    light = [sum(map(int, re.findall(r"\d+", one))) for one in colour]
    assert light == sorted(light)
    assert light[0] < light[-1]


def test_rows_of_nulls_are_there_when_asked_for(show, path):
    page = show(path)
    rows = "#grid tbody th"
    assert page.texts(rows) == ["Subj.", "Attn.", "last"]
    page.choose("#role", "null")
    assert page.texts(rows) == ["subject | ulp"]
    assert all("faint" in one.get_attribute("class") for one in page.all("#grid button"))
    page.choose("#role", "all")
    assert len(page.texts(rows)) == 4


def test_another_metric(show, path):
    page = show(path)
    page.click(page.cell(2, 0))
    js = number(page.texts("#cell-prompts .value")[0])
    page.choose("#metric", "kl")
    assert number(page.texts("#cell-prompts .value")[0]) == pytest.approx(3 * js, rel=5e-3)
    assert "KL divergence" in page.one("#scale").text
    assert "KL divergence" in page.cell(2, 0).get_attribute("aria-label")
    page.choose("#metric", "logp_clean")
    assert number(page.texts("#cell-prompts .value")[0]) < -1


def test_sorting_by_a_click_and_by_a_key(show, path):
    page = show(path)

    def column(n):
        return page.texts(f"#prompt-table td:nth-child({n})")

    def sorts():
        return page.run(
            "return [...document.querySelectorAll('#prompt-table th')].map(e => e.ariaSort)"
        )

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
    page.click(page.cell(0, 0))
    page.click(page.one('[data-sort="value"]'))
    values = list(map(number, column(len(titles))))
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == 12


def test_filters(show, path):
    page = show(path)
    page.click(page.cell(0, 0))
    page.type("#filter", "oSLo11")
    rows = page.texts("#prompt-table tbody tr")
    assert len(rows) == 1
    assert "Oslo" in rows[0]
    assert page.one("#prompt-count").text == "1 of 12 prompts"
    assert len(page.all("#cell-prompts li")) == 1
    page.type("#filter", "")
    page.press(" ", Keys.BACKSPACE)
    assert len(page.texts("#prompt-table tbody tr")) == 12
    page.choose("#group", "group:AH")
    assert len(page.texts("#prompt-table tbody tr")) == 4
    page.choose("#relation", "relation:relation0")
    assert len(page.texts("#prompt-table tbody tr")) == 1
    page.type("#filter", "nowhere")
    assert page.one("#prompt-count").text == "0 of 12 prompts"


def test_a_row_of_the_table_opens_its_prompt(show, path):
    page = show(path)
    page.click(page.all("#prompt-table .link")[4])
    assert page.one("#prompt-title").text == MADE.prompts[4].text
    assert page.one("#edited-title").text == "Edited: Subj., layer 0"


def test_with_the_keyboard_alone(show, path):
    """Skip link, theme, sections, metric, rows, one stop for the grid, arrows, Enter, tokens."""
    page = show(path)
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


@pytest.mark.parametrize("width", [375, 1280])
def test_no_page_is_wider_than_its_window(show, path, hostile, width):
    for file in (path, hostile[0]):
        page = show(file, width=width)
        page.click(page.cell(0, 0))
        page.click(page.all("#cell-prompts button")[0])
        assert page.run("return document.documentElement.scrollWidth") <= width
        assert page.run("return document.querySelector('#grid table').offsetWidth > 150")


def test_a_wide_grid_scrolls_inside_its_box(show, tmp_path):
    made_run(tmp_path / "wide", Made(n=6, layers=list(range(40))))
    page = show(report(tmp_path / "wide"), width=375)
    assert page.run("return document.documentElement.scrollWidth") <= 375
    assert page.run("const e = document.querySelector('#grid'); return e.scrollWidth>e.clientWidth")


def background(page):
    colour = page.run("return getComputedStyle(document.body).backgroundColor")
    return sum(map(int, re.findall(r"\d+", colour)))


def contrast(page, css: str) -> float:
    """The ratio of WCAG 2 between a text and what lies behind it."""
    ink, paper = page.run(
        "const e = document.querySelector(arguments[0]); let b = e;"
        "const of = (n) => getComputedStyle(n).backgroundColor;"
        "while (b.parentElement && /, 0\\)$|transparent/.test(of(b))) b = b.parentElement;"
        "return [getComputedStyle(e).color, of(b)]",
        css,
    )

    def light(colour):
        parts = [int(one) / 255 for one in re.findall(r"\d+", colour)[:3]]
        r, g, b = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    one, other = sorted((light(ink), light(paper)))
    return (other + 0.05) / (one + 0.05)


@pytest.mark.parametrize("dark", [True, False])
def test_dark_and_light(show, path, dark):
    page = show(path, dark=dark)
    page.click(page.cell(0, 0))
    page.click(page.all("#cell-prompts button")[0])
    for _ in range(2):
        assert (background(page) < 200) == dark
        texts = ("body", ".hint", ".link", ".token.subject", "#cell-prompts .value", ".counts dt")
        assert {css: contrast(page, css) >= 4.5 for css in texts} == dict.fromkeys(texts, True)
        cells = [contrast(page, f'#grid button[data-x="{i}"][data-y="0"]') for i in range(5)]
        assert min(cells) >= 3
        page.click(page.one("#theme"))
        dark = not dark


def test_on_paper_the_controls_are_gone(show, path):
    page = show(path, media="print", dark=True)
    controls = page.all(".control")
    assert len(controls) > 8
    assert not any(one.is_displayed() for one in controls)
    assert page.one("#grid table").is_displayed()
    assert page.one("#paragraph").is_displayed()
    assert page.one("figure svg").is_displayed()
    assert background(page) == 3 * 255
    page.run("document.querySelector('#grid button').click()")
    page.run("document.querySelector('#cell-prompts button').click()")
    for css in (".hint", ".token.subject", "#cell-prompts .text", "#settings dt"):
        assert contrast(page, css) >= 4.5, css


def test_a_wide_grid_fits_on_paper(show, tmp_path):
    made_run(tmp_path / "wide", Made(n=6, layers=list(range(32))))
    page = show(report(tmp_path / "wide"), width=794, media="print")
    right = "return document.querySelector('#grid table').getBoundingClientRect().right"
    assert page.run(right) <= 794


def test_copying_the_bibtex(show, path):
    """Where there is no clipboard, or it refuses, the text is selected and copied the old way."""
    catch = (
        "window.copied = []; document.addEventListener('copy', () => "
        "window.copied.push(document.activeElement.value))"
    )
    for broken in (
        "Object.defineProperty(navigator, 'clipboard', {value: undefined});",
        "Object.defineProperty(navigator, 'clipboard', "
        "{value: {writeText: () => Promise.reject()}});",
    ):
        page = show(path, before=broken + catch)
        button = page.one('[data-copy="bibtex"]')
        page.click(button)
        page.run("return new Promise((done) => setTimeout(done, 50))")
        (copied,) = page.run("return window.copied")
        assert copied == page.one("#bibtex").get_attribute("textContent")
        assert "@" in copied
        assert "knockgrid" in copied
        assert button.text == "Copied"
        assert not page.all("textarea")
    wrote = (
        "Object.defineProperty(navigator, 'clipboard', {value: {writeText: (text) => "
        "{ window.wrote = text; return Promise.resolve(); }}});"
    )
    page = show(path, before=wrote)
    page.click(page.one('[data-copy="paragraph"]'))
    assert page.run("return window.wrote") == page.one("#paragraph").get_attribute("textContent")


def test_hostile_text_stays_text(show, hostile):
    path, made = hostile
    page = show(path)
    page.choose("#metric", "kl")
    page.click(page.cell(0, 1))
    for index in range(8):
        page.run("document.querySelector(`[data-prompt='${arguments[0]}'].prompt`).click()", index)
        assert page.one("#prompt-title").get_attribute("textContent") == HOSTILE[index]
    shown = page.texts("#prompt-table .link")
    assert set(shown) == set(HOSTILE)
    tokens = page.texts("#edited-tokens .token")
    ids, _ = made.tops(7, 0, 1)
    assert tokens == [made.words[i] for i in ids]
    assert page.texts("#grid tbody th") == ["<b>bold</b> & co"]
    assert page.one("h1").text == "<img src=x onerror=alert(1)>"
    assert any("<script>" in text for text in page.texts(".warning"))
    inside = page.run(
        "return [document.scripts.length, document.querySelectorAll('main img, main b').length]"
    )
    assert inside == [2, 0]
    assert page.run("return window.alerted") is None


def test_tokens_of_one_measured_token_are_never_mixed(show, tmp_path):
    made = Made(n=6, tokens=2, rows=Made().rows[:2])
    made_run(tmp_path / "two", made)
    page = show(report(tmp_path / "two"))
    page.click(page.cell(0, 0))
    first = number(page.texts("#cell-prompts .value")[0])
    assert page.one("#cell-title").text == "Subj., layer 0, token 0"
    page.choose("#token", "1")  # what is open follows
    assert page.one("#cell-title").text == "Subj., layer 0, token 1"
    mean = sum(made.js(i, 0, 0, token=1) for i in range(6)) / 6
    label = page.cell(0, 0).get_attribute("aria-label")
    assert number(re.search(r"token 1: ([\d.]+)", label)[1]) == pytest.approx(mean, rel=2e-3)
    assert number(page.texts("#cell-prompts .value")[0]) == pytest.approx(first / 2, rel=2e-3)
    assert len(page.all("#grid button")) == 2 * 4


def test_a_half_finished_run_and_an_empty_one_say_so(show, tmp_path):
    made_run(tmp_path / "half", Made(n=8, shards=1))
    page = show(report(tmp_path / "half"))
    warning = page.one(".warning").text
    assert "not finished: 1 of 2 shards and 4 of 8 prompts" in warning
    assert len(page.texts("#prompt-table tbody tr")) == 4
    made_run(tmp_path / "empty", Made(n=8, shards=0))
    page = show(report(tmp_path / "empty"))
    assert any("This run is empty" in text for text in page.texts(".warning"))
    assert not page.all("#grid")
    assert page.one("#settings").is_displayed()


def test_what_a_prompt_lacks_is_named(show, tmp_path):
    made_run(tmp_path / "r", Made(n=6, dropped={"subject": {"p001": "no <partner>"}}))
    page = show(report(tmp_path / "r"))
    page.click(page.cell(0, 0))
    assert page.texts("#cell-prompts .value")[-1] == "NA"
    assert page.texts("#cell-prompts small") == ["NA: no <partner>"]
    page.click(page.all("#cell-prompts button")[-1])
    assert page.one("#tokens-note").text == "NA: no <partner>"
    assert page.texts("#edited-tokens .token") == []


def test_two_runs_beside_each_other(show, tmp_path):
    one, other = Made(n=6), Made(n=6, scale=0.5, layers=[1, 2, 3, 5], seed=7)
    made_run(tmp_path / "one", one)
    made_run(tmp_path / "other", other)
    page = show(report(tmp_path / "one", compare=tmp_path / "other"))
    label = page.one('#grid-difference button[data-x="0"]').get_attribute("aria-label")
    expected = -0.5 * sum(one.js(i, 0, 1) for i in range(6)) / 6
    assert number(re.search(r"layer 1: ([\d.−]+)", label)[1]) == pytest.approx(expected, rel=3e-3)
    assert page.texts("#grid-difference thead th") == ["layer", "1", "2", "3"]  # both runs' own

    def colours(grid, x):
        return page.run(
            "return getComputedStyle(document.querySelector(arguments[0])).backgroundColor",
            f'#grid-{grid} button[data-x="{x}"][data-y="0"]',
        )

    # one scale: B's half of A's number is lighter, and layer 1 of B is A's number at layer 3
    assert colours("a", 3) == colours("b", 0) != colours("a", 1)
    table = dict(
        zip(page.texts("#settings tbody th"), page.texts("#settings td:nth-child(2)"), strict=False)
    )
    assert table["seed"] == "0"
    assert "layer_order" in table
    assert page.run("return document.documentElement.scrollWidth") <= 1280
    page.choose("#metric", "kl")
    assert "KL" in page.one("#scale").text
    page = show(report(tmp_path / "other", compare=tmp_path / "one"))
    assert colours("b", 0) != colours("b", 1)  # the larger run sets the scale, also as the second
    assert show(page.path, width=375).run("return document.documentElement.scrollWidth") <= 375


def test_tokens_of_one_text_are_told_apart_by_their_ids(show, tmp_path):
    """Pieces of a letter read all alike; the edited run says them in another order."""

    class Turned(Made):
        def tops(self, prompt, row, layer):
            ids = [(prompt + k) % len(self.words) for k in (2, 0, 1, 9, 30)]
            return ids, [-0.5, -1.0, -2.0, -3.0, -25.0]

    made_run(tmp_path / "r", Turned(n=4, words=("\ufffd",) * 40))
    page = show(report(tmp_path / "r"))
    page.click(page.cell(0, 0))
    page.click(page.all("#cell-prompts button")[0])
    assert page.texts("#edited-tokens .token") == ["\ufffd"] * 5
    assert page.texts("#edited-tokens small") == ["▲2", "▼1", "▼1", "▲6", "new"]
    assert page.texts("#edited-tokens .value")[-1] == "<0.01 %"
    titles = [e.get_attribute("title") for e in page.all("#edited-tokens .token")]
    assert titles == [f"token {3 + k}" for k in (2, 0, 1, 9, 30)]
    assert page.one("#clean-tokens .token").get_attribute("title") == "token 3"


def test_an_edit_that_changes_nothing_shows_the_same_numbers(show, tmp_path):
    class Same(Made):
        def tops(self, prompt, row, layer):
            ids = [(prompt + k) % len(self.words) for k in range(self.top)]
            return ids, [math.log(0.6**k * 0.4) for k in range(self.top)]

    made_run(tmp_path / "r", Same(n=4))
    page = show(report(tmp_path / "r"))
    page.click(page.cell(0, 0))
    page.click(page.all("#cell-prompts button")[0])
    for css in (".token", ".value"):
        assert page.texts(f"#edited-tokens {css}") == page.texts(f"#clean-tokens {css}")
    assert page.texts("#edited-tokens .value")[:3] == ["40 %", "24 %", "14 %"]
    assert "within 0.4 %" in page.one("#tokens-note").text
    assert page.texts("#edited-tokens small") == [""] * 10


MIXED = Made(
    n=4,
    rows=tuple((name, "knockout", None, 1, "treatment", None) for name in ("heads", "modules")),
    places={
        "heads": [{"head": 0}, {"head": 1}],
        "modules": [{"module": "attn"}, {"module": "mlp"}],
    },
)


def test_selectors_that_leave_no_cell(show, tmp_path):
    made_run(tmp_path / "mixed", MIXED)
    page = show(report(tmp_path / "mixed"))
    page.choose("#head", "=0")
    page.choose("#module", "=attn")
    assert page.all("#grid button") == []
    assert page.one("#grid").text == "No such cell: no row has head 0 and module attn."
    assert not page.one("#scale").is_displayed()
    page.click(page.all("#prompt-table .link")[0])  # throws nothing, which the fixture sees
    assert page.one("#prompt-title").text == MIXED.prompts[0].text
    assert page.one("#edited-title").text == "Edited: no such cell"
    assert page.texts("#clean-tokens .token") == [f"␣word{i}" for i in range(10)]
    assert page.texts("#edited-tokens .token") == []
    assert not page.one("#layer-up").is_enabled()
    assert not page.one("#cell").is_displayed()
    page.choose("#module", "")
    page.click(page.cell(0, 1))
    assert page.one("#edited-title").text.startswith("Edited: heads head 0, layer 1")


def test_only_what_there_is_can_be_chosen(show, tmp_path):
    made_run(tmp_path / "mixed", MIXED)
    page = show(report(tmp_path / "mixed"))

    def offered(css):
        return [e.text for e in page.all(f"{css} option") if e.is_enabled()]

    assert offered("#head") == ["all", "0", "1", "none"]
    page.choose("#head", "=0")
    assert offered("#module") == ["all", "none"]
    assert offered("#head") == ["all", "0", "1", "none"]
    page.choose("#head", "=null")
    assert offered("#module") == ["all", "attn", "mlp"]


def test_infinite_and_missing_values_are_sorted_apart(show, tmp_path):
    class Infinite(Made):
        def js(self, prompt, row, layer, token=0):
            return [5.0, math.inf, 1.0, 2.0, math.inf, 3.0][prompt]

    made_run(tmp_path / "r", Infinite(n=6, dropped={"subject": {"p003": "no partner"}}))
    page = show(report(tmp_path / "r"))
    page.click(page.cell(0, 0))
    assert page.texts("#cell-prompts .value") == ["∞", "∞", "5", "3", "1", "NA"]
    bars = page.run(
        "return [...document.querySelectorAll('#cell-prompts .bar')]"
        ".map(e => parseFloat(e.style.width))"
    )
    assert bars == pytest.approx([100, 100, 100, 60, 20, 0], rel=1e-3)
    last = f"#prompt-table td:nth-child({len(page.all('#prompt-table th'))})"
    page.click(page.one('[data-sort="value"]'))
    assert page.texts(last) == ["∞", "∞", "5", "3", "1", "–"]
    page.click(page.one('[data-sort="value"]'))
    assert page.texts(last) == ["1", "3", "5", "∞", "∞", "–"]


def test_minus_infinity_is_the_least(show, tmp_path):
    class Gone(Made):
        def js(self, prompt, row, layer, token=0):
            return math.inf if layer == 1 else 0.25 * (1 + layer)

    made_run(tmp_path / "r", Gone(n=4))
    page = show(report(tmp_path / "r"))
    page.choose("#metric", "logp_clean")  # -1 minus js
    assert page.cell(0, 1).text == "−∞"

    def colour(x):
        return page.run("return getComputedStyle(arguments[0]).backgroundColor", page.cell(0, x))

    assert colour(1) == colour(3) != colour(0)  # layer 3 has the least finite mean
    page.choose("#metric", "kl")
    assert page.cell(0, 1).text == "∞"
    assert colour(1) == colour(3)


def test_one_prompt_is_one(show, tmp_path):
    made_run(tmp_path / "r", Made(n=1))
    page = show(report(tmp_path / "r"))
    page.click(page.cell(0, 0))
    assert "mean of 1 prompt;" in page.cell(0, 0).get_attribute("aria-label") + ";"
    assert page.one("#cell-count").text == "1 prompt, largest first"
    assert page.one("#prompt-count").text == "1 of 1 prompt"
    assert "over 1 prompt: 16 rows of values" in page.one(".headline").text


def test_runs_that_share_no_prompt_are_not_subtracted(show, tmp_path):
    made_run(tmp_path / "a", Made(n=4))
    texts = {i: f"Somebody said that city number {i} is the capital of" for i in range(4)}
    made_run(tmp_path / "b", Made(n=4, texts=texts))
    page = show(report(tmp_path / "a", compare=tmp_path / "b"))
    assert page.all("#grid-difference button") == []
    assert page.one("#grid-difference").text.startswith("The runs share no prompt")
    assert len(page.all("#grid-a button")) == len(page.all("#grid-b button")) == 12 + 4
    made_run(tmp_path / "c", Made(n=4, metrics=("tv",)))
    made_run(tmp_path / "d", Made(n=4, metrics=("kl",)))
    page = show(report(tmp_path / "c", compare=tmp_path / "d"))
    assert page.one("#grid-difference").text.startswith("The runs share no metric")
    assert not page.one("#metric").is_displayed()


def test_the_data_are_json_of_which_nothing_is_code(hostile):
    text = hostile[0].read_text("utf-8")
    assert text.count("<script") == 2
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1]
    assert not set(data) & set("<>&\u2028\u2029")
    assert [one["text"] for one in json.loads(data)["prompts"]] == list(HOSTILE)
