"""Reports: the page holds the figures of ``--json``, shows them in a real browser, and no prompt,
however hostile, becomes more than text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import uniroute_fast as uf
from uniroute_fast import datasets
from uniroute_fast.batch import what_if
from uniroute_fast.cli import main
from uniroute_fast.datasets import Dataset
from uniroute_fast.errors import InvalidArgumentError
from uniroute_fast.evaluate import route_whole_pool, run_trials
from uniroute_fast.report import evaluation_page, save_curves, save_page, what_if_page

HOSTILE = [
    "</script><script>window.pwned = 1</script> what is 1 plus 1?",
    "<img src=x onerror='window.pwned = 2'> &amp; what is 2 plus 2?",
    "\u202egnp.exe\u202c what is \x00\x1b[31m 3 plus 3?\u2028",
    "مرحبا، ما هو 4 + 4؟ what is",
    "<!--<script> %%SCRIPT%% what is 5 plus 5?",
]
COMPARE = ["--model-column", "served", "--budget", "600", "--json"]
EVALUATE = ["--trials", "3", "--methods", "uniroute,kmeans,knn,oracle", "--json"]


@pytest.fixture(scope="module")
def data():
    """Sums and rivers; LLMs are good at one, the other, or both at a price. Some texts attack."""
    rng = np.random.default_rng(0)
    n, m = 400, 12
    kind = rng.integers(2, size=n)
    texts = [
        f"what is {a} plus {b}?" if k else f"name {a} long rivers of land {b}"
        for k, a, b in zip(kind, rng.integers(99, size=n), rng.integers(99, size=n), strict=True)
    ]
    for i, text in zip(np.flatnonzero(kind)[:100], HOSTILE * 20, strict=True):
        texts[i] = text
    rate = np.where(kind[:, None] == rng.integers(2, size=m), 0.9, 0.3)
    rate += 0.05 * (np.arange(m) % 3 == 0)
    return Dataset(
        "kinds <b>&",
        [f"p{i}" for i in range(n)],
        ["<i>sums</i>" if k else "rivers" for k in kind],
        texts,
        (rng.random((n, m)) < rate).astype(float),
        ["<img src=x onerror=window.pwned=3>", *(f"m{i}" for i in range(1, m))],
        1.0 + np.arange(m) % 3 + rng.random(m),
        "USD",
    )


@pytest.fixture(scope="module")
def evaluation(data, tmp_path_factory):
    """The page that the command writes, and what it prints."""
    folder = tmp_path_factory.mktemp("evaluation")
    datasets.save(data, folder / "kinds")
    page = folder / "report.html"
    printed = run(["evaluate", folder / "kinds", *EVALUATE, "--report", page])
    return page, json.loads(printed)


@pytest.fixture(scope="module")
def comparison(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("comparison")
    router = uf.Router.fit(list(data.texts), n_clusters=4)
    router.add_models(list(data.models), data.costs, list(data.texts), data.losses)
    router.save(folder / "pool.uniroute")
    served = np.random.default_rng(1).choice([*data.models, "a stranger"], len(data.texts))
    log = {"text": [*data.texts, "", None], "served": [*served, "m1", "m1"]}
    pq.write_table(pa.table(log), folder / "log.parquet")
    page = folder / "what-if.html"
    printed = run(
        ["what-if", folder / "pool.uniroute", folder / "log.parquet", *COMPARE, "--report", page]
    )
    return page, json.loads(printed)


def run(arguments) -> str:
    import contextlib
    import io

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main([str(argument) for argument in arguments]) == 0
    return out.getvalue()


def embedded(page):
    """The figures that a page holds."""
    found = re.findall(r'<script type="application/json" id="figures">(.*?)</script>', page, re.S)
    assert len(found) == 1
    return json.loads(found[0])


def without_times(figures):
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in figures.get("methods", [])]
    timeless = {k: v for k, v in figures.items() if k != "seconds"}
    return timeless | ({"methods": rows} if rows else {})


# --- what the page holds ---


@pytest.mark.parametrize("report", ["evaluation", "comparison"])
def test_the_page_holds_the_figures_that_the_command_prints(report, request):
    page, printed = request.getfixturevalue(report)
    assert embedded(page.read_text()) == without_times(printed)


@pytest.mark.parametrize("report", ["evaluation", "comparison"])
def test_the_page_needs_no_network_and_lets_nothing_else_run(report, request):
    text = request.getfixturevalue(report)[0].read_text()
    assert text.count("<script") == text.count("</script>") == 2
    assert "<img" not in text
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", text.split("<script")[0])
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1]
    assert "default-src 'none'" in policy
    for directive, tag in (("script-src", "<script>"), ("style-src", "<style>")):
        content = text.split(tag)[1].split(tag.replace("<", "</"))[0]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy


def test_the_same_data_and_seed_give_the_same_bytes(data, evaluation, tmp_path):
    datasets.save(data, tmp_path / "kinds")
    again = tmp_path / "again.html"
    run(["evaluate", tmp_path / "kinds", *EVALUATE, "--report", again])
    assert again.read_bytes() == evaluation[0].read_bytes()


def test_a_page_is_written_whole_or_not_at_all(tmp_path):
    save_page("old", tmp_path / "page.html")
    with pytest.raises(UnicodeEncodeError):
        save_page("new \ud800", tmp_path / "page.html")
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]
    assert (tmp_path / "page.html").read_text() == "old"


def test_names_that_are_no_text_do_not_stop_a_report(data):
    table = run_trials(data, ["zero_router"], trials=1).to_dict()
    page = evaluation_page(table | {"dataset": "lone \ud800"})
    page.encode("utf-8")
    assert embedded(page)["dataset"] == "lone \ud800"


# --- the figures ---


def test_mean_curves_have_the_area_of_the_table(data):
    table = run_trials(data, ["uniroute", "oracle"], trials=4)
    for name, curve in table.mean_curves().items():
        area = np.mean((curve.quality[1:] + curve.quality[:-1]) / 2)
        assert area == pytest.approx(table[name].area, abs=2e-3)
        gain = np.mean((curve.gain[1:] + curve.gain[:-1]) / 2)
        assert gain == pytest.approx(table[name].gain, abs=2e-3)
    reference = table.mean_curves()["zero_router"]
    assert not reference.gain.any()
    assert not reference.gain_2se.any()
    assert table["uniroute"].gain == pytest.approx(
        table["uniroute"].area - table["zero_router"].area
    )


def test_the_whole_pool_is_what_its_router_does(data):
    pool = route_whole_pool(data, seed=3)
    best, *stops = pool.outcomes
    assert pool.train + pool.validation + pool.test + pool.unroutable == len(data.ids)
    assert best.models == {pool.best_single: pool.test}
    by_name = {model["name"]: model for model in pool.models}
    assert by_name[pool.best_single]["quality"] == max(m["quality"] for m in pool.models)
    assert best.quality == pytest.approx(by_name[pool.best_single]["quality"])
    spends = [stop.spend for stop in stops]
    assert spends == sorted(spends)
    assert stops[-1].cost_weight == 0
    for stop in pool.outcomes:
        assert sum(stop.models.values()) == stop.rows == pool.test
        assert sum(by_name[m]["cost"] * n for m, n in stop.models.items()) == pytest.approx(
            stop.spend
        )
        for parts in (stop.clusters, stop.llms):
            assert sum(part["prompts"] for part in parts) == pool.test
            assert sum(part["spend"] for part in parts) == pytest.approx(stop.spend)
            total = sum(part["prompts"] * part["quality"] for part in parts)
            assert total / pool.test == pytest.approx(stop.quality)
        assert stop.gain == pytest.approx(stop.quality - best.quality)
    # The router tells the kinds apart, so at quality alone it beats any LLM for all.
    assert pool.reached
    assert stops[-1].gain > 0.02
    first = next(stop for stop in stops if stop.gain >= -1e-12)
    assert pool.qnc == pytest.approx(min(1, first.spend / best.spend), abs=0.05)
    tasks = sum((Counter(cluster.tasks) for cluster in pool.clusters), Counter())
    assert sum(tasks.values()) == pool.test
    for cluster in pool.clusters:
        assert all(text in data.texts for text in cluster.typical)
        assert cluster.nearly["cost"] <= cluster.best["cost"]


def test_what_if_parts_add_up(comparison):
    _, figures = comparison
    for outcome in figures["outcomes"]:
        for parts in (outcome["llms"], outcome["clusters"]):
            assert sum(part["prompts"] for part in parts) == outcome["rows"]
            assert sum(part["spend"] for part in parts) == pytest.approx(outcome["spend"])
            total = sum(part["prompts"] * part["quality"] for part in parts)
            assert total / outcome["rows"] == pytest.approx(outcome["quality"])
        assert {m["model"]: m["prompts"] for m in outcome["llms"]} == outcome["models"]


@pytest.mark.parametrize("suffix", ["svg", "png", "pdf"])
def test_figures_are_drawn_and_the_same_each_time(suffix, data, tmp_path):
    pytest.importorskip("matplotlib")
    table = run_trials(data, ["kmeans"], trials=2)
    for name in ("one", "two"):
        save_curves(table, tmp_path / f"{name}.{suffix}")
    drawn = (tmp_path / f"one.{suffix}").read_bytes()
    assert drawn == (tmp_path / f"two.{suffix}").read_bytes()
    assert drawn.startswith({"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}[suffix])
    with pytest.raises(InvalidArgumentError, match=r"expected a name in \.svg"):
        save_curves(table, tmp_path / "curves.docx")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--report", "nowhere/report.html"], "--report: nowhere/report.html: no folder nowhere"),
        (["--report", "."], r"--report: \. is a folder"),
        (["--figure", "curves.docx"], "expected a name in .svg, .png, .pdf"),
        (["--figure", "nowhere/curves.svg"], "--figure: nowhere/curves.svg: no folder"),
    ],
)
def test_files_that_cannot_be_written_are_refused_before_any_work(
    options, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "no-such-set", *options]) == 2
    assert re.search(message, capsys.readouterr().err)


# --- in a browser ---


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium, driven by Selenium."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not (chromium and shutil.which("chromedriver")):
        pytest.skip("no chromium and chromedriver on PATH: Debian's chromium, chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    try:
        driver = webdriver.Chrome(options=options, service=service)
    except Exception as error:  # One that is there and does not start is not ours to mend.
        pytest.skip(f"{chromium} does not start: {error}")
    yield driver
    driver.quit()


class Page:
    """An open report."""

    def __init__(self, browser, file, width=1200, dark=False):
        self.browser = browser
        browser.get_log("browser")  # Those of pages opened before.
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        browser.get(f"file://{file}")

    def all(self, selector):
        return self.browser.find_elements("css selector", selector)

    def one(self, selector):
        (element,) = self.all(selector)
        return element

    def texts(self, selector):
        return [element.text for element in self.all(selector)]

    def press(self, element, *keys):
        element.send_keys(*keys)

    def run(self, script):
        return self.browser.execute_script(script)

    def complaints(self):
        return self.browser.get_log("browser")


def number(text):
    """A number as the page shows it; an error after it is left out."""
    found = re.match(r"[+−±]?[\d.,]+", text)
    assert found, text
    value = float(found[0].replace("−", "-").replace("±", "").replace(",", ""))
    return value / 100 if "%" in text else value


PAGES = pytest.mark.parametrize("report", ["evaluation", "comparison"])


@PAGES
@pytest.mark.parametrize("width", [375, 720, 1010, 1200])
def test_pages_load_without_complaint_or_sideways_scroll(report, width, browser, request):
    page = Page(browser, request.getfixturevalue(report)[0], width)
    assert page.complaints() == []
    assert page.run("return document.documentElement.scrollWidth") <= width
    # Nor does anything in it reach beyond, but what scrolls for itself and hidden headings.
    beyond = page.run(
        "return [...document.querySelectorAll('main *')]"
        ".filter((e) => !e.closest('svg, blockquote, thead'))"
        ".filter((e) => e.getBoundingClientRect().right > innerWidth + 1)"
        ".map((e) => e.outerHTML.slice(0, 80))"
    )
    assert beyond == []


@PAGES
@pytest.mark.parametrize("dark", [False, True])
def test_text_has_the_contrast_that_wcag_asks_for(report, dark, browser, request):
    page = Page(browser, request.getfixturevalue(report)[0], dark=dark)
    worst = page.run("""
        const channel = (c) => (c /= 255) <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
        const light = (colour) => {
            const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map(channel);
            return .2126 * r + .7152 * g + .0722 * b;
        };
        const style = getComputedStyle(document.documentElement);
        const resolve = (name) => {
            const probe = document.createElement("i");
            probe.style.color = `var(${name})`;
            document.body.append(probe);
            const colour = getComputedStyle(probe).color;
            probe.remove();
            return light(colour);
        };
        const ratio = (a, b) => (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
        const found = {};
        for (const [names, least] of [[["--ink", "--quiet", "--good", "--bad"], 4.5],
                                      [["--s0", "--s1", "--s2", "--s3", "--s4", "--s5", "--s6",
                                        "--s7", "--accent"], 3]])
            for (const name of names) for (const ground of ["--paper", "--card"]) {
                const is = ratio(resolve(name), resolve(ground));
                if (is < least) found[`${name} on ${ground}`] = is;
            }
        return found;
    """)
    assert worst == {}


def test_the_table_shows_the_figures(evaluation, browser):
    file, printed = evaluation
    page = Page(browser, file)
    header = page.texts("#methods thead th")
    rows = {
        row.find_element("css selector", "th").text: dict(
            zip(
                header[1:],
                [cell.text for cell in row.find_elements("css selector", "td")],
                strict=True,
            )
        )
        for row in page.all("#methods tbody tr")
    }
    assert list(rows) == [m["method"] for m in sorted(printed["methods"], key=lambda m: -m["area"])]
    for method in printed["methods"]:
        shown = rows[method["method"]]
        assert number(shown["Area"]) == pytest.approx(method["area"], abs=5e-5)
        error = shown["Area"].split("±")[1]
        assert float(error) == pytest.approx(method["area_2se"], abs=5e-5)
        assert number(shown["Cost at equal quality"]) == pytest.approx(method["qnc"], abs=5e-4)
        if method["method"] != printed["reference"]:
            assert number(shown["Gain on zero_router"]) == pytest.approx(method["gain"], abs=5e-5)
            assert shown["Wins–losses"] == f"{method['wins']}–{method['losses']}"
            assert number(shown["Sign test p"]) == pytest.approx(method["sign_test_p"], rel=0.05)


def test_curves_are_toggled_and_read(evaluation, browser):
    from selenium.webdriver.common.keys import Keys

    file, printed = evaluation
    page = Page(browser, file)
    drawn = "#curves [data-method='{}'] path.curve"
    button = page.one(".legend button[data-method='kmeans']")
    assert button.get_attribute("aria-pressed") == "true"
    assert len(page.all(drawn.format("kmeans"))) == 1
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert page.all(drawn.format("kmeans")) == []
    assert len(page.all(drawn.format("uniroute"))) == 1
    # By keyboard as well, and one that was not shown at first.
    page.press(button, Keys.ENTER)
    assert len(page.all(drawn.format("kmeans"))) == 1
    assert page.all(drawn.format("oracle")) == []
    page.press(page.one(".legend button[data-method='oracle']"), Keys.SPACE)
    assert len(page.all(drawn.format("oracle"))) == 1

    bands = len(page.all("#curves path.band"))
    assert bands == len(page.all("#curves path.curve"))
    page.one("#bands").click()
    assert page.all("#curves path.band") == []

    budget = page.one("#budget")
    at = int(budget.get_attribute("value"))
    page.press(budget, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    for view in ("quality", "gain"):
        page.one(f".segments button[data-value='{view}']").click()
        for method, curve in printed["curves"].items():
            shown = page.one(f".legend button[data-method='{method}'] output").text
            assert number(shown) == pytest.approx(curve[view][at + 2], abs=5e-4)
    assert page.complaints() == []


def test_charts_follow_the_pointer(evaluation, browser):
    from selenium.webdriver import ActionChains

    page = Page(browser, evaluation[0])
    pointer = ActionChains(browser)
    chart, budget = page.one("#curves"), page.one("#budget")
    for share in (-0.2, 0.3):
        pointer.move_to_element_with_offset(chart, share * chart.size["width"], 0).perform()
        assert int(budget.get_attribute("value")) == pytest.approx(100 * (0.5 + share), abs=8)
    # Who answers changes when pressed, not when passed over.
    areas, stop = page.one("#share-chart"), page.one("#stop")
    before = stop.get_attribute("value")
    pointer.move_to_element_with_offset(areas, -0.3 * areas.size["width"], 0).perform()
    assert stop.get_attribute("value") == before
    pointer.click().perform()
    assert stop.get_attribute("value") != before
    assert page.complaints() == []


def test_the_slider_says_who_answers(evaluation, browser):
    from selenium.webdriver.common.keys import Keys

    file, printed = evaluation
    page = Page(browser, file)
    best, *stops = printed["pool"]["outcomes"]
    for key, position in ((Keys.HOME, 0), (Keys.END, -1), (Keys.ARROW_LEFT, -2)):
        page.press(page.one("#stop"), key)
        stop = stops[position]
        cost, saved, quality, gain = (number(text) for text in page.texts("#pool .tile b"))
        assert cost == pytest.approx(stop["spend"] / stop["rows"], rel=5e-3)
        assert saved == pytest.approx(1 - stop["spend"] / best["spend"], abs=5e-4)
        assert quality == pytest.approx(stop["quality"], abs=5e-4)
        assert gain == pytest.approx(stop["gain"], abs=5e-4)
        # Beyond those named there may be a bar of others.
        bars = dict(zip(page.texts("#shares bdi"), page.texts("#shares .num"), strict=False))
        for model, prompts in list(stop["models"].items())[:8]:
            assert bars[model].endswith(f"· {prompts}")
            assert number(bars[model]) == pytest.approx(prompts / stop["rows"], abs=5e-4)
        for cluster in stop["clusters"]:
            card = page.one(f"[data-cluster='{cluster['cluster']}']")
            assert card.find_elements("css selector", "dd")[-1].text.startswith(cluster["model"])
    assert page.complaints() == []


@PAGES
def test_nothing_from_the_data_runs(report, browser, request):
    file, printed = request.getfixturevalue(report)
    assert any(attack[:60] in json.dumps(printed, ensure_ascii=False) for attack in HOSTILE)
    page = Page(browser, file)
    assert page.run("return window.pwned") is None
    assert page.all("main img, main script") == []
    assert not re.search("[\x00\x1b\u202e]", page.run("return document.body.innerText"))


def test_hostile_names_and_prompts_stay_text(evaluation, browser):
    file, printed = evaluation
    page = Page(browser, file)
    shown = "".join(page.texts("blockquote") + page.texts("bdi") + page.texts(".tag"))
    typical = [text for cluster in printed["pool"]["clusters"] for text in cluster["typical"]]
    attacks = [text for text in typical if text in HOSTILE]
    assert attacks  # Else this would test nothing.
    assert any("<" in text for text in typical) == ("<" in shown)
    assert "<i>sums</i>" in shown
    assert page.browser.title == "Routing on kinds"


def test_what_if_shows_each_rule(comparison, browser):
    from selenium.webdriver.support.ui import Select

    file, printed = comparison
    page = Page(browser, file)
    rows = page.all("#rules tbody tr")
    assert len(rows) == len(printed["outcomes"])
    for row, outcome in zip(rows, printed["outcomes"], strict=True):
        assert row.find_element("css selector", "th").text == outcome["name"]
        cells = [cell.text for cell in row.find_elements("css selector", "td")]
        assert number(cells[0]) == outcome["rows"]
        assert number(cells[1]) == pytest.approx(outcome["spend"], rel=5e-3)
        assert number(cells[4]) == pytest.approx(outcome["quality"], abs=5e-5)
    chooser = Select(page.one("#rule"))
    for i in (0, len(printed["outcomes"]) - 1):
        chooser.select_by_index(i)
        outcome = printed["outcomes"][i]
        tables = page.all("#answers table")
        llms, clusters = (table.find_elements("css selector", "tbody tr") for table in tables)
        assert len(clusters) == len(outcome["clusters"])
        for row, llm in zip(llms, outcome["llms"], strict=True):
            assert llm["model"] in row.text
            quality = row.find_elements("css selector", "td")[2].text
            assert number(quality) == pytest.approx(llm["quality"], abs=5e-4)
    assert page.complaints() == []


def test_what_if_without_what_was_served(data, browser, tmp_path):
    router = uf.Router.fit(list(data.texts), n_clusters=2)
    router.add_models(list(data.models), data.costs, list(data.texts), data.losses)
    pq.write_table(pa.table({"text": list(data.texts)}), tmp_path / "log.parquet")
    found = what_if(router, tmp_path / "log.parquet")
    save_page(what_if_page(found.to_dict(), "log"), tmp_path / "page.html")
    page = Page(browser, tmp_path / "page.html")
    assert page.complaints() == []
    assert "best single LLM" in page.one("tr.main").text


def test_what_if_of_free_llms_and_strangers_shows_no_nan(data, browser, tmp_path):
    router = uf.Router.fit(list(data.texts), n_clusters=2)
    free = np.zeros(len(data.models))
    router.add_models(list(data.models), free, list(data.texts), data.losses)
    log = {"text": list(data.texts), "served": ["a stranger"] * len(data.texts)}
    pq.write_table(pa.table(log), tmp_path / "log.parquet")
    found = what_if(router, tmp_path / "log.parquet", model_column="served")
    save_page(what_if_page(found.to_dict(), "log"), tmp_path / "page.html")
    page = Page(browser, tmp_path / "page.html")
    assert page.complaints() == []
    assert not page.run("return /NaN|Infinity/.test(document.querySelector('main').innerHTML)")
    assert "–" in page.texts(".tile b")


def test_one_trial_has_no_bands(data, browser, tmp_path):
    figures = run_trials(data, ["uniroute"], trials=1).to_dict()
    save_page(evaluation_page(figures), tmp_path / "page.html")
    page = Page(browser, tmp_path / "page.html")
    assert page.complaints() == []
    assert page.all("#curves path.band") == []
    assert len(page.all("#curves path.curve")) == 2
    assert page.all("#pool") == []
