"""Responders that answer at once, with a text of their own; no model."""

import time

from medv_lab.config import GenerationSettings
from medv_lab.evaluation.responders import Responder


class Scripted(Responder):
    """Says the same to everything; counts what it is asked."""

    def __init__(self, name: str, settings: GenerationSettings | int, text: str, sha256: str = "0"):
        self.settings = {"max_new_tokens": settings} if isinstance(settings, int) else settings.to_dict()
        self.name, self.text, self.asked = name, text, []
        self.model = {"name": name, "sha256": sha256, "revision": None}

    def answer(self, questions):
        self.asked += [question.id for question in questions]
        return [self.predict(question, self.text, 3) for question in questions]


class Oracle(Responder):
    """Right wherever it is shown a picture, silent where it is not."""

    name, model, settings = "oracle", {"name": "oracle", "sha256": None, "revision": None}, {}

    def answer(self, questions):
        return [self.predict(one, "" if one.image is None else one.reference, 3) for one in questions]


class Echo(Responder):
    """Answers with the question; counts what it is asked."""

    def __init__(self, name="echo", sha256="0", delay=0.0, **settings):
        self.name, self.delay, self.asked, self.settings = name, delay, [], settings
        self.model = {"name": name, "sha256": sha256, "revision": None}

    @property
    def asked_ids(self):
        return [name for batch in self.asked for name in batch]

    def answer(self, questions):
        time.sleep(self.delay)
        self.asked.append([question.id for question in questions])
        return [self.predict(question, f"you asked: {question.text}", 3) for question in questions]
