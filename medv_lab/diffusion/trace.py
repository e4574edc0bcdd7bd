"""What a sampler did, step by step, as NumPy arrays in one file: no torch, no tokenizer, no model to read it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medv_lab.diffusion.attention_maps import PatchAttention
from medv_lab.diffusion.lens import LENS_ARRAYS, LogitLens
from medv_lab.limits import LIBRARY_ERRORS, open_file, parse_json, read_arrays

if TYPE_CHECKING:
    import pandas as pd

FORMAT = "medv-lab trace 4"
MASK_GLYPH = "░"
_COMMIT_ARRAYS = ("step", "block", "position", "token_id", "confidence", "entropy")
_REMASKED_ARRAYS = ("remasked_step", "remasked_position")
_FIXED_ARRAYS = (*_COMMIT_ARRAYS, "alternative_ids", "alternative_probs", "stops", *_REMASKED_ARRAYS)
_DRAFT_ARRAYS = ("draft_step", "draft_position", "draft_token")
_ARRAYS = (*_FIXED_ARRAYS, "born", "given", *_DRAFT_ARRAYS)
# older files are read: 2 has no growth, 3 neither drafts nor given tokens
_ARRAYS_OF = {
    "medv-lab trace 2": _FIXED_ARRAYS,
    "medv-lab trace 3": (*_FIXED_ARRAYS, "born"),
    FORMAT: _ARRAYS,
}
_NAMES_IN_FILES = {
    "remasked_step": "revoked_step",
    "remasked_position": "revoked_position",
}  # older than our words
_ATTENTION, _ATTENTION_ARRAY = "attention", "attention_values"  # only where it was recorded
_LENS = "lens"
_META = {"gen_length", "block_length", "mask_token_id", "pieces", "manifest"}
_FLOAT_ARRAYS = ("confidence", "entropy", "alternative_probs")
MAX_LENGTH = 1_000_000  # answer positions, passes and commits of a trace, far above any run's
_MAX_ID = 2**31


class TraceError(ValueError):
    """A file or arrays that are no trace; the text says what was given and what is allowed."""


@dataclass(frozen=True, eq=False)
class SampleTrace:
    """One answer's commits in the order they were made.

    N commits, K alternatives, F forward passes, M remasked, D changes of a draft.

    Attributes:
        step: forward pass of each commit, counted over the whole answer from 0, int (N,).
        block: block of each commit, int (N,).
        position: answer position, int (N,); negative in the prompt. A position is listed again when it was
            filled again: because the model predicted the mask itself there, or because its token was remasked.
        token_id: int (N,).
        confidence: probability of the token when it was chosen (random remasking: the number drawn), (N,).
        entropy: of the distribution at the position, nats, (N,).
        alternative_ids, alternative_probs: the most probable tokens there, (N, K).
        stops: where the answer ended after each pass, int (F,); gen_length where no stop was known.
        gen_length, block_length: L and B.
        mask_token_id: id that stands for a masked position.
        pieces: bytes of the text of every id, special tokens empty. Bytes, because a character may be spread
            over several tokens.
        manifest: the run's settings, versions and model.
        remasked_step, remasked_position: which answer position was masked again in which pass, int (M,), in the order
            of the passes; none by default. Where a pass also commits the
            position, it replaced the token: the old one went before the new one came.
        born: the pass after which each position came to be, int (L,), -1 for those of the first canvas; empty where
            the answer did not grow. All positions count on the final canvas.
        given: the canvas before the first pass, ids (L,), the mask id at masks; empty where nothing was given. Given
            tokens are no commits.
        first_stop: where the answer ends before the first pass; gen_length unless given tokens say so.
        draft_step, draft_position, draft_token: drafts, int (D,), each where it is another than the one before it at
            that position; `draft_at` reads them. Older files have none.
        attention: where each commit looked on the pictures; None unless it was asked for.
        lens: what each layer would say in each pass; None unless it was asked for.

    Raises:
        TraceError: for arrays that do not fit together.
    """

    step: np.ndarray
    block: np.ndarray
    position: np.ndarray
    token_id: np.ndarray
    confidence: np.ndarray
    entropy: np.ndarray
    alternative_ids: np.ndarray
    alternative_probs: np.ndarray
    stops: np.ndarray
    gen_length: int
    block_length: int
    mask_token_id: int
    pieces: Mapping[int, bytes]
    manifest: Mapping[str, Any] = field(default_factory=dict)
    remasked_step: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    remasked_position: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    born: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    given: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    first_stop: int | None = None
    draft_step: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    draft_position: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    draft_token: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    attention: PatchAttention | None = None
    lens: LogitLens | None = None

    def __post_init__(self) -> None:
        if self.first_stop is None:
            object.__setattr__(self, "first_stop", self.gen_length)  # frozen, but not yet whole
        for name in ("gen_length", "block_length", "mask_token_id", "first_stop"):
            value, most = getattr(self, name), _MAX_ID if name == "mask_token_id" else MAX_LENGTH
            if type(value) is not int or not 0 <= value <= most:
                raise TraceError(
                    f"{name} of a trace is {value!r:.40}; it must be a whole number from 0 to {most}"
                )
        if not isinstance(self.manifest, Mapping):
            raise TraceError(f"the manifest of a trace is {self.manifest!r}; it must be a mapping")
        self._check_arrays()
        if self.attention is not None and len(self.attention.values) != len(self.step):
            raise TraceError(
                f"a trace has attention of {len(self.attention.values)} commits and {len(self.step)} commits"
            )
        fits = self.stops.size, len(self.lens.layers) if self.lens else 0, self.gen_length
        if self.lens is not None and self.lens.token_id.shape != fits:
            raise TraceError(f"a trace has a lens of the shape {self.lens.token_id.shape}; {fits} fits it")

    def _check_arrays(self) -> None:
        for name in _ARRAYS:
            kind, allowed = getattr(self, name).dtype.kind, "f" if name in _FLOAT_ARRAYS else "iu"
            if kind not in allowed:
                raise TraceError(
                    f"{name} of a trace has the type {getattr(self, name).dtype}; wrong kind of number"
                )
        shapes = {name: getattr(self, name).shape for name in _ARRAYS}
        commits, passes = self.step.size, self.stops.size
        most = max(commits, passes, self.remasked_step.size)
        if most > MAX_LENGTH:
            raise TraceError(f"a trace has {most} commits or passes; {MAX_LENGTH} are the most that are read")
        is_regular = (
            all(shapes[name] == (commits,) for name in _COMMIT_ARRAYS)
            and shapes["alternative_ids"] == shapes["alternative_probs"]
            and shapes["alternative_ids"][:1] == (commits,)
            and len(shapes["alternative_ids"]) == 2
            and shapes["stops"] == (passes,)
            and all(shapes[name] == (self.remasked_step.size,) for name in _REMASKED_ARRAYS)
            and all(shapes[name] == (self.draft_step.size,) for name in _DRAFT_ARRAYS)
            and all(shapes[name] in ((0,), (self.gen_length,)) for name in ("born", "given"))
        )
        if not is_regular:
            raise TraceError(f"the arrays of a trace have unequal lengths: {shapes}")
        for name, values, low, high in (
            ("step", self.step, 0, passes),
            ("position", self.position, -_MAX_ID, self.gen_length),
            ("stops", self.stops, 0, self.gen_length + 1),
            ("remasked_step", self.remasked_step, 0, passes),
            ("remasked_position", self.remasked_position, 0, self.gen_length),
            ("born", self.born, -1, passes),
            ("first_stop", np.array(self.first_stop), 0, self.gen_length + 1),
            ("draft_step", self.draft_step, 0, passes),
            ("draft_position", self.draft_position, 0, self.gen_length),
        ):
            if values.size and (values.max() >= high or values.min() < low):
                raise TraceError(
                    f"{name} of a trace reaches from {values.min()} to {values.max()}; from {low} to below {high} is "
                    "allowed"
                )
        if (np.diff(self.step) < 0).any():
            raise TraceError("the commits of a trace do not stand in the order of their passes")

    @property
    def forward_evaluations(self) -> int:
        """Number of passes; with guidance each runs the model twice, so that NFE is twice this."""
        return len(self.stops)

    @property
    def passes_in_sequence(self) -> int:
        """Number of passes that waited for the one before: fewer than all where states were guessed (`lookahead`)."""
        sequences = self.manifest.get("sequences")
        return self.forward_evaluations if sequences is None else sum(map(bool, sequences))

    @property
    def tokens_per_forward(self) -> float:
        """Answer positions filled by the passes in the end, over the passes; NaN without a pass."""
        filled = int(((self.replay() != self.mask_token_id) & ~self.is_given).sum())
        return filled / self.forward_evaluations if self.forward_evaluations else float("nan")

    @property
    def predicted_masks(self) -> np.ndarray:
        """Which commits chose the mask itself, bool (N,): their positions stay masked."""
        return self.token_id == self.mask_token_id

    @property
    def masks_left(self) -> int:
        """Number of answer positions that are masked in the end, the stop and what follows it left out."""
        end = int(self.stops[-1]) if len(self.stops) else self.first_stop
        return int((self.replay()[:end] == self.mask_token_id).sum())

    @property
    def remasked_in(self) -> np.ndarray:
        """The pass that remasked each commit, int (N,), -1 for those that were never remasked."""
        remasked = np.full(len(self.step), -1, dtype=np.int64)
        if not (self.step.size and self.remasked_step.size):
            return remasked
        made, gone = (
            position.astype(np.int64) * self.forward_evaluations + step
            for position, step in (
                (self.position, self.step),
                (self.remasked_position, self.remasked_step),
            )
        )
        order = np.argsort(made, kind="stable")
        # of the position's earlier commits the last, which stood
        last = np.searchsorted(made[order], gone) - 1
        commits = order[last]
        is_there = (last >= 0) & (self.position[commits] == self.remasked_position)
        remasked[commits[is_there]] = self.remasked_step[is_there]
        return remasked

    def replay(self, step: int | None = None) -> np.ndarray:
        """Return the answer ids after pass `step` (by default the last), int (L,), the mask id where still masked.

        Raises:
            ValueError: for a step that the run did not have; -1 is the canvas before the first pass.
        """
        last = self.forward_evaluations - 1
        step = last if step is None else step
        if not -1 <= step <= last:
            raise ValueError(f"step is {step}; this trace has the passes 0..{last} (-1: before the first)")
        ids = np.full(self.gen_length, self.mask_token_id, dtype=np.int64)
        if self.given.size:
            ids[:] = self.given
        gone = (self.remasked_in >= 0) & (self.remasked_in <= step)
        made = (self.step <= step) & (self.position >= 0) & ~gone
        ids[self.position[made]] = self.token_id[made]
        return ids

    def draft_at(self, step: int | None = None) -> np.ndarray:
        """Return the answer ids after pass `step` with a draft at each mask, int (L,); the mask id where there is none.

        A draft is the token that the pass would have written there (the most probable, or with a temperature the one
        drawn). A pass predicts masks up to the end of the active block and of the answer: further ones have no draft,
        nor have those that it masked again, nor has anything before the first pass.

        Raises:
            ValueError: as `replay`.
        """
        ids = self.replay(step)
        step = self.forward_evaluations - 1 if step is None else step
        known = np.full(self.gen_length, self.mask_token_id, dtype=np.int64)
        made = self.draft_step <= step
        known[self.draft_position[made]] = self.draft_token[made]  # later ones replace earlier ones
        return np.where(ids == self.mask_token_id, known, ids)

    @property
    def is_given(self) -> np.ndarray:
        """Which positions were given before the first pass, bool (L,)."""
        return self.given != self.mask_token_id if self.given.size else np.zeros(self.gen_length, bool)

    def is_there(self, step: int) -> np.ndarray:
        """Return which positions the canvas has after pass `step`, bool (L,); all where the answer did not grow."""
        return self.born <= step if self.born.size else np.ones(self.gen_length, bool)

    def text_at(self, step: int | None = None, mask_glyph: str = "") -> str:
        """Return the text after pass `step`: up to the stop known then, masked positions as `mask_glyph`, trimmed."""
        ids = self.replay(step)
        step = self.forward_evaluations - 1 if step is None else step
        is_there = self.is_there(step)
        end = self.first_stop if step < 0 else int(self.stops[step])
        glyph = mask_glyph.encode()
        parts = [
            glyph if token == self.mask_token_id else self.pieces.get(int(token), b"")
            for token in ids[:end][is_there[:end]]
        ]
        return b"".join(parts).decode("utf-8", errors="replace").strip()

    @property
    def text(self) -> str:
        """The finished answer."""
        return self.text_at()

    def piece(self, token: int) -> str:
        """Return the text of one token; bytes that are no whole character show as U+FFFD."""
        return self.pieces.get(int(token), b"").decode("utf-8", errors="replace")

    def final_commits(self) -> np.ndarray:
        """Return which commit the finished canvas shows at each answer position, int (L,); -1 where none was made."""
        commits = np.full(self.gen_length, -1)
        stands = (self.token_id != self.mask_token_id) & (self.remasked_in < 0)
        for number in np.nonzero(self.position >= 0)[0]:
            is_filled = stands[number]
            commits[self.position[number]] = number if is_filled else -1
        return commits

    def to_frame(self) -> pd.DataFrame:
        """Return a tidy table, one row per commit.

        Columns: step (pass of the whole answer), block, step_in_block (counted from the block's first commit),
        position, token_id, piece, confidence, entropy, remasked_in (the pass that remasked it, -1 if none did); where
        the mask itself was chosen anywhere, also is_mask.
        """
        import pandas as pd

        firsts = {block: self.step[self.block == block].min() for block in np.unique(self.block)}
        frame = pd.DataFrame({name: getattr(self, name) for name in _COMMIT_ARRAYS})
        frame.insert(2, "step_in_block", frame.step - frame.block.map(firsts).astype(frame.step.dtype))
        frame.insert(5, "piece", [self.piece(token) for token in self.token_id])
        frame["remasked_in"] = self.remasked_in
        return frame.assign(is_mask=self.predicted_masks) if self.predicted_masks.any() else frame

    def save(self, path: str | Path) -> Path:
        """Write one compressed .npz with everything in it; returns the path."""
        path = Path(path)
        meta = {
            "format": FORMAT,
            "gen_length": self.gen_length,
            "block_length": self.block_length,
            "mask_token_id": self.mask_token_id,
            "first_stop": self.first_stop,
            "pieces": {str(token): piece.hex() for token, piece in self.pieces.items()},
            "manifest": dict(self.manifest),
        }
        arrays = {_NAMES_IN_FILES.get(name, name): getattr(self, name) for name in _ARRAYS}
        if self.attention is not None:
            meta[_ATTENTION], arrays[_ATTENTION_ARRAY] = self.attention.to_meta(), self.attention.values
        if self.lens is not None:
            meta[_LENS] = list(self.lens.layers)
            arrays |= {f"{_LENS}_{name}": getattr(self.lens, name) for name in LENS_ARRAYS}
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            np.savez_compressed(file, meta=np.array(json.dumps(meta)), **arrays)
        return path

    @classmethod
    def load(cls, path: str | Path) -> SampleTrace:
        """Read a trace; no pickle is ever loaded.

        Raises:
            TraceError: if the file is missing, damaged, or something else than a trace.
        """
        path = Path(path)
        if not path.is_file():
            raise TraceError(f"there is no file {path.name}; give the .npz that SampleTrace.save wrote")
        try:
            with open_file(path) as stream, zipfile.ZipFile(stream) as file:
                meta = parse_json(read_arrays(file, ["meta"])["meta"].item())
                written = meta.pop("format", None) if isinstance(meta, dict) else None
                names = {name: _NAMES_IN_FILES.get(name, name) for name in _ARRAYS_OF.get(written, ())}
                if names and _ATTENTION in meta:
                    names[_ATTENTION] = _ATTENTION_ARRAY
                if names and _LENS in meta:
                    names |= {f"{_LENS}_{name}": f"{_LENS}_{name}" for name in LENS_ARRAYS}
                found = read_arrays(file, names.values())
                arrays: dict[str, Any] = {name: found[stored] for name, stored in names.items()}
                if _ATTENTION in arrays:
                    arrays[_ATTENTION] = PatchAttention.from_meta(meta.pop(_ATTENTION), arrays[_ATTENTION])
                if names and _LENS in meta:
                    parts = {name: arrays.pop(f"{_LENS}_{name}") for name in LENS_ARRAYS}
                    arrays[_LENS] = LogitLens.from_meta(meta.pop(_LENS), parts)
        except LIBRARY_ERRORS as error:
            raise TraceError(
                f"{path.name} is not a readable trace ({error}); give an undamaged .npz that SampleTrace.save wrote"
            ) from error
        if written not in _ARRAYS_OF or meta.keys() - {"first_stop"} != _META:
            raise TraceError(f"{path.name} is an .npz, but no trace of the format {FORMAT!r}")
        try:
            return cls(**arrays, **{**meta, "pieces": _read_pieces(meta["pieces"])})
        except TraceError as error:
            raise TraceError(f"{path.name} is not a sound trace: {error}") from error

    def __repr__(self) -> str:
        return (
            f"SampleTrace(L={self.gen_length}, B={self.block_length}, passes={self.forward_evaluations}, "
            f"commits={len(self.step)}, text={self.text!r})"
        )


def _read_pieces(pieces: Any) -> dict[int, bytes]:
    try:
        return {int(token): bytes.fromhex(piece) for token, piece in pieces.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise TraceError(f"its pieces are no table from ids to bytes ({error})") from error
