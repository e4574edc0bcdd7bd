"""Pictures to ask about: phantoms, the real ones that come with packages, and uploads; a gallery to choose from."""

import hashlib
from functools import cache
from html import escape

import anywidget
import ipywidgets as widgets
import traitlets

from medv_lab.data.images import ImageError, open_image, sample_images
from medv_lab.explorer.runs import Picture
from medv_lab.phantoms.rendering import render
from medv_lab.phantoms.scenes import make_scene
from medv_lab.views.page import picture_source

UPLOADS = ".png,.jpg,.jpeg,.dcm,.dicom,.tif,.tiff,.webp,.bmp"
PREVIEW = 96  # pixels
PHANTOMS = 10  # of the test split: each domain twice
THUMBNAIL = 72  # pixels
REAL_NOTE = "A real picture. The embedded model knows phantoms only: what it says of this one means nothing."


def uploaded_picture(name: str, content: bytes) -> Picture:
    """Return an uploaded file as a picture: PNG, JPEG, DICOM or anything else that `open_image` takes.

    Raises:
        ImageError: if it is no picture.
    """
    open_image(content)
    digest = hashlib.sha256(content).hexdigest()
    code = f"picture = {name!r}  # the uploaded file, SHA-256 {digest}"
    return Picture(name, content, code, f"Uploaded, {len(content) / 1000:.0f} kB. {REAL_NOTE}")


@cache
def gallery_pictures() -> tuple[tuple[Picture, ...], tuple[str, ...], str]:
    """Return all pictures of the gallery, their thumbnails as data addresses, and why real ones are missing, or "".

    Every call returns the same pictures: decoding them takes a moment.
    """
    pictures, missing = [_phantom(number) for number in range(PHANTOMS)], ""
    try:
        for name, path in sample_images().items():
            code = f'from medv_lab.data.images import sample_images\npicture = sample_images()["{name}"]'
            pictures.append(Picture(name, path, code, REAL_NOTE))
    except FileNotFoundError as error:  # they come with a package that need not be there; the text says which
        missing = f"No real pictures: {error}"
    return tuple(pictures), tuple(picture_source(one.image, THUMBNAIL, "JPEG") for one in pictures), missing


def _phantom(number: int) -> Picture:
    """Return a phantom of the test split, with a note of what was painted."""
    scene = make_scene("test", number)
    code = (
        "from medv_lab.phantoms.rendering import render\n"
        "from medv_lab.phantoms.scenes import make_scene\n"
        f'picture = render(make_scene("test", {number}))'
    )
    found = "; ".join(f"{f.grade} {f.kind}, {f.side} {f.zone}" for f in scene.findings) or "nothing abnormal"
    note = f"A phantom of the test split. Painted: {scene.domain}; {found}."
    return Picture(f"{scene.domain} {number}", render(scene), code, note, scene)


