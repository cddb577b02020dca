from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from shared.errors import ConfigError
from simulations.report import render_html, table_markdown, terminal_table, write_report

SCORERS = ["popularity", "local", "federated", "personalised", "pooled"]


def figures(ndcg: float, kept: str | None = None) -> dict[str, Any]:
    scores = {"hr@10": 1.5 * ndcg, "ndcg@10": ndcg, "mrr": 0.75 * ndcg, "coverage": 0.25}
    ci95 = {"ndcg@10": [0.9 * ndcg, 1.1 * ndcg]}
    return {"n": 1200, **scores, "ci95": ci95, "validation": None, "kept": kept}


def platform(local: float, federated: float, verdict: str) -> dict[str, Any]:
    change = federated - local
    ends = [change - 0.001, change + 0.001]
    scores = zip(SCORERS, (0.02, local, federated, federated, 0.13), strict=True)
    return {
        "shoppers": 1500,
        "items": 80,
        "events": 9000,
        "catalogue_digest": "c" * 64,
        "scorers": {name: figures(score) for name, score in scores}
        | {"federated": figures(federated, "round 1")},
        "federated_vs_local": {
            "difference": change,
            "relative": change / local,
            "ci95": ends,
            "p": 0.0002,
            "verdict": verdict,
        },
        "gain_by_length": [{"length": "3-4", "n": 700, "difference": change, "ci95": ends}],
    }


def make(platforms: dict[str, dict[str, Any]] | None = None) -> dict[str, Any]:
    found = platforms or {
        "market": platform(0.1, 0.12, "gain"),
        "outlet": platform(0.05, 0.044, "loss"),
    }
    names = list(found)
    rounds = [
        {
            "round": at,
            "seconds": 2.0 * at,
            "bytes_down": 1000 * at,
            "bytes_up": 500 * at,
            "replied": names[:1],
            "refused": {names[0]: "NaN in <lora_b>"} if at else {},
            "missing": names[1:] if at else [],
            "validation": {name: {"ndcg@10": 0.04 + 0.01 * at} for name in names},
        }
        for at in range(2)
    ]
    return {
        "format": 1,
        "scenario": "small",
        "title": "Two shops",
        "seed": 7,
        "atoll": "0.1.0",
        "machine": "2 cores",
        "started": "2026-11-21T23:35:39Z",
        "seconds": 12.5,
        "backbone": {"digest": "b" * 64, "encoder": "e", "trainable": 1234, "adapter_bytes": 4936},
        "scorers": SCORERS,
        "platforms": found,
        "rounds": rounds,
    }


