"""The animation shows the passes of the trace, legibly, in the same bytes each time."""

import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image

from medv_lab.views.animation import (
    CAPTION_LINE,
    CAPTION_SIZE,
    HEIGHT,
    MARGIN,
    MOST_FRAMES,
    PICTURE,
    WIDTH,
    _fit,
    _font,
    frame_steps,
    save_gif,
)
from medv_lab.views.style import ACCENT
from tests.views.test_page import large_trace
from tests.views.test_trace_plots import MASK, empty_trace, make_trace

ACCENT_RGB = np.multiply(255, to_rgb(ACCENT)).astype(int)


def test_the_same_trace_gives_the_same_bytes(tmp_path):
    first, second = (save_gif(make_trace(), tmp_path / name) for name in ("a.gif", "b/b.gif"))
    assert first.read_bytes() == second.read_bytes()


def test_a_frame_for_each_pass_and_the_empty_canvas(tmp_path):
    with Image.open(save_gif(make_trace(), tmp_path / "x.gif")) as image:
        assert image.size == (WIDTH, HEIGHT)
        assert image.n_frames == 5
        frames = []
        for number in range(image.n_frames):
            image.seek(number)
            frames.append(np.asarray(image.convert("RGB")))
    # Drawn where and when it was committed, not before.
    for position, frame in ((2, 1), (0, 2), (1, 3), (4, 4)):
        left, top, right, bottom = _fit(make_trace()).boxes[position]
        cells = [still[top : bottom + 1, left : right + 1] for still in frames]
        assert all(np.array_equal(cells[0], cell) for cell in cells[:frame])
        assert not np.array_equal(cells[frame - 1], cells[frame])
        framed = [np.abs(cell[-1, 10].astype(int) - ACCENT_RGB).max() < 12 for cell in cells]  # lower edge
        assert np.flatnonzero(framed).tolist() == [frame]  # only where it is new


def test_many_passes_are_thinned_evenly_to_the_first_and_last():
    steps = frame_steps(large_trace())
    assert len(steps) == MOST_FRAMES
    assert (steps[0], steps[-1]) == (-1, 255)
    assert set(np.diff(steps)) <= {3, 4}
    assert frame_steps(make_trace()) == [-1, 0, 1, 2, 3]


def test_boxes_stay_on_the_slide_and_apart():
    layout = _fit(large_trace())
    for number, (left, top, right, bottom) in enumerate(layout.boxes):
        assert left >= MARGIN and right <= WIDTH - MARGIN and bottom < layout.height - 2 * MARGIN
        if number:
            _, before_top, before_right, before_bottom = layout.boxes[number - 1]
            assert (top == before_top and left > before_right) or top > before_bottom


def test_a_run_without_passes_is_one_frame(tmp_path):
    with Image.open(save_gif(empty_trace(), tmp_path / "x.gif")) as image:
        assert getattr(image, "n_frames", 1) == 1


def test_a_caption_stands_below_every_frame_and_moves_nothing(tmp_path):
    caption = ("Question: " + "why " * 60, "Not a medical device.")
    layout, plain = _fit(make_trace(), caption), _fit(make_trace())
    assert layout.boxes == plain.boxes
    assert "".join(layout.caption).replace(" ", "") == "".join(caption).replace(" ", "")
    font = _font(CAPTION_SIZE)
    assert len(layout.caption) > 2
    assert all(font.getlength(line) <= WIDTH - 2 * MARGIN for line in layout.caption)
    top = layout.height - MARGIN - len(layout.caption) * CAPTION_LINE + 8
    with Image.open(save_gif(make_trace(), tmp_path / "x.gif", caption)) as image:
        for number in range(image.n_frames):
            image.seek(number)
            below = np.asarray(image.convert("L"))[top:]
            lines = below[: len(layout.caption) * CAPTION_LINE].reshape(len(layout.caption), -1)
            assert (lines.min(1) < 160).all()  # every line is there, and legible


def test_a_picture_stands_on_the_left_of_every_frame_and_the_answer_beside_it(tmp_path):
    red = Image.new("RGB", (30, 60), (200, 30, 30))
    layout = _fit(large_trace(), indent=PICTURE + MARGIN)
    assert min(left for left, *_ in layout.boxes) == PICTURE + 2 * MARGIN
    assert max(right for _, _, right, _ in layout.boxes) <= WIDTH - MARGIN
    with Image.open(save_gif(make_trace(), tmp_path / "x.gif", picture=red)) as image:
        assert image.n_frames == 5
        for number in range(image.n_frames):
            image.seek(number)
            still = np.asarray(image.convert("RGB")).astype(int)
            shown = still[MARGIN : MARGIN + PICTURE, MARGIN : MARGIN + PICTURE // 2]
            assert np.abs(shown - (200, 30, 30)).max() < 12
            assert (
                np.abs(still[MARGIN + PICTURE + 4, MARGIN]).min() > 240
            )  # its shape is kept, and paper below it


def test_a_frame_costs_what_changes_in_it(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (PICTURE, PICTURE), dtype=np.uint8))
    still = save_gif(empty_trace(), tmp_path / "one.gif", picture=noise).stat().st_size
    moving = save_gif(make_trace(), tmp_path / "five.gif", picture=noise).stat().st_size
    assert moving < 1.3 * still


def test_a_given_token_is_there_from_the_first_frame_on_in_a_box_of_its_width(tmp_path):
    given = np.full(6, MASK)
    given[3] = 8
    trace = make_trace(given=given, pieces={5: b" a", 6: b" b", 7: b" c", 8: b" a long word"})
    left, top, right, bottom = _fit(trace).boxes[3]
    plain = _fit(make_trace()).boxes[3]
    assert right - left > plain[2] - plain[0]
    with Image.open(save_gif(trace, tmp_path / "x.gif")) as image:
        first = np.asarray(image.convert("L").crop((left, top, right, bottom)))
    assert first.min() < 60 and first[1, 1] > 245
