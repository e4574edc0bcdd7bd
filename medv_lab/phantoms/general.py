"""The general-domain world: shapes, landscapes and charts, and what is said about them. Nothing in it is medical.

It stands for the pictures and dialogues that a general vision-language model was trained on before it meets
medicine. As with phantoms a `GeneralScene` is one picture's facts; up to two
things, each in a cell (side, zone) of its own, have a kind and a colour. `paint` makes pixels of it, the functions
below make words.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medv_lab.phantoms.painting import AXIS, blend, ellipse, inside, lines, smooth_noise
from medv_lab.phantoms.questions import YES_NO, Probe
from medv_lab.phantoms.scenes import CELLS, SIDES, ZONES

KINDS = {
    "drawing": ("circle", "square", "triangle"),
    "landscape": ("house", "tree", "boat"),
    "chart": ("histogram", "pie", "curve"),
}
DOMAINS = tuple(KINDS)
ALL_KINDS = tuple(kind for kinds in KINDS.values() for kind in kinds)
COLOURS = {
    "red": (0.85, 0.15, 0.12),
    "green": (0.1, 0.55, 0.2),
    "blue": (0.12, 0.25, 0.85),
    "yellow": (0.95, 0.85, 0.1),
}
COUNT_PROBABILITIES = (0.1, 0.65, 0.25)  # none, one, two things
CELL_OFFSET, HALF = (17.0, 21.0), 7.0  # pixels: from the middle to the outer cells; half of a thing
REQUESTS = ("Give a short caption.", "Summarise the picture in one sentence.", "What does the picture show?")
_STREAM = (77, 0)  # apart from the phantoms' draws


@dataclass(frozen=True)
class Thing:
    """One thing in a picture: its kind, colour and cell."""

    kind: str
    colour: str
    side: str
    zone: str


@dataclass(frozen=True)
class GeneralScene:
    """The facts of one picture, and the seed of all in it that is no fact."""

    domain: str
    things: tuple[Thing, ...]
    seed: int


def make_general_scenes(count: int) -> list[GeneralScene]:
    """Draw scenes to train on; the first `count` are always the same."""
    return [_make(index) for index in range(count)]


def _make(index: int) -> GeneralScene:
    rng = np.random.default_rng([*_STREAM, index])
    domain = DOMAINS[index % len(DOMAINS)]
    count = rng.choice(len(COUNT_PROBABILITIES), p=COUNT_PROBABILITIES)
    kinds = rng.permutation(KINDS[domain])[:count]
    cells = [CELLS[i] for i in rng.permutation(len(CELLS))[:count]]
    colours = rng.choice(list(COLOURS), count)
    things = tuple(Thing(str(k), str(c), *cell) for k, c, cell in zip(kinds, colours, cells, strict=True))
    return GeneralScene(domain, things, int(rng.integers(2**31)))


# --- pixels ----------------------------------------------------------------------------------------------


def paint(scene: GeneralScene) -> np.ndarray:
    """Paint a scene: uint8 (72, 72, 3), RGB; the same scene always gives the same pixels."""
    rng = np.random.default_rng([scene.seed, DOMAINS.index(scene.domain)])
    x, y = AXIS[None, :], AXIS[:, None]
    picture = _background(scene.domain, x, y, rng)
    for thing in scene.things:
        cell = (2 * SIDES.index(thing.side) - 1, ZONES.index(thing.zone) - 1)
        centre = np.asarray(cell) * CELL_OFFSET + rng.uniform(-1.5, 1.5, 2)
        mask = _OUTLINES[thing.kind](x - np.float32(centre[0]), y - np.float32(centre[1]))
        blend(picture, mask, COLOURS[thing.colour])
    picture += np.float32(0.015) * rng.standard_normal(picture.shape, dtype=np.float32)
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)


def _background(domain: str, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    shape = (y.shape[0], x.shape[1])
    paper = np.float32(rng.uniform(0.86, 0.97)) + 0.015 * smooth_noise(rng, shape, (6, 6))
    picture = np.repeat(paper.astype(np.float32)[..., None], 3, axis=2)
    if domain == "landscape":
        picture *= np.float32([0.62, 0.8, 1.0])
        hills = rng.uniform(-4, 4) + 3 * smooth_noise(rng, (1, shape[1]), (2, 5))
        blend(picture, inside(hills - y, 3.0), (0.62, 0.72, 0.5))
    elif domain == "chart":
        grid = np.maximum(lines(x + 0 * y, 9.0, 0.6), lines(y + 0 * x, 9.0, 0.6))
        blend(picture, 0.35 * grid, 0.55)
    return picture


def _box(x: np.ndarray, y: np.ndarray, left: float, right: float, top: float, bottom: float) -> np.ndarray:
    return inside(np.maximum(np.maximum(left - x, x - right), np.maximum(top - y, y - bottom)))


def _triangle(x: np.ndarray, y: np.ndarray, width: float, top: float, bottom: float) -> np.ndarray:
    slope = width / (bottom - top)
    return inside(np.maximum(np.abs(x) - slope * (y - top), y - bottom))


def _histogram(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    heights = ((-7, -3, 2), (-2, 2, -6), (3, 7, -1))  # (left, right, top) of three bars
    return np.max([_box(x, y, left, right, top, HALF) for left, right, top in heights], axis=0)


def _pie(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return inside(ellipse(x, y, HALF, HALF)) * (1 - inside(np.maximum(-x, y)))


def _boat(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    hull = inside(np.maximum(np.abs(x) + 0.6 * y - 7, np.maximum(1.5 - y, y - 6)))
    return np.maximum(hull, _triangle(x, y, 4.5, -7, 0.5))


_OUTLINES = {
    "circle": lambda x, y: inside(ellipse(x, y, HALF, HALF)),
    "square": lambda x, y: _box(x, y, -6, 6, -6, 6),
    "triangle": lambda x, y: _triangle(x, y, HALF, -6, 6),
    "house": lambda x, y: np.maximum(_box(x, y, -5, 5, 0, 7), _triangle(x, y, HALF, -7, 0)),
    "tree": lambda x, y: np.maximum(_box(x, y, -1.2, 1.2, 0, 7), inside(ellipse(x, y + 2, 5, 5))),
    "boat": _boat,
    "histogram": _histogram,
    "pie": _pie,
    "curve": lambda x, y: inside(np.maximum(np.abs(y - 5 * np.sin(0.45 * x)) - 1.6, np.abs(x) - 8)),
}


# --- words -----------------------------------------------------------------------------------------------


def caption(scene: GeneralScene) -> str:
    """Write one sentence with the kind of picture, and each thing with its colour, side and zone."""
    body = " and ".join(f"a {t.colour} {t.kind} in the {t.side} {t.zone} part" for t in scene.things)
    return f"A {scene.domain} with {body or 'nothing in it'}."


def _about_the_thing(
    name: str, field: str, wordings: Sequence[str], answers: Sequence[str], asked: str | None = None
) -> Probe:
    """Make a probe on pictures with exactly one thing: what its field is, or whether it is what is asked."""

    def answer(scene: GeneralScene) -> str | None:
        if len(scene.things) != 1:
            return None
        value = getattr(scene.things[0], field)
        return value if asked is None else YES_NO[value != asked]

    return Probe(field, name, tuple(wordings), tuple(answers), answer)


def _presence(kind: str) -> Probe:
    def answer(scene: GeneralScene) -> str | None:
        if kind not in KINDS[scene.domain]:
            return None
        return YES_NO[kind not in {thing.kind for thing in scene.things}]

    wordings = (f"Is there a {kind}?", f"Does the picture show a {kind}?")
    return Probe("presence", f"presence of {kind}", wordings, YES_NO, answer)


def _is(field: str, value: str, where: str = "") -> Probe:
    return _about_the_thing(f"{field} is {value}", field, (f"Is the thing {where}{value}?",), YES_NO, value)


PROBES = (
    Probe("domain", "domain", ("What kind of picture is this?",), DOMAINS, lambda scene: scene.domain),
    _about_the_thing("kind", "kind", ("What is shown?", "Which thing is it?"), ALL_KINDS),
    _about_the_thing(
        "colour", "colour", ("Which colour does it have?", "What colour is it?"), tuple(COLOURS)
    ),
    _about_the_thing("side", "side", ("On which side is the thing?", "Which side is it on?"), SIDES),
    _about_the_thing("zone", "zone", ("In which part is the thing?", "How high is it?"), ZONES),
    *(_is("colour", colour) for colour in COLOURS),
    *(_is("side", side, "on the ") for side in SIDES),
    *(_presence(kind) for kind in ALL_KINDS),
)
