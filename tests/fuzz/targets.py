"""What is damaged and who reads it: one function per kind, which reads one damaged input or refuses it by name."""

import io
import json
import random
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.data import get_testdata_file

from medv_lab.config import PRESETS, GenerationSettings, SettingsError
from medv_lab.data.chatbot import read_chatbot
from medv_lab.data.images import open_image
from medv_lab.data.pixels import ImageError
from medv_lab.data.validation import check_instructions
from medv_lab.data.vqa import read_vqa
from medv_lab.diffusion.trace import SampleTrace, TraceError
from medv_lab.evaluation.endpoint import Endpoint, ReplyError, read_completion
from medv_lab.evaluation.endpoint_judge import EndpointJudge
from medv_lab.evaluation.score_lines import read_scores
from medv_lab.model.checkpoints import CheckpointError, load
from medv_lab.records import Prediction, Question
from medv_lab.store import Store, StoreError, content_key
from tests.cli.console import invoke
from tests.data.released import make_chatbot, make_slake, make_vqa_rad, write_json
from tests.diffusion.toy import Toy, prompts, run, trace_of
from tests.fuzz.mutations import HOSTILE, damage_bytes, damage_value
from tests.model.tiny import save_tiny

DICOMS = ("CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm", "examples_rgb_color.dcm", "examples_palette.dcm")
FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")
REPLY = {
    "choices": [{"message": {"content": "8 9\nbecause", "refusal": None}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 4},
}
DIALOGUE = {
    "id": "a",
    "image": "a.jpg",
    "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cyst."}],
}


@cache
def _pictures() -> tuple[bytes, ...]:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 4), dtype=np.uint8)
    made = []
    for kind in FORMATS:
        for mode in ("L", "RGB"):
            file = io.BytesIO()
            Image.fromarray(pixels).convert(mode).save(file, kind)
            made.append(file.getvalue())
    return tuple(made)


def read_image(rng: random.Random, folder: Path) -> None:
    open_image(damage_bytes(rng.choice(_pictures()), rng))


def read_dicom(rng: random.Random, folder: Path) -> None:
    found = get_testdata_file(rng.choice(DICOMS), download=False)
    open_image(damage_bytes(Path(found).read_bytes(), rng))


def read_settings(rng: random.Random, folder: Path) -> None:
    settings = rng.choice([*PRESETS.values(), GenerationSettings()])
    GenerationSettings.from_dict(damage_value(settings.to_dict(), rng))


def read_checkpoint(rng: random.Random, folder: Path) -> None:
    model = folder / "model"
    if not model.is_dir():
        save_tiny(model)
    path = rng.choice([one for one in sorted(model.iterdir()) if one.suffix in (".json", ".safetensors")])
    whole = path.read_bytes()
    is_json = path.suffix == ".json" and rng.random() < 0.7
    path.write_bytes(
        json.dumps(damage_value(json.loads(whole), rng)).encode() if is_json else damage_bytes(whole, rng)
    )
    try:
        load(model, device="cpu")
    finally:
        path.write_bytes(whole)


def read_data(rng: random.Random, folder: Path) -> None:
    kind = rng.choice(["vqa-rad", "slake", "chatbot", "instructions"])
    made = folder / kind
    if kind == "instructions":
        path = write_json(made / "data.json", [DIALOGUE, {**DIALOGUE, "id": "b"}])
    else:
        make = {"vqa-rad": make_vqa_rad, "slake": make_slake, "chatbot": make_chatbot}[kind](made)
        path = rng.choice(sorted([*make.glob("*.json"), *make.glob("*.jsonl")]))
    whole = path.read_bytes()
    if path.suffix == ".json" and rng.random() < 0.6:
        write_json(path, None) if rng.random() < 0.02 else path.write_text(
            json.dumps(damage_value(json.loads(whole), rng))
        )
    else:
        path.write_bytes(damage_bytes(whole, rng))
    if kind == "instructions":
        check_instructions(path, made)
    elif kind == "chatbot":
        read_chatbot(made, made / "images")
    else:
        read_vqa(kind, made)


