"""The paper's published numbers, and figures drawn from files; no torch."""
