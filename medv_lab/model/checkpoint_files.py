"""Checkpoints as files: which are known and what they need, where a folder is, and what its safetensors files hold.

Nothing is downloaded unless asked for; then only safetensors, JSON and tokenizer files of one pinned commit. Nothing
here reads weights, and nothing can read a pickle. Every defect is one `CheckpointError` that says what to do.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from medv_lab.limits import open_file, parse_json, read_file
from medv_lab.runtime import examine_machine, hash_model

EMBEDDED = "embedded"
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
DTYPES = ("F64", "F32", "BF16", "F16")  # as safetensors headers name them
SETTINGS_FILES = (  # what transformers reads besides config.json and tokenizer.json, where it is there
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "processor_config.json"),
    *("preprocessor_config.json", "generation_config.json", "chat_template.json"),
)
DOWNLOADED_FILES = ("*.safetensors", "*.json", "tokenizer.model", "*.txt", "*.jinja")
BYTES_PER_PARAMETER = {"float32": 4, "bfloat16": 2}
WORKING_SHARE = 0.1
"""Memory for the activations of one question, as a share of the weights: a generous rule of thumb."""
PARAMETERS_WITH_VISION = 8_434_837_024
PARAMETERS_LANGUAGE = 8_015_581_184
_LLADA_TOP = {
    "model.transformer.wte.weight": "model.embed_tokens.weight",
    "model.transformer.ln_f.weight": "model.norm.weight",
    "model.transformer.ff_out.weight": "lm_head.weight",
}
_LLADA_BLOCK = {
    "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj",
    "attn_out": "self_attn.o_proj",
    "ff_proj": "mlp.gate_proj",
    "up_proj": "mlp.up_proj",
    "ff_out": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ff_norm": "post_attention_layernorm",
}
_LLADA_BLOCK_KEY = re.compile(r"model\.transformer\.blocks\.(\d+)\.(\w+)\.weight")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SHOWN = 6


class CheckpointError(ValueError):
    """A checkpoint that cannot be loaded; the text says what is wrong and what to do."""


@dataclass(frozen=True)
class ModelSource:
    """The checkpoint that a model came from; recorded in manifests.

    Attributes:
        name: "embedded", a folder's name, or a hub id.
        folder: where it was read.
        revision: commit hash on the hub; None for local folders.
        notes: what the loader decided, one sentence each.
        stamp: names, sizes and times of the weight files when the source was found.
        quantization: in how few bits its weights are held, and by which library; None where they are whole.
    """

    name: str
    folder: Path
    revision: str | None = None
    notes: tuple[str, ...] = ()
    stamp: tuple[tuple[str, int, int], ...] = ()
    quantization: str | None = None

    @cached_property
    def sha256(self) -> str:
        """SHA-256 over the safetensors files, read when first asked for.

        Raises:
            CheckpointError: if the files are no longer those that were there when the source was found.
        """
        if self.stamp != _stamp(self.folder):
            raise CheckpointError(
                f"the weights in {self.folder} changed after they were loaded, so that a record of this run would name "
                "other weights; load the model again"
            )
        return hash_model(self.folder)


@dataclass(frozen=True)
class KnownCheckpoint:
    """A checkpoint that medv-lab can load, and where it comes from."""

    name: str
    where: str
    parameters: int
    licence: str
    note: str = ""


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a checkpoint: its file, its key there, its shape, its dtype, and the byte at which it begins."""

    file: Path
    key: str
    shape: tuple[int, ...]
    dtype: str
    offset: int


def embedded_folder() -> Path:
    """Return the folder of the shipped checkpoint inside the package."""
    return Path(__file__).resolve().parent.parent / "embedded"