def read_trace(rng: random.Random, folder: Path) -> None:
    path = folder / "trace.npz"
    trace_of(run(Toy(), prompts(1)[0])).save(path) if not path.is_file() else None
    whole = path.read_bytes()
    try:
        if rng.random() < 0.5:
            path.write_bytes(damage_bytes(whole, rng))
        else:
            with np.load(path) as file:
                arrays = {name: file[name] for name in file.files}
            name = rng.choice(sorted(arrays))
            if name == "meta":
                arrays[name] = np.array(json.dumps(damage_value(json.loads(str(arrays[name])), rng)))
            else:
                kind = rng.choice(["<i4", "<u8", "<f4", "<U3", "?"])
                arrays[name] = rng.choice([arrays[name][::-1], arrays[name][:1], arrays[name] * -9]).astype(
                    kind
                )
            np.savez_compressed(path, **arrays)
        trace = SampleTrace.load(path)
        trace.text, trace.replay(), trace.final_commits(), trace.to_frame()
    finally:
        path.write_bytes(whole)


def read_journal(rng: random.Random, folder: Path) -> None:
    question, answer = Question("q", "What?", reference="a cyst"), Prediction("q", "s", "a tumour")
    judge = EndpointJudge(Endpoint("m", "http://127.0.0.1:9/v1"), folder)
    (job,) = judge._jobs([question], [answer])
    note = {"judge": judge._identity, "job": job.key, "attempt": 0}
    lines = [
        {"key": "a", **note, "event": "begun", "id": "q", "tokens_in": 9},
        {"key": "b", **note, "event": "reply", "body": json.dumps(REPLY)},
    ]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    if rng.random() < 0.5:
        content = "".join(json.dumps(damage_value(line, rng)) + "\n" for line in lines).encode()
    else:
        content = damage_bytes(content, rng)
    (folder / "reviews-1.jsonl").write_bytes(content)
    judge.rescore([question], [answer])
    judge.spending()


def read_reply(rng: random.Random, folder: Path) -> None:
    body = json.dumps(damage_value(REPLY, rng))
    if rng.random() < 0.5:
        body = damage_bytes(body.encode(), rng).decode(errors="surrogateescape")
    text, *counts = read_completion(body)
    read_scores(text)
    with Store(folder, f"replies-{rng.random()}") as store:
        store.put(content_key(body), {"body": body, "text": text, "counts": counts})
        assert Store(folder, store.name)[content_key(body)]["text"] == text


class CommandFailed(AssertionError):
    """A command that ended with a traceback, or with a code of its own."""


def run_command(rng: random.Random, folder: Path) -> None:
    options = (
        "--limit",
        "--cap",
        "--steps",
        "--gen-length",
        "--remasking",
        "--split",
        "--judge",
        "--prices",
        "--preset",
    )
    data = make_chatbot(folder / "chat") if not (folder / "chat").is_dir() else folder / "chat"
    path = next(data.glob("*.jsonl"))
    whole = path.read_bytes()
    command = rng.choice(
        [
            ["evaluate", "chat", "--data", data, "--dry-run"],
            ["evaluate", "vqa", "--data", data, "--dry-run"],
            ["data", "check", path, "--images", data],
            ["data", "count", data, "--output", folder / "counts"],
            ["doctor", "--model", data],
            ["ask", path, "What?"],
            ["benchmark", "--size", "tiny"],
            ["figures", "--only", "nothing", "--output", path],
        ]
    )
    for _ in range(rng.randint(0, 2) if command[0] == "evaluate" else 0):
        value = str(rng.choice(HOSTILE)).encode(errors="replace").decode()[:500].replace("\0", "")
        command += [rng.choice(options), value]
    try:
        if rng.random() < 0.5:
            path.write_bytes(damage_bytes(whole, rng))
        result = invoke(*command)
    finally:
        path.write_bytes(whole)
    if result.exit_code not in (0, 2) or "Traceback" in result.output:
        raise CommandFailed(
            f"{command} ended with {result.exit_code}: {result.output[-500:]} {result.exception!r}"
        )
    if result.exit_code:
        raise ValueError(result.output)


Target = Callable[[random.Random, Path], None]
TARGETS: dict[str, tuple[Target, tuple[type[Exception], ...]]] = {  # and the errors that refuse by name
    "images": (read_image, (ImageError,)),
    "DICOM": (read_dicom, (ImageError,)),
    "checkpoints": (read_checkpoint, (CheckpointError,)),
    "settings": (read_settings, (SettingsError,)),
    "data sets": (read_data, (ValueError, FileNotFoundError)),
    "traces": (read_trace, (TraceError,)),
    "journals": (read_journal, (StoreError,)),
    "judge replies": (read_reply, (ReplyError,)),
    "commands": (run_command, (ValueError,)),
}


def read_damaged(kind: str, seed: int, folder: Path) -> Exception | None:
    """Read one damaged input; the error that refused it, or None. Any other error is the reader's fault."""
    target, named = TARGETS[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            target(random.Random(f"{kind} {seed}"), folder)
        except named as error:
            return error
    return None
