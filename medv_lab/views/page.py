"""A self-contained page that plays an answer's unmasking: one HTML file, nothing loaded, no kernel needed.

The player (`player.html`, `player.css`, `player.js`) is what the page and the explorer show; this module puts it into a
page with the numbers of a trace. Their text enters as JSON in which no markup can begin, and the player shows it as
text only.
"""

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_hex

from medv_lab.data.images import Picture, open_image
from medv_lab.diffusion.lens import LogitLens
from medv_lab.diffusion.trace import SampleTrace
from medv_lab.metrics.repetition import answer_positions, looped_spans
from medv_lab.views.style import SCALE

RAMP_STOPS = 33
PICTURE_SIDE = 384  # pixels, at most
FRAME_HEIGHT = 620  # pixels of the frame in a notebook
# Characters that could end the script element, or that old JavaScript takes for line ends, as JSON escapes.
_ESCAPES = {ord(mark): f"\\u{ord(mark):04x}" for mark in "<>&\u2028\u2029"}


@dataclass(frozen=True, repr=False)
class UnmaskingPage:
    """An interactive page as one HTML document; it displays itself in a notebook, in a frame of its own."""

    html: str

    def save(self, path: str | Path) -> Path:
        """Write the page as one file; returns the path."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.html, encoding="utf-8", newline="\n")
        return path

    def _repr_html_(self) -> str:
        # The frame keeps the page's style and keys away from the notebook's, and may run scripts but nothing else.
        return (
            f'<iframe title="How the answer was unmasked" sandbox="allow-scripts" srcdoc="{escape(self.html)}" '
            f'style="width:100%;height:{FRAME_HEIGHT}px;border:0;resize:vertical"></iframe>'
        )

    def __repr__(self) -> str:
        return f"UnmaskingPage({len(self.html.encode()) / 1000:.0f} kB; display it, or .save('answer.html'))"


def unmasking_html(
    trace: SampleTrace, image: Picture | None = None, caption: Sequence[str] = ()
) -> UnmaskingPage:
    """Make a page that plays an answer's unmasking, with confidence, entropy and alternatives of every token.

    Commits in the prompt are left out. A position that was committed more than once shows what stood there at each
    pass.

    Args:
        trace: what the sampler did.
        image: the picture that was asked about, to be shown too; where the trace has recorded attention, each token
            shows where it looked on it.
        caption: lines over the answer, as `caption.make_caption` makes them.
    """
    data = page_data(trace) | {"caption": list(caption)}
    if image is not None:
        data |= {"picture": picture_source(image), "looks": looks_data(trace)}
    names = {"style": "player.css", "markup": "player.html", "script": "player.js"}
    parts = {part: player_part(name) for part, name in names.items()} | {
        "data": json.dumps(data, separators=(",", ":"), allow_nan=False).translate(_ESCAPES),
    }
    page = player_part("page.html")
    for name, text in parts.items():
        page = page.replace(f"{{{{{name}}}}}", text)
    return UnmaskingPage(page)


def player_part(name: str) -> str:
    """Read a file of the player."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def page_data(trace: SampleTrace, repeats: Sequence[list[int]] = ()) -> dict[str, Any]:
    """Return what the player knows of a trace: what was given, commits in their order, drafts, repeats of each pass.

    Args:
        trace: what the sampler did.
        repeats: what an earlier call found for the first passes of the same run.
    """
    commits, tokens, steps = _events(trace)
    ids, shares = trace.alternative_ids[commits], trace.alternative_probs[commits]
    new = range(len(repeats), trace.forward_evaluations)
    shown = [tokens, ids, trace.given, trace.draft_token]
    if trace.lens is not None:
        shown.append(trace.lens.token_id[:, -1])
    return {
        "length": trace.gen_length,
        "block": trace.block_length,
        "mask": trace.mask_token_id,
        "facts": f"L {trace.gen_length}, B {trace.block_length}, {trace.forward_evaluations} passes",
        "text": trace.text,
        "pieces": {
            str(token): trace.piece(token)
            for token in sorted({token for part in shown for token in part.ravel().tolist() if token >= 0})
        },
        "given": trace.given.tolist() if trace.is_given.any() else [],
        "first_stop": trace.first_stop,
        "step": steps.tolist(),
        "position": trace.position[commits].tolist(),
        "token": tokens.tolist(),
        "confidence": [_rounded(value) for value in trace.confidence[commits]],
        "entropy": [_rounded(value) for value in trace.entropy[commits]],
        "alternatives": [
            [[token, _rounded(share)] for token, share in zip(*pair, strict=True)]
            for pair in zip(ids.tolist(), shares, strict=True)
        ],
        "drafts": [getattr(trace, f"draft_{name}").tolist() for name in ("step", "position", "token")],
        "over_passes": None if trace.lens is None else _over_passes(trace.lens),
        "stops": trace.stops.tolist(),
        "born": trace.born.tolist(),
        "repeats": [*repeats, *(_repeated_positions(trace, step) for step in new)],
        "ramp": colour_ramp(),
    }


