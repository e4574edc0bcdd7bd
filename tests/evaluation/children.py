"""Child processes that begin with everything imported, so that a test can kill them at work."""

import multiprocessing
from multiprocessing.context import BaseContext

PRELOADED = [
    "tests.evaluation.test_endpoint_judge",
    "tests.evaluation.test_runner",
    "tests.cli.test_evaluate",
]


def child_context() -> BaseContext:
    """One server of forks for all tests of a session: what it preloads is settled when it starts."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context
