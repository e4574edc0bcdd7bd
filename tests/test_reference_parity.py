"""Parity with the recorded reference numbers: every check of `tests/parity`, collected as one suite.

    MEDV_GOLDEN_DIR=folder pytest tests/test_reference_parity.py

reads another folder of the same layout (default `tests/golden`).
"""

import importlib
import pkgutil

import pytest

import tests.parity

for _module in pkgutil.iter_modules(tests.parity.__path__, prefix="tests.parity."):
    if _module.name.rpartition(".")[2].startswith("check_"):
        pytest.register_assert_rewrite(_module.name)
        _checks = importlib.import_module(_module.name)
        _found = {name: check for name, check in vars(_checks).items() if name.startswith("test_")}
        _twice = sorted(_found.keys() & globals().keys())
        if _twice:
            raise ImportError(f"{_module.name} repeats the names {_twice} of another check: rename them")
        globals().update(_found)
