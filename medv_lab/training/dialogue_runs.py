"""One stage on real data: an instruction file with its folder of pictures, or the training split of a VQA release.

Dialogues are encoded, labelled and collated as published (`prompts.encode_dialogue`, `prompts.collate`): where the
projector alone learns (alignment), a caption follows its picture without a chat frame, and pictures are squashed to
one tile. Pictures are opened when their batch is made. The output folder is that of `phantoms.train_on_phantoms`.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.utils.data import Dataset

from medv_lab.data.instructions import Dialogue, from_question, read_dialogues
from medv_lab.data.vqa import read_vqa
from medv_lab.model.checkpoints import load
from medv_lab.model.processing import MedVProcessor
from medv_lab.model.prompts import PLAIN_MODE, Encoded, collate, encode_dialogue
from medv_lab.training.phantom_runs import DEFAULT_ENGINE, be_silent, carry_out, is_first_process
from medv_lab.training.recipes import Recipe
from medv_lab.training.resuming import claim_folder
from medv_lab.training.trainer import Engine


@dataclass(frozen=True)
class DialogueRun:
    """What a run is; it can only be resumed as the same.

    Attributes:
        recipe: how it is trained.
        data: name of the file or folder that the dialogues come from.
        dialogues: how many there are.
        start: the checkpoint to start from: "embedded", a folder or a hub id.
        seed: of order and noise.
    """

    recipe: Recipe
    data: str
    dialogues: int
    start: str = "embedded"
    seed: int = 0


def read_training_data(path: Path, dataset: str | None = None) -> list[Dialogue]:
    """All dialogues of an instruction file, or the English training questions of a VQA release, one dialogue each.

    Args:
        path: the file, or the release's folder, which names of pictures are then relative to.
        dataset: vqa-rad, slake or pathvqa for a release; None for a file.

    Raises:
        ValueError: for a broken row (`medv data check` lists them all), an unknown data set, or a release without
            training questions.
    """
    return list(read_dialogues(path)) if dataset is None else _read_vqa(dataset, path)


def _read_vqa(dataset: str, folder: Path) -> list[Dialogue]:
    reading = read_vqa(dataset, folder)
    if reading.broken:
        raise ValueError(
            f"{folder.name}: {len(reading.broken)} broken rows, the first is {reading.broken[0]}"
        )
    own = [one for one in reading.questions if one.split == "train" and one.tags["language"] == "en"]
    if not own:
        raise ValueError(f"{folder.name} holds no training split of {dataset}; add the release's file of it")
    return [from_question(one, folder) for one in own]


class DialogueDataset(Dataset):
    """Dialogues, encoded when they are asked for, as published."""

    def __init__(
        self, dialogues: Sequence[Dialogue], processor: MedVProcessor, is_alignment: bool = False
    ) -> None:
        """Keep the dialogues, and the processor's tokenizer and prompt settings."""
        self.dialogues, self.processor = dialogues, processor
        self.chat_mode = PLAIN_MODE if is_alignment else processor.chat_mode

    def __len__(self) -> int:
        return len(self.dialogues)

    def __getitem__(self, index: int) -> dict:
        """Token ids, labels, turn of each token, and names of the pictures."""
        dialogue, processor = self.dialogues[index], self.processor
        encoded = encode_dialogue(
            dialogue.turns,
            processor.tokenizer,
            has_image=bool(dialogue.images),
            chat_mode=self.chat_mode,
            system_prompt=processor.system_prompt,
        )
        return encoded._asdict() | {"images": dialogue.images}


class PictureCollator:
    """Batches of dialogues with their pictures; padding is end of text, which is learned, as published."""

    def __init__(self, processor: MedVProcessor, folder: Path, is_alignment: bool = False) -> None:
        """`folder` is what names of pictures are relative to."""
        self.processor, self.folder = processor, folder
        self.mode = "square" if is_alignment else processor.image_aspect_ratio

    def __call__(self, items: Sequence[dict]) -> dict[str, torch.Tensor | list]:
        """Items of a `DialogueDataset` to input_ids, labels (B, S), pixel_values and tile_layouts."""
        samples = [[item[name] for name in Encoded._fields] for item in items]
        rows = collate(samples, self.processor.special.end_of_text)
        batch: dict = {name: torch.tensor(rows[name]) for name in ("input_ids", "labels")}
        pixels, layouts = [], []
        for item in items:
            own = self.processor.prepare_images([self.folder / name for name in item["images"]], self.mode)
            pixels += own[0]
            layouts += own[1]
        return batch | ({"pixel_values": pixels, "tile_layouts": layouts} if pixels else {})


def train_on_dialogues(
    run: DialogueRun,
    dialogues: Sequence[Dialogue],
    images: Path,
    output: Path,
    *,
    engine: Engine = DEFAULT_ENGINE,
    resume: bool = False,
    log: Callable[[str], None] = print,
) -> None:
    """Train one stage.

    Args:
        run: what to train.
        dialogues: its data.
        images: folder that names of pictures are relative to.
        output: folder of the run.
        engine: how it is carried out.
        resume: go on from the newest complete checkpoint.
        log: receives progress, from the first process only.

    Raises:
        ValueError: if the folder holds checkpoints and `resume` was not asked for, or those of another run.
        ImageError: for a picture that cannot be opened.
    """
    if not is_first_process():
        log = be_silent
    claim_folder(output, asdict(run), resume=resume, write=is_first_process())
    model, processor = load(run.start, device="cpu", dtype="float32")
    is_alignment = run.recipe.parts == ("projector",)
    dataset = DialogueDataset(dialogues, processor, is_alignment)
    collator = PictureCollator(processor, images, is_alignment)
    carry_out(run, model, processor, dataset, collator, output, engine=engine, resume=resume, log=log)
