"""An answer's unmasking as an animated GIF for slides; the same trace gives the same bytes."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_hex
from PIL import Image, ImageDraw, ImageFont

from medv_lab.diffusion.trace import SampleTrace
from medv_lab.views.style import ACCENT, SCALE
from medv_lab.views.trace_plots import token_label

WIDTH, HEIGHT = 960, 540  # pixels of a slide; a long answer is higher
FONT_SIZES = (30, 26, 22, 19, 17, 15)  # pixels, the largest that fits; the last in any case
MOST_FRAMES = 80
SECONDS = 8.0  # from the first frame to the last
LAST_FRAME = 2500  # milliseconds
MARGIN, GAP = 24, 6
PICTURE = 260  # pixels of its longer side
CAPTION_SIZE, CAPTION_LINE = 14, 18  # pixels
PAPER, INK, SOFT, MASKED = "#ffffff", "#1a1c20", "#5a616b", "#e3e6eb"


def save_gif(
    trace: SampleTrace,
    path: str | Path,
    caption: Sequence[str] = (),
    picture: Image.Image | None = None,
) -> Path:
    """Write the answer as it fills: grey boxes become tokens, new ones framed, old ones marked by their pass.

    Tokens that were given are marked in grey.

    Every token stays where it is from the first frame on. Of a run with many passes, `MOST_FRAMES` evenly spaced ones
    are shown, always the first and the last.

    Args:
        trace: what the sampler did.
        path: of the file.
        caption: lines below the answer in every frame, as `caption.make_caption` makes them.
        picture: what was asked about; it stands on the left of every frame.

    Returns:
        The path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    steps = frame_steps(trace)
    layout = _fit(trace, caption, 0 if picture is None else PICTURE + MARGIN)
    canvas = Image.new("RGB", (WIDTH, layout.height), PAPER)
    if picture is not None:
        scale = PICTURE / max(picture.size)
        size = [max(1, round(scale * side)) for side in picture.size]
        canvas.paste(picture.convert("RGB").resize(size, Image.Resampling.LANCZOS), (MARGIN, MARGIN))
    frames = [_draw(trace, layout, canvas.copy(), step, before) for before, step in pairwise([-1, *steps])]
    # One palette for all frames, from the first and the last, which have all colours between them; no dithering.
    both = Image.new("RGB", (WIDTH, 2 * layout.height))
    both.paste(frames[0], (0, 0))
    both.paste(frames[-1], (0, layout.height))
    palette = both.quantize(255, dither=Image.Dither.NONE)
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    each = max(40, round(1000 * SECONDS / len(frames)))
    durations = [each] * (len(frames) - 1) + [LAST_FRAME]
    # Optimised, a frame holds what differs from the one before.
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=True)
    return path


def frame_steps(trace: SampleTrace) -> list[int]:
    """Return the passes after which a frame is drawn, rising; -1 is the canvas before the first."""
    last = trace.forward_evaluations - 1
    return np.unique(np.linspace(-1, last, min(MOST_FRAMES, last + 2)).round().astype(int)).tolist()


class _Layout(NamedTuple):
    """The box of each position, (left, top, right, bottom) in pixels, the font, the image's height, its last lines."""

    boxes: list[tuple[int, int, int, int]]
    font: ImageFont.FreeTypeFont
    height: int
    caption: list[str]


def _font(size: int) -> ImageFont.FreeTypeFont:
    # The basic layout is the same whether or not Pillow finds a shaping library.
    path = Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


def _fit(trace: SampleTrace, caption: Sequence[str] = (), indent: int = 0) -> _Layout:
    """Lay out in the largest type in which the answer fits on a slide, each box as wide as its widest token ever.

    `indent` pixels are left free on the left, for a picture.
    """
    lines = [line for text in caption for line in _wrap(text, _font(CAPTION_SIZE), WIDTH - 2 * MARGIN)]
    below = len(lines) * CAPTION_LINE
    for size in FONT_SIZES:
        font = _font(size)
        known: dict[int, float] = {}
        given = np.flatnonzero(trace.is_given).tolist()
        tokens = zip(
            [*given, *trace.position.tolist()], [*trace.given[given], *trace.token_id.tolist()], strict=True
        )
        for position, token in tokens:
            known[position] = max(known.get(position, 0.6 * size), font.getlength(_text(trace, token)))
        height = round(1.55 * size)
        begin = MARGIN + indent
        left, top, boxes = begin, MARGIN, []
        for position in range(trace.gen_length):
            width = int(known.get(position, 2 * size)) + 8  # the default: never filled
            if left > begin and left + width > WIDTH - MARGIN:
                left, top = begin, top + height + GAP
            boxes.append((left, top, left + width, top + height))
            left += width + GAP
        whole = max(top + height, MARGIN + indent) + 3 * MARGIN + below
        if whole <= HEIGHT:
            break
    return _Layout(boxes, font, max(HEIGHT, whole), lines)


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Break a text into lines of so many pixels; a longer word stands alone."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _text(trace: SampleTrace, token: int) -> str:
    return token_label(trace.piece(token)) if trace.pieces.get(token) else "∎"


def _draw(trace: SampleTrace, layout: _Layout, image: Image.Image, step: int, before: int) -> Image.Image:
    """Draw one frame on an image: the answer after `step`; what came after the frame of `before` is framed."""
    draw = ImageDraw.Draw(image)
    committed = np.full(trace.gen_length, -1)
    made = (trace.step <= step) & (trace.position >= 0)
    committed[trace.position[made]] = trace.step[made]
    last = max(1, trace.forward_evaluations - 1)
    end = trace.first_stop if step < 0 else int(trace.stops[step])
    colours = mpl.colormaps[SCALE]
    for position, token in enumerate(trace.replay(step).tolist()):
        box = layout.boxes[position]
        if token == trace.mask_token_id:
            draw.rounded_rectangle(box, 5, fill=MASKED)
            continue
        left, top, right, bottom = box
        text, ink = _text(trace, token), INK if position < end else "#b0b5bd"
        middle = (left + right) / 2 - layout.font.getlength(text) / 2
        draw.text((round(middle), top + round(0.12 * layout.font.size)), text, font=layout.font, fill=ink)
        mark = SOFT if trace.is_given[position] else to_hex(colours(committed[position] / last))
        draw.rectangle((left, bottom - 3, right, bottom), fill=mark)
        if committed[position] > before:
            draw.rounded_rectangle(box, 5, outline=ACCENT, width=2)
    # The progress of the run.
    passes = trace.forward_evaluations
    top = layout.height - MARGIN - len(layout.caption) * CAPTION_LINE
    end = MARGIN + round((WIDTH - 2 * MARGIN) * (step + 1) / max(1, passes))
    draw.rectangle((MARGIN, top, WIDTH - MARGIN, top + 5), fill=MASKED)
    draw.rectangle((MARGIN, top, end, top + 5), fill=ACCENT)
    draw.text((MARGIN, top - 24), f"{step + 1} of {passes} passes", font=_font(16), fill=SOFT)
    for number, line in enumerate(layout.caption):
        place = MARGIN, top + 12 + number * CAPTION_LINE
        draw.text(place, line, font=_font(CAPTION_SIZE), fill=SOFT)
    return image
