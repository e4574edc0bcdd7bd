"""Runs only when asked for (`make conformance`), because transformers' mixins are fetched first."""

import pytest

from tests.conformance.expected import EXPECTED_FAILURES, LLAVA_ONEVISION_PASSES

# Markers of transformers' own test suite.
FOREIGN_MARKERS = (
    "accelerate_tests",
    "flash_attn_test",
    "flash_attn_3_test",
    "flash_attn_4_test",
    "order",
    "torch_compile_test",
)
_outcomes: dict[str, set[str]] = {}  # of every test, those of its subtests included


def pytest_configure(config) -> None:
    """Declare the markers that the mixins use."""
    for name in FOREIGN_MARKERS:
        config.addinivalue_line("markers", f"{name}: of transformers' own tests")


def pytest_ignore_collect(collection_path, config) -> bool | None:
    """Leave the folder's tests out of every run that does not ask for them."""
    is_asked_for = config.getoption("markexpr") == "conformance"
    return None if is_asked_for or collection_path.name == "conftest.py" else True


def pytest_collection_modifyitems(items) -> None:
    """Mark this folder's tests, so that the command that asks for them selects them, and the known failures."""
    for item in items:
        path = item.path.as_posix()
        if "tests/conformance/" not in path:
            continue
        item.add_marker(pytest.mark.conformance)
        reason = EXPECTED_FAILURES.get("::".join(item.nodeid.split("::")[-2:]))
        # not strict, since pytest would count a test as passed whose subtests fail; `pytest_sessionfinish` is
        if reason is not None:
            item.add_marker(pytest.mark.xfail(reason=reason, strict=False))


def pytest_runtest_logreport(report) -> None:
    """Keep what became of every test and its subtests."""
    if report.when == "call" or report.skipped:
        _outcomes.setdefault(report.nodeid, set()).add(report.outcome)


def count_passed(module: str) -> int:
    """Return how many tests of a module ran and passed, with no failure among their subtests."""
    own = [outcomes for test, outcomes in _outcomes.items() if f"/{module}::" in test]
    return sum("passed" in outcomes and "failed" not in outcomes for outcomes in own)


def list_mended() -> list[str]:
    """Return the listed failures that ran and fail no longer, in none of their subtests."""
    found = {"::".join(test.split("::")[-2:]): outcomes for test, outcomes in _outcomes.items()}
    return [test for test in EXPECTED_FAILURES if found.get(test) == {"passed"}]


def pytest_terminal_summary(terminalreporter) -> None:
    """Say how many of the mixin's tests our classes pass, beside LLaVA-OneVision's, and which need not be listed."""
    for test in list_mended():
        terminalreporter.write_line(f"passes, though it is listed as a failure: {test}; take it off the list")
    terminalreporter.write_line(
        f"model tests passed: {count_passed('test_model.py')} (LLaVA-OneVision's classes pass "
        f"{count_passed('llava_onevision.py') or LLAVA_ONEVISION_PASSES})"
    )


def pytest_sessionfinish(session, exitstatus) -> None:
    """Fail a run in which a listed failure passes, and a whole one with fewer passes than LLaVA-OneVision's."""
    if exitstatus == 0 and list_mended():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    is_whole = not session.config.option.keyword and count_passed("test_model.py")
    if exitstatus == 0 and is_whole and count_passed("test_model.py") < LLAVA_ONEVISION_PASSES:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
