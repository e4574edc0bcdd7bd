"""LLaDA-MedV: the denoiser and its training loss, on the backbone of `model.backbone`.

B rows, S ids, T sequence indices with the images in, H hidden size, V vocabulary, P patches of a tile.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Unpack

import torch
from torch import nn
from torch.nn.attention.flex_attention import create_block_mask
from transformers import PreTrainedTokenizerFast
from transformers.modeling_outputs import BaseModelOutputWithPast, BaseModelOutputWithPooling
from transformers.utils import ModelOutput, TransformersKwargs, logging
from transformers.utils.generic import can_return_tuple

from medv_lab.decoding.generating import MedVGenerationMixin
from medv_lab.decoding.watched_attention import WATCHED, is_watched
from medv_lab.diffusion.cache import KeyValueCache
from medv_lab.diffusion.forward import ForwardNoise, draw_noise, masked_cross_entropy, masked_diffusion_loss
from medv_lab.diffusion.forward_runner import WatchedLayers
from medv_lab.inputs.image_features import MergedInputs, conversation_mask
from medv_lab.inputs.prompts import special_ids
from medv_lab.inputs.tiling import TileLayout
from medv_lab.model.backbone import Images, MedVModel, MedVPreTrainedModel
from medv_lab.model.configuration import MedVConfig
from medv_lab.model.last_layer import hidden_at, is_called_alone

HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
_log = logging.get_logger(__name__)
# So many rows through a large output layer: on a CPU up to twice as fast with the larger matrix first (float32, MKL).
_FEW_ROWS = range(3, 16)


@dataclass
class MaskedDiffusionOutput(ModelOutput):
    """The result of a forward pass.

    Attributes:
        loss: scalar, with labels only.
        logits: (B, T, V); with labels only where they are asked for.
        hidden_states: one (B, T, H) for the embeddings and one for every layer, where asked for.
        attentions: one (B, heads, T, T) for every layer, where asked for; needs eager attention.
        masked_ce: cross entropy of the masked positions row by row (M,), with labels only.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    masked_ce: torch.FloatTensor | None = None