class Page(HTMLParser):
    """What a browser would find: tags with their attributes, the text, and tables as rows."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.tables: list[list[list[str]]] = []
        self.inside: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in {"th", "td"}:
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "style" in self.inside:
            return
        self.text += data
        if {"th", "td"} & set(self.inside):
            self.tables[-1][-1][-1] += data.replace("\xa0", " ")


def terminal(metrics: dict[str, Any]) -> str:
    console = Console(width=80, color_system=None, file=io.StringIO())
    with console.capture() as captured:
        console.print(terminal_table(metrics))
    return captured.get()


def test_the_three_files_hold_the_same_figures(tmp_path: Path) -> None:
    page = write_report(make(), tmp_path / "runs" / "small")
    assert page == tmp_path / "runs" / "small" / "report.html"
    metrics = json.loads(page.with_name("metrics.json").read_text())
    markdown = page.with_name("table.md").read_text().replace("**", "").splitlines()
    found = Page(page.read_text())
    assert metrics == make()
    for table, (_, one) in zip(found.tables[-2:], metrics["platforms"].items(), strict=True):
        for row, (scorer, it) in zip(table[1:], one["scorers"].items(), strict=True):
            low, high = it["ci95"]["ndcg@10"]
            expected = [scorer, "1,200", f"{it['hr@10']:.4f}", f"{it['ndcg@10']:.4f}"]
            expected += [f"{low:.4f} to {high:.4f}", f"{it['mrr']:.4f}", "0.250", it["kept"] or "–"]
            assert row == expected
            assert "| " + " | ".join(expected) + " |" in markdown


def test_the_best_of_each_column_is_bold() -> None:
    lines = table_markdown(make()).splitlines()
    bold = [line for line in lines if line.startswith("|") and "**" in line]
    assert bold == 2 * [
        "| pooled | 1,200 | **0.1950** | **0.1300** | 0.1170 to 0.1430 | **0.0975** | 0.250 | – |"
    ]
    assert render_html(make()).count("<strong>0.1300</strong>") == 2


def test_the_page_asks_nothing_of_any_network() -> None:
    html = render_html(make())
    page = Page(html)
    assert "http:" not in html
    assert "https:" not in html
    assert "@import" not in html
    assert set(re.findall(r"url\((.)", html)) <= {"#"}
    assert not {tag for tag, _ in page.tags} & {"script", "img", "iframe", "object"}
    for tag, attributes in page.tags:
        assert "src" not in attributes
        link = attributes.get("href") or "#"
        assert link.startswith("#") or (tag == "link" and link == "data:,")


def test_the_page_can_be_read_by_a_screen_reader() -> None:
    page = Page(render_html(make()))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert all(at.get("scope") in {"row", "col"} for tag, at in page.tags if tag == "th")
    plots = [at for tag, at in page.tags if tag == "svg" and at["class"] == "plot"]
    assert len(plots) == 8  # scorers, lengths and rounds of two platforms; traffic and time
    assert all(at["role"] == "img" and at["aria-label"] for at in plots)
    tags = [tag for tag, _ in page.tags]
    assert tags.count("figure") == tags.count("figcaption") == 8
    assert tags.count("table") == tags.count("caption") == 4


def test_plots_take_their_colours_from_the_page() -> None:
    html = render_html(make())
    body = html[html.index("</style>") :]
    assert "var(--shared)" in body
    assert re.findall(r"(?:fill|stroke): #[0-9a-f]{6}", body) == []


def test_names_are_shown_and_never_obeyed() -> None:
    name = "</title><script>x</script>|[red]"
    metrics = make({name: platform(0.1, 0.12, "gain")})
    metrics["title"] = "A & B <i>"
    page = Page(render_html(metrics))
    assert "script" not in {tag for tag, _ in page.tags}
    assert name in page.text
    assert "A & B <i>" in page.text
    assert "NaN in <lora_b>" in page.text
    assert "## \\</title\\>\\<script\\>x\\</script\\>\\|\\[red\\]" in table_markdown(metrics)
    assert name in terminal(metrics).replace("\n", "").replace(" ", "")


def test_the_same_metrics_give_the_same_bytes() -> None:
    assert render_html(make()) == render_html(make())


def test_negative_transfer_is_named() -> None:
    told = "outlet (−0.0060, 95 % interval −0.0070 to −0.0050)"
    html = render_html(make()).replace("&nbsp;", " ")
    assert f"<strong>Negative transfer:</strong> {told}" in html
    assert html.index("Negative transfer") < html.index("<figure>")  # on the first screen
    markdown = table_markdown(make())
    assert f"Negative transfer: {told}" in markdown
    assert "- outlet: loss, **negative transfer**, −12.0 % (−0.0060, " in markdown
    assert "- market: gain, +20.0 % (+0.0200, 95 % interval +0.0190 to +0.0210" in markdown
    assert "hurt 1 (outlet, −12.0 %)" in " ".join(terminal(make()).split())


def test_no_negative_transfer_is_said_too() -> None:
    metrics = make({"market": platform(0.1, 0.12, "gain")})
    for text in (render_html(metrics), table_markdown(metrics)):
        assert "No platform shows negative transfer." in text


def test_a_run_without_its_optional_parts_is_still_reported(tmp_path: Path) -> None:
    metrics = make({"alone": platform(0.1, 0.12, "gain")})
    metrics["rounds"] = []
    alone = metrics["platforms"]["alone"]
    alone["gain_by_length"] = []
    alone["federated_vs_local"] = None
    alone["scorers"] = {"popularity": figures(0.0) | {"ci95": {}, "coverage": None}}
    html = write_report(metrics, tmp_path).read_text()
    assert "This run did not compare federated with local training." in html
    assert "not compared" in html
    assert "Round by round" not in html
    assert "- alone: not compared\n" in table_markdown(metrics)
    assert "not" in terminal(metrics)


def test_a_scorer_that_one_platform_lacks_leaves_a_dash() -> None:
    metrics = make()
    del metrics["platforms"]["outlet"]["scorers"]["personalised"]
    line = next(it for it in terminal(metrics).splitlines() if "personalised" in it)
    assert line.split() == ["personalised", "0.1200", "–"]
    assert table_markdown(metrics).count("personalised") == 1
    render_html(metrics)


def test_scorers_come_from_the_metrics() -> None:
    metrics = make()
    metrics["scorers"] = [*SCORERS, "federated ε=8"]
    for one in metrics["platforms"].values():
        one["scorers"]["federated ε=8"] = figures(0.0987)
        one["scorers"]["unlisted"] = figures(0.0123)
    for text in (render_html(metrics), table_markdown(metrics), terminal(metrics)):
        assert text.index("pooled") < text.index("ε=8") < text.index("unlisted")
        assert "0.0987" in text
        assert "0.0123" in text


def test_refused_and_missing_replies_are_named_with_their_rounds() -> None:
    rows = Page(render_html(make())).tables[1]
    assert rows[1] == ["market", "refused", "NaN in <lora_b>", "1"]
    assert rows[2] == ["outlet", "missing", "–", "1"]


def test_a_number_that_is_not_finite_is_null_and_a_dash(tmp_path: Path) -> None:
    metrics = make()
    metrics["platforms"]["market"]["federated_vs_local"]["relative"] = float("inf")
    metrics["platforms"]["market"]["scorers"]["popularity"]["ndcg@10"] = float("nan")
    write_report(metrics, tmp_path)
    stored = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert stored["platforms"]["market"]["federated_vs_local"]["relative"] is None
    assert "| popularity | 1,200 | 0.0300 | – |" in (tmp_path / "table.md").read_text()


def test_a_folder_that_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ConfigError, match=r"file: the report cannot be written .*; choose a folder"
    ):
        write_report(make(), tmp_path / "file")
    (tmp_path / "runs" / "table.md").mkdir(parents=True)
    with pytest.raises(ConfigError, match="the report cannot be written"):
        write_report(make(), tmp_path / "runs")
    assert [it for it in (tmp_path / "runs").iterdir() if it.name.startswith(".")] == []


@pytest.mark.parametrize("count", [1, 5, 6, 10])
def test_the_terminal_table_fits_80_columns(count: int) -> None:
    verdicts = ("gain", "loss", "no clear difference")
    found = {f"{at:02d}-" + "n" * 29: platform(0.1, 0.12, verdicts[at % 3]) for at in range(count)}
    metrics = make(found)
    metrics["scorers"] = [*SCORERS, "personalised ε=8"]
    shown = terminal(metrics)
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    assert shown.count("+20.0 %") >= count
    assert shown.count("0.1300") == count
