"""LLaDA-MedV: a bidirectional Llama that denoises masked text, with a SigLIP vision tower and a projector.

Composed from transformers' own parts, after LLaDA (arXiv 2502.09992) and LLaDA-V (arXiv 2505.16933). Modules are named
so that the state dict has the published `llava_llada` keys. B rows, S ids, T sequence indices with the images in,
H hidden size, V vocabulary, P patches of a tile.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn
from transformers import LlamaModel, SiglipVisionModel, initialization
from transformers.models.llama.modeling_llama import LlamaPreTrainedModel
from transformers.utils import ModelOutput

from medv_lab.diffusion.cache import KeyValueCache
from medv_lab.diffusion.forward import ForwardNoise, draw_noise, masked_cross_entropy, masked_diffusion_loss
from medv_lab.inputs.image_features import (
    MergedInputs,
    conversation_mask,
    merge_features,
    pack_image_features,
)
from medv_lab.inputs.tiling import TileLayout
from medv_lab.model.configuration import MedVConfig
from medv_lab.model.last_layer import hidden_at

Images = torch.Tensor | Sequence[torch.Tensor]
# So many rows through a large output layer: on a CPU up to twice as fast with the larger matrix first (float32, MKL).
_FEW_ROWS = range(3, 16)


@dataclass
class MaskedDiffusionOutput(ModelOutput):
    """The result of a forward pass.

    Attributes:
        loss: scalar, with labels only.
        logits: (B, T, V), without labels only.
        masked_ce: cross entropy of the masked positions row by row (M,), with labels only.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    masked_ce: torch.FloatTensor | None = None


