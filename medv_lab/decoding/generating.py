"""`model.generate`, in the terms of transformers: ids in, ids out, with its streamers, criteria and processors.

After DiffusionGemma of transformers, whose model is no `GenerationMixin` either. R prompts, S ids, L answer positions.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer
from transformers.utils import ModelOutput

from medv_lab.config import SettingsError
from medv_lab.decoding.denoising import denoise
from medv_lab.decoding.generation_config import MedVGenerationConfig, unknown_name
from medv_lab.diffusion.state import StepRecord, find_first_stops


@dataclass
class MedVGenerationOutput(ModelOutput):
    """What `generate` returns with `return_dict_in_generate=True`.

    Attributes:
        sequences: prompts and answers (R, S + L), padded behind the answers.
        tokens_per_forward: tokens of each answer, without those that were given, by the passes that it took, (R,).
        trace: a `StepRecord` for every pass; `medv_lab.decoding.tracing.make_trace` makes a trace of them.
    """

    sequences: torch.LongTensor | None = None
    tokens_per_forward: torch.FloatTensor | None = None
    trace: tuple[StepRecord, ...] | None = None


class MedVGenerationMixin:
    """Adds `generate` to a denoiser."""

    generation_config_class = MedVGenerationConfig

    @torch.no_grad()
    def generate(
        self,
        input_ids: torch.Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        logits_processor: Sequence[Callable] | None = None,
        stopping_criteria: Sequence[Callable] | None = None,
        streamer: BaseStreamer | None = None,
        *,
        attention_mask: torch.Tensor | None = None,
        pixel_values: Any = None,
        vision_features: Any = None,
        tile_layouts: Any = None,
        decoder_input_ids: torch.Tensor | None = None,
        stop_strings: str | Sequence[str] | None = None,
        tokenizer: Any = None,
        **kwargs: Any,
    ) -> torch.Tensor | MedVGenerationOutput:
        """Answer prompts of ids.

        Args:
            input_ids: (R, S) with placeholders for images.
            generation_config: settings; by default the model's own.
            logits_processor: called as (answers so far (N, L), logits (N, V)) for the N positions that may be filled.
            stopping_criteria: asked about each prompt with every beginning of its answer, (1, ids), as soon as it holds
                no mask; the answer ends where they say so, and the run when all answers end.
            streamer: gets the prompt, drafts where it has `put_draft`, finished blocks, and the end.
            attention_mask: (R, S), 0 at padding, which is on the left.
            pixel_values, vision_features, tile_layouts: as in `merge_image_features`.
            decoder_input_ids: the canvas of infilling: answers to start from, (R, L), with the mask where a token is
                wanted. What is given never changes; L is its length.
            stop_strings: texts before which an answer ends; needs the tokenizer.
            tokenizer: reads `stop_strings`.
            kwargs: settings by any name that `MedVGenerationConfig` understands, over those of the configuration.

        Returns:
            The ids of prompts and answers (R, S + L), padded behind each answer's end, or a `MedVGenerationOutput`.

        Raises:
            SettingsError: for unknown settings (those near are named), or values that no run can have.
            ValueError: for wrong images or no prompt, or as the sampler says.
            FloatingPointError: if the model's outputs are not finite.
        """
        if input_ids is None:
            raise ValueError("generate() needs input_ids, as the processor returns them")
        config = self._read_settings(generation_config, kwargs)
        length = None if decoder_input_ids is None else decoder_input_ids.shape[1]
        if length is None and config.max_new_tokens is None and config.max_length is not None:
            length = config.max_length - input_ids.shape[1]
            if length < 1:
                raise SettingsError(
                    f"max_length is {config.max_length}, the prompt has {input_ids.shape[1]} ids already; give more, "
                    "or max_new_tokens"
                )
        settings = config.settings(length)
        processors = LogitsProcessorList(logits_processor or [])
        prompts, mask_id = input_ids.cpu(), self.config.mask_token_id
        criteria = _Criteria(stopping_criteria or [], prompts, mask_id)
        is_ending = False
        known = {
            "attention_mask": attention_mask,
            "pixel_values": pixel_values,
            "vision_features": vision_features,
            "tile_layouts": tile_layouts,
            "start_ids": decoder_input_ids,
            "stop_ids": self._stop_ids(config, stop_strings, tokenizer),
            "process_logits": processors if processors else None,
            "cancel": lambda: is_ending,
        }
        if streamer is not None:
            streamer.put(prompts)
        records: list[StepRecord] = []
        streamed = 0
        for record in denoise(self, input_ids, settings, **known):
            if streamer is not None:
                streamed = _stream(streamer, records[-1] if records else None, record, streamed, mask_id)
            records.append(record)
            is_ending = bool(stopping_criteria) and criteria.ask(record)

        answers, stops = _answers(records, settings.gen_length, len(prompts), mask_id)
        if not records and decoder_input_ids is not None:  # nothing was masked, or the run ended at once
            answers = decoder_input_ids.cpu()
            stops = torch.from_numpy(find_first_stops(answers.numpy(), mask_id, known["stop_ids"]))
        own = [
            length if end is None else end for length, end in zip(stops.tolist(), criteria.ends, strict=True)
        ]
        stops = torch.tensor(own).minimum(stops)
        if streamer is not None:
            if answers[:, streamed:].numel():
                streamer.put(answers[:, streamed : int(stops.max())])
            streamer.end()
        pad = self.config.eos_token_id if config.pad_token_id is None else config.pad_token_id
        behind = torch.arange(answers.shape[1]) >= stops[:, None]
        answers = answers.masked_fill(behind | (answers == mask_id), pad)
        sequences = torch.cat([prompts, answers], dim=1).to(input_ids.device)
        if not config.return_dict_in_generate:
            return sequences
        passes = sum(
            (torch.from_numpy(record.active).float() for record in records), torch.zeros(len(prompts))
        )
        filled = stops
        if decoder_input_ids is not None:  # what was given is no token of a pass
            given = decoder_input_ids.cpu() != mask_id
            given &= torch.arange(given.shape[1]) < stops[:, None]
            filled = stops - given.sum(1)
        return MedVGenerationOutput(sequences, filled / passes.clamp(min=1), tuple(records))

    def _read_settings(
        self, generation_config: GenerationConfig | None, given: dict[str, Any]
    ) -> MedVGenerationConfig:
        """Return the settings in force: those given, over those of a configuration, over the model's own."""
        config = copy.deepcopy(self.generation_config if generation_config is None else generation_config)
        if not isinstance(config, MedVGenerationConfig):
            config = MedVGenerationConfig.from_dict(config.to_diff_dict())
        unknown = config.update(**given)
        if unknown:
            more = ("logits_processor", "stopping_criteria", "streamer", "decoder_input_ids", "stop_strings")
            raise unknown_name(next(iter(unknown)), more)
        return config

    def _stop_ids(self, config: MedVGenerationConfig, texts: Any, tokenizer: Any) -> list[list[int]]:
        """Return the id sequences that end an answer, the end of turn first."""
        ends = config.eos_token_id if isinstance(config.eos_token_id, list | tuple) else [config.eos_token_id]
        stops = [[self.config.eot_token_id], *([end] for end in ends if end is not None)]
        texts = [texts] if isinstance(texts, str) else list(texts or ())
        if texts and tokenizer is None:
            raise SettingsError(
                "stop_strings were given without tokenizer, which reads them; give tokenizer=..."
            )
        return stops + [tokenizer.encode(text, add_special_tokens=False) for text in texts]

    def adjust_generation_fn(
        self,
        generation_config,
        from_auto_class,
        from_pipeline,
        pretrained_model_name_or_path,
        *args,
        **kwargs,
    ) -> None:
        """Take the settings beside the weights, when transformers loads a model."""
        if generation_config is not None:
            self.generation_config = MedVGenerationConfig.from_dict(generation_config.to_dict())
        elif pretrained_model_name_or_path is not None:
            hub = (
                "cache_dir",
                "force_download",
                "proxies",
                "local_files_only",
                "token",
                "revision",
                "subfolder",
            )
            given = {name: kwargs[name] for name in hub if name in kwargs}
            try:
                self.generation_config = MedVGenerationConfig.from_pretrained(
                    pretrained_model_name_or_path, **given
                )
            except OSError:  # a folder without one, as published ones are
                self.generation_config = MedVGenerationConfig()


