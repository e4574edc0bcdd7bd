"""Questions and pictures to model inputs, and ids back to text.

`MedVProcessor` joins a tokenizer with the image settings of a model, in transformers' conventions: it is saved beside
the model (`processor_config.json`), and a published `llava_llada` folder without that file gives its settings through
`config.json`. B prompts, S ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from transformers import BatchFeature, ProcessorMixin
from transformers.convert_slow_tokenizer import bytes_to_unicode
from transformers.image_utils import load_image

from medv_lab.inputs.image_processing import IMAGE_SETTINGS, MedVImageProcessor, stack_tiles
from medv_lab.inputs.prompts import (
    IMAGE_PLACEHOLDER,
    IMAGE_TOKEN,
    SPECIAL_TOKENS,
    Turns,
    as_turns,
    chat_template,
    encode_dialogue,
    encode_prompt,
    mark_images,
    quote,
    render_prompt,
    special_ids,
)
from medv_lab.inputs.tiling import TileLayout, grid_pinpoints
from medv_lab.model.configuration import MedVConfig
from medv_lab.strategies.base import check_number

# What callers of other processors give and what changes nothing here.
NEUTRAL_ARGUMENTS = {"add_special_tokens", "videos", "audio", "truncation", "sanitize_control_tokens"}
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
        parse_control_tokens: take names of special tokens in what people say for the tokens, as the reference does; by
            default they are text.

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
        parse_control_tokens: bool = False,
        **kwargs,
    ):
        if kwargs.get("chat_template") is None:
            kwargs["chat_template"] = chat_template(chat_mode, system_prompt)
        super().__init__(tokenizer, **kwargs)
        if max_length is not None:
            check_number("max_length", max_length, int, 1)
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
        self.parse_control_tokens = parse_control_tokens
        MedVImageProcessor(**{name: getattr(self, name) for name in IMAGE_SETTINGS})  # checks them

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
        *,
        return_tensors: str | None = "pt",
        padding: bool | str = True,
        **kwargs: Any,
    ) -> BatchFeature:
        """Prepare one question, or a batch of them.

        Args:
            images: for one question None, a picture (anything `open_image` takes, or a tensor) or a list of pictures;
                for a batch None, or a list with one such entry per question.
            text: one question, one conversation [(role, text), ...] that ends with a user turn, or a list of
                either. Where no `<image>` marks them, images stand before the first user turn. A text that begins with
                the start token is taken for a whole prompt, as `apply_chat_template` gives it.
            gen_length: positions to keep free for the answer.
            return_tensors: "pt" or "np"; None gives lists of ids.
            padding: true or "longest" pads on the left to the longest row; false pads nothing.
            kwargs: `text_kwargs` and `images_kwargs` with the same arguments, and what changes nothing here
                (`add_special_tokens`: a prompt has its special tokens).

        Returns:
            input_ids (B, S) int64 padded on the left, attention_mask (B, S); with images also pixel_values,
            (tiles, 3, side, side) float32 per image row by row, and tile_layouts, a `TileLayout` per image.

        Raises:
            ValueError: for an empty or over-long question, images that do not match their placeholders, an unknown
                argument, or rows of several lengths that are to be tensors unpadded.
            TypeError: for a turn that is not text.
            ImageError: for a picture that cannot be opened.
        """
        given = {**kwargs, **kwargs.pop("text_kwargs", {}), **kwargs.pop("images_kwargs", {})}
        given = {name: value for name, value in given.items() if name not in ("text_kwargs", "images_kwargs")}
        return_tensors, padding = given.pop("return_tensors", return_tensors), given.pop("padding", padding)
        aspect_ratio = given.pop("image_aspect_ratio", None)
        unknown = given.keys() - NEUTRAL_ARGUMENTS
        if unknown:
            raise ValueError(
                f"unknown arguments {', '.join(sorted(unknown))}; the processor takes images, text, gen_length, "
                "return_tensors, padding and image_aspect_ratio"
            )
        prompts, pictures = _as_batch(text, images)
        rows: list[list[int]] = []
        tiles: list[torch.Tensor] = []
        layouts: list[TileLayout] = []
        for turns, own in zip(prompts, pictures, strict=True):
            prompt = turns
            if not isinstance(turns, str):
                marked = mark_images(turns, len(own))
                if not self.parse_control_tokens:
                    marked = [(role, quote(said, self.tokenizer)) for role, said in marked]
                prompt = render_prompt(marked, self.chat_mode, self.system_prompt)
            ids = encode_prompt(prompt, self.tokenizer, drop_after_image=self.drop_after_image)
            if ids.count(IMAGE_PLACEHOLDER) != len(own):
                raise ValueError(
                    f"the text has {ids.count(IMAGE_PLACEHOLDER)} {IMAGE_TOKEN} but {len(own)} image(s) were given; "
                    "give one for each"
                )
            pixels, planned = self.prepare_images(own, aspect_ratio)
            positions = sum(layout.num_positions for layout in planned)
            self._check_length(len(ids) - len(own), positions, gen_length)
            rows.append(ids)
            tiles += pixels
            layouts += planned
        longest = max(map(len, rows)) if padding in (True, "longest") else 0
        missing = [max(longest - len(row), 0) for row in rows]
        data: dict[str, Any] = {
            "input_ids": [
                [self.special.end_of_text] * pad + row for pad, row in zip(missing, rows, strict=True)
            ],
            "attention_mask": [[0] * pad + [1] * len(row) for pad, row in zip(missing, rows, strict=True)],
        }
        data = BatchFeature(data, tensor_type=return_tensors).data
        if tiles:
            data["tile_layouts"] = layouts
            data["pixel_values"] = stack_tiles(tiles, return_tensors)
        return BatchFeature(data)

    def prepare_images(
        self, images: Sequence[Any], aspect_ratio: str | None = None
    ) -> tuple[list[torch.Tensor], list[TileLayout]]:
        """Open and cut the images of one prompt.

        Args:
            images: what `open_image` takes, or tensors (3, height, width), each.
            aspect_ratio: of a single image, instead of the processor's.

        Returns:
            The pixels (tiles, 3, side, side) float32 and the layout of each image.

        Raises:
            ImageError: for a picture that cannot be opened.
        """
        return self.image_processor.cut(images, aspect_ratio)

    @property
    def image_processor(self) -> MedVImageProcessor:
        """What cuts the pictures, with this processor's settings."""
        return MedVImageProcessor(**{name: getattr(self, name) for name in IMAGE_SETTINGS})

    def save_pretrained(self, save_directory, **kwargs) -> list[str]:
        """Save the processor, and the image processor beside it for `AutoImageProcessor`."""
        saved = super().save_pretrained(save_directory, **kwargs)
        self.image_processor.save_pretrained(save_directory)
        return saved

    def apply_chat_template(
        self,
        conversation: Any,
        *args: Any,
        allow_urls: bool = False,
        sanitize_control_tokens: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Render messages, whose contents may hold pictures, as transformers does; with tokenize=True as inputs.

        Args:
            conversation: [{"role": ..., "content": text or [{"type": "image", ...}, {"type": "text", ...}]}, ...].
            allow_urls: fetch pictures that are given as addresses on the network.
            sanitize_control_tokens: keep names of special tokens in the messages as text, by an invisible character in
                the prompt; None for what `parse_control_tokens` says.
            args, kwargs: as `ProcessorMixin.apply_chat_template` takes them.

        Raises:
            ValueError: for an address where none is allowed.
        """
        if sanitize_control_tokens is None:
            sanitize_control_tokens = not self.parse_control_tokens
        say = partial(quote, tokenizer=self.tokenizer) if sanitize_control_tokens else str
        conversation = _prepare_messages(conversation, load_image if allow_urls else _refuse, say)
        return super().apply_chat_template(conversation, *args, **kwargs)

    def decode(self, token_ids: Any, **kwargs: Any) -> Any:
        """Return ids as text, placeholders of images left out; several rows give several texts."""
        rows = token_ids.tolist() if hasattr(token_ids, "tolist") else token_ids
        if isinstance(rows, list | tuple) and len(rows) and isinstance(rows[0], list | tuple):
            return [self.decode(row, **kwargs) for row in rows]
        rows = [rows] if isinstance(rows, int) else rows
        return self.tokenizer.decode([token for token in rows if token >= 0], **kwargs)

    def batch_decode(self, sequences: Any, **kwargs: Any) -> list[str]:
        """Return every row of ids as text, placeholders of images left out."""
        return [self.decode(row, **kwargs) for row in sequences]

    def post_process_image_text_to_text(
        self, generated_outputs: Any, skip_special_tokens: bool = True, **kwargs: Any
    ) -> list[str]:
        """Return what `generate` gave as texts, which `pipeline("image-text-to-text")` asks for."""
        return self.batch_decode(generated_outputs, skip_special_tokens=skip_special_tokens, **kwargs)

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
            parse_control_tokens=self.parse_control_tokens,
        )
        return (
            len(ids) - len(sizes) + sum(layout.num_positions for layout in self.image_processor.plan(sizes))
        )

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


def _as_batch(text: Any, images: Any) -> tuple[list[str | list[tuple[str, str]]], list[list[Any]]]:
    """Questions as conversations, or whole prompts as they are, and images as one list per question."""
    if not isinstance(text, str | list | tuple | None):
        raise TypeError(
            f"the question is a {type(text).__name__}; give a text, a conversation, or a list of them"
        )
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
    start = SPECIAL_TOKENS["start"]
    prompts = [
        question if isinstance(question, str) and question.startswith(start) else as_turns(question)
        for question in questions
    ]
    return prompts, [one[0] if len(one) == 1 and isinstance(one[0], list | tuple) else one for one in lists]


def _prepare_messages(conversation: Any, fetch: Callable[[str], Any], say: Callable[[str], str]) -> Any:
    """Messages, of one conversation or several, with `fetch` applied to network addresses and `say` to texts."""
    if not isinstance(conversation, Mapping):
        return [_prepare_messages(message, fetch, say) for message in conversation]
    content = conversation.get("content")
    if isinstance(content, str):
        return {**conversation, "content": say(content)}
    if not isinstance(content, list | tuple):
        return conversation
    parts = []
    for part in content:
        given = next((part[key] for key in ("image", "url", "image_url") if key in part), None)
        address = given.get("url") if isinstance(given, Mapping) else given
        if isinstance(address, str) and address.startswith(("http://", "https://")):
            part = {"type": "image", "image": fetch(address)}
        elif isinstance(part.get("text"), str):
            part = {**part, "text": say(part["text"])}
        parts.append(part)
    return {**conversation, "content": parts}


def _refuse(address: str) -> Any:
    raise ValueError(
        f"a picture is the address {address!r}, and nothing is fetched from the network unless you say "
        "allow_urls=True; or give the picture, or its path"
    )