def looks_data(trace: SampleTrace) -> dict[str, Any] | None:
    """Return where each commit looked on the picture, for the player; None where that was not recorded.

    Shares are those of the first grid, which covers the whole picture, mean over all recorded maps.
    """
    if trace.attention is None:
        return None
    commits, _, _ = _events(trace)
    grid = trace.attention.grids[0]
    means = trace.attention.values[commits].astype(np.float64).mean(1)  # (commits, patches)
    shares = means[:, grid.indices().ravel()]
    most = shares.max(axis=1, initial=0)
    levels = np.divide(255 * shares, most[:, None], out=np.zeros_like(shares), where=most[:, None] > 0)
    return {
        "rows": grid.rows,
        "columns": grid.columns,
        "box": [_rounded(edge) for edge in grid.box],
        "shares": base64.b64encode(levels.round().astype(np.uint8).tobytes()).decode("ascii"),
        "most": [round(float(share), 6) for share in most],
        "pictures": [round(float(share), 6) for share in means.sum(1)],
    }


def _over_passes(lens: LogitLens) -> dict[str, str]:
    """Return what the last recorded layer says at each position in each pass, for the player.

    Tokens are int32, -1 where none was computed; probabilities one byte, 255 for 1: of the most probable token, and of
    the one that stands there in the end.
    """
    parts = {"token": lens.token_id[:, -1].astype("<i4")}
    for name in ("probability", "final_probability"):
        shares = np.nan_to_num(getattr(lens, name)[:, -1])
        parts[name] = (255 * shares).round().astype(np.uint8)
    return {name: base64.b64encode(part.tobytes()).decode("ascii") for name, part in parts.items()}


def picture_source(image: Picture, side: int = PICTURE_SIDE, kind: str = "PNG") -> str:
    """Encode a picture as a data URL.

    Args:
        image: the picture.
        side: its width and height at most, pixels.
        kind: "PNG", or "JPEG", which is smaller and not exact.

    Raises:
        ImageError: for a picture that cannot be opened.
    """
    picture = open_image(image)
    picture.thumbnail((side, side))
    file = io.BytesIO()
    picture.save(file, format=kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def _events(trace: SampleTrace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what happened in the answer, in order: commit number, token and pass of each event.

    A remasking is an event of the commit that it undoes, with the mask as its token.
    """
    made = np.flatnonzero(trace.position >= 0)
    undone = made[trace.remasked_in[made] >= 0]
    numbers = np.concatenate([made, undone])
    steps = np.concatenate([trace.step[made], trace.remasked_in[undone]])
    tokens = np.concatenate([trace.token_id[made], np.full(len(undone), trace.mask_token_id)])
    # Within a pass what is undone goes first, unless it was committed in that pass.
    late = np.where(trace.remasked_in[undone] == trace.step[undone], 2, 0)
    order = np.lexsort((np.concatenate([np.ones(len(made)), late]), steps))
    return numbers[order], tokens[order], steps[order]


def _repeated_positions(trace: SampleTrace, step: int) -> list[int]:
    """Find the positions in looped spans after a pass; tokens with a masked position between them are no neighbours."""
    ids = trace.replay(step)
    seen = answer_positions(trace, step)
    masked = np.flatnonzero(ids[: trace.stops[step]] == trace.mask_token_id)
    known = np.union1d(seen, masked)
    unlike = np.where(ids[known] == trace.mask_token_id, -1 - known, ids[known])  # no mask equals another
    spans = looped_spans(unlike.tolist())
    return sorted({int(position) for start, end, _ in spans for position in known[start:end]})


def _rounded(value: float) -> float:
    return round(float(value), 4)


def colour_ramp() -> list[tuple[str, str]]:
    """Return the colour scale as (background, text colour that reads best on it)."""
    stops = mpl.colormaps[SCALE](np.linspace(0, 1, RAMP_STOPS))
    linear = np.where(stops <= 0.04045, stops / 12.92, ((stops + 0.055) / 1.055) ** 2.4)
    luminance = linear[:, :3] @ (0.2126, 0.7152, 0.0722)  # WCAG 2.2; black wins above 0.179
    return [
        (to_hex(stop), "#000" if light > 0.179 else "#fff")
        for stop, light in zip(stops, luminance, strict=True)
    ]
