"""Keys for the explorer: JupyterLab takes arrows and letters for its own commands unless an element says otherwise."""

import anywidget

OWN_KEYS = "medv-own-keys"  # class of what keeps its keys


class OwnKeys(anywidget.AnyWidget):
    """Shows nothing; while it is on a page, every element of the class `OWN_KEYS` keeps the keys pressed in it."""

    _esm = f"""
    function render() {{
      const keep = (event) => event.target.closest?.(".{OWN_KEYS}")?.setAttribute("data-lm-suppress-shortcuts", "true");
      document.addEventListener("focusin", keep);
      return () => document.removeEventListener("focusin", keep);
    }}
    export default {{ render }};
    """