def find_source(model: str | Path, *, download: bool = False, revision: str | None = None) -> ModelSource:
    """Find a checkpoint on this machine, or fetch it if `download` allows.

    Args:
        model: "embedded", a folder, or a hub id such as "owner/name".
        download: fetch a hub id's files (safetensors, JSON, tokenizer) if they are not cached.
        revision: commit, tag or branch on the hub; by default its main branch. What it stands for is resolved
            to a commit and recorded.

    Raises:
        CheckpointError: if there is no such folder, or the hub id is not cached and may not be fetched.
    """
    name = str(model)
    if name == EMBEDDED and not embedded_folder().is_dir():
        raise CheckpointError(
            "this installation has no embedded checkpoint; rebuild it with 'python -m "
            "medv_lab.training.embedded', or give a folder or hub id"
        )
    folder = embedded_folder() if name == EMBEDDED else Path(name).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise CheckpointError(
                f"revision {revision!r} was given for {name!r}, which is a local folder; leave it out"
            )
        label = name if name == EMBEDDED else folder.resolve().name
        return ModelSource(label, folder, stamp=_stamp(folder))
    if folder.exists() or not _HUB_ID.fullmatch(name):
        raise CheckpointError(
            f"{name!r} is neither a folder here nor a hub id; give 'embedded', an existing folder, or 'owner/name'"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError

    try:
        folder = Path(
            snapshot_download(
                name, revision=revision, local_files_only=not download, allow_patterns=list(DOWNLOADED_FILES)
            )
        )
    except (HTTPError, OSError) as error:
        at = "" if revision is None else f" at revision {revision!r}"
        if not download:
            raise CheckpointError(
                f"there is no folder {name!r} here, and the hub id {name!r}{at} is not in the local cache; "
                "allow the download with download=True (command line: --download), or copy the checkpoint "
                "here and give its folder"
            ) from error
        raise CheckpointError(f"{name!r}{at} could not be downloaded from the hub: {error}") from error
    return ModelSource(name, folder, revision=folder.name, stamp=_stamp(folder))


def _stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    files = sorted(filter(Path.is_file, folder.glob("*.safetensors")))
    return tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)


def known_checkpoints() -> list[KnownCheckpoint]:
    """Return the embedded checkpoint (sized from its file, if it is there) and the published ones."""
    published = [
        KnownCheckpoint(
            "LLaDA-MedV",
            "linked from the repository of the paper (arXiv 2508.01617)",
            PARAMETERS_WITH_VISION,
            "see its model page; research use, not for clinical decisions",
        ),
        KnownCheckpoint("LLaDA-V", "GSAI-ML/LLaDA-V", PARAMETERS_WITH_VISION, "see its model page"),
        KnownCheckpoint(
            "LLaDA-8B-Instruct",
            "GSAI-ML/LLaDA-8B-Instruct",
            PARAMETERS_LANGUAGE,
            "see its model page",
            "language only: the vision tower comes from another folder, the projector starts fresh",
        ),
    ]
    folder = embedded_folder()
    if not folder.is_dir():
        return published
    count = sum(math.prod(tensor.shape) for tensor in list_tensors(folder))
    note = "knows phantoms only"
    return [KnownCheckpoint("embedded", "shipped with medv-lab", count, "Apache-2.0", note), *published]


def doctor() -> dict[str, Any]:
    """Examine this machine, and say of each known checkpoint what it needs and where it fits.

    Returns:
        What `examine_machine` returns, and checkpoints: [{name, where, parameters, licence, note,
        needs: {dtype: bytes}, fits: {"cpu float32": bool, "cpu bfloat16": bool, "cuda:0 bfloat16": bool, ...}}].
    """
    machine = examine_machine()
    total = machine["memory_total"]
    sizes = {"cpu float32": (total, "float32"), "cpu bfloat16": (total, "bfloat16")}
    for number, device in enumerate(machine["devices"]):
        sizes[f"cuda:{number} bfloat16"] = (device["total"], "bfloat16")
    checkpoints = []
    for known in known_checkpoints():
        needs = {
            dtype: int(known.parameters * size * (1 + WORKING_SHARE))
            for dtype, size in BYTES_PER_PARAMETER.items()
        }
        fits = {name: needs[dtype] <= size for name, (size, dtype) in sizes.items()}
        checkpoints.append(asdict(known) | {"needs": needs, "fits": fits})
    return machine | {"checkpoints": checkpoints}


def read_json(path: Path) -> dict[str, Any]:
    """Read one of a checkpoint's JSON files.

    Raises:
        CheckpointError: if it is absent or no JSON object.
    """
    if not path.is_file():
        raise CheckpointError(
            f"{path.parent} has no {path.name}; give a complete checkpoint folder (config.json, "
            "tokenizer.json and safetensors files side by side)"
        )
    try:
        content = parse_json(read_file(path))
    except ValueError as error:
        raise CheckpointError(
            f"{path} is not valid JSON ({error}); copy or download the file again"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path} holds a {type(content).__name__}, not a JSON object; copy the file again"
        )
    return content


