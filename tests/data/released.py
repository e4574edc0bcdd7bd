"""Small folders in the layouts of the released data sets, the real ones where they are, and pixels of pictures."""

import json
import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from medv_lab.data.images import open_image

BESIDE = Path(__file__).parents[3] / "shared" / "data"


def real_folders(*names: str) -> list[Path]:
    """The folder of a real data set if it is here: $MEDV_DATA_DIR/name, or shared/data/name beside the checkout."""
    roots = [Path(os.environ["MEDV_DATA_DIR"])] if "MEDV_DATA_DIR" in os.environ else [BESIDE]
    return [root / name for root in roots for name in names if (root / name).is_dir()]


def write_json(path: Path, rows: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return path


def write_lines(path: Path, rows: list) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def draw(path: Path, value: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), (value, value, value)).save(path)
    return path


def vqa_rad_row(number, **changes) -> dict:
    return {
        "qid": number,
        "phrase_type": "freeform",
        "image_name": "a.jpg",
        "image_organ": "CHEST",
        "question": f"Is there a nodule {number}?",
        "answer": "Yes",
        "answer_type": "CLOSED",
    } | changes


VQA_RAD_ROWS = [  # with the quirks of the release
    vqa_rad_row("0"),
    vqa_rad_row(1, phrase_type="test_para", answer_type="CLOSED ", image_organ="HEAD"),
    vqa_rad_row(2, answer=4, answer_type="OPEN", image_organ="ABD"),
    vqa_rad_row(3, answer=" superficial ", answer_type="OPEN", image_name="b.jpg"),
    vqa_rad_row(4, phrase_type="test_freeform", answer_type="OPEN"),
]


def make_vqa_rad(folder: Path, rows: list | None = None) -> Path:
    for name in ("a.jpg", "b.jpg", "of no row.jpg"):
        draw(folder / "VQA_RAD Image Folder" / name)
    write_json(folder / "VQA_RAD Dataset Public.json", VQA_RAD_ROWS if rows is None else rows)
    return folder


def slake_row(number: int, **changes) -> dict:
    return {
        "qid": number,
        "img_name": "xmlab1/source.jpg",
        "question": "Does the picture contain lung?",
        "answer": "Yes",
        "q_lang": "en",
        "location": "Lung",
        "modality": "CT",
        "answer_type": "CLOSED",
    } | changes


def make_slake(folder: Path) -> Path:
    draw(folder / "imgs" / "xmlab1" / "source.jpg")
    chinese = slake_row(2, q_lang="zh", question="图中有肺吗？", answer="有")
    write_json(folder / "train.json", [slake_row(1), chinese])
    write_json(folder / "validate.json", [slake_row(1, answer="CT", answer_type="OPEN")])
    write_json(folder / "test.json", [slake_row(5, answer="Lung", answer_type="CLOSED")])
    return folder


PATHVQA_ROWS = [
    {"img_id": "test_0000", "sentf": {"pvqa": []}, "labelf": {"pvqa": []}},
    {
        "img_id": "test_0001",
        "sentf": {"pvqa": ["What is shown?", "Is it benign?"]},
        "labelf": {"pvqa": [{"squamous cell carcinoma": 1}, {"no": 1}]},
    },
]


def make_pathvqa(folder: Path, rows: list | None = None) -> Path:
    draw(folder / "images" / "test" / "test_0001.jpg")
    write_json(folder / "pvqa_test.json", PATHVQA_ROWS if rows is None else rows)
    return folder


def make_plain_pathvqa(folder: Path) -> Path:
    draw(folder / "images" / "val" / "val_0001.jpg")
    pairs = [("What is shown?", "fat necrosis"), ("Is fat shown?", "yes")]
    rows = [{"image": "val_0001", "question": question, "answer": answer} for question, answer in pairs]
    write_json(folder / "qas" / "val" / "val_qa.json", rows)
    return folder


def chatbot_row(number: int, **changes) -> dict:
    return {
        "question_id": number,
        "image": "a.jpg",
        "text": "What is the organ?\n<image>",
        "gpt4_answer": "The organ is the eye.",
        "fig_caption": "A cyst of the conjunctiva.",
        "in_text_mention": [{"tokens": "Cells were not found ( Fig. 3 ) .", "entities": []}],
        "domain": {"chest_xray": False, "mri": False, "ct_scan": False, "histology": True, "gross": True},
        "type": "conversation",
        "fig_label": "Fig. 3",
    } | changes


def make_chatbot(folder: Path, rows: list | None = None) -> Path:
    draw(folder / "images" / "a.jpg")
    rows = rows or [chatbot_row(0), chatbot_row(1, type="detailed_description", in_text_mention=None)]
    write_lines(folder / "llava_med_eval_qa50_qa.jsonl", rows)
    return folder


def opened(source, **options) -> np.ndarray:
    image = open_image(source, **options)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def grey_levels(source, **options) -> np.ndarray:
    """The one channel of a picture whose three channels must be equal."""
    pixels = opened(source, **options)
    assert (np.ptp(pixels, axis=2) == 0).all()
    return pixels[..., 0]


def swapped_profile() -> bytes:
    """A colour profile whose red is the green of sRGB, and whose green is its red."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    table, rest = profile[:400], profile[400:]  # the header and the table of tags
    return table.replace(b"rXYZ", b"----").replace(b"gXYZ", b"rXYZ").replace(b"----", b"gXYZ") + rest
