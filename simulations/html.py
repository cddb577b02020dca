"""The parts of a page: one self-contained HTML file, no script, nothing fetched.

The comparison's report and the audit's are made of these, so that they look and read alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

# The browser itself then asks nothing of any network, not even for an icon.
CLOSED = (
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n"
    '<link rel="icon" href="data:,">'
)
LONG = 18  # characters of a name that needs no break
UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("bytes", 1.0))


def document(title: str, body: Iterable[str], *, style: str = "") -> str:
    """A whole page of a title, HTML, and more style than all pages have."""
    common = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{CLOSED}\n"
        f"<title>{text(title)}</title>\n<style>\n{common}{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def panels(
    title: str, caption: str, panels: Mapping[str, str], note: Callable[[str], str] | None = None
) -> str:
    """A section of small figures side by side; nothing where there are none."""
    if not panels:
        return ""
    figures = []
    for name, svg in panels.items():
        more = f' <span class="muted">{text(note(name))}</span>' if note else ""
        figures.append(
            f"<figure>\n<figcaption><b>{text(name)}</b>{more}</figcaption>\n{svg}\n</figure>"
        )
    inner = "\n".join(figures)
    return f'<h2>{title}</h2>\n<p>{caption}</p>\n<div class="panels">\n{inner}\n</div>'


def table(
    label: str,
    caption: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    words: Sequence[str],
    kind: str = "",
) -> str:
    """A table in its own scrolling box; cells and caption are HTML, `words` are set to the left."""
    kinds = [' class="text"' if name in words else "" for name in columns]
    head = "".join(
        f'<th scope="col"{kind}>{heading(name)}</th>'
        for name, kind in zip(columns, kinds, strict=True)
    )
    lines = []
    for row in rows:
        cells = [f"<td{kind}>{cell}</td>" for cell, kind in zip(row[1:], kinds[1:], strict=True)]
        lines.append(f'<tr><th scope="row"><span>{row[0]}</span></th>{"".join(cells)}</tr>')
    body = "\n".join(lines)
    box = f'<div class="scroll" role="region" tabindex="0" aria-label="{text(label)}">'
    return (
        f"{box}\n<table{kind}>\n<caption><span>{caption}</span></caption>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )


def heading(name: str) -> str:
    """A column's heading as HTML; a long one, as a platform's name may be, may break."""
    if len(name) <= LONG:
        return text(name)
    return f'<span class="long">{breakable(name)}</span>'


def breakable(name: str) -> str:
    """A name as HTML that may break after an underscore; after a dash it may anyway."""
    return text(name).replace("_", "_<wbr>")


def shortened(name: str, most: int = LONG) -> str:
    """A name for a place in a drawing, the middle of a long one left out."""
    if len(name) <= most:
        return name
    end = (most - 1) // 2
    return f"{name[: most - 1 - end]}…{name[-end:]}"


def listing(facts: Mapping[str, str]) -> str:
    """Names and what is told of each, as HTML."""
    items = "\n".join(f"<dt>{text(name)}</dt><dd>{fact}</dd>" for name, fact in facts.items())
    return f"<dl>\n{items}\n</dl>"


def bytes_told(value: float) -> str:
    """Bytes in the unit that fits."""
    unit, scale = next((it for it in UNITS if value >= it[1]), UNITS[-1])
    return f"{value / scale:,.1f} {unit}"


def text(value: str) -> str:
    """Text for HTML, its percent signs tied to their numbers."""
    return escape(value).replace(" %", "&nbsp;%")
