"""The explorer's choice of a picture: a gallery, uploads, and the chosen picture with a note of it."""

from html import escape

import ipywidgets as widgets

from medv_lab.data.images import ImageError
from medv_lab.explorer.pictures import Gallery, gallery_pictures, uploaded_picture
from medv_lab.explorer.runs import Picture
from medv_lab.views.page import picture_source

UPLOADS = ".png,.jpg,.jpeg,.dcm,.dicom,.tif,.tiff,.webp,.bmp"
PREVIEW = 220  # pixels


class PictureChooser(widgets.VBox):
    """The gallery, the upload, and the chosen picture.

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
            accept=UPLOADS, description="upload a file", tooltip="PNG, JPEG, DICOM, TIFF, WebP or BMP"
        )
        self.upload.layout.width = f"{PREVIEW}px"
        self.upload.observe(self._take_upload, "value")
        self.preview, self.note = widgets.HTML(), widgets.HTML()
        self.message = widgets.HTML()
        side = widgets.VBox([self.preview, self.upload], layout=widgets.Layout(width=f"{PREVIEW + 20}px"))
        rest = widgets.VBox(
            [self.gallery, widgets.HTML(escape(missing)), self.note, self.message],
            layout=widgets.Layout(flex="1 1 380px", min_width="0"),
        )
        super().__init__([widgets.HBox([side, rest], layout=widgets.Layout(flex_flow="row wrap"))])
        self.gallery.chosen = 0

    def choose(self, picture: Picture) -> None:
        """Take this picture from now on."""
        self.picture, self.source = picture, picture_source(picture.image)
        self.preview.value = (
            f'<img alt="{escape(picture.name)}" src="{self.source}" style="width:{PREVIEW}px;'
            f'height:{PREVIEW}px;object-fit:contain;background:#000;border-radius:6px">'
        )
        self.note.value = f"<b>{escape(picture.name)}</b><br>{escape(picture.note)}"
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
