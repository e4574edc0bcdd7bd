"""A frame of numbers as Markdown and LaTeX: best values marked, intervals in brackets, missing values shown as such.

Best is best within one source: published and measured numbers are never ranked together, and controls not at all.
Published numbers have the digits of the paper, measured ones as many as their intervals support.
"""

from collections.abc import Callable, Sequence

import pandas as pd

from medv_lab.metrics.intervals import supported_digits
from medv_lab.paper.published import Column

MISSING_MARK = "–"
NOTHING_MEASURED = "no measured rows in this results folder"
_LATEX = str.maketrans(
    {
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "\\": r"\textbackslash{}",
        MISSING_MARK: "--",
        "×": r"$\times$",
    }
)


def to_markdown(data: pd.DataFrame, columns: Sequence[Column], caption: str) -> str:
    """Write a table in GitHub's Markdown; best values bold."""
    cells = _cells(data, columns, lambda text: f"**{text}**", lambda text: text.replace("|", r"\|"))
    headers = ["source", *(column.header for column in columns)]
    rules = ["---", *("---:" if column.is_number else "---" for column in columns)]
    lines = [f"| {' | '.join(line)} |" for line in (headers, rules, *cells)]
    notes = [f"- {number}: {source}" for number, source in _notes(data).items()]
    if data.source.str.startswith("published").all():
        notes.append(f"- {NOTHING_MEASURED}")
    return "\n".join([caption, "", *lines, "", "Sources:", "", *notes, ""])


def to_latex(data: pd.DataFrame, columns: Sequence[Column], caption: str, label: str) -> str:
    """Write a table for LaTeX, never wider than the text: best values bold, a rule between sources' blocks.

    LaTeX numbers it. It needs the packages booktabs and adjustbox, and says so in its first line.
    """
    cells = _cells(data, columns, lambda text: rf"\textbf{{{text}}}", escape_latex)
    headers = ["source", *(escape_latex(column.header) for column in columns)]
    headers, *lines = [" & ".join(line) + r" \\" for line in (headers, *cells)]
    shape = "l" + "".join("r" if column.is_number else "l" for column in columns)
    is_own = ~data.source.str.startswith("published")
    notes = "; ".join(f"{number}: {escape_latex(source)}" for number, source in _notes(data).items())
    if is_own.any():
        lines.insert(int(is_own.to_numpy().argmax()), r"\midrule")
    else:
        notes += f"; {NOTHING_MEASURED}"
    return rf"""% \usepackage{{booktabs, adjustbox}}
\begin{{table}}
\centering
\caption{{{escape_latex(caption)} Sources: {notes}.}}
\label{{tab:{label}}}
\begin{{adjustbox}}{{max width=\linewidth}}
\begin{{tabular}}{{{shape}}}
\toprule
{headers}
\midrule
{chr(10).join(lines)}
\bottomrule
\end{{tabular}}
\end{{adjustbox}}
\end{{table}}
"""


def escape_latex(text: str) -> str:
    """Escape LaTeX's special characters in a text."""
    return text.translate(_LATEX)


def _cells(
    data: pd.DataFrame,
    columns: Sequence[Column],
    embolden: Callable[[str], str],
    escape: Callable[[str], str],
) -> list[list[str]]:
    """Print the cells of each row, its source's number first."""
    numbers = {source: number for number, source in _notes(data).items()}
    best = {column.name: _best_rows(data, column) for column in columns}
    rows = []
    for row, source in data.source.items():
        line = [f"{source.split()[0]} ({numbers[source]})"]
        for column in columns:
            text = escape(_print_value(data, row, column))
            line.append(embolden(text) if row in best[column.name] else text)
        rows.append(line)
    return rows


def _notes(data: pd.DataFrame) -> dict[int, str]:
    """Number the sources, in the order they first come."""
    return dict(enumerate(dict.fromkeys(data.source), 1))


def _best_rows(data: pd.DataFrame, column: Column) -> set[int]:
    """Find the rows with the best value of their kind of source, ties included; none where all are the same."""
    found: set[int] = set()
    if not column.better or column.name not in data:
        return found
    for kind, values in data[column.name].dropna().groupby(data.source.str.split().str[0]):
        if kind != "control" and values.nunique() > 1:
            top = values.max() if column.better == "high" else values.min()
            found |= set(values.index[values == top])
    return found


def _print_value(data: pd.DataFrame, row: int, column: Column) -> str:
    value = data.at[row, column.name] if column.name in data else None
    if value is None or pd.isna(value):
        return MISSING_MARK
    if not column.is_number:
        return str(value)
    bounds = [f"{column.name}_low", f"{column.name}_high"]
    if all(bound in data and pd.notna(data.at[row, bound]) for bound in bounds):
        low, high = (data.at[row, bound] for bound in bounds)
        digits = supported_digits(low, high, column.digits)
        return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{value:.{column.digits}f}" if column.kind == "number" else f"{value:,}"
