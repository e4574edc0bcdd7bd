"""The options of a command that loads a model, which one and where it runs, or that has answers judged, by whom."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medv_lab.cli.options import Fields

if TYPE_CHECKING:
    from medv_lab.evaluation.endpoint_judge import EndpointJudge
    from medv_lab.evaluation.judges import FactJudge, OverlapJudge
    from medv_lab.model.modeling import MedVForMaskedDiffusion
    from medv_lab.model.processing import MedVProcessor


PHANTOMS = "phantoms"


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


@dataclass(frozen=True)
class JudgeOptions:
    """The judge of open-ended answers.

    Attributes:
        judge: none, overlap, facts (phantoms), or the name of an endpoint's model.
        judge_url: base URL of the judge's endpoint.
        swap: judge both orders of the two answers.
        prices: of a million tokens, in and out, for costs.
        cap: most that judging may cost; needs prices.
        judge_set: parameter=value of its calls, may be repeated; seed=none leaves the seed out.
    """

    judge: str = "none"
    judge_url: str | None = None
    swap: bool = False
    prices: tuple[float, float] | None = None
    cap: float | None = None
    judge_set: tuple[str, ...] = ()

    def make(self, data: str, output: Path) -> OverlapJudge | FactJudge | EndpointJudge | None:
        """Make the judge of answers to these data, which keeps its replies in the output folder; None for "none".

        Raises:
            ValueError: for options that the judge does not have.
        """
        from medv_lab.evaluation.endpoint import Endpoint, vary_endpoint
        from medv_lab.evaluation.endpoint_judge import EndpointJudge
        from medv_lab.evaluation.judges import FactJudge, OverlapJudge

        if self.judge in ("none", "overlap", "facts"):
            if self.swap or self.judge_url or self.prices or self.cap or self.judge_set:
                raise ValueError(
                    f"the judge is {self.judge!r}, which calls nobody; --swap, --judge-url, --prices, --cap and "
                    "--judge-set need one"
                )
            if self.judge == "facts" and data != PHANTOMS:
                raise ValueError(
                    "the judge 'facts' knows phantoms only; give 'overlap' or the name of an endpoint's model"
                )
            return {"none": None, "overlap": OverlapJudge(), "facts": FactJudge()}[self.judge]
        endpoint = vary_endpoint(Endpoint(self.judge, self.judge_url), self.judge_set or ())
        return EndpointJudge(endpoint, output, swap=self.swap, prices=self.prices, cap=self.cap)
