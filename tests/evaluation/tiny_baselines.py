"""Tiny random models of the real architectures, with processors that fit: LLaVA, Qwen2-VL and LLaMA."""

import copy

import torch
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
)

from tests.model.tiny import tiny_tokenizer

LLAVA_PROMPT = "USER: <image>\n{question} ASSISTANT:"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n{% endif %}"
)
LANGUAGE = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "initializer_range": 0.5,
    "max_position_embeddings": 512,
}


def tokenizer_with(*tokens: str) -> PreTrainedTokenizerFast:
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.add_special_tokens({"additional_special_tokens": list(tokens)})
    return tokenizer


def tiny_llama() -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    tokenizer = tokenizer_with()
    tokenizer.chat_template = CHAT_TEMPLATE
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(tokenizer), **LANGUAGE, **ends(tokenizer))
    return LlamaForCausalLM(config).eval(), tokenizer


def tiny_llava() -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    tokenizer = tokenizer_with("<image>")
    images = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    processor = LlavaProcessor(
        images,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
        initializer_range=0.5,
    )
    text = LlamaConfig(vocab_size=len(tokenizer), **LANGUAGE, **ends(tokenizer))
    torch.manual_seed(1)
    image = tokenizer.convert_tokens_to_ids("<image>")
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=image, image_seq_length=4)
    model = LlavaForConditionalGeneration(config).eval()
    return model, processor


class StillQwenProcessor(Qwen2VLProcessor):
    """Qwen2-VL's processor without its half for videos, which needs torchvision."""

    def __init__(self, image_processor, tokenizer, chat_template):
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    @classmethod
    def get_attributes(cls):
        return ["image_processor", "tokenizer"]


def tiny_qwen() -> tuple[Qwen2VLForConditionalGeneration, Qwen2VLProcessor]:
    tokens = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    tokenizer = tokenizer_with(*tokens)
    images = Qwen2VLImageProcessor(
        patch_size=4, merge_size=2, size={"shortest_edge": 64, "longest_edge": 1024}
    )
    processor = StillQwenProcessor(images, tokenizer, CHAT_TEMPLATE)
    ids = dict(zip(("start", "end", "image", "video"), tokenizer.convert_tokens_to_ids(tokens), strict=True))
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10_000.0}
    text = {"vocab_size": len(tokenizer), "rope_parameters": rope, **LANGUAGE, **ends(tokenizer)}
    vision = {"depth": 2, "embed_dim": 16, "num_heads": 2, "hidden_size": 16, "mlp_ratio": 2, "patch_size": 4}
    torch.manual_seed(2)
    config = Qwen2VLConfig(
        text_config=text,
        vision_config=vision,
        vision_start_token_id=ids["start"],
        vision_end_token_id=ids["end"],
        image_token_id=ids["image"],
        video_token_id=ids["video"],
    )
    return Qwen2VLForConditionalGeneration(config).eval(), processor


def ends(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    return {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.convert_tokens_to_ids("<|eot_id|>"),
        "pad_token_id": tokenizer.pad_token_id,
    }
