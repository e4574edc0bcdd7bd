"""Questions and pictures to model inputs, and ids back to text.

`MedVProcessor` joins a tokenizer with the image settings of a model, in transformers' conventions: it is saved beside
the model (`processor_config.json`), and a published `llava_llada` folder without that file gives its settings through
`config.json`. B prompts, S ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from transformers import BatchFeature, ProcessorMixin
from transformers.convert_slow_tokenizer import bytes_to_unicode

from medv_lab.data.images import open_image
from medv_lab.inputs.prompts import (
    IMAGE_TOKEN,
    Turns,
    encode_dialogue,
    encode_prompt,
    render_prompt,
    special_ids,
    system_prompt_of,
)
from medv_lab.inputs.tiling import TileLayout, cut_tiles, grid_pinpoints, parse_aspect_ratio, plan_tiles
from medv_lab.model.configuration import MedVConfig

# the printable stand-ins of bytes in byte-level vocabularies
_BYTE_OF_CHARACTER = {character: byte for byte, character in bytes_to_unicode().items()}


class MedVProcessor(ProcessorMixin):
    """A tokenizer and the image settings of a model: questions and pictures to inputs, ids to text.

    Args:
        tokenizer: a LLaDA tokenizer (special tokens are looked up by name).
        image_size: side of a tile in pixels.
        patch_size: side of a vision patch in pixels.
        image_aspect_ratio: "square", "pad", "anyres" or "anyres_max_N"; several images in one prompt are
            padded to squares whatever this says, as published.
        mm_patch_merge_type: how the model merges tiles; decides how many positions an image takes.
        image_grid_pinpoints: candidate canvases [[width, height], ...]; None for 1..6 x 1..6 tiles.
        max_length: longest sequence of prompt, images and answer; None for no limit.
        chat_mode: "llava_llada" or "llava_llada_med".
        system_prompt: replaces the system text of the mode; "" for no system turn.
        drop_after_image: drop the token after an image (its newline), as the published inference code does.

    Raises:
        ValueError: for settings outside these, or a tokenizer without LLaDA's special tokens.
    """

    def __init__(
        self,
        tokenizer=None,
        image_size: int = 384,
        patch_size: int = 14,
        image_aspect_ratio: str = "anyres_max_4",
        mm_patch_merge_type: str = "spatial_unpad",
        image_grid_pinpoints: list[list[int]] | None = None,
        max_length: int | None = 8192,
        chat_mode: str = "llava_llada",
        system_prompt: str | None = None,
        drop_after_image: bool = True,
        **kwargs,
    ):
        super().__init__(tokenizer, **kwargs)
        parse_aspect_ratio(image_aspect_ratio)
        system_prompt_of(chat_mode, system_prompt)
        self.special = special_ids(tokenizer)
        self.image_size = image_size
        self.patch_size = patch_size
        self.image_aspect_ratio = image_aspect_ratio
        self.mm_patch_merge_type = mm_patch_merge_type
        self.image_grid_pinpoints = image_grid_pinpoints or grid_pinpoints(image_size)
        self.max_length = max_length
        self.chat_mode = chat_mode
        self.system_prompt = system_prompt
        self.drop_after_image = drop_after_image

    @classmethod
    def from_config(cls, tokenizer: Any, config: MedVConfig, **settings: Any) -> MedVProcessor:
        """Return the processor that fits a model's configuration; `settings` override what it says."""
        return cls(tokenizer, **_settings_of(config) | settings)

    @classmethod
    def get_processor_dict(cls, pretrained_model_name_or_path, **kwargs):
        """Read the settings of a saved processor; without `processor_config.json`, those of the model."""
        settings, rest = super().get_processor_dict(pretrained_model_name_or_path, **kwargs)
        if "image_size" not in settings:
            config = MedVConfig.from_pretrained(pretrained_model_name_or_path, **kwargs)
            settings = _settings_of(config) | settings
        return settings, rest

    @property
    def model_input_names(self) -> list[str]:
        """Keys of what a call returns."""
        return ["input_ids", "attention_mask", "pixel_values", "tile_layouts"]

    def __call__(
        self,
        images: Any = None,
        text: str | Turns | Sequence[str | Turns] | None = None,
        gen_length: int = 0,
    ) -> BatchFeature:
        """Prepare one question, or a batch of them.

        Args:
            images: for one question None, a picture (anything `open_image` takes) or a list of pictures; for
                a batch None, or a list with one such entry per question.
            text: one question, one conversation [(role, text), ...] that ends with a user turn, or a list of
                either. Where no `<image>` marks them, images stand before the first user turn.
            gen_length: positions to keep free for the answer.

        Returns:
            input_ids (B, S) int64 padded on the left, attention_mask (B, S); with images also pixel_values, a
            list of (tiles, 3, side, side) float32 per image row by row, and tile_layouts, a `TileLayout` per image.

        Raises:
            ValueError: for an empty or over-long question, or images that do not match their placeholders.
            TypeError: for a turn that is not text.
            ImageError: for a picture that cannot be opened.
        """
        prompts, pictures = _as_batch(text, images)
        rows: list[list[int]] = []
        tiles: list[torch.Tensor] = []
        layouts: list[TileLayout] = []
        for turns, own in zip(prompts, pictures, strict=True):
            prompt = render_prompt(_mark_images(turns, len(own)), self.chat_mode, self.system_prompt)
            ids = encode_prompt(prompt, self.tokenizer, drop_after_image=self.drop_after_image)
            pixels, planned = self.prepare_images(own)
            positions = sum(layout.num_positions for layout in planned)
            self._check_length(len(ids) - len(own), positions, gen_length)
            rows.append(ids)
            tiles += pixels
            layouts += planned
        longest = max(map(len, rows))
        data = {
            "input_ids": torch.tensor(
                [[self.special.end_of_text] * (longest - len(row)) + row for row in rows]
            ),
            "attention_mask": torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows]),
        }
        if tiles:
            data |= {"pixel_values": tiles, "tile_layouts": layouts}
        return BatchFeature(data)

    def prepare_images(
        self, images: Sequence[Any], aspect_ratio: str | None = None
    ) -> tuple[list[torch.Tensor], list[TileLayout]]:
        """Open and cut the images of one prompt.

        Args:
            images: what `open_image` takes, each.
            aspect_ratio: of a single image, instead of the processor's.

        Returns:
            The pixels (tiles, 3, side, side) float32 and the layout of each image.

        Raises:
            ImageError: for a picture that cannot be opened.
        """
        opened = [open_image(image) for image in images]
        layouts = self._plan([image.size for image in opened], aspect_ratio)
        return [torch.from_numpy(cut_tiles(*pair)) for pair in zip(opened, layouts, strict=True)], layouts

    def _plan(self, sizes: Sequence[tuple[int, int]], aspect_ratio: str | None = None) -> list[TileLayout]:
        """The layouts of one prompt's images; several are single padded tiles, as published."""
        mode = "pad" if len(sizes) > 1 else aspect_ratio or self.image_aspect_ratio
        return [
            plan_tiles(
                size,
                aspect_ratio=mode,
                merge_type=self.mm_patch_merge_type,
                tile_size=self.image_size,
                patch_size=self.patch_size,
                pinpoints=self.image_grid_pinpoints,
            )
            for size in sizes
        ]

    def count_dialogue(self, turns: Turns, sizes: Sequence[tuple[int, int]]) -> int:
        """Count the positions that a training dialogue takes with its chat frame and its images in, uncut.

        Args:
            turns: (role, text) in order, with one `<image>` for every image.
            sizes: (width, height) of its images; several are single tiles, as everywhere.
        """
        ids, _, _ = encode_dialogue(
            turns,
            self.tokenizer,
            has_image=len(sizes) > 0,
            chat_mode=self.chat_mode,
            system_prompt=self.system_prompt,
        )
        return len(ids) - len(sizes) + sum(layout.num_positions for layout in self._plan(sizes))

    def decode_answer(self, ids: Sequence[int]) -> str:
        """Return generated ids as text, without special tokens, trimmed."""
        return self.tokenizer.decode([int(token) for token in ids], skip_special_tokens=True).strip()

    def pieces(self, ids: Iterable[int]) -> dict[int, bytes]:
        """Return the bytes of the text of every id, b"" for special tokens: joined, they decode to the answer."""
        added = self.tokenizer.added_tokens_decoder
        special = {token for token, entry in added.items() if entry.special}
        distinct = sorted({int(token) for token in ids})
        return {token: b"" if token in special else self._piece(token) for token in distinct}

    def _piece(self, token: int) -> bytes:
        characters = self.tokenizer.convert_ids_to_tokens(token)
        if characters is None:  # a row of the embedding that no token has
            return b""
        if all(character in _BYTE_OF_CHARACTER for character in characters):
            return bytes(_BYTE_OF_CHARACTER[character] for character in characters)
        return self.tokenizer.decode([token]).encode("utf-8")

    def _check_length(self, words: int, image_positions: int, gen_length: int) -> None:
        if self.max_length is None or words + image_positions + gen_length <= self.max_length:
            return
        raise ValueError(
            f"the question is too long: {words} tokens with its chat frame, {image_positions} image "
            f"positions and {gen_length} for the answer are more than the model's {self.max_length}; "
            f"shorten the question to {max(self.max_length - image_positions - gen_length, 0)} tokens, or "
            "lower gen_length"
        )


