"""Where a checkpoint is: the shipped one, a local folder, or a hub id in the local cache.

Nothing is downloaded unless asked for; then only safetensors, JSON and tokenizer files of one pinned commit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from medv_lab.model.memory import embedded_folder
from medv_lab.model.shards import CheckpointError
from medv_lab.runtime import hash_model

EMBEDDED = "embedded"
DOWNLOADED_FILES = ("*.safetensors", "*.json", "tokenizer.model", "*.txt", "*.jinja")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class ModelSource:
    """Which checkpoint a model came from; recorded in manifests.

    Attributes:
        name: "embedded", a folder's name, or a hub id.
        folder: where it was read.
        revision: commit hash on the hub; None for local folders.
        notes: what the loader decided, one sentence each.
        stamp: names, sizes and times of the weight files when the source was found.
    """

    name: str
    folder: Path
    revision: str | None = None
    notes: tuple[str, ...] = ()
    stamp: tuple[tuple[str, int, int], ...] = ()

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


def _stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    files = sorted(folder.glob("*.safetensors"))
    return tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)


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
    folder = embedded_folder() if name == EMBEDDED else Path(name).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise CheckpointError(
                f"revision {revision!r} was given for {name!r}, which is a local folder; leave it out"
            )
        label = name if name == EMBEDDED else folder.resolve().name
        return ModelSource(label, folder, stamp=_stamp(folder))
    if name == EMBEDDED:
        raise CheckpointError(
            "this installation has no embedded checkpoint; rebuild it with 'python -m "
            "medv_lab.training.embedded', or give a folder or hub id"
        )
    if folder.exists():
        raise CheckpointError(f"{name!r} is a file; give the checkpoint's folder")
    if not _HUB_ID.fullmatch(name):
        raise CheckpointError(
            f"{name!r} is neither a folder here nor a hub id; give 'embedded', an existing folder, or "
            "'owner/name'"
        )
    return _from_hub(name, download, revision)


def _from_hub(name: str, download: bool, revision: str | None) -> ModelSource:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            name,
            revision=revision,
            local_files_only=not download,
            allow_patterns=list(DOWNLOADED_FILES),
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, HTTPError, OSError) as error:
        at = "" if revision is None else f" at revision {revision!r}"
        if not download:
            raise CheckpointError(
                f"there is no folder {name!r} here, and the hub id {name!r}{at} is not in the local cache; "
                "allow the download with download=True (command line: --download), or copy the checkpoint "
                "here and give its folder"
            ) from error
        raise CheckpointError(f"{name!r}{at} could not be downloaded from the hub: {error}") from error
    return ModelSource(name, Path(folder), revision=Path(folder).name, stamp=_stamp(Path(folder)))
