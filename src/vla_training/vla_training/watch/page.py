"""The parts of a report in, one HTML file out that opens without network: pictures and style lie inside it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment


@dataclass(frozen=True, slots=True)
class Tile:
    """A number to see first."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of words; the first column stands left, numbers stand right."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with what stands under it. pictures: PNG files with their captions. facts: name -> text."""

    title: str
    text: str = ""
    pictures: Sequence[tuple[Path, str]] = ()
    table: Table | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    listing: str = ""


def write_page(path: Path, title: str, subtitle: str, tiles: Sequence[Tile], sections: Sequence[Section]) -> None:
    """Write the report. Raises: OSError where it cannot be written."""
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page.filters["inlined"] = _inlined
    html = page.from_string(TEMPLATE).render(title=title, subtitle=subtitle, tiles=tiles, sections=sections)
    fresh = path.with_suffix(".partial")
    fresh.write_text(html, encoding="utf-8")
    fresh.replace(path)


def _inlined(picture: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode("ascii")


TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
  :root { --ink: #1f2933; --pale: #616e7c; --line: #e4e7eb; --accent: #2563eb; }
  * { box-sizing: border-box; }
  body { margin: 0; background: #f5f7fa; color: var(--ink);
         font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
  main { max-width: 1060px; margin: 0 auto; padding: 32px 20px 64px; }
  h1 { margin: 0; font-size: 26px; letter-spacing: -0.01em; }
  .subtitle { margin: 4px 0 24px; color: var(--pale); }
  .tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; }
  .tile, section { background: #fff; border: 1px solid var(--line); border-radius: 10px; }
  .tile { padding: 14px 16px; }
  .tile .label { color: var(--pale); font-size: 12.5px; }
  .tile .value { font-size: 23px; font-weight: 600; line-height: 1.3; font-variant-numeric: tabular-nums; }
  .tile .note { color: var(--pale); font-size: 12px; }
  section { margin-top: 18px; padding: 18px 22px 22px; }
  h2 { margin: 0 0 6px; font-size: 17px; }
  section p { margin: 0 0 10px; color: var(--pale); max-width: 80ch; }
  figure { margin: 12px 0 0; }
  figure img { width: 100%; height: auto; display: block; }
  figcaption { color: var(--pale); font-size: 13px; margin: 0 0 4px; }
  table { border-collapse: collapse; margin-top: 12px; font-variant-numeric: tabular-nums; }
  th, td { padding: 5px 18px 5px 0; border-bottom: 1px solid var(--line); text-align: right; }
  th { color: var(--pale); font-weight: 500; font-size: 13px; }
  th:first-child, td:first-child { text-align: left; }
  dl { display: grid; grid-template-columns: max-content 1fr; gap: 3px 20px; margin: 8px 0 0; }
  dt { color: var(--pale); } dd { margin: 0; overflow-wrap: anywhere; }
  summary { color: var(--accent); cursor: pointer; }
  pre { background: #f5f7fa; border-radius: 8px; padding: 14px; overflow-x: auto; font-size: 12.5px; margin: 8px 0 0; }
</style>
</head>
<body>
<main>
<h1>{{ title }}</h1>
<div class="subtitle">{{ subtitle }}</div>
<div class="tiles">
{% for tile in tiles %}
  <div class="tile"><div class="label">{{ tile.label }}</div><div class="value">{{ tile.value }}</div>
  <div class="note">{{ tile.note }}</div></div>
{% endfor %}
</div>
{% for section in sections %}
<section>
<h2>{{ section.title }}</h2>
{% if section.text %}<p>{{ section.text }}</p>{% endif %}
{% for picture, caption in section.pictures %}
<figure>{% if caption %}<figcaption>{{ caption }}</figcaption>{% endif %}
<img src="{{ picture | inlined }}" alt="{{ caption or section.title }}"></figure>
{% endfor %}
{% if section.table %}
<table><tr>{% for word in section.table.head %}<th>{{ word }}</th>{% endfor %}</tr>
{% for row in section.table.rows %}
<tr>{% for word in row %}<td>{{ word }}</td>{% endfor %}</tr>
{% endfor %}
</table>
{% endif %}
{% if section.facts %}
<dl>{% for name, value in section.facts.items() %}<dt>{{ name }}</dt><dd>{{ value }}</dd>{% endfor %}</dl>
{% endif %}
{% if section.listing %}<details><summary>show</summary><pre>{{ section.listing }}</pre></details>{% endif %}
</section>
{% endfor %}
</main>
</body>
</html>
"""