def _settings_of(config: MedVConfig) -> dict[str, Any]:
    return {
        "image_size": config.vision_config.image_size,
        "patch_size": config.vision_config.patch_size,
        "image_aspect_ratio": config.image_aspect_ratio,
        "mm_patch_merge_type": config.mm_patch_merge_type,
        "image_grid_pinpoints": config.image_grid_pinpoints,
        "max_length": config.tokenizer_model_max_length,
    }


def _as_batch(text: Any, images: Any) -> tuple[list[list[tuple[str, str]]], list[list[Any]]]:
    """Questions as conversations and images as one list per question."""
    if not text:
        raise ValueError("no question was given; give text='...' or a conversation [('user', '...'), ...]")
    first = text[
        0
    ]  # of one question a character or a turn (role, text), of a batch a question or a conversation
    if isinstance(text, str) or (not isinstance(first, str) and isinstance(next(iter(first), None), str)):
        questions, pictures = [text], [images]
    else:
        questions = list(text)
        pictures = [None] * len(questions) if images is None else images
        if not isinstance(pictures, list | tuple) or len(pictures) != len(questions):
            given = len(pictures) if isinstance(pictures, list | tuple) else "one picture"
            raise ValueError(
                f"{len(questions)} questions came with {given} for images; give a list with one entry per "
                "question (a picture, a list of pictures, or None)"
            )
    lists = [
        list(entry) if isinstance(entry, list | tuple) else [] if entry is None else [entry]
        for entry in pictures
    ]
    return [_as_turns(question) for question in questions], lists


