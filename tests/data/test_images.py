"""Opening ordinary picture files, bytes, Pillow images and arrays: right pixels, or an error that helps."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from medv_lab.data.images import ImageError, notes_of, open_image, sample_images
from tests.data.released import grey_levels, opened, swapped_profile

CASES = Path(__file__).parent / "cases"
RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
COLOUR = np.stack([RAMP, RAMP.T, 255 - RAMP], axis=2)


def encode(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["PNG", "TIFF", "BMP", "WEBP"])
def test_lossless_formats_return_the_pixels_that_were_saved(form, tmp_path):
    path = tmp_path / "picture.dat"  # the extension must not matter
    options = {"lossless": True} if form == "WEBP" else {}
    path.write_bytes(encode(Image.fromarray(COLOUR), form, **options))
    assert np.array_equal(opened(path), COLOUR)
    assert np.array_equal(opened(str(path)), COLOUR)
    assert np.array_equal(opened(path.read_bytes()), COLOUR)


def test_jpeg_is_close_and_cmyk_jpeg_is_not_inverted():
    flat = Image.new("RGB", (16, 16), (200, 40, 90))
    assert np.abs(opened(encode(flat, "JPEG")) - (200, 40, 90)).max() < 8
    assert np.abs(opened(encode(flat.convert("CMYK"), "JPEG")) - (200, 40, 90)).max() < 12


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side: turn a quarter clockwise
    lying = Image.fromarray(COLOUR[:8])
    assert np.array_equal(opened(encode(lying, "PNG", exif=exif)), np.rot90(COLOUR[:8], -1))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "YCbCr", "HSV"])
def test_eight_bit_modes_keep_their_look(mode):
    image = Image.fromarray(RAMP).convert(mode)
    assert np.abs(opened(image) - np.asarray(image.convert("RGB"))).max() <= 1


def test_transparency_lies_on_black():
    half = np.dstack([np.full((4, 4, 3), 200, np.uint8), np.full((4, 4), 128, np.uint8)])
    for source in (half, Image.fromarray(half), encode(Image.fromarray(half), "PNG")):
        assert np.abs(opened(source) - 100).max() <= 1
    palette = Image.new("P", (2, 1))
    palette.putpalette([250, 0, 0, 0, 250, 0])
    palette.putpixel((1, 0), 1)
    assert opened(encode(palette, "PNG", transparency=0)).tolist() == [[[0, 0, 0], [0, 250, 0]]]
    assert opened(encode(Image.new("L", (2, 2), 90), "PNG", transparency=90)).max() == 0


def test_case_7_a_dark_trace_on_a_transparent_ground_is_seen():
    image = open_image(CASES / "black_trace_on_transparent.png")
    is_trace = np.asarray(Image.open(CASES / "black_trace_on_transparent.png"))[..., 3] > 0
    assert np.array_equal(np.asarray(image)[..., 0], np.where(is_trace, 0, 255))
    assert "laid on white" in notes_of(image)[0]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize(("level", "ground"), [(0, 255), (30, 255), (90, 0), (255, 0)])
def test_the_ground_keeps_the_contrast(mode, level, ground):
    alpha = np.where(RAMP % 5 == 0, 255, 0).astype(np.uint8)
    trace = Image.fromarray(np.dstack([np.full((16, 16, 3), level, np.uint8), alpha]))
    source = trace.convert("LA") if mode == "LA" else trace
    if mode == "P":
        source = Image.fromarray(alpha // 255).convert("L").convert("P")
        source.putpalette([7, 7, 7, level, level, level])
        source.info["transparency"] = 0
    expected = np.where(alpha > 0, level, ground)
    assert np.array_equal(grey_levels(encode(source, "PNG")), expected)


def test_a_dark_picture_with_a_few_light_marks_lies_on_white():
    layer = np.zeros((40, 40, 4), np.uint8)
    layer[5:35, 20, 3] = 255
    layer[5:7, 20, :3] = 255
    grey = grey_levels(layer)
    assert (grey[7:35, 20] == 0).all() and grey[0, 0] == 255


def test_a_scan_with_transparent_corners_stays_on_black():
    levels = np.clip(np.random.default_rng(0).exponential(40, (64, 64)), 0, 255).astype(np.uint8)
    alpha = np.where(np.hypot(*np.mgrid[-32:32, -32:32]) < 30, 255, 0).astype(np.uint8)
    assert np.array_equal(grey_levels(np.dstack([levels] * 3 + [alpha])), np.where(alpha > 0, levels, 0))


def test_a_transparent_value_of_a_deep_picture_is_padding():
    values = np.linspace(1000, 1400, 10_000).reshape(100, 100).astype(np.uint16)
    values[:30] = 60_000
    image = open_image(encode(Image.fromarray(values), "PNG", transparency=60_000))
    assert np.asarray(image)[:30].max() == 0 and np.unique(np.asarray(image)[30:]).size > 250


def retagged(data: bytes, photometric: int) -> bytes:
    """The same TIFF with another photometric interpretation."""
    with Image.open(io.BytesIO(data)) as image:
        given = image.tag_v2[262]
    entry = struct.pack("<HHI", 262, 3, 1)
    assert data.count(entry + struct.pack("<H", given)) == 1
    return data.replace(entry + struct.pack("<H", given), entry + struct.pack("<H", photometric))


def test_white_is_zero():
    steps = np.arange(16).reshape(4, 4) * 17
    assert np.abs(grey_levels(CASES / "white_is_zero_16.tif") - (255 - steps)).max() <= 1


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u2", "i2", "i4", "f4"])
def test_white_is_zero_in_every_layout_of_deep_grey(dtype, order):
    values = (RAMP.astype(int) * 100).astype(order + dtype)
    kind = {"u": 1, "i": 2, "f": 3}[dtype[0]]
    tags = {256: 16, 257: 16, 258: values.itemsize * 8, 259: 1, 262: 0, 273: 8, 277: 1, 278: 16}
    tags |= {279: values.nbytes, 339: kind}
    directory = struct.pack(order + "H", len(tags))
    for tag, value in sorted(tags.items()):
        is_long = tag in (273, 279)
        directory += struct.pack(order + "HHI", tag, 4 if is_long else 3, 1)
        directory += struct.pack(order + ("I" if is_long else "HH"), *([value] if is_long else [value, 0]))
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8 + values.nbytes)
    grey = grey_levels(head + values.tobytes() + directory + b"\0" * 4)
    assert np.abs(grey - (255 - RAMP.astype(int))).max() <= 2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_tiff_says_which_end_is_white(dtype):
    values = (RAMP.astype(dtype) * (257 if dtype == np.uint16 else 1)).astype(dtype)
    black, white = (grey_levels(retagged(encode(Image.fromarray(values), "TIFF"), own)) for own in (1, 0))
    assert np.abs(black - RAMP).max() <= 2
    assert np.array_equal(white, 255 - black)


def test_colour_profiles_are_used():
    profile, plain = swapped_profile(), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for form in ("PNG", "TIFF"):
        image = open_image(encode(Image.fromarray(COLOUR), form, icc_profile=profile))
        assert np.abs(np.asarray(image).astype(int) - COLOUR[..., [1, 0, 2]]).max() <= 3
        assert "converted from the profile" in notes_of(image)[0]
        assert np.array_equal(opened(encode(Image.fromarray(COLOUR), form, icc_profile=plain)), COLOUR)
    layer = np.dstack([COLOUR, np.full((16, 16), 255, np.uint8)])
    assert (
        np.abs(
            opened(encode(Image.fromarray(layer), "PNG", icc_profile=profile)) - COLOUR[..., [1, 0, 2]]
        ).max()
        <= 3
    )


def test_a_grey_profile_of_a_picture_with_transparency():
    linear = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    linear[16:20] = b"GRAY"  # a grey profile has a white point and one curve
    profile = bytes(linear).replace(b"rTRC", b"kTRC")
    layer = np.dstack([RAMP, np.full((16, 16), 255, np.uint8)])
    for source in (RAMP, layer):
        image = open_image(encode(Image.fromarray(source), "PNG", icc_profile=profile))
        assert not any("not its own" in note for note in notes_of(image))


@pytest.mark.parametrize("profile", [b"no profile", swapped_profile()[:200]])
def test_a_broken_colour_profile_is_noted_and_not_used(profile):
    image = open_image(encode(Image.fromarray(COLOUR), "PNG", icc_profile=profile))
    assert np.array_equal(np.asarray(image), COLOUR) and "cannot be used" in notes_of(image)[0]


def test_a_profile_of_other_colours_is_noted_and_not_used():
    grey = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    image = open_image(encode(Image.fromarray(COLOUR), "PNG", icc_profile=grey))
    assert np.array_equal(np.asarray(image), COLOUR) and "Lab colours" in notes_of(image)[0]


def test_lab_becomes_rgb():
    # CIELAB of sRGB's red, green, blue, white and black under D50: L*, a*, b*
    known = [(54.3, 80.8, 69.9), (87.8, -79.3, 81.0), (29.6, 68.3, -112.0), (100, 0, 0), (0, 0, 0)]
    lab = np.array([[(round(li * 2.55), round(a) % 256, round(b) % 256) for li, a, b in known]], np.uint8)
    expected = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)]
    image = open_image(retagged(encode(Image.fromarray(lab), "TIFF"), 8))
    # the corners of sRGB move most where a* and b* are rounded; any other reading of the signs is 100 away
    assert np.abs(np.asarray(image)[0].astype(int) - expected).max() <= 24 and "CIELAB" in notes_of(image)[0]


def test_cmyk_without_a_profile_is_noted():
    image = open_image(encode(Image.new("CMYK", (8, 8), (0, 200, 100, 10)), "TIFF"))
    assert "approximate" in notes_of(image)[0]


def test_next_to_nothing_is_noted():
    for source, said in (
        (np.full((20, 20), 7, np.uint8), "one grey (7 of 255)"),
        (np.eye(20, dtype=bool), "only 2 greys"),
        (
            np.full((400, 400), 60, np.uint8) + (RAMP.repeat(25, 0).repeat(25, 1) // 32),
            "only 8 greys, from 60 to 67",
        ),
    ):
        assert said in notes_of(open_image(source))[-1]
    assert notes_of(open_image(COLOUR)) == notes_of(open_image(RAMP)) == ()


def test_notes_stay_with_an_opened_picture():
    once = open_image(np.linspace(0, 4000, 256).reshape(16, 16).astype(np.uint16))
    assert "No window was given: shown from 19.4 to 3979.6" in notes_of(once)[0]
    assert notes_of(open_image(once)) == notes_of(once)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bit_grey_gets_its_own_percentile_window(form):
    values = np.linspace(1000, 1400, 10_000).reshape(100, 100).astype(np.uint16)
    values[0, 0] = 65535  # one hot pixel must not darken the picture
    grey = grey_levels(encode(Image.fromarray(values), form))
    assert grey.min() == 0 and grey[0, 0] == 255 and abs(int(np.median(grey)) - 128) <= 2
    assert np.array_equal(grey, grey_levels(values))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bit_pillow_images_are_windowed(dtype):
    image = Image.fromarray(np.linspace(-500, 500, 400).reshape(20, 20).astype(dtype))
    grey = grey_levels(image)
    assert grey.min() == 0 and grey.max() == 255 and np.all(np.diff(grey.ravel()) >= 0)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([[False, True]]), [0, 255]),
        (np.array([[0.0, 1.0]]), [0, 255]),
        (np.array([[0, 9]], np.uint8), [0, 9]),
        (np.array([[[0], [9]]], np.uint8), [0, 9]),
        (np.array([[[0, 0, 0], [65535, 65535, 65535]]], np.uint16), [0, 255]),
        (np.array([[-1000, 3000]], np.int16), [0, 255]),
    ],
)
def test_arrays(array, expected):
    assert grey_levels(array).tolist() == [expected]


def test_frames_of_a_tiff():
    pages = [Image.new("L", (3, 2), value) for value in (10, 20, 30)]
    data = encode(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    assert [grey_levels(data, frame=i)[0, 0] for i in range(3)] == [10, 20, 30]
    with pytest.raises(ImageError, match="has 3 frames.*frame 3.*use 0 to 2"):
        open_image(data, frame=3)
    with pytest.raises(ImageError, match="frame -1"):
        open_image(data, frame=-1)


def test_the_given_picture_is_left_alone():
    image = Image.fromarray(COLOUR)
    open_image(image).putpixel((0, 0), (1, 2, 3))
    assert np.array_equal(np.asarray(image), COLOUR)
    with pytest.raises(ImageError, match="1 frame,"):
        open_image(image, frame=1)


@pytest.mark.filterwarnings("ignore:Truncated File Read")
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.png", b"", "is empty"),
        ("text.png", b"This is no picture at all.", "starts with b'This is no p'.*PNG, JPEG"),
        ("picture.gif", encode(Image.new("L", (2, 2)), "GIF"), "starts with b'GIF8.*convert"),
        ("short.png", encode(Image.fromarray(COLOUR), "PNG")[:60], "cannot be decoded.*incomplete"),
        ("short.jpg", encode(Image.fromarray(COLOUR), "JPEG")[:-60], "cannot be decoded.*incomplete"),
        ("short.tif", encode(Image.fromarray(COLOUR), "TIFF")[:60], "cannot be decoded|not a readable"),
        ("header.png", b"\x89PNG\r\n\x1a\n", "not a readable picture"),
    ],
    ids=["empty", "text", "gif", "short-png", "short-jpeg", "short-tiff", "header-only"],
)
def test_bad_files_are_named_and_explained(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ImageError, match=message) as caught:
        open_image(path)
    assert name in str(caught.value)
    with pytest.raises(ImageError, match=message):
        open_image(content)


def test_missing_file_folder_and_wrong_type(tmp_path):
    with pytest.raises(ImageError, match="nowhere.png.*does not exist.*nothing is downloaded"):
        open_image(tmp_path / "nowhere.png")
    with pytest.raises(ImageError, match="is a folder"):
        open_image(tmp_path)
    for source in (None, 3, [RAMP]):
        with pytest.raises(ImageError, match="is not a picture. Give a path"):
            open_image(source)
    with pytest.raises(ImageError):
        open_image("picture\0.png")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((0, 5), np.uint8), "no pixels"),
        (np.zeros(5, np.uint8), r"shape \(5,\).*Allowed shapes"),
        (np.zeros((3, 8, 8), np.uint8), "channels last"),
        (np.zeros((1, 8, 8, 3), np.uint8), "Allowed shapes"),
        (np.array([[0.5, np.nan]]), "NaN"),
        (Image.fromarray(np.array([[1.0, np.nan]], np.float32)), "NaN"),
        (np.array([[0.0, np.inf]]), "NaN or infinite"),
        (np.array([[0.0, 255.0]]), "from 0 to 255.*0..1"),
        (np.zeros((4, 4, 3), np.int32), "int32 has the wrong type"),
        (np.zeros((4, 4), complex), "complex128 has the wrong type"),
        (np.full((4, 4), "a"), "wrong type"),
    ],
)
def test_arrays_and_images_that_are_no_pictures(source, message):
    with pytest.raises(ImageError, match=message):
        open_image(source)


def test_too_many_pixels_are_refused_before_decoding(monkeypatch):
    data = encode(Image.new("1", (300, 300)), "PNG")
    bomb = bytearray(data)
    bomb[16:24] = (200_000).to_bytes(4, "big") * 2  # the header promises 40 gigapixels
    with pytest.raises(ImageError):
        open_image(bytes(bomb))
    monkeypatch.setattr("medv_lab.data.pixels.MAX_PIXELS", 1000)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", None)  # calling it would be a TypeError
    with pytest.raises(ImageError, match="300 x 300 = 90000 pixels; 1000 are allowed"):
        open_image(data)
    for source in (np.zeros((40, 40), np.uint8), Image.new("L", (40, 40))):
        with pytest.raises(ImageError, match="1600 pixels"):
            open_image(source)


def test_sample_images_are_real_pictures():
    pytest.importorskip("data_store", reason="pydicom-data is not installed")
    for path in sample_images().values():
        pixels = opened(path)
        assert min(pixels.shape[:2]) >= 128 and pixels.std() > 20


def test_missing_samples_say_what_to_install(monkeypatch):
    monkeypatch.setattr("medv_lab.data.images.get_testdata_file", lambda file, download: None)
    with pytest.raises(FileNotFoundError, match="pip install pydicom-data"):
        sample_images()
