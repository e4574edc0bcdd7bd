"""The options of a command that loads a model: which one, and where it runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medv_lab.cli.options import Fields

if TYPE_CHECKING:
    from medv_lab.model.modeling import MedVForMaskedDiffusion
    from medv_lab.model.processing import MedVProcessor


@dataclass(frozen=True)
class ModelOptions:
    """A model that is loaded, and where it runs.

    Attributes:
        model: embedded, a folder, or a hub id.
        device: auto, cpu, cuda or cuda:N.
        dtype: auto, float32, bfloat16 or float16.
        download: allow a download from the hub.
        quantization: int8 or int4 holds most weights in fewer bits.
        offload: folder for layers that neither GPUs nor memory hold.
    """

    model: str = "embedded"
    device: str = "auto"
    dtype: str = "auto"
    download: bool = False
    quantization: str | None = None
    offload: Path | None = None

    def announce(self) -> None:
        """Say on stderr where the model will run, and why there.

        Raises:
            ValueError: for a device or dtype that is not there.
        """
        from medv_lab.runtime import resolve_device

        try:
            typer.echo(resolve_device(self.device, self.dtype, self.quantization).reason, err=True)
        except RuntimeError as error:  # CUDA was asked for and is not there
            raise ValueError(str(error)) from error

    def load(self) -> tuple[MedVForMaskedDiffusion, MedVProcessor]:
        """Announce and load the model.

        Raises:
            ValueError: for a device or dtype that is not there.
            CheckpointError: if the model cannot be loaded.
        """
        from medv_lab.model.checkpoints import load

        self.announce()
        return load(
            self.model,
            device=self.device,
            dtype=self.dtype,
            download=self.download,
            quantization=self.quantization,
            offload=self.offload,
        )


DeviceOptions = Annotated[ModelOptions, Fields(only=("device", "dtype"))]
