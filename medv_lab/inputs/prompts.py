"""Chat texts and token sequences, as the published system builds them.

Two kinds of sequence are made here, both as plain Python lists of ids with `IMAGE_PLACEHOLDER` for an image:
prompts for inference (`render_prompt`, `encode_prompt`) and labelled dialogues for training
(`encode_dialogue`, `collate`). Any tokenizer with `encode(text, add_special_tokens=False)` and
`convert_tokens_to_ids(name)` works; special tokens are looked up by name. No torch, no pixels.

What people say is text: a special token's name in it is encoded like any other words (`quote`), where the reference
takes it for the token, so that a question could end its own turn or ask for masks to be filled. The functions that are
given what was said have `parse_control_tokens` for the reference's way.

Source: the published texts and sequences recorded in `text.json` of the golden data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from medv_lab.data.instructions import IMAGE_TOKEN, ROLES

IMAGE_PLACEHOLDER = -200
IGNORED_LABEL = -100
QUOTE = "\ufdd0"  # a code point for uses like this one: within a name, it says that this is no special token

_VISION_SYSTEM = (
    "You are a helpful {kind}language and vision assistant. You are able to understand the visual content "
    "that the user provides, and assist the user with a variety of tasks using natural language."
)
SYSTEM_PROMPTS = {
    "llava_llada": _VISION_SYSTEM.format(kind=""),
    "llava_llada_med": _VISION_SYSTEM.format(kind="medical "),
}
PLAIN_MODE = "llada_plain"

Turns = Sequence[tuple[str, str | None]]


@dataclass(frozen=True)
class SpecialIds:
    """Ids of the special tokens that the code needs, in one tokenizer."""

    start: int
    end_of_text: int
    mask: int
    start_header: int
    end_header: int
    end_of_turn: int

    @property
    def labelled(self) -> frozenset[int]:
        """Tokens that are learned in system and user turns too."""
        return frozenset((self.start, self.start_header, self.end_header, self.end_of_turn))

    def config_fields(self) -> dict[str, int]:
        """Return the ids as the fields of `MedVConfig`."""
        return {
            "bos_token_id": self.start,
            "eos_token_id": self.end_of_text,
            "mask_token_id": self.mask,
            "start_header_token_id": self.start_header,
            "end_header_token_id": self.end_header,
            "eot_token_id": self.end_of_turn,
        }

    @property
    def suppressed(self) -> tuple[int, ...]:
        """Tokens that the sampler never predicts at a masked position."""
        return (self.end_of_text, self.start, self.start_header, self.end_header)


SPECIAL_TOKENS = {
    "start": "<|startoftext|>",
    "end_of_text": "<|endoftext|>",
    "mask": "<|mdm_mask|>",
    "start_header": "<|start_header_id|>",
    "end_header": "<|end_header_id|>",
    "end_of_turn": "<|eot_id|>",
}


class Encoded(NamedTuple):
    """One training sequence: three lists of equal length."""

    input_ids: list[int]
    labels: list[int]
    conversation_ids: list[int]


def special_ids(tokenizer: Any) -> SpecialIds:
    """Look the special tokens up by name.

    Raises:
        ValueError: if the tokenizer lacks some of them.
    """
    found = {field: tokenizer.convert_tokens_to_ids(name) for field, name in SPECIAL_TOKENS.items()}
    unknown = getattr(tokenizer, "unk_token_id", None)
    missing = [
        SPECIAL_TOKENS[field] for field, number in found.items() if number is None or number == unknown
    ]
    if missing:
        raise ValueError(
            f"the tokenizer has no token {', '.join(missing)}; medv-lab needs a LLaDA tokenizer, which has "
            f"{', '.join(SPECIAL_TOKENS.values())}"
        )
    return SpecialIds(**found)


def system_prompt_of(chat_mode: str, system_prompt: str | None = None) -> str:
    """Return the system text in force: `system_prompt` if given ("" for no system turn), else that of the mode.

    Raises:
        ValueError: for an unknown mode, or for the plain mode, which has no turns.
    """
    if chat_mode not in SYSTEM_PROMPTS:
        raise ValueError(
            f"chat_mode is {chat_mode!r}; for a chat, allowed are {', '.join(SYSTEM_PROMPTS)} "
            f"({PLAIN_MODE} is for captions in alignment training)"
        )
    return SYSTEM_PROMPTS[chat_mode] if system_prompt is None else system_prompt


def chat_template(chat_mode: str = "llava_llada", system_prompt: str | None = None) -> str:
    """Write what `render_prompt` does as a Jinja template, over messages whose contents are texts or lists of parts.

    Pictures of a message stand in front of its text, on a line of their own; a system message replaces the system text.

    Raises:
        ValueError: as `system_prompt_of`.
    """
    system = json.dumps(system_prompt_of(chat_mode, system_prompt))
    start, header, end = (SPECIAL_TOKENS[name] for name in ("start", "start_header", "end_header"))
    return (
        "{%- macro said(content) -%}{%- if content is string -%}{{- content | trim -}}{%- else -%}"
        "{%- set parts = namespace(images=[], text='') -%}{%- for part in content -%}"
        "{%- if part.type == 'text' -%}{%- set parts.text = parts.text + part.text -%}"
        f"{{%- else -%}}{{%- set parts.images = parts.images + ['{IMAGE_TOKEN}'] -%}}{{%- endif -%}}"
        "{%- endfor -%}{{- (parts.images | join(' ') + ('\n' if parts.images else '') + parts.text) | trim -}}"
        "{%- endif -%}{%- endmacro -%}"
        f"{{%- macro turn(role, text) -%}}{{{{- '{header}ROLE{end}\\n\\n' | replace('ROLE', role) + text + "
        f"'{SPECIAL_TOKENS['end_of_turn']}' -}}}}{{%- endmacro -%}}"
        f"{{{{- '{start}' -}}}}"
        f"{{%- if messages[0].role != 'system' and {system} -%}}{{{{- turn('system', {system}) -}}}}{{%- endif -%}}"
        "{%- for message in messages -%}"
        "{%- set role = {'human': 'user', 'gpt': 'assistant'}.get(message.role, message.role) -%}"
        "{{- turn(role, said(message.content)) -}}{%- endfor -%}"
        f"{{%- if add_generation_prompt -%}}{{{{- '{header}ROLE{end}\\n\\n' | replace('ROLE', 'assistant') -}}}}"
        "{%- endif -%}"
    )


def render_prompt(turns: Turns, chat_mode: str = "llava_llada", system_prompt: str | None = None) -> str:
    """Write a conversation as the text that the model is asked to continue.

    Texts are trimmed, turns whose text is None are left out, and an assistant header always ends the prompt.

    Args:
        turns: (role, text) in order; roles user (or human) and assistant (or gpt).
        chat_mode: "llava_llada" or "llava_llada_med".
        system_prompt: replaces the system text of the mode; "" for no system turn.

    Raises:
        ValueError: for an unknown mode or role.
    """
    system = system_prompt_of(chat_mode, system_prompt)
    spoken = [("system", system)] if system else []
    spoken += [(_role(role), text) for role, text in turns if text is not None]
    written = "".join(_turn(role, text.strip()) for role, text in spoken)
    return SPECIAL_TOKENS["start"] + written + _header("assistant")


def quote(text: str, tokenizer: Any) -> str:
    """Mark all names of special tokens in what someone said, so that `encode_prompt` takes them for text."""
    return _control_tokens(tokenizer).sub(lambda name: name[0][0] + QUOTE + name[0][1:], text)


@lru_cache(maxsize=8)
def _control_tokens(tokenizer: Any) -> re.Pattern[str]:
    """Find the names of a tokenizer's special tokens, the longest of them first."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    names = {token.content for token in added if token.special and len(token.content) > 1}
    longest_first = sorted(names | set(SPECIAL_TOKENS.values()), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)))


