"""What a run tells while it trains: a line of progress, and a table of losses that can be watched."""

from collections.abc import Callable

import pandas as pd
from transformers import TrainerCallback

Watch = Callable[[pd.DataFrame], None]
COLUMNS = ("step", "epoch", "loss", "grad_norm", "learning_rate")


class History(TrainerCallback):
    """Keeps step, loss, gradient norm and learning rate, and passes them on at every report."""

    def __init__(self, name: str, log: Callable[[str], None], watch: Watch | None = None) -> None:
        """`log` receives a line, `watch` the table so far (`medv_lab.views.training_plots.watch_losses` draws it)."""
        self.name, self.log, self.watch = name, log, watch
        self.frame = pd.DataFrame(columns=list(COLUMNS))

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Take over the trainer's own record, which a resumed run continues."""
        if not logs or "loss" not in logs:
            return
        self._read(state)
        if state.is_world_process_zero:
            self.log(f"{self.name} {state.global_step}/{state.max_steps}  loss {float(logs['loss']):.3f}")
            if self.watch is not None:
                self.watch(self.frame)

    def on_train_begin(self, args, state, control, **kwargs):
        """Start from what a resumed run has told already."""
        self._read(state)

    def _read(self, state) -> None:
        rows = [{name: row.get(name) for name in COLUMNS} for row in state.log_history if "loss" in row]
        self.frame = pd.DataFrame(rows, columns=list(COLUMNS))