def _as_turns(question: Any) -> list[tuple[str, str]]:
    turns = [("user", question)] if isinstance(question, str) else [tuple(turn) for turn in question]
    if not turns or turns[-1][0] not in ("user", "human"):
        raise ValueError("a conversation must end with a user turn ('user', '...'), which the model answers")
    for role, said in turns:
        if not isinstance(said, str):
            raise TypeError(f"a {role} turn holds a {type(said).__name__}; give text")
    if not turns[-1][1].replace(IMAGE_TOKEN, "").strip():
        raise ValueError("the question is empty; ask something")
    return turns


def _mark_images(turns: list[tuple[str, str]], images: int) -> list[tuple[str, str]]:
    """The turns with one `<image>` per image, in front of the first user turn if they name none."""
    marks = sum(text.count(IMAGE_TOKEN) for _, text in turns)
    if marks == images:
        return turns
    if marks:
        raise ValueError(
            f"the text has {marks} {IMAGE_TOKEN} but {images} image(s) were given; give one for each"
        )
    first = next(number for number, (role, _) in enumerate(turns) if role in ("user", "human"))
    role, text = turns[first]
    marked = (role, " ".join([IMAGE_TOKEN] * images) + "\n" + text)
    return [*turns[:first], marked, *turns[first + 1 :]]
