"""Keys for the explorer: JupyterLab takes arrows and letters for its own commands unless an element says otherwise."""

import anywidget

OWN_KEYS = "medv-own-keys"  # class of what keeps its keys


class OwnKeys(anywidget.AnyWidget):
    """Shows nothing; while it is on a page, what has the focus in an element of the class `OWN_KEYS` keeps its keys."""

    # JupyterLab's own shortcuts match the focused element before its parents, so that it is the one to be marked.
    _esm = f"""
    function render() {{
      const keep = ({{ target }}) => {{
        if (target.closest?.(".{OWN_KEYS}")) target.setAttribute("data-lm-suppress-shortcuts", "true");
      }};
      document.addEventListener("focusin", keep);
      return () => document.removeEventListener("focusin", keep);
    }}
    export default {{ render }};
    """