def list_tensors(folder: Path, *, is_quantised: bool = False) -> list[StoredTensor]:
    """Take stock of a checkpoint: `model.safetensors`, or the shards that its index names.

    Args:
        folder: of the checkpoint.
        is_quantised: whether tensors that are not floating point are what its config.json announces.

    Raises:
        CheckpointError: for no safetensors file (pickles are never read), a missing shard, a corrupt or
            truncated file, a file without its index, or a tensor that the index promises and no shard has.
    """
    if (folder / SINGLE).is_file():
        return _read_header(folder / SINGLE, is_quantised)
    if (folder / INDEX).is_file():
        return _list_shards(folder, is_quantised)
    found = sorted(filter(Path.is_file, folder.glob("*.safetensors")))
    if len(found) == 1:
        return _read_header(found[0], is_quantised)
    if found:
        raise CheckpointError(
            f"{folder} holds {len(found)} safetensors files but no {INDEX} that says how they belong "
            "together; copy the index from where the shards came from"
        )
    pickles = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES)
    if pickles:
        raise CheckpointError(
            f"{folder} holds pickled weights only ({shorten(pickles)}), which medv-lab never loads because "
            "a pickle can run code; get the safetensors version, or convert the files with a tool that you "
            "trust"
        )
    raise CheckpointError(f"{folder} holds no weights; expected {SINGLE}, or {INDEX} with its shards")


def _list_shards(folder: Path, is_quantised: bool) -> list[StoredTensor]:
    weight_map = read_json(folder / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(map(_is_text, weight_map.values())):
        raise CheckpointError(
            f"{folder / INDEX} has no weight_map of tensor names to file names; copy it again"
        )
    names = sorted(set(weight_map.values()))
    foreign = [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]
    if foreign:
        raise CheckpointError(
            f"{folder / INDEX} names files that are not safetensors files of this folder: {shorten(foreign)}"
        )
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder} lacks {len(missing)} of its {len(names)} shards: {shorten(missing)}; copy or "
            "download them again"
        )
    tensors = [tensor for name in names for tensor in _read_header(folder / name, is_quantised)]
    absent = sorted(weight_map.keys() - {tensor.key for tensor in tensors})
    if absent:
        raise CheckpointError(
            f"{folder / INDEX} promises {len(absent)} tensors that no shard has: {shorten(absent)}; shards "
            "and index are not of one checkpoint"
        )
    return tensors


def from_llada(key: str) -> str | None:
    """Return the model's name of an original LLaDA-8B-Instruct key; None if it is none."""
    match = _LLADA_BLOCK_KEY.fullmatch(key)
    if match is None:
        return _LLADA_TOP.get(key)
    part = _LLADA_BLOCK.get(match[2])
    return part and f"model.layers.{match[1]}.{part}.weight"


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _read_header(file: Path, is_quantised: bool) -> list[StoredTensor]:
    try:
        with safe_open(file, framework="numpy"):  # raises unless the file has the size that its header says
            pass
        with open_file(file) as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = parse_json(stream.read(length))
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{file} is not a readable safetensors file ({error}): it is damaged, truncated or something "
            "else; copy or download it again"
        ) from error
    header.pop("__metadata__", None)
    tensors = [
        StoredTensor(file, key, tuple(one["shape"]), one["dtype"], 8 + length + one["data_offsets"][0])
        for key, one in header.items()
    ]
    coded = [f"{one.key} ({one.dtype})" for one in tensors if one.dtype not in DTYPES]
    if coded and not is_quantised:
        raise CheckpointError(
            f"{file} holds {len(coded)} tensors of types that are not plain floating point: "
            f"{shorten(coded)}; allowed are {', '.join(DTYPES)} where config.json has no quantization_config: get the "
            "checkpoint that is not quantised"
        )
    return tensors


def shorten(names: Iterable[str]) -> str:
    """Return the first few of some names, and how many more there are."""
    names = list(names)
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
