"""Tests of transformers' mixins that our classes do not pass, with the reason of each; any other failure is a fault."""

EXPECTED_FAILURES = {
    "MedVModelTest::test_causal_lm_loss_honors_shift_labels": (
        "a denoiser predicts each token in its own place: there is nothing to shift"
    ),
    "MedVProcessorTest::test_call_arguments_default_none": (
        "tensors and padding are on unless switched off, and gen_length is 0"
    ),
    "MedVProcessorTest::test_call_arguments_not_in_processor_kwargs": (
        "return_tensors and padding stand in the signature, where they are seen"
    ),
    "MedVProcessorTest::test_init_arguments_not_in_processor_kwargs": (
        "max_length is the model's limit, a setting that is saved"
    ),
    "MedVProcessorTest::test_apply_chat_template_assistant_mask": (
        "prompts are put together of ids, so there are no offsets of characters"
    ),
    "MedVProcessorTest::test_subprocessor_defaults_0_text": (
        "the tokenizer's own padding and length are not read: a cut prompt would lose its end"
    ),
    "MedVProcessorTest::test_flat_kwarg_applied_when_modality_dict_lacks_it": (
        "tile_layouts are geometry, not tensors"
    ),
    "MedVProcessorTest::test_processor_text_has_no_visual": "its pictures are addresses, which are refused",
    "MedVImageProcessingTest::test_call_numpy_4_channels": (
        "pictures of four channels become RGB on black, without a switch"
    ),
    "MedVImageProcessingTest::test_new_models_require_torchvision_backend": (
        "published pixels are Pillow's, to the bit"
    ),
}

# Model tests that LLaVA-OneVision's classes pass in this harness with transformers 5.23 on a CPU:
# pytest -m conformance tests/conformance/llava_onevision.py
LLAVA_ONEVISION_PASSES = 103
