"""Pictures of traces, studies and training, drawn from tables and files; no torch."""
