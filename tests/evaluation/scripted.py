"""Responders that answer panels at once, with a text of their own; no model."""

from dataclasses import asdict

from medv_lab.config import GenerationSettings
from medv_lab.evaluation.responders import Reply


class Scripted:
    """Says the same to everything; counts what it is asked."""

    def __init__(self, name: str, settings: GenerationSettings | int, text: str, sha256: str = "0"):
        own = {"max_new_tokens": settings} if isinstance(settings, int) else asdict(settings)
        self.name, self.text, self.asked = name, text, []
        self.identity = {"model": {"name": name, "sha256": sha256, "revision": None}, "settings": own}

    def answer(self, queries):
        self.asked += [query.id for query in queries]
        return [Reply(self.text, 3) for _ in queries]
