"""The page in a real browser: no error, no request, filters, widths, print, hostile answers."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import made_run
import pytest
from chrome import Page, browser, needs_chromium

from results.report import write_report

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    run = made_run.write_run(folder, cells=made_run.LADDER + made_run.TROUBLED, answer=made_run.SCRIPT)
    return write_report([run], folder / "en", None, "en")


@pytest.fixture(scope="module")
def chinese(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zh")
    return write_report([made_run.write_run(folder)], folder / "zh", None, "zh")


def test_it_opens_from_disk_without_an_error_or_a_request(page: Page, report: Path) -> None:
    page.problems.clear()
    page.asked.clear()
    page.open(report)
    assert page.value("document.readyState") == "complete"
    assert page.problems == []
    assert page.asked == [report.resolve().as_uri()]


def test_what_a_model_said_is_text_and_nothing_else(page: Page, report: Path) -> None:
    page.problems.clear()
    page.open(report)
    assert page.value("document.querySelectorAll('main script, main img').length") == 0
    assert page.value("document.querySelector('#examples').textContent.includes('<script>alert(1)</script>')")
    assert page.value("document.querySelector('#cells').textContent.includes('<b>signal 11</b>')")
    assert page.problems == []


def test_the_policy_stops_what_is_not_ours(page: Page, report: Path) -> None:
    page.open(report)
    page.problems.clear()
    page.value("""
        window.done = 0; window.stopped = [];
        document.addEventListener('securitypolicyviolation', e => window.stopped.push(e.effectiveDirective));
        const s = document.createElement('script'); s.textContent = 'window.done = 1'; document.body.append(s);
        const i = document.createElement('img'); i.src = 'https://example.org/x.png'; document.body.append(i);
        const l = document.createElement('link'); l.rel = 'stylesheet'; l.href = 'https://example.org/x.css'; document.head.append(l);
    """)
    stopped = "new Promise(r => setTimeout(() => r(window.stopped.sort()), 100))"
    assert page.value(stopped) == ["img-src", "script-src-elem", "style-src-elem"]
    assert page.value("window.done") == 0


def visible_rows(page: Page) -> int:
    return int(page.value("[...document.querySelectorAll('table.rows tbody tr')].filter(r => r.offsetParent).length"))


def choose(page: Page, name: str, value: str) -> None:
    page.value(
        f"""
        const s = document.querySelector('select[name="{name}"]'); s.value = {value!r};
        s.dispatchEvent(new Event('change', {{ bubbles: true }})); null
    """.replace("const s", "var s")
    )


def test_filters_leave_the_rows_asked_for_and_come_back(page: Page, report: Path) -> None:
    page.open(report)
    assert visible_rows(page) == 27
    choose(page, "task", "clinical_qa_en")
    assert visible_rows(page) == 9
    choose(page, "quantisation", "Q2_K")
    assert visible_rows(page) == 1
    assert page.value("document.querySelector('.filters output').textContent") == "1 of 27 rows"
    assert (
        page.value("[...document.querySelectorAll('.task svg a.dot')].filter(d => !d.classList.contains('off')).length")
        == 1
    )
    assert page.value("[...document.querySelectorAll('details.cell')].filter(d => d.offsetParent).length") == 1
    page.value("document.querySelector('.filters').reset()")
    assert page.value("new Promise(r => setTimeout(() => r(document.querySelectorAll('.off').length), 20))") == 0
    assert visible_rows(page) == 27


def test_without_script_everything_is_there(page: Page, report: Path) -> None:
    page.open(report, script=False)
    assert visible_rows(page) == 27
    assert page.value("document.querySelector('.filters').offsetParent === null")
    page.open(report)


def test_a_column_sorts_both_ways_with_unknown_values_last(page: Page, report: Path) -> None:
    page.open(report)
    place = "document.querySelectorAll('table.rows')[0]"
    column = page.value(f"[...{place}.tHead.rows[0].cells].findIndex(c => c.textContent.startsWith('Accuracy'))")
    values = f"[...{place}.tBodies[0].rows].map(r => r.cells[{column}].dataset.v)"
    press = f"{place}.tHead.rows[0].cells[{column}].querySelector('button').click()"
    page.value(press)
    up = page.value(values)
    page.value(press)
    down = page.value(values)
    known = [float(v) for v in up if v]
    assert known == sorted(known)
    assert [float(v) for v in down if v] == sorted(known, reverse=True)
    assert up[len(known) :] == down[len(known) :] == ["", ""]


def test_a_link_to_a_cell_opens_it(page: Page, report: Path) -> None:
    page.open(report)
    page.value("document.querySelector('table.rows tbody th a').click()")
    assert (
        page.value("new Promise(r => setTimeout(() => r(document.querySelectorAll('details.cell[open]').length), 50))")
        == 1
    )


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_hangs_over_the_edge(page: Page, report: Path, width: int) -> None:
    page.open(report, width=width)
    page.value("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert page.value("document.documentElement.scrollWidth") <= width
    sizes = page.value(
        """[...document.querySelectorAll('.task .chart text')].map(t => t.getBoundingClientRect().height)"""
    )
    assert min(sizes) >= 9


def test_texts_stand_out_from_what_is_behind_them(page: Page, report: Path) -> None:
    """Contrast of every kind of text against its ground, by the formula of WCAG 2; 4.5 is asked for."""
    page.open(report)
    worst = page.value("""
      (() => {
        const light = (c) => { const [r, g, b] = c.match(/[\\d.]+/g).map(Number).map(v => v / 255)
            .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
        const ground = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
            if (!c.endsWith(', 0)') && c !== 'transparent') return c; } return 'rgb(255, 255, 255)'; };
        let worst = [99, ''];
        for (const e of document.querySelectorAll('body *')) {
          if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
          if (['SCRIPT', 'STYLE', 'TITLE'].includes(e.tagName.toUpperCase())) continue;
          const style = getComputedStyle(e), ink = e.ownerSVGElement ? style.fill : style.color;
          const [a, b] = [light(ink), light(ground(e))].sort((x, y) => y - x);
          const ratio = (a + 0.05) / (b + 0.05);
          if (ratio < worst[0]) worst = [ratio, e.tagName + '.' + e.getAttribute('class') + ' ' + ink];
        }
        return worst;
      })()
    """)
    assert worst[0] >= 4.5, worst


def test_every_control_and_scrolling_part_has_a_name(page: Page, report: Path) -> None:
    page.open(report)
    nameless = """[...document.querySelectorAll('select, button, [role=region], svg[role], a')]
        .filter(e => !(e.getAttribute('aria-label') || e.labels?.length || e.textContent.trim())).length"""
    assert page.value(nameless) == 0
    assert page.value("document.querySelectorAll('h1').length") == 1
    ids = page.value("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    missing = """[...document.querySelectorAll('a[href^="#"]')]
        .filter(a => !document.getElementById(decodeURIComponent(a.getAttribute('href').slice(1)))).length"""
    assert page.value(missing) == 0


def test_the_chinese_page_is_chinese(page: Page, chinese: Path) -> None:
    page.problems.clear()
    page.open(chinese)
    assert page.value("document.documentElement.lang") == "zh-CN"
    assert page.value("document.querySelector('h1').textContent") == "一个正确答案的成本"
    heads = page.value("[...document.querySelectorAll('h1, h2, .rows thead th, dt[id]')].map(e => e.textContent)")
    assert [h for h in heads if not any("\u4e00" <= c <= "\u9fff" for c in h) and h != "TPOT"] == []
    assert page.problems == []


def test_it_prints_on_a4_with_everything_open(page: Page, report: Path, tmp_path: Path) -> None:
    page.open(report, media="print")
    page.pdf(tmp_path / "report.pdf")
    if not Path("/usr/bin/pdftotext").exists():
        pytest.skip("pdftotext is not installed")
    sizes = subprocess.run(
        ["pdfinfo", "-l", "99", tmp_path / "report.pdf"], capture_output=True, text=True, check=True
    ).stdout
    text = subprocess.run(
        ["pdftotext", tmp_path / "report.pdf", "-"], capture_output=True, text=True, check=True
    ).stdout
    assert "595 x 842" in sizes.replace("594.96 x 841.92", "595 x 842")
    assert "End of the worker" in text  # stands in a closed part
    assert "Show all" not in text  # the filters
    heads = [sheet.split("\n")[:3] for sheet in text.split("\f")]
    cells = made_run.LADDER + made_run.TROUBLED
    assert all(any(cell.name in head for head in heads) for cell in cells)  # each begins a sheet
    assert ["Glossary"] in [head[:1] for head in heads]
