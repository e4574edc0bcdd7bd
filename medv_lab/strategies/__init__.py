"""Strategies, guards and caches of the sampler: frozen objects that carry their own parameters. NumPy only."""