def _encode(text: str, tokenizer: Any) -> list[int]:
    """Encode a text; what a quote parts is encoded apart, so that no token is made of both sides."""
    parts = (tokenizer.encode(part, add_special_tokens=False) for part in text.split(QUOTE))
    return [token for part in parts for token in part]


def encode_prompt(prompt: str, tokenizer: Any, *, drop_after_image: bool = True) -> list[int]:
    """Turn a rendered prompt into ids with placeholders for images.

    Args:
        prompt: text from `render_prompt`, with `<image>` where an image goes. Special tokens are read in all of it but
            in what was quoted.
        tokenizer: see the module's docstring.
        drop_after_image: drop the first token after every image, as the published inference code does
            when the prompt begins with the start token (it is the newline behind the image).
    """
    first, *rest = (_encode(piece, tokenizer) for piece in prompt.split(IMAGE_TOKEN))
    drops = drop_after_image and first[:1] == [special_ids(tokenizer).start]
    return sum(([IMAGE_PLACEHOLDER, *piece[drops:]] for piece in rest), list(first))


def mark_images(turns: list[tuple[str, str]], images: int) -> list[tuple[str, str]]:
    """Give turns one `<image>` per image, in front of the first user turn if they name none.

    Raises:
        ValueError: if they name another number of images.
    """
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


