"""How a report looks: narrow window, dark, paper, hostile text, two runs beside each other."""

import json
import re

import pytest
from browser import number, page_of
from made_runs import Made

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


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """Every text of the run is hostile: prompts, answers, tokens, an intervention's name."""
    folder = tmp_path_factory.mktemp("runs") / "<img src=x onerror=alert(1)>"
    rows = (("<b>bold</b> & co", "knockout", None, 5, "treatment", None),)
    texts = dict(enumerate(HOSTILE))
    words = tuple(HOSTILE[i % len(HOSTILE)] + str(i) for i in range(16))
    failed = {"p008": "ValueError: <script>window.alerted = true</script>"}
    made = Made(n=9, rows=rows, texts=texts, words=words, failed=failed)
    return page_of(folder, made), made


@pytest.mark.parametrize("width", [375, 1280])
def test_no_page_is_wider_than_its_window(show, path, hostile, width):
    for file in (path, hostile[0]):
        page = show(file, width=width)
        page.open(0, 0, 0)
        assert page.run("return document.documentElement.scrollWidth") <= width
        assert page.run("return document.querySelector('#grid table').offsetWidth > 150")


def test_a_wide_grid_scrolls_inside_its_box_and_fits_on_paper(made):
    page = made(n=6, layers=list(range(40)), look={"width": 375})
    assert page.run("return document.documentElement.scrollWidth") <= 375
    assert page.run("const e = document.querySelector('#grid'); return e.scrollWidth>e.clientWidth")
    page = made(n=6, layers=list(range(32)), look={"width": 794, "media": "print"})
    right = "return document.querySelector('#grid table').getBoundingClientRect().right"
    assert page.run(right) <= 794


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
    page.open(0, 0, 0)
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


def test_copying_the_bibtex(show, path):
    """Where there is no clipboard, or it refuses, the text is selected and copied the old way."""
    catch = (
        "window.copied = []; document.addEventListener('copy', () => "
        "window.copied.push(document.activeElement.value)); window.board = (value) => "
        "Object.defineProperty(navigator, 'clipboard', {value});"
    )
    for broken in ("board();", "board({writeText: () => Promise.reject()});"):
        page = show(path, before=catch + broken)
        button = page.one('[data-copy="bibtex"]')
        page.click(button)
        page.run("return new Promise((done) => setTimeout(done, 50))")
        (copied,) = page.run("return window.copied")
        assert copied == page.one("#bibtex").get_attribute("textContent")
        assert "@" in copied
        assert "knockgrid" in copied
        assert button.text == "Copied"
        assert not page.all("textarea")
    writes = "board({writeText: (text) => { window.wrote = text; return Promise.resolve(); }});"
    page = show(path, before=catch + writes)
    page.click(page.one('[data-copy="paragraph"]'))
    assert page.run("return window.wrote") == page.one("#paragraph").get_attribute("textContent")


def test_hostile_text_stays_text(show, hostile):
    path, made = hostile
    page = show(path)
    page.choose("#metric", "kl")
    page.open(0, 1)
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
    text = path.read_text("utf-8")
    assert text.count("<script") == 2
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1]
    assert not set(data) & set("<>&\u2028\u2029")
    assert [one["text"] for one in json.loads(data)["prompts"]] == list(HOSTILE)


def test_a_half_finished_run_and_an_empty_one_say_so(made):
    page = made(n=8, shards=1)
    assert "not finished" in page.one(".warning").text
    assert len(page.texts("#prompt-table tbody tr")) == 4
    page = made(n=8, shards=0)
    assert any("This run is empty" in text for text in page.texts(".warning"))
    assert not page.all("#grid")
    assert page.one("#settings").is_displayed()


def test_two_runs_beside_each_other(made, show):
    small = {"n": 6, "scale": 0.5, "layers": [1, 2, 3, 5], "seed": 7}
    page = made(n=6, beside=Made(**small))
    label = page.one('#grid-difference button[data-x="0"]').get_attribute("aria-label")
    expected = -0.5 * sum(Made(n=6).js(i, 0, 1) for i in range(6)) / 6
    assert number(re.search(r"layer 1: ([\d.−]+)", label)[1]) == pytest.approx(expected, rel=3e-3)
    assert page.texts("#grid-difference thead th") == ["layer", "1", "2", "3"]  # both runs' own

    def colour(grid, x):
        css = f'#grid-{grid} button[data-x="{x}"][data-y="0"]'
        return page.each(css, "getComputedStyle(e).backgroundColor")

    # one scale: B's half of A's number is lighter, and layer 1 of B is A's number at layer 3
    assert colour("a", 3) == colour("b", 0) != colour("a", 1)
    names = page.texts("#settings tbody th")
    assert page.texts("#settings td:nth-child(2)")[names.index("seed")] == "0"
    assert "layer_order" in names
    assert page.run("return document.documentElement.scrollWidth") <= 1280
    page.choose("#metric", "kl")
    assert "KL" in page.one("#scale").text
    page = made(**small, beside=Made(n=6))
    assert colour("b", 0) != colour("b", 1)  # the larger run sets the scale, also as the second
    assert show(page.path, width=375).run("return document.documentElement.scrollWidth") <= 375


def test_runs_that_share_no_prompt_or_metric_are_not_subtracted(made):
    texts = {i: f"Somebody said that city number {i} is the capital of" for i in range(4)}
    page = made(n=4, beside=Made(n=4, texts=texts))
    assert page.all("#grid-difference button") == []
    assert page.one("#grid-difference").text.startswith("The runs share no prompt")
    assert len(page.all("#grid-a button")) == len(page.all("#grid-b button")) == 12 + 4
    page = made(n=4, metrics=("tv",), beside=Made(n=4, metrics=("kl",)))
    assert page.one("#grid-difference").text.startswith("The runs share no metric")
    assert not page.one("#metric").is_displayed()
