"""What answers questions: a masked-diffusion model behind the one function that benchmarks ask."""

from collections.abc import Sequence

import numpy as np

from medv_lab.config import PRESETS, GenerationSettings
from medv_lab.evaluation.phantoms import Respond
from medv_lab.model.answering import ask_many
from medv_lab.model.modeling import MedVForMaskedDiffusion
from medv_lab.model.processing import MedVProcessor


def make_respond(
    model: MedVForMaskedDiffusion,
    processor: MedVProcessor,
    settings: GenerationSettings = PRESETS["embedded-vqa"],
    batch_size: int = 32,
) -> Respond:
    """What `evaluate_phantoms` asks: batches of pictures and questions to a model's answers.

    The function made raises KeyboardInterrupt if a batch is interrupted: scores of a part would look like scores
    of the whole.
    """

    def respond(pictures: Sequence[np.ndarray | None], questions: Sequence[str]) -> list[str]:
        answers = ask_many(model, processor, pictures, questions, settings, batch_size, progress=False)
        if not all(answer.is_complete for answer in answers):
            raise KeyboardInterrupt
        return [answer.text for answer in answers]

    return respond
