"""What happens around the steps of a training run: the order of an epoch, its checkpoints and its table of losses.

A checkpoint is written into the folder `PARTIAL`, flushed to disk and then renamed, so a folder that is named
`checkpoint-<step>` is complete, whenever the run was killed. What we write is safetensors and JSON; transformers keeps
optimiser, schedule and library generators in torch's format and reads them with `torch.load(weights_only=True)`, which
builds tensors and plain containers only.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import torch
from accelerate import PartialState
from safetensors.torch import load_file, save_file
from torch.utils.data import Sampler
from transformers import TrainerCallback, TrainerState
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import get_last_checkpoint, rotate_checkpoints

PARTIAL = "partial"
GENERATOR_FILE = "generator.safetensors"
LENGTH_STEP, GROUPED_BATCHES = 64, 50
COLUMNS = ("step", "epoch", "loss", "grad_norm", "learning_rate")

Watch = Callable[[pd.DataFrame], None]


def tabulate_losses(state: TrainerState) -> pd.DataFrame:
    """Tabulate step, epoch, loss, gradient norm and learning rate of every report, of a resumed run from its start."""
    return pd.DataFrame([row for row in state.log_history if "loss" in row], columns=list(COLUMNS))


class LossReports(TrainerCallback):
    """Passes on the losses at every report.

    Args:
        name: of the stage, for the log.
        log: receives a line of progress, on the main process.
        watch: receives the table so far (`medv_lab.views.training_plots.watch_losses` draws it).
    """

    def __init__(self, name: str, log: Callable[[str], None], watch: Watch | None = None) -> None:
        self.name, self.log, self.watch = name, log, watch

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Write the line, and show the table."""
        if "loss" in (logs or {}) and state.is_world_process_zero:
            self.log(f"{self.name} {state.global_step}/{state.max_steps}  loss {float(logs['loss']):.3f}")
            if self.watch is not None:
                self.watch(tabulate_losses(state))


class EpochOrder(Sampler[int]):
    """The order of the dialogues in the running epoch, of which `Checkpoints` draws a new one for every epoch.

    With lengths, dialogues are sorted within every 50 batches by length in steps of 64 tokens, and the batches are
    shuffled. Finer steps, or batches from long to short, would let one kind of question fill a run of batches.

    Args:
        size: number of dialogues.
        lengths: tokens of every dialogue, to put those of like length into the same batch; None mixes them.
        batch: dialogues per optimiser step, over all processes, so that the order does not depend on their number.
        generator: of the draws, on the CPU.
    """

    def __init__(self, size: int, lengths: list[int] | None, batch: int, generator: torch.Generator) -> None:
        self.size, self.lengths, self.batch, self.draws = size, lengths, batch, generator
        self.steps = -(-size // batch)
        self.generator_state = generator.get_state()
        self._order: list[int] = []

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        return iter(self._order)

    def draw(self) -> None:
        """Draw the order of the next epoch; all its draws are made here, so a resumed run can make them again."""
        self.generator_state = self.draws.get_state()
        order = torch.randperm(self.size, generator=self.draws).tolist()
        if self.lengths is not None:
            order = [index for batch in self._group(order) for index in batch]
        self._order = order

    def _group(self, order: list[int]) -> Iterator[list[int]]:
        """Yield batches of like length; the last one of the epoch, which may be short, stays the last."""
        whole = self.size // self.batch * self.batch
        for start in range(0, whole, GROUPED_BATCHES * self.batch):
            part = order[start : min(start + GROUPED_BATCHES * self.batch, whole)]
            part.sort(key=lambda index: self.lengths[index] // LENGTH_STEP)
            for number in torch.randperm(len(part) // self.batch, generator=self.draws).tolist():
                yield part[number * self.batch : (number + 1) * self.batch]
        yield order[whole:]


class Checkpoints(TrainerCallback):
    """Draws the order of every epoch, and keeps what was drawn in checkpoints that are whole or not there.

    Order, noise levels and masks come from one generator. A checkpoint holds its state, and the state that the running
    epoch's order was drawn from: a resumed run draws that order again and then goes on with the next mask.

    Args:
        folder: of the checkpoints; transformers must write them into `folder / PARTIAL`.
        order: of the dialogues.
        generator: of order and noise.
        resumed: the checkpoint that the run goes on from, or None.
    """

    def __init__(
        self, folder: Path, order: EpochOrder, generator: torch.Generator, resumed: Path | None = None
    ) -> None:
        self.folder, self.order, self.generator, self.resumed = folder, order, generator, resumed

    def on_epoch_begin(self, args, state, control, **kwargs):
        """Draw the order of the epoch; in a run that was resumed in the middle of it, draw it again."""
        if state.global_step >= state.max_steps:  # resumed at its end; the order is empty, so no step is made
            control.should_training_stop = True
            return
        if self.resumed is None:
            self.order.draw()
            return
        states, self.resumed = load_file(self.resumed / GENERATOR_FILE), None
        is_amid = state.global_step % self.order.steps != 0
        self.generator.set_state(states["epoch" if is_amid else "now"])
        self.order.draw()
        if is_amid:
            self.generator.set_state(states["now"])

    def on_save(self, args, state, control, **kwargs):
        """Complete the checkpoint that transformers wrote and give it its name, in a step that cannot be half done."""
        processes = PartialState()
        processes.wait_for_everyone()
        if args.should_save:
            written = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            states = {"now": self.generator.get_state(), "epoch": self.order.generator_state}
            save_file(states, written / GENERATOR_FILE)
            remove_pickled_arguments(written)
            for path in [*written.rglob("*"), written]:
                _flush(path)
            written.rename(self.folder / written.name)
            _flush(self.folder)
            rotate_checkpoints(str(self.folder), save_total_limit=args.save_total_limit)
        processes.wait_for_everyone()


def find_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint of a folder, or None."""
    found = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    return None if found is None else Path(found)


def remove_pickled_arguments(folder: Path) -> None:
    """Remove transformers' own arguments, a pickle that nobody reads; recipes are kept as JSON."""
    (folder / TRAINING_ARGS_NAME).unlink(missing_ok=True)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
