"""The player as a widget: the page of a trace, live, in a notebook."""

import json
from typing import Any

import anywidget
import traitlets

from medv_lab.diffusion.trace import SampleTrace
from medv_lab.views.page import page_data, player_part

_RENDER = """
const PASS = "medv-pass";
function render({ model, el }) {
  const host = document.createElement("div");
  host.setAttribute("data-lm-suppress-shortcuts", "true"); // JupyterLab leaves keys alone that are pressed in here
  const shadow = host.attachShadow({ mode: "open" });
  shadow.innerHTML = `<style>${STYLE}</style><div class="player inset">${MARKUP}</div>`;
  el.append(host);
  const root = shadow.querySelector(".player");
  const data = model.get("data");
  // The players of an explorer show the same pass: each tells the page where a hand moved it to, and hears the others.
  const explorer = () => host.closest(".medv-explorer");
  const tell = (pass) => document.dispatchEvent(new CustomEvent(PASS, { detail: { pass, host, within: explorer() } }));
  const hear = ({ detail }) => {
    if (detail.host !== host && detail.within && detail.within === explorer()) player.follow(detail.pass);
  };
  const goOn = (run, canvas) => {
    model.set("edited", [run, canvas, model.get("edited")[2] + 1]);
    model.save_changes();
  };
  const player = mount(root, "length" in data ? data : null, tell, goOn);
  root.addEventListener("keydown", player.onKey);
  document.addEventListener(PASS, hear);
  const update = () => player.load(model.get("data"));
  model.on("change:data", update);
  return () => {
    model.off("change:data", update);
    document.removeEventListener(PASS, hear);
  };
}
export default { render };
"""


def _module() -> str:
    """Return the player's script with style and markup in it, as a module that anywidget loads."""
    parts = {"STYLE": player_part("player.css"), "MARKUP": player_part("player.html")}
    constants = "".join(f"const {name} = {json.dumps(text)};\n" for name, text in parts.items())
    return player_part("player.js") + constants + _RENDER


class Player(anywidget.AnyWidget):
    """Plays a trace; give it a longer trace of the same run, and it goes on from there.

    Attributes:
        data: the page's data, as `page_data` makes it, with the name of the run.
        edited: the run whose tokens were changed by hand, its new canvas as ids, and how often that happened.
    """

    _esm = _module()
    data = traitlets.Dict().tag(sync=True)
    edited = traitlets.List(["", [], 0]).tag(sync=True)

    def show(self, trace: SampleTrace, run: str, **more: Any) -> None:
        """Show a trace.

        Args:
            trace: of a run, finished or not.
            run: any text that tells one run from another.
            more: the picture and its `looks_data`.
        """
        is_longer = (self.data.get("run"), self.data.get("length")) == (run, trace.gen_length)
        repeats = self.data["repeats"] if is_longer else ()  # where an answer grows, positions move
        self.data = {**page_data(trace, repeats), "run": run, **more}
