"""Pictures of what a sampler did, drawn from traces; no torch."""
