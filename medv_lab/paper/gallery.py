"""The gallery: a page that opens on a contact sheet of all figures and tables that are drawn.

A click on a picture shows it large, with its caption, its files and where its numbers come from. Small pictures are
embedded; the large ones are the files beside the page. There is no script, and nothing is loaded from elsewhere.
"""

import base64
import io
import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from medv_lab.paper.exhibits import Exhibit, read_data
from medv_lab.store import replace_text

GALLERY = "index.html"
MEASURED = ("measured", "control")  # kinds of sources that stand in the results folder
THUMBNAIL = (360, 300)  # most pixels of an embedded picture, across and down
QUALITY = 60  # of its WebP
_CELL_END, _BOLD = re.compile(r"(?<!\\)\|"), re.compile(r"^\*\*(.*)\*\*$")
_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: 1rem; }
.sheet a { border: 1px solid #8886; border-radius: 6px; padding: .5rem; color: inherit; text-decoration: none; }
.sheet a:hover, .sheet a:focus { border-color: #0072b2; }
.sheet img { display: block; width: 100%; height: 9rem; object-fit: contain; background: white; }
.sheet b { display: block; font-size: .8rem; margin-top: .3rem; }
.sheet span { display: block; font-size: .8rem; line-height: 1.3; }
.large { display: none; position: fixed; inset: 0; overflow: auto; background: Canvas; padding: 1rem; }
.large:target { display: block; }
.large > * { max-width: 72rem; margin-inline: auto; }
.large img { display: block; max-width: 100%; max-height: 75vh; margin: auto; background: white; padding: 6px; }
h2 { font-size: 1.1rem; margin-block: 0 .5rem; }
nav { display: flex; gap: 1.5rem; padding-bottom: .5rem; }
.large .scroll { overflow-x: auto; max-width: none; }
table { border-collapse: collapse; font-size: .8rem; margin: auto; font-variant-numeric: tabular-nums; }
th { border-block: 1px solid; text-align: left; }
td, th { padding: .2rem .4rem; white-space: nowrap; }
td { border-bottom: 1px solid #8883; }
td.number, th.number { text-align: right; }
.about, details { font-size: .85rem; }
.kind { font-weight: 600; }
"""


def write_gallery(exhibits: Sequence[Exhibit], folder: Path, results: Path) -> Path:
    """Write index.html for the exhibits that are in the folder; returns its path."""
    shown = [one for one in exhibits if all(path.is_file() for path in one.output_files(folder))]
    absent = ", ".join(one.name for one in exhibits if one not in shown)
    cards = "".join(_card(one, folder) for one in shown)
    views = [
        _large(one, folder, results, shown[number - 1].name, shown[(number + 1) % len(shown)].name)
        for number, one in enumerate(shown)
    ]
    note = f"<p>Not drawn, for want of results: {escape(absent)}.</p>" if absent else ""
    replace_text(
        folder / GALLERY,
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>medv-lab: figures and tables</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body id="sheet">'
        "<h1>Figures and tables</h1><p>Click one to see it large. Numbers marked <b>published</b> are those of arXiv "
        "2508.01617; numbers marked <b>measured</b> are ours, made by the runs whose manifests are named. Phantoms are "
        f"drawings: nothing here means anything about a patient.</p><div class=sheet>{cards}</div>{note}"
        f"{''.join(views)}</body></html>\n",
    )
    return folder / GALLERY


def _card(exhibit: Exhibit, folder: Path) -> str:
    """Write an entry of the contact sheet."""
    picture = ""
    if exhibit.kind == "figure":
        data = _thumbnail(folder / f"{exhibit.name}.png")
        picture = f'<img alt="" src="data:image/webp;base64,{data}">'
    return f'<a href="#{exhibit.name}">{picture}<b>{exhibit.name}</b><span>{escape(exhibit.title)}</span></a>'


def _large(exhibit: Exhibit, folder: Path, results: Path, before: str, after: str) -> str:
    """Write what a click shows: the exhibit, its caption and files, and, folded, where its numbers come from."""
    *_, table = files = exhibit.output_files(folder)
    if exhibit.kind == "figure":
        name = f"{exhibit.name}.{'gif' if exhibit.animate else 'png'}"
        picture = f'<img alt="{escape(exhibit.title)}" loading="lazy" src="{name}">'
        body = f'<a href="{name}">{picture}</a>'
    else:
        body = f"<div class=scroll>{_format_table(files[0].read_text(encoding='utf-8'))}</div>"
    links = " ".join(f'<a href="{path.name}">{path.suffix[1:]}</a>' for path in files)
    return (
        f'<section class=large id="{exhibit.name}"><nav><a href="#sheet">all figures and tables</a>'
        f'<a href="#{before}">previous</a><a href="#{after}">next</a></nav>'
        f"<h2>{exhibit.name}: {escape(exhibit.title)}</h2>{body}<p>{escape(exhibit.caption)}</p>"
        f"<p class=about>Files: {links}</p><details><summary>Where the numbers come from</summary>"
        f"<ul>{_provenance(read_data(table), results)}</ul></details></section>"
    )


def _format_table(markdown: str) -> str:
    """Write the table of a Markdown file of ours as HTML: numbers on the right, best values bold."""
    lines = [line for line in markdown.splitlines() if line.startswith("| ")]
    if not lines:
        return ""
    head, rule, *rows = ([cell.strip() for cell in _CELL_END.split(line)[1:-1]] for line in lines)
    sides = [" class=number" if cell.endswith(":") else "" for cell in rule]

    def write(cells: list[str], tag: str) -> str:
        texts = (_BOLD.sub(r"<b>\1</b>", escape(cell.replace(r"\|", "|"))) for cell in cells)
        pairs = zip(texts, sides, strict=True)
        return "<tr>" + "".join(f"<{tag}{side}>{text}</{tag}>" for text, side in pairs) + "</tr>"

    return f"<table>{write(head, 'th')}{''.join(write(row, 'td') for row in rows)}</table>"


def _provenance(data: pd.DataFrame, results: Path) -> str:
    """List each source; of measured ones, model and commit as their manifest has them."""
    items = []
    for source in dict.fromkeys(data["source"]):
        kind, name = source.split(maxsplit=1)
        about = f" ({_describe_run(results / name)})" if kind in MEASURED else ", arXiv 2508.01617"
        items.append(f"<li><span class=kind>{kind}</span> {escape(name)}{escape(about)}</li>")
    return "".join(items)


def _describe_run(path: Path) -> str:
    """Name the runs that the manifests of a results file record; a trace carries its own."""
    manifests = [json.loads(found.read_text(encoding="utf-8")) for found in find_manifests(path)]
    runs = [run for manifest in manifests for run in runs_in(manifest, path)]
    if not runs:
        return "its manifest is in the file"
    models = [(run.get("model") or {"name": "no model", "sha256": ""}, run.get("commit")) for run in runs]
    texts = [
        f"{model['name']} {model['sha256'][:12]} at commit {str(commit)[:12]}" for model, commit in models
    ]
    return "manifest: " + "; ".join(dict.fromkeys(texts))


def find_manifests(path: Path) -> list[Path]:
    """Find the manifests of a results file: beside it, or of the cells it sums up; a trace has its own."""
    beside = path.with_name("manifest.json")
    return [beside] if beside.is_file() else sorted((path.parent / "cells").glob("*.json"))


def runs_in(manifest: Any, path: Path) -> list[dict[str, Any]]:
    """Collect the records of runs anywhere in a manifest; of several by digest, those that a file is named for."""
    if isinstance(manifest, list):
        return [record for part in manifest for record in runs_in(part, path)]
    if not isinstance(manifest, dict):
        return []
    if "versions" in manifest:
        return [manifest]
    own = [run for digest, run in manifest.items() if digest in path.name]
    return [record for part in own or manifest.values() for record in runs_in(part, path)]


def _thumbnail(path: Path) -> str:
    with Image.open(path) as picture:
        small = picture.convert("RGB")
    small.thumbnail(THUMBNAIL, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=QUALITY, method=6)
    return base64.b64encode(buffer.getvalue()).decode()
