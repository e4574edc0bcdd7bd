"""The default run: CPU only, no network, no display, one thread a worker."""

import os
import socket
import sys
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest


@pytest.fixture(autouse=True)
def no_figures_left() -> Iterator[None]:
    """Figures that a test made are closed behind it."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that leave this machine fail, so that no test can come to need one."""
    connect = socket.socket.connect

    def connect_locally(self: socket.socket, address) -> None:
        is_local = self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "::1", "localhost")
        if not is_local:
            raise RuntimeError(f"a test tried to reach {address[0]}; tests run without network")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_locally)
