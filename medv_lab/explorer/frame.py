"""What the explorer needs of the page that it is on: its keys, a bar that stays in sight, a hint after a restart."""

import json

import anywidget
import traitlets

EXPLORER, BAR, QUESTION = "medv-explorer", "medv-bar", "medv-question"  # classes of elements
RESTARTED = "The kernel was restarted, and the explorer ended with it: run this cell again."
DISCONNECTED = "jupyter-widgets-disconnected"  # what JupyterLab calls a widget without its kernel

# Boxes between the bar and the notebook's scrolling must not scroll themselves, or the bar stays with them; then they
# must not grow with what is in them either.
_STYLE = f"""
:is(.jp-OutputArea, .jp-OutputArea-child, .jp-OutputArea-output, .jp-Cell-outputWrapper,
  .jupyter-widgets, .cell-output-ipywidget-background):has(.{EXPLORER}), .{EXPLORER} {{
  overflow: visible !important; min-width: 0; max-width: 100%; }}
.{EXPLORER} .{BAR} {{ position: sticky; top: 0; z-index: 5; padding: 4px 0; overflow: visible;
  background: var(--jp-layout-color0, Canvas); border-bottom: 1px solid var(--jp-border-color2, #c9ced6); }}
.{EXPLORER} p {{ margin: 0; }}
.{EXPLORER} .{DISCONNECTED}::before {{ content: none !important; }}
.{EXPLORER}.{DISCONNECTED} > * {{ opacity: 0.5; pointer-events: none; }}
.{EXPLORER}.{DISCONNECTED}::before {{ content: {json.dumps(RESTARTED)} !important; display: block; padding: 6px 10px;
  font: 600 14px/1.4 system-ui, sans-serif; color: #7a2d00; background: #fbe9df; border-left: 4px solid #b84a00; }}
"""


class Frame(anywidget.AnyWidget):
    """Shows nothing; while it is on a page, its explorer keeps its keys, and Enter in the question asks.

    JupyterLab takes arrows and letters for its own commands unless an element says otherwise. The style stays on the
    page when the kernel is gone, so that the hint is seen.

    Attributes:
        asked: the question that Enter was pressed in, and how often that happened: [text, count].
    """

    # JupyterLab's own shortcuts match the focused element before its parents, so that it is the one to be marked.
    _esm = f"""
    const STYLE = {json.dumps(_STYLE)};
    function render({{ model, el }}) {{
      if (!document.getElementById("{EXPLORER}-style")) {{
        const style = {{ id: "{EXPLORER}-style", textContent: STYLE }};
        document.head.append(Object.assign(document.createElement("style"), style));
      }}
      const keep = ({{ target }}) => {{
        if (target.closest?.(".{EXPLORER}")) target.setAttribute("data-lm-suppress-shortcuts", "true");
      }};
      const ask = ({{ key, target, isComposing }}) => {{
        const own = target.closest?.(".{QUESTION}");
        if (key !== "Enter" || isComposing || !own || !el.closest(".{EXPLORER}")?.contains(own)) return;
        model.set("asked", [target.value, model.get("asked")[1] + 1]);
        model.save_changes();
      }};
      document.addEventListener("focusin", keep);
      document.addEventListener("keydown", ask, true);
      return () => {{
        document.removeEventListener("focusin", keep);
        document.removeEventListener("keydown", ask, true);
      }};
    }}
    export default {{ render }};
    """
    asked = traitlets.List(["", 0]).tag(sync=True)