class Gallery(anywidget.AnyWidget):
    """Small pictures, of which one is chosen by a click or by keyboard.

    Attributes:
        pictures: [{"name": text, "source": data address}, ...].
        chosen: number of the chosen one; -1 for none of them.
    """

    _esm = """
    function render({ model, el }) {
      const box = document.createElement("div");
      box.className = "medv-gallery";
      box.setAttribute("role", "group");
      box.setAttribute("aria-label", "Pictures");
      const fill = () => box.replaceChildren(...model.get("pictures").map(({ name, source }, number) => {
        const button = document.createElement("button");
        const image = Object.assign(document.createElement("img"), { src: source, alt: "" });
        const label = Object.assign(document.createElement("span"), { textContent: name });
        button.type = "button";
        button.title = name;
        button.append(image, label);
        button.addEventListener("click", () => { model.set("chosen", number); model.save_changes(); });
        return button;
      }));
      const mark = () => [...box.children].forEach((button, number) =>
        button.setAttribute("aria-pressed", String(number === model.get("chosen"))));
      const redraw = () => { fill(); mark(); };
      model.on("change:pictures", redraw);
      model.on("change:chosen", mark);
      redraw();
      el.append(box);
      return () => { model.off("change:pictures", redraw); model.off("change:chosen", mark); };
    }
    export default { render };
    """
    _css = """
    .medv-gallery { display: flex; gap: 4px; overflow-x: auto; padding: 2px; }
    .medv-gallery button { flex: 0 0 66px; padding: 2px; border: 2px solid transparent; border-radius: 6px;
      cursor: pointer; background: none; color: inherit; font: 10px/1.2 system-ui, sans-serif; }
    .medv-gallery button:hover { border-color: #8b939e; }
    .medv-gallery button[aria-pressed="true"] { border-color: #b84a00; }
    .medv-gallery button:focus-visible { outline: 3px solid #0063b1; outline-offset: -3px; }
    .medv-gallery img { display: block; width: 44px; height: 44px; margin: 0 auto 1px; object-fit: contain;
      background: #000; }
    .medv-gallery span { display: block; overflow: hidden; white-space: nowrap; text-overflow: ellipsis; }
    """
    pictures = traitlets.List().tag(sync=True)
    chosen = traitlets.Int(-1).tag(sync=True)


class PictureChooser(widgets.HBox):
    """The chosen picture, the gallery as a strip, and the upload.

    Attributes:
        picture: the chosen one.
        source: the same as a data address, which players show.
    """

    def __init__(self) -> None:
        """Offer the phantoms, and the real pictures where they are installed."""
        self._pictures, sources, missing = gallery_pictures()
        pairs = zip(self._pictures, sources, strict=True)
        self.gallery = Gallery(pictures=[{"name": one.name, "source": source} for one, source in pairs])
        self.gallery.observe(self._take_chosen, "chosen")
        self.upload = widgets.FileUpload(
            accept=UPLOADS,
            description="upload a file",
            tooltip="PNG, JPEG, DICOM, TIFF, WebP or BMP",
            layout=widgets.Layout(width="150px", flex="0 0 auto"),
        )
        self.upload.observe(self._take_upload, "value")
        self.preview = widgets.HTML(layout=widgets.Layout(width=f"{PREVIEW + 8}px", flex="0 0 auto"))
        self.note = widgets.HTML(layout=widgets.Layout(flex="1 1 0"))
        self.message = widgets.HTML()
        rest = widgets.VBox(
            [
                self.gallery,
                widgets.HBox([self.upload, self.note]),
                *([widgets.HTML(escape(missing))] if missing else []),
                self.message,
            ],
            layout=widgets.Layout(flex="1 1 0", min_width="0"),
        )
        super().__init__([self.preview, rest])
        self.gallery.chosen = 0

    def choose(self, picture: Picture) -> None:
        """Take this picture from now on."""
        self.picture, self.source = picture, picture_source(picture.image)
        self.preview.value = (
            f'<img alt="{escape(picture.name)}" src="{self.source}" style="width:{PREVIEW}px;'
            f'height:{PREVIEW}px;object-fit:contain;background:#000;border-radius:6px">'
        )
        self.note.value = (
            f'<div style="line-height:1.3"><b>{escape(picture.name)}</b> · {escape(picture.note)}</div>'
        )
        self.message.value = ""

    def _take_chosen(self, change: dict) -> None:
        if change["new"] >= 0:
            self.choose(self._pictures[change["new"]])

    def _take_upload(self, change: dict) -> None:
        for file in change["new"]:
            try:
                self.choose(uploaded_picture(file["name"], bytes(file["content"])))
            except ImageError as error:
                self.message.value = complaint(f"{file['name']}: {error}")
            else:
                self.gallery.chosen = -1


def complaint(text: str) -> str:
    """Return an error message as HTML."""
    style = "color:#7a2d00;background:#fbe9df;border-left:4px solid #b84a00;padding:4px 10px;line-height:1.4"
    return f'<div role="alert" style="{style}">{escape(text)}</div>'
