"""transformers' own test mixins, of the installed version: fetched as its source distribution, never committed.

The distribution holds the mixins but not what they import from subfolders; that is replaced by empty classes, so the
export and generation mixins are not among the tests.
"""

import importlib
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest
import transformers

CACHE = Path(__file__).parents[2] / "build" / "conformance"
PACKAGE = "transformers_tests"
_STUBS = {
    "exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    "generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    "utils/test_configuration_utils.py": "config_common_kwargs = {}\n",
    "fetch_hub_objects_for_ci.py": "def url_to_local_path(url):\n    return url\n",
}


class NotFetchedError(RuntimeError):
    """The source distribution is neither cached nor to be had; the text says why."""


def import_mixins(name: str) -> ModuleType:
    """Import a module of transformers' tests, such as "test_modeling_common".

    Without a cached copy and without network, the importing module is skipped, and the reason is said.
    """
    folder = CACHE / f"transformers-{transformers.__version__}"
    if not (folder / PACKAGE / "test_modeling_common.py").is_file():
        try:
            _unpack(_fetch(), folder / PACKAGE)
        except NotFetchedError as error:
            pytest.skip(str(error), allow_module_level=True)
    for path in (folder, folder / PACKAGE):
        if str(path) not in sys.path:
            sys.path.append(str(path))
    return importlib.import_module(f"{PACKAGE}.{name}")


def _fetch() -> Path:
    wanted = f"transformers=={transformers.__version__}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "transformers"]
    done = subprocess.run(
        [*command, "--dest", str(CACHE), wanted], capture_output=True, text=True, check=False
    )
    found = sorted(CACHE.glob(f"transformers-{transformers.__version__}.tar.gz"))
    if done.returncode or not found:
        last = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise NotFetchedError(f"the source distribution of {wanted} could not be fetched: {last}")
    return found[0]


def _unpack(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as content:
        for member in content:
            parts = Path(member.name).parts
            if member.isfile() and len(parts) == 3 and parts[1] == "tests":
                target = folder / parts[2]
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content.extractfile(member).read())
    for name, text in _STUBS.items():
        stub = folder / name
        stub.parent.mkdir(parents=True, exist_ok=True)
        stub.write_text(text)
        (stub.parent / "__init__.py").touch()
