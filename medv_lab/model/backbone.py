"""The backbone: vision tower, projector and a bidirectional Llama, whose forward pass it is.

Composed from transformers' own parts, after LLaDA (arXiv 2502.09992) and LLaDA-V (arXiv 2505.16933). Modules are named
so that the state dict has the published `llava_llada` keys. B rows, S ids, T sequence indices with the images in,
H hidden size, N tiles, P patches of a tile.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Unpack

import torch
from accelerate.utils import align_module_device
from torch import nn
from transformers import LlamaModel, SiglipVisionModel, initialization
from transformers.modeling_outputs import BaseModelOutputWithPast, BaseModelOutputWithPooling
from transformers.models.llama.modeling_llama import LlamaPreTrainedModel
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple
from transformers.utils.output_capturing import capture_outputs

from medv_lab.inputs.image_features import MergedInputs, merge_features, pack_image_features
from medv_lab.inputs.tiling import TileLayout
from medv_lab.model.configuration import MedVConfig

Images = torch.Tensor | Sequence[torch.Tensor]


class VisionTower(nn.Module):
    """A SigLIP vision tower without its last layer; as in the reference, features skip the post-layernorm."""

    def __init__(self, config: MedVConfig):
        super().__init__()
        self.vision_tower = nn.Module()
        self.vision_tower.vision_model = SiglipVisionModel(config.vision_config)
        del self.vision_tower.vision_model.encoder.layers[-1]

    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """Return the features of the last kept layer (N, P, vision hidden) of pixels (N, 3, side, side)."""
        return _encode(self.vision_tower.vision_model, pixel_values, **kwargs)


@capture_outputs(tie_last_hidden_states=False)
def _encode(
    vision: SiglipVisionModel, pixel_values: torch.Tensor, **kwargs: Any
) -> BaseModelOutputWithPooling:
    embeds = vision.embeddings(pixel_values)
    return BaseModelOutputWithPooling(vision.encoder(inputs_embeds=embeds, **kwargs).last_hidden_state)


class MedVPreTrainedModel(LlamaPreTrainedModel):
    """Loading, saving and initialisation shared by all models."""

    config: MedVConfig
    config_class = MedVConfig
    base_model_prefix = "model"
    input_modalities = ("image", "text")
    _no_split_modules: ClassVar[list[str]] = ["LlamaDecoderLayer", "SiglipEncoderLayer"]
    _can_compile_fullgraph = False  # where pictures and noise go is read from the batch

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, MedVModel):
            initialization.normal_(module.image_newline, std=self.config.hidden_size**-0.5)


class MedVModel(MedVPreTrainedModel, LlamaModel):
    """Vision tower, projector and Llama: every index attends to every other unless the configuration is causal."""

    _can_compile_fullgraph = True  # given embeddings; so can the vision model

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

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        pixel_values: Images | None = None,
        vision_features: Images | None = None,
        tile_layouts: Sequence[TileLayout] | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPast | tuple:
        """Run the language model on ids with their pictures, or on embeddings.

        Args:
            input_ids, pixel_values, vision_features, tile_layouts: as in `merge_image_features`.
            attention_mask: (B, S) of the ids or (B, T) of the embeddings, 0 at padding; or what an attention
                implementation takes with queries and keys.
            position_ids: (B, T), over the sequence with the images in.
            past_key_values, inputs_embeds, kwargs: as `LlamaModel.forward` takes them.

        Raises:
            ValueError: as `merge_image_features`, and for pictures without ids, which say where they go.
        """
        has_images = pixel_values is not None or vision_features is not None
        if has_images and input_ids is None:
            raise ValueError(
                "pictures were given without input_ids; their placeholders say where pictures go"
            )
        is_merged = (
            has_images or attention_mask is None or attention_mask.shape == getattr(input_ids, "shape", 0)
        )
        if input_ids is not None and inputs_embeds is None and is_merged:
            merged = self.merge_image_features(
                input_ids,
                pixel_values,
                vision_features=vision_features,
                tile_layouts=tile_layouts,
                attention_mask=attention_mask,
            )
            input_ids, inputs_embeds, attention_mask = None, merged.inputs_embeds, merged.attention_mask
        return super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )

    @property
    def input_device(self) -> torch.device:
        """Where ids and pixels belong: the device of the token table, also of one that is offloaded."""
        table = self.get_input_embeddings()
        device = getattr(getattr(table, "_hf_hook", None), "execution_device", None)
        return table.weight.device if device is None else torch.device(device)

    def vision_features(self, pixel_values: torch.Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """Run the vision tower on pixels (N, 3, side, side); nothing is projected yet.

        Raises:
            ValueError: if the pixels are not tiles of the configured side.
        """
        side = self.config.vision_config.image_size
        if pixel_values.ndim != 4 or pixel_values.shape[1:] != (3, side, side):
            raise ValueError(
                f"pixel_values have the shape {tuple(pixel_values.shape)}; give (N, 3, {side}, {side})"
            )
        return self.vision_tower(pixel_values, **kwargs)

    @can_return_tuple
    def get_image_features(
        self,
        pixel_values: Images | None = None,
        vision_features: Images | None = None,
        tile_layouts: Sequence[TileLayout] | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling | tuple:
        """Compute the vectors that stand for each image in the sequence.

        Args:
            pixel_values, vision_features, tile_layouts: as in `merge_image_features`.
            kwargs: `output_hidden_states`, `output_attentions` of the vision tower, `return_dict`.

        Returns:
            last_hidden_state, the vision tower's features (N, P, vision hidden) of all tiles, and pooler_output, a
            tuple with (positions, H) for every image.

        Raises:
            ValueError: if images and layouts do not match, or both pixel_values and vision_features are given.
        """
        if pixel_values is not None and vision_features is not None:
            raise ValueError("both pixel_values and vision_features were given; give one of them")
        images = vision_features if pixel_values is None else pixel_values
        if images is None or len(images) == 0:
            return BaseModelOutputWithPooling(pooler_output=())
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
        features = torch.cat(tiles).to(self.input_device)
        outputs = BaseModelOutputWithPooling(features)
        if pixel_values is not None:
            outputs = self.vision_features(features, return_dict=True, **kwargs)
        with align_module_device(self):  # brings the newline where it is offloaded
            # its dtype is the model's; quantised projectors store another than they compute in
            projected = self.mm_projector(outputs.last_hidden_state.to(self.image_newline.dtype))
            newline = self.image_newline.to(projected.device)
            outputs.pooler_output = tuple(
                pack_image_features(own, layout, newline)
                for own, layout in zip(
                    projected.split([len(own) for own in tiles]), tile_layouts, strict=True
                )
            )
        return outputs

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
        padding_side: Literal["left", "right"] | None = None,
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
            padding_side: "left" lines up the ends of the rows, for generation; None keeps the side of the mask.

        Raises:
            ValueError: if placeholders, images and layouts do not match, or if both pixel_values and
                vision_features are given.
        """
        config = self.config
        if padding_side is None:
            is_left = attention_mask is not None and bool(attention_mask[:, -1].all())
            padding_side = "left" if is_left else "right"
        return merge_features(
            input_ids,
            self.embed_tokens(input_ids.masked_fill(input_ids == config.image_token_index, 0)),
            self.get_image_features(
                pixel_values, vision_features, tile_layouts, return_dict=True
            ).pooler_output,
            config.image_token_index,
            attention_mask=attention_mask,
            labels=labels,
            conversation_ids=conversation_ids,
            ignore_index=config.ignore_index,
            max_length=config.tokenizer_model_max_length,
            padding_side=padding_side,
        )