def move_image_first(text: str) -> str:
    """Put a single image in front of its message, on a line of its own; other texts stay as they are."""
    if text.count(IMAGE_TOKEN) != 1 or text.startswith(IMAGE_TOKEN):
        return text
    return f"{IMAGE_TOKEN}\n{text.replace(IMAGE_TOKEN, '').strip()}"


def encode_dialogue(
    turns: Turns,
    tokenizer: Any,
    *,
    has_image: bool,
    chat_mode: str = "llava_llada",
    system_prompt: str | None = None,
    parse_control_tokens: bool = False,
) -> Encoded:
    """Tokenise a training dialogue with labels.

    Labelled are all tokens of assistant turns, header and end of turn included, and the start, header and
    end-of-turn tokens of the other turns. Texts are not trimmed. A leading assistant turn is skipped.

    Args:
        turns: (role, text) in order; roles user (or human) and assistant (or gpt). With an image, `<image>`
            stands where it goes; a single one is moved to the front of its message.
        tokenizer: see the module's docstring.
        has_image: whether `<image>` marks an image; without one it is ordinary text.
        chat_mode: "llava_llada", "llava_llada_med", or "llada_plain": the image, then the assistant's text
            and a newline, all labelled but the image; the user's text is dropped.
        system_prompt: replaces the system text of a chat mode; "" for no system turn.
        parse_control_tokens: take names of special tokens in the texts for the tokens, as the reference does.

    Returns:
        ids (with `IMAGE_PLACEHOLDER`), labels (`IGNORED_LABEL` where not learned) and the number of the
        user/assistant exchange each token belongs to (the system turn counts to exchange 0).

    Raises:
        ValueError: for an unknown mode or role, no turns, or an image without a placeholder.
    """
    if not parse_control_tokens:
        turns = [(role, quote(text, tokenizer)) for role, text in turns]
    spoken = [(_role(role), move_image_first(text) if has_image else text) for role, text in turns]
    if chat_mode == PLAIN_MODE:
        if [role for role, _ in spoken] != ["user", "assistant"] or not has_image:
            raise ValueError(f"{PLAIN_MODE} needs an image and exactly one user and one assistant turn")
        caption = _encode(spoken[1][1] + "\n", tokenizer)
        return Encoded([IMAGE_PLACEHOLDER, *caption], [IGNORED_LABEL, *caption], [0] * (1 + len(caption)))
    if spoken and spoken[0][0] == "assistant":
        spoken = spoken[1:]
    if not spoken:
        raise ValueError("a dialogue needs at least one user turn; none was given")
    if has_image and not any(IMAGE_TOKEN in text for _, text in spoken):
        raise ValueError(
            f"the dialogue has an image, but no turn says where: put {IMAGE_TOKEN} into the first user turn"
        )
    system = system_prompt_of(chat_mode, system_prompt)
    special = special_ids(tokenizer)

    ids, labels, exchanges = [special.start], [special.start], [0]
    exchange = -1
    for role, text in [("system", system)] * bool(system) + spoken:
        exchange += role == "user"
        turn = _turn(role, text)
        piece = (
            encode_prompt(turn, tokenizer, drop_after_image=False) if has_image else _encode(turn, tokenizer)
        )
        ids += piece
        learned = set(piece) - {IMAGE_PLACEHOLDER} if role == "assistant" else special.labelled
        labels += [token if token in learned else IGNORED_LABEL for token in piece]
        exchanges += [max(exchange, 0)] * len(piece)
    return Encoded(ids, labels, exchanges)