def _answers(
    records: list[StepRecord], length: int, rows: int, mask_id: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the answers (R, L) as the last pass left them, and where each ends (R,)."""
    if not records:
        return torch.full((rows, length), mask_id), torch.zeros(rows, dtype=torch.long)
    return torch.from_numpy(records[-1].canvas.copy()), torch.from_numpy(records[-1].stops.copy())


def _stream(
    streamer: BaseStreamer, before: StepRecord | None, record: StepRecord, streamed: int, mask_id: int
) -> int:
    """Give a streamer what a pass brought; returns how many answer positions it has for good."""
    if before is not None and record.block > before.block:
        # nothing revises a block that is done
        done = int((torch.from_numpy(before.canvas) != mask_id).all(0).long().cumprod(0).sum())
        done = min(done, int(before.stops.max()))
        if done > streamed:
            streamer.put(torch.from_numpy(before.canvas[:, streamed:done]))
            streamed = done
    if hasattr(streamer, "put_draft"):
        draft = record.canvas.copy()
        is_open = draft[record.candidate_rows, record.candidate_positions] == mask_id
        at = record.candidate_rows[is_open], record.candidate_positions[is_open]
        draft[at] = record.candidate_tokens[is_open]
        streamer.put_draft(torch.from_numpy(draft[:, streamed : int(record.stops.max())]))
    return streamed


class _Criteria:
    """Stopping criteria, asked about every beginning of every answer, as if its tokens had come one by one."""

    def __init__(self, criteria: Sequence[Callable], prompts: torch.Tensor, mask_id: int):
        self.criteria, self.prompts, self.mask_id = StoppingCriteriaList(criteria), prompts, mask_id
        self.asked = [0] * len(prompts)  # so many tokens of each answer were asked about
        self.ends: list[int | None] = [None] * len(prompts)

    def ask(self, record: StepRecord) -> bool:
        """Return whether all answers are to end."""
        for row, canvas in enumerate(torch.from_numpy(record.canvas)):
            whole = int((canvas != self.mask_id).long().cumprod(0).sum())
            while self.ends[row] is None and self.asked[row] < whole:
                self.asked[row] += 1
                ids = torch.cat([self.prompts[row], canvas[: self.asked[row]]])[None]
                if bool(self.criteria(ids, None).all()):
                    self.ends[row] = self.asked[row]
        return None not in self.ends
