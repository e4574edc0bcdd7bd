"""The gallery: one self-contained page of all figures and tables that are drawn, with captions and provenance.

Pictures are embedded small and link to the files; nothing is loaded from elsewhere.
"""

import base64
import io
import json
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
THUMBNAIL = (560, 840)  # most pixels of an embedded picture, across and down
QUALITY = 50  # of its WebP
_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
section { border-top: 1px solid #8886; padding: 1rem 0; }
h2 { font-size: 1.1rem; margin: 0; }
img { max-width: 100%; background: white; padding: 6px; box-sizing: border-box; }
table { border-collapse: collapse; font-size: .8rem; display: block; overflow-x: auto; }
td, th { padding: .15rem .5rem; text-align: right; border-bottom: 1px solid #8884; }
td:first-child, th:first-child { text-align: left; }
.about { font-size: .85rem; }
.kind { font-weight: 600; }
"""


def write_gallery(exhibits: Sequence[Exhibit], folder: Path, results: Path) -> Path:
    """Write index.html for the exhibits that are in the folder; returns its path."""
    shown = [one for one in exhibits if all(path.is_file() for path in one.output_files(folder))]
    absent = [one.name for one in exhibits if one not in shown]
    parts = [_section(one, folder, results) for one in shown]
    if absent:
        parts.append(
            f"<section><p>Not drawn, for want of results: {escape(', '.join(absent))}.</p></section>"
        )
    links = " · ".join(f'<a href="#{one.name}">{one.name}</a>' for one in shown)
    replace_text(
        folder / GALLERY,
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>medv-lab: figures and tables</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        "<h1>Figures and tables</h1><p>Numbers marked <b>published</b> are those of arXiv 2508.01617; numbers marked "
        "<b>measured</b> are ours, made by the runs whose manifests are named. Phantoms are drawings: nothing here "
        f"means anything about a patient.</p><p class=about>{links}</p>{''.join(parts)}</body></html>\n",
    )
    return folder / GALLERY


def _section(exhibit: Exhibit, folder: Path, results: Path) -> str:
    data = read_data(exhibit.output_files(folder)[-1])
    if exhibit.kind == "figure":
        name = f"{exhibit.name}.png"
        body = (
            f'<a href="{name}"><img alt="{escape(exhibit.title)}" '
            f'src="data:image/webp;base64,{_thumbnail(folder / name)}"></a>'
        )
    else:
        body = data.drop(columns="source").to_html(index=False, border=0, na_rep="–", escape=True)
    links = " ".join(f'<a href="{path.name}">{path.suffix[1:]}</a>' for path in exhibit.output_files(folder))
    return (
        f'<section id="{exhibit.name}"><h2>{exhibit.name}: {escape(exhibit.title)}</h2>{body}'
        f"<p>{escape(exhibit.caption)}</p><ul class=about>{_provenance(data, results)}</ul>"
        f"<p class=about>Files: {links}</p></section>"
    )


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
