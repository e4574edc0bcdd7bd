"""The model: configuration, network, processor, prompts, checkpoints."""
