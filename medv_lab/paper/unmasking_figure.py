"""How one answer filled up, drawn from the trace that a panels folder keeps."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from medv_lab.diffusion.trace import SampleTrace
from medv_lab.paper.exhibits import Exhibit, MissingResults, measured_source
from medv_lab.paper.panel_sheets import COMMAND, FOLDER
from medv_lab.studies.panels import TRACE
from medv_lab.views.unmasking import plot_unmasking

TRACE_FILE = f"{FOLDER}/{TRACE}"


def collect_unmasking(results: Path) -> pd.DataFrame:
    """One row a commit of the trace."""
    path = results / TRACE_FILE
    if not path.is_file():
        raise MissingResults(f"{TRACE_FILE} is not there; make it with '{COMMAND}'")
    return SampleTrace.load(path).to_frame().assign(source=measured_source(path, results))


def draw_unmasking(data: pd.DataFrame, results: Path) -> Figure:
    """The answer as a grid of tokens, coloured by the pass that committed each."""
    return plot_unmasking(SampleTrace.load(results / TRACE_FILE)).figure


UNMASKING_EXAMPLE = Exhibit(
    "unmasking_example",
    "How one answer fills up",
    "A description of a phantom, each token coloured by the forward pass that committed it; what lies behind the end "
    "of the answer is faded.",
    collect_unmasking,
    draw_unmasking,
    (TRACE_FILE,),
)
