"""Real, freely redistributable DICOM pictures that come inside installed packages; nothing is downloaded."""

from pathlib import Path

from pydicom.data import get_testdata_file

SAMPLES = {  # name -> file in the packages pydicom or pydicom-data
    "chest x-ray": "RG1_UNCR.dcm",
    "head ct": "693_UNCR.dcm",
    "shoulder mri": "MR2_UNCR.dcm",
    "spine ct": "CT_small.dcm",
}


def sample_images() -> dict[str, Path]:
    """Paths of the packaged real pictures, by name.

    Raises:
        FileNotFoundError: when the package pydicom-data, which holds some of them, is not installed.
    """
    paths = {name: get_testdata_file(file, download=False) for name, file in SAMPLES.items()}
    missing = [SAMPLES[name] for name, path in paths.items() if path is None]
    if missing:
        raise FileNotFoundError(
            f"{', '.join(missing)} not found: install the package with `pip install pydicom-data`"
        )
    return {name: Path(path) for name, path in paths.items()}