def collate(
    samples: Iterable[Sequence[Sequence[int]]], pad_id: int, max_length: int | None = None
) -> dict[str, list[list[int]]]:
    """Cut to `max_length` and pad on the right to the longest.

    The pad token is id and label alike, so that it is learned, as published; padding belongs to the
    last exchange of its row. No attention mask is made: padding is ordinary input.

    Args:
        samples: `Encoded` (or other id, label, conversation-id triples).
        pad_id: the end-of-text token.
        max_length: longest row; None for no limit.

    Returns:
        {input_ids, labels, conversation_ids}, each a list of rows of equal length.
    """
    rows = [tuple(list(part)[:max_length] for part in sample) for sample in samples]
    longest = max((len(ids) for ids, _, _ in rows), default=0)
    batch: dict[str, list[list[int]]] = {"input_ids": [], "labels": [], "conversation_ids": []}
    for ids, labels, exchanges in rows:
        missing = longest - len(ids)
        batch["input_ids"].append(ids + [pad_id] * missing)
        batch["labels"].append(labels + [pad_id] * missing)
        batch["conversation_ids"].append(exchanges + exchanges[-1:] * missing)
    return batch


def _role(name: str) -> str:
    if name not in ROLES:
        raise ValueError(f"role is {name!r}; allowed are {', '.join(ROLES)}")
    return ROLES[name]


def _header(role: str) -> str:
    return f"{SPECIAL_TOKENS['start_header']}{role}{SPECIAL_TOKENS['end_header']}\n\n"


def _turn(role: str, text: str) -> str:
    return f"{_header(role)}{text}{SPECIAL_TOKENS['end_of_turn']}"


def as_turns(question: Any) -> list[tuple[str, str]]:
    """Return a question, or a conversation [(role, text), ...] that ends with a user turn, as turns.

    Raises:
        TypeError: for a turn of another form, or that is not text.
        ValueError: for a conversation that ends otherwise, half a character, or an empty question.
    """
    turns = [("user", question)] if isinstance(question, str) else [*question]
    for turn in turns:
        if not isinstance(turn, list | tuple) or len(turn) != 2 or not isinstance(turn[0], str):
            raise TypeError(f"a turn of the conversation is {turn!r:.80}; give (role, text)")
    turns = [(role, said) for role, said in turns]
    if not turns or turns[-1][0] not in ("user", "human"):
        raise ValueError("a conversation must end with a user turn ('user', '...'), which the model answers")
    for role, said in turns:
        if not isinstance(said, str):
            raise TypeError(f"a {role} turn holds a {type(said).__name__}; give text")
        try:
            said.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"a {role} turn holds {said[error.start]!a}, half of a character; give whole characters"
            ) from error
    if not turns[-1][1].replace(IMAGE_TOKEN, "").strip():
        raise ValueError("the question is empty; ask something")
    return turns