class MedVLanguageModel(MedVPreTrainedModel):
    """The model with its output layer; a subclass adds what it is trained for."""

    accepts_loss_kwargs = False
    _tied_weights_keys: ClassVar[dict[str, str]] = {"lm_head.weight": "model.embed_tokens.weight"}
    _tp_plan: ClassVar[dict[str, str]] = {"lm_head": "colwise_gather_output"}

    def __init__(self, config: MedVConfig):
        super().__init__(config)
        self.model = MedVModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Load a model as transformers does; with the tokenizer beside the weights it is the one that `load` gives."""
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        if pretrained_model_name_or_path is not None:
            hub = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
            model = loaded[0] if isinstance(loaded, tuple) else loaded
            model._fit_to_tokenizer(pretrained_model_name_or_path, hub)
        return loaded

    def _fit_to_tokenizer(self, name: Any, hub: dict[str, Any]) -> None:
        """Leave out rows that no token has, and take the special ids by name, as published loaders do.

        Published configurations count more rows than there are tokens, and name a start token that there is not.
        """
        try:
            tokenizer = PreTrainedTokenizerFast.from_pretrained(name, **hub)
            special = special_ids(tokenizer)
        except (OSError, ValueError):  # no tokenizer beside the weights, or none of LLaDA's
            return
        for field, token in special.config_fields().items():
            setattr(self.config, field, token)
        if len(tokenizer) < self.config.vocab_size:
            _log.info(f"The vocabulary is cut from {self.config.vocab_size} rows to {len(tokenizer)}.")
            self.resize_token_embeddings(len(tokenizer))

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the token table (named here because `embed_tokens` is a method of this class)."""
        return self.model.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the token table."""
        self.model.embed_tokens = value

    @property
    def input_device(self) -> torch.device:
        """Where ids and pixels belong."""
        return self.model.input_device

    def embed_tokens(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the embeddings (..., H) of token ids (...); image placeholders are not ids."""
        return self.model.embed_tokens(ids)

    def backbone(
        self,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cache: KeyValueCache | None = None,
        query_indices: torch.Tensor | None = None,
        watched: WatchedLayers | None = None,
    ) -> torch.Tensor:
        """Run the language model, every position attending to every other (in a causal model, to earlier ones).

        Args:
            inputs_embeds: (B, T, H).
            attention_mask: which keys may be seen: (B, T) for padding, or (B, 1, T, T) with the queries.
            position_ids: (B, T); 0..T-1 by default, whatever the mask, as in the reference.
            cache: holds the keys and values of indices that are not given; the mask is then (B, 1, given, all).
            query_indices: which of the given indices are asked for, int64 (B, Q); None for all.
            watched: gets the states of layers; nothing of the model changes, so that threads may watch at once.

        Returns:
            (B, T, H), or (B, Q, H), after the final norm.

        Raises:
            ValueError: for a (B, 1, T, T) mask under flash attention, which cannot use one.
        """
        is_selecting = query_indices is not None and not is_watched()
        # a mask of blocks has no rows to select, and what is hooked or sharded must be called as a whole
        is_selecting &= self.config._attn_implementation != "flex_attention"
        is_selecting = is_selecting and is_called_alone(self.model.layers[-1])
        if is_selecting or watched is not None:
            mask = self._prepare_mask(attention_mask, inputs_embeds)
            queries = query_indices if is_selecting else None
            hidden = hidden_at(self.model, inputs_embeds, mask, position_ids, cache, queries, watched)
            if is_selecting:
                return hidden
        else:
            outputs = self._run(inputs_embeds, attention_mask, position_ids, past_key_values=cache)
            hidden = outputs.last_hidden_state
        hidden = hidden.to(inputs_embeds.device)
        return hidden if query_indices is None else hidden.take_along_dim(query_indices[..., None], 1)

    def _run(
        self,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor | None,
        position_ids: torch.Tensor | None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Run the language model on a batch with its pictures in."""
        return self.model(
            inputs_embeds=inputs_embeds,
            attention_mask=self._prepare_mask(attention_mask, inputs_embeds),
            position_ids=position_ids,
            **{"use_cache": False, "return_dict": True, **kwargs},
        )

    def _prepare_mask(self, visible: torch.Tensor | None, embeds: torch.Tensor) -> Any:
        """Bring a mask with queries and keys (B, 1, T, T) into the form that the attention takes; others stay."""
        if visible is None or visible.ndim != 4:
            return visible
        backend = self.config._attn_implementation
        if backend == "sdpa":
            return visible.bool()
        if backend in ("eager", WATCHED):
            mask = torch.zeros_like(visible, dtype=embeds.dtype)
            return mask.masked_fill(~visible.bool(), torch.finfo(embeds.dtype).min)
        if backend == "flex_attention":
            rows, _, queries, keys = visible.shape
            seen = visible.bool()[:, 0]
            return create_block_mask(
                lambda row, _, query, key: seen[row, query, key], rows, None, queries, keys, seen.device
            )
        raise ValueError(
            f"attn_implementation is {backend!r}, which takes no mask of single queries and keys "
            "(conversation_ids, caches, strategies that verify); "
            "use 'sdpa' or 'eager'"
        )

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits (..., V) of hidden states (..., H)."""
        layer = self.lm_head
        # no adapter, not quantised, sharded, offloaded or hooked
        is_plain = type(layer) is nn.Linear and type(layer.weight) is nn.Parameter and is_called_alone(layer)
        is_served = not torch.is_grad_enabled() and hidden.ndim == 2 and hidden.device.type == "cpu"
        if is_plain and is_served and len(hidden) in _FEW_ROWS:
            return (layer.weight @ hidden.T).T.contiguous()
        return layer(hidden).to(hidden.device)

    def vision_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the vision tower's output for pixels (N, 3, side, side): (N, P, vision hidden), not yet projected.

        Raises:
            ValueError: if the pixels are not tiles of the configured side.
        """
        return self.model.vision_features(pixel_values, return_dict=True).last_hidden_state

    def get_image_features(self, *args: Any, **kwargs: Any) -> BaseModelOutputWithPooling | tuple:
        """Compute the vectors that stand for each image; see `MedVModel.get_image_features`."""
        return self.model.get_image_features(*args, **kwargs)

    def merge_image_features(self, *args: Any, **kwargs: Any) -> MergedInputs:
        """Put image features in the place of their placeholders; see `MedVModel.merge_image_features`."""
        return self.model.merge_image_features(*args, **kwargs)

    def _merge(
        self, input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor | None, images: dict, **rows: Any
    ) -> MergedInputs:
        """Take embeddings as they are, or embed ids with their images.

        Raises:
            ValueError: unless there is exactly one of ids and embeddings, or for images without ids.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        if inputs_embeds is None:
            return self.merge_image_features(input_ids, **images, **rows)
        if any(part is not None for part in images.values()):
            raise ValueError(
                "pictures were given without input_ids; their placeholders say where pictures go"
            )
        return MergedInputs(inputs_embeds, **rows)

    def parts(self) -> dict[str, dict[str, nn.Parameter]]:
        """Return the parameters by the part that a training stage freezes or trains: part to (name to parameter).

        Every parameter is in exactly one of "vision_tower", "projector" and "language_model"; the newline
        vector and the output layer belong to the language model, as in the reference.
        """
        prefixes = {
            "vision_tower": "model.vision_tower.",
            "projector": "model.mm_projector.",
            "language_model": "",
        }
        parts: dict[str, dict[str, nn.Parameter]] = {part: {} for part in prefixes}
        for name, parameter in self.named_parameters():
            part = next(part for part, prefix in prefixes.items() if name.startswith(prefix))
            parts[part][name] = parameter
        return parts


class MedVForMaskedDiffusion(MedVGenerationMixin, MedVLanguageModel):
    """LLaDA-MedV: the denoiser, its training loss, and `generate`."""

    def __init__(self, config: MedVConfig):
        if config.is_causal:
            raise ValueError(
                "config.is_causal is true; that is the twin, medv_lab.model.causal.MedVForNextToken"
            )
        super().__init__(config)

    def add_noise(self, inputs_embeds: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
        """Put the mask's embedding at the masked positions: (B, T, H) and bool (B, T) to (B, T, H)."""
        # through the table's own forward: under FSDP its weight is whole only there. What is hooked to the table
        # (NEFTune's noise) is drawn for every position.
        shape = masked.shape if self.model.embed_tokens._forward_hooks else (1, 1)
        mask = self.embed_tokens(masked.new_full(shape, self.config.mask_token_id, dtype=torch.long))
        return torch.where(masked[..., None], mask.to(inputs_embeds), inputs_embeds)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: Images | None = None,
        vision_features: Images | None = None,
        tile_layouts: Sequence[TileLayout] | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        conversation_ids: torch.Tensor | None = None,
        noise: ForwardNoise | Callable[[torch.Tensor], ForwardNoise] | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        output_logits: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> MaskedDiffusionOutput | tuple:
        """Mask some labels and score their restoration; without labels, return the logits of the ids as given.

        Args:
            input_ids: (B, S), as in `merge_image_features`.
            pixel_values, vision_features, tile_layouts, attention_mask: as in `merge_image_features`.
            labels: (B, S), -100 where a token is neither noised nor learned.
            conversation_ids: turn of each id (B, S); a query then sees keys of its own and earlier turns
                only.
            noise: the draw to use, over (B, T) with the images in, or what makes it of the labels with the
                images in; drawn from torch's global generator by default, in the reference's order.
            position_ids: (B, T), over the sequence with the images in; 0..T-1 by default.
            inputs_embeds: (B, T, H) in the place of ids and images; mask, labels and turns are then (B, T).
            output_logits: with labels, return the logits of all positions beside the loss.
            kwargs: `output_hidden_states`, `output_attentions`, `return_dict` and what else `MedVModel` takes.

        Raises:
            ValueError: as `merge_image_features`, for noise of another shape than the labels with the images in, and
                unless there is exactly one of ids and embeddings.
        """
        # Images in the place of their placeholders; a query sees all keys, or its own and earlier turns.
        merged = self._merge(
            input_ids,
            inputs_embeds,
            {
                "pixel_values": pixel_values,
                "vision_features": vision_features,
                "tile_layouts": tile_layouts,
            },
            attention_mask=attention_mask,
            labels=labels,
            conversation_ids=conversation_ids,
        )
        visible = merged.attention_mask
        if merged.conversation_ids is not None:
            visible = conversation_mask(merged.conversation_ids, visible)
        if labels is None:
            outputs = self._run(merged.inputs_embeds, visible, position_ids, **kwargs)
            return MaskedDiffusionOutput(
                logits=self.head(outputs.last_hidden_state),
                hidden_states=outputs.hidden_states,
                attentions=outputs.attentions,
            )

        # 1. Draw a masking level t for each row and, with it, which labelled positions are masked.
        ignored = self.config.ignore_index
        if noise is None:
            noise = draw_noise(merged.labels, ignore_index=ignored)
        elif callable(noise):
            noise = noise(merged.labels)
        if noise.masked.shape != merged.labels.shape:
            raise ValueError(
                f"noise.masked has the shape {tuple(noise.masked.shape)}, the labels with the images in have "
                f"{tuple(merged.labels.shape)}; draw the noise over those (model.merge_image_features)"
            )
        # 2. Put the mask's embedding there and run the model once.
        noisy = self.add_noise(merged.inputs_embeds, noise.masked)
        outputs = self._run(noisy, visible, position_ids, **kwargs)
        hidden = outputs.last_hidden_state
        # 3. Cross entropy at the masked positions only, each weighted by 1 / (p_mask N labelled), over B rows.
        masked_ce = masked_cross_entropy(self.head(hidden[noise.masked]), merged.labels[noise.masked])
        loss = masked_diffusion_loss(masked_ce, noise, merged.labels, ignored)
        return MaskedDiffusionOutput(
            loss=loss,
            logits=self.head(hidden) if output_logits else None,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            masked_ce=masked_ce,
        )