class VisionTower(nn.Module):
    """A SigLIP vision tower without its last layer; as in the reference, features skip the post-layernorm."""

    def __init__(self, config: MedVConfig):
        super().__init__()
        self.vision_tower = nn.Module()
        self.vision_tower.vision_model = SiglipVisionModel(config.vision_config)
        del self.vision_tower.vision_model.encoder.layers[-1]

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the features of the last kept layer (N, P, vision hidden) of pixels (N, 3, side, side)."""
        vision = self.vision_tower.vision_model
        return vision.encoder(inputs_embeds=vision.embeddings(pixel_values)).last_hidden_state


class MedVPreTrainedModel(LlamaPreTrainedModel):
    """Loading, saving and initialisation shared by the models of this file."""

    config: MedVConfig
    config_class = MedVConfig
    base_model_prefix = "model"
    input_modalities = ("image", "text")
    _no_split_modules: ClassVar[list[str]] = ["LlamaDecoderLayer", "SiglipEncoderLayer"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, MedVModel):
            initialization.normal_(module.image_newline, std=self.config.hidden_size**-0.5)


class MedVModel(MedVPreTrainedModel, LlamaModel):
    """Vision tower, projector and Llama, whose forward pass it is: every index attends to every other unless causal."""

    def __init__(self, config: MedVConfig):
        super().__init__(config)
        self.embed_tokens.padding_idx = None  # padded ids are learned like others; no row is frozen
        for layer in self.layers:
            layer.self_attn.is_causal = config.is_causal
        self.vision_tower = VisionTower(config)
        self.mm_projector = nn.Sequential(
            nn.Linear(config.mm_hidden_size, config.hidden_size),
            nn.GELU(),
            nn.Linear(config.hidden_size, config.hidden_size),
        )
        # filled here for a fresh model (transformers takes this module for initialised since LlamaModel's own
        # post_init) and by _init_weights for a checkpoint that has no newline
        self.image_newline = nn.Parameter(torch.randn(config.hidden_size) * config.hidden_size**-0.5)
        self.post_init()


class MedVLanguageModel(MedVPreTrainedModel):
    """The model with its output layer and the path of images; a subclass adds what it is trained for."""

    accepts_loss_kwargs = False
    is_watched = False  # true while attention is recorded: every layer is then computed at every index

    def __init__(self, config: MedVConfig):
        super().__init__(config)
        self.model = MedVModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the token table (named here because `embed_tokens` is a method of this class)."""
        return self.model.embed_tokens

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
    ) -> torch.Tensor:
        """Run the language model, every position attending to every other (in a causal model, to earlier ones).

        Args:
            inputs_embeds: (B, T, H).
            attention_mask: which keys may be seen: (B, T) for padding, or (B, 1, T, T) with the queries.
            position_ids: (B, T); 0..T-1 by default, whatever the mask, as in the reference.
            cache: holds the keys and values of indices that are not given; the mask is then (B, 1, given, all).
            query_indices: which of the given indices are asked for, int64 (B, Q); None for all.

        Returns:
            (B, T, H), or (B, Q, H), after the final norm.

        Raises:
            ValueError: for a (B, 1, T, T) mask under flash attention, which cannot use one.
        """
        if attention_mask is not None and attention_mask.ndim == 4:
            attention_mask = self._prepare_mask(attention_mask, inputs_embeds.dtype)
        if query_indices is not None and not self.is_watched:
            return hidden_at(self.model, inputs_embeds, attention_mask, position_ids, cache, query_indices)
        hidden = self.model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=False,
        ).last_hidden_state
        return hidden if query_indices is None else hidden.take_along_dim(query_indices[..., None], 1)

    def _prepare_mask(self, visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        backend = self.config._attn_implementation
        if backend == "sdpa":
            return visible.bool()
        if backend == "eager":
            return torch.zeros_like(visible, dtype=dtype).masked_fill(~visible.bool(), torch.finfo(dtype).min)
        raise ValueError(
            f"attn_implementation is {backend!r}, which takes no mask of single queries and keys "
            "(conversation_ids, caches, strategies that verify); "
            "use 'sdpa' or 'eager'"
        )

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits (..., V) of hidden states (..., H)."""
        is_plain = type(self.lm_head) is nn.Linear and not torch.is_grad_enabled()  # no adapter, not sharded
        if is_plain and hidden.ndim == 2 and len(hidden) in _FEW_ROWS and hidden.device.type == "cpu":
            return (self.lm_head.weight @ hidden.T).T.contiguous()
        return self.lm_head(hidden)

    def vision_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the vision tower's output for pixels (N, 3, side, side): (N, P, vision hidden), not yet projected.

        Raises:
            ValueError: if the pixels are not tiles of the configured side.
        """
        side = self.config.vision_config.image_size
        if pixel_values.ndim != 4 or pixel_values.shape[1:] != (3, side, side):
            raise ValueError(
                f"pixel_values have the shape {tuple(pixel_values.shape)}; give (N, 3, {side}, {side})"
            )
        return self.model.vision_tower(pixel_values)

    def get_image_features(
        self,
        pixel_values: Images | None = None,
        vision_features: Images | None = None,
        tile_layouts: Sequence[TileLayout] | None = None,
    ) -> list[torch.Tensor]:
        """Return each image as the vectors that stand for it in the sequence.

        Args:
            pixel_values, vision_features, tile_layouts: as in `merge_image_features`.

        Returns:
            (positions, H) per image.

        Raises:
            ValueError: if images and layouts do not match, or both pixel_values and vision_features are given.
        """
        if pixel_values is not None and vision_features is not None:
            raise ValueError("both pixel_values and vision_features were given; give one of them")
        images = vision_features if pixel_values is None else pixel_values
        if images is None or len(images) == 0:
            return []
        tile_dims = 2 if pixel_values is None else 3
        tiles = [image if image.ndim > tile_dims else image[None] for image in images]
        if tile_layouts is None:
            vision = self.config.vision_config
            side = vision.image_size
            single = TileLayout((side, side), side, vision.patch_size, self.config.mm_patch_merge_type)
            tile_layouts = [single] * len(tiles)
        if len(tile_layouts) != len(tiles):
            raise ValueError(f"{len(tile_layouts)} tile_layouts for {len(tiles)} images; give one for each")
        # All tiles of all images go through vision tower and projector at once.
        features = torch.cat(tiles).to(self.device)
        if pixel_values is not None:
            features = self.vision_features(features)
        projected = self.model.mm_projector(features.to(next(self.model.mm_projector.parameters()).dtype))
        return [
            pack_image_features(own, layout, self.model.image_newline)
            for own, layout in zip(projected.split([len(own) for own in tiles]), tile_layouts, strict=True)
        ]

    def merge_image_features(
        self,
        input_ids: torch.Tensor,
        pixel_values: Images | None = None,
        *,
        vision_features: Images | None = None,
        tile_layouts: Sequence[TileLayout] | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        conversation_ids: torch.Tensor | None = None,
        padding_side: Literal["left", "right"] = "right",
    ) -> MergedInputs:
        """Put image features in the place of their placeholders.

        With an attention mask, padded ids are removed first and rows are padded anew. Without one, every id
        counts and the zero vectors that fill up shorter rows are ordinary input, as in the reference.

        Args:
            input_ids: (B, S) with `config.image_token_index` for an image.
            pixel_values: one (tiles, 3, side, side) or (3, side, side) per image, in the order of the
                placeholders row by row; or one tensor (N, 3, side, side) for N images of one tile.
            vision_features: the same after `vision_features()`, (tiles, P, vision hidden) or (P, vision
                hidden) each.
            tile_layouts: one per image, as the processor returns them with the pixels; None for images of one tile.
            attention_mask: (B, S), 0 where an id is padding.
            labels: (B, S).
            conversation_ids: turn of each id (B, S).
            padding_side: "left" lines up the ends of the rows, for generation.

        Raises:
            ValueError: if placeholders, images and layouts do not match, or if both pixel_values and
                vision_features are given.
        """
        config = self.config
        return merge_features(
            input_ids,
            self.embed_tokens(input_ids.masked_fill(input_ids == config.image_token_index, 0)),
            self.get_image_features(pixel_values, vision_features, tile_layouts),
            config.image_token_index,
            attention_mask=attention_mask,
            labels=labels,
            conversation_ids=conversation_ids,
            ignore_index=config.ignore_index,
            max_length=config.tokenizer_model_max_length,
            padding_side=padding_side,
        )

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


class MedVForMaskedDiffusion(MedVLanguageModel):
    """LLaDA-MedV: the denoiser and its training loss."""

    def add_noise(self, inputs_embeds: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
        """Put the mask's embedding at the masked positions: (B, T, H) and bool (B, T) to (B, T, H)."""
        # through the table's own forward: under FSDP its weight is whole only there
        mask = self.embed_tokens(masked.new_tensor(self.config.mask_token_id, dtype=torch.long))
        mask = mask.to(inputs_embeds.dtype)
        return torch.where(masked[..., None], mask, inputs_embeds)

    def forward(
        self,
        input_ids: torch.Tensor,
        pixel_values: Images | None = None,
        vision_features: Images | None = None,
        tile_layouts: Sequence[TileLayout] | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        conversation_ids: torch.Tensor | None = None,
        noise: ForwardNoise | Callable[[torch.Tensor], ForwardNoise] | None = None,
    ) -> MaskedDiffusionOutput:
        """Mask some labels and score their restoration; without labels, return the logits of the ids as given.

        Args:
            input_ids: (B, S), as in `merge_image_features`.
            pixel_values, vision_features, tile_layouts, attention_mask: as in `merge_image_features`.
            labels: (B, S), -100 where a token is neither noised nor learned.
            conversation_ids: turn of each id (B, S); a query then sees keys of its own and earlier turns
                only.
            noise: the draw to use, over (B, T) with the images in, or what makes it of the labels with the
                images in; drawn from torch's global generator by default, in the reference's order.

        Raises:
            ValueError: as `merge_image_features`, and for noise of another shape than the labels with the images in.
        """
        # Images in the place of their placeholders; a query sees all keys, or its own and earlier turns.
        merged = self.merge_image_features(
            input_ids,
            pixel_values,
            vision_features=vision_features,
            tile_layouts=tile_layouts,
            attention_mask=attention_mask,
            labels=labels,
            conversation_ids=conversation_ids,
        )
        visible = merged.attention_mask
        if merged.conversation_ids is not None:
            visible = conversation_mask(merged.conversation_ids, visible)
        if labels is None:
            return MaskedDiffusionOutput(logits=self.head(self.backbone(merged.inputs_embeds, visible)))

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
        hidden = self.backbone(self.add_noise(merged.inputs_embeds, noise.masked), visible)
        # 3. Cross entropy at the masked positions only, each weighted by 1 / (p_mask N labelled), over B rows.
        masked_ce = masked_cross_entropy(self.head(hidden[noise.masked]), merged.labels[noise.masked])
        loss = masked_diffusion_loss(masked_ce, noise, merged.labels, ignored)
        return MaskedDiffusionOutput(loss=loss, masked_ce=masked_ce)
