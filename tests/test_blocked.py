"""No command and no call unpickles anything or reaches out: sockets and unpickling are blocked, and all goes on."""

import pickle
import socket

import numpy as np
import pytest
import torch

import medv_lab
from medv_lab.config import GenerationSettings
from medv_lab.diffusion.trace import SampleTrace
from medv_lab.explorer.app import explore
from medv_lab.model.checkpoint_files import embedded_folder
from tests.cli.console import succeeds
from tests.data.released import write_lines

SHORT = GenerationSettings(gen_length=8, block_length=8, steps=8)
PICTURE = np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)


@pytest.fixture(autouse=True)
def blocked(monkeypatch):
    """Make every way to a server and every unpickling fail."""

    def refuse(*given, **more):
        raise AssertionError(f"blocked: {given!r:.80}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("create_connection", "getaddrinfo", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse)
    for name in ("load", "loads", "Unpickler", "_Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)


def test_the_block_blocks(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object))
    for attempt in (
        lambda: socket.create_connection(("127.0.0.1", 9)),
        lambda: np.load(tmp_path / "a.npy", allow_pickle=True),
        lambda: torch.load(tmp_path / "a.npy"),
    ):
        with pytest.raises(AssertionError, match="blocked"):
            attempt()


def test_load_ask_and_trace(tmp_path):
    model, processor = medv_lab.load(embedded_folder(), device="cpu")
    answer = medv_lab.ask(model, processor, PICTURE, "What is it?", SHORT, record_attention=True)
    assert SampleTrace.load(answer.trace.save(tmp_path / "t.npz")).text == answer.trace.text


def test_figures(tmp_path):
    assert "1 drawn" in succeeds("figures", "--only", "fig01", "--output", tmp_path)


def test_evaluation_with_the_judges_that_call_nobody(tmp_path):
    asked = ["evaluate", "chat", "--pictures", 5, "--limit", 2]
    short = [
        "--gen-length",
        8,
        "--block-length",
        8,
        "--steps",
        8,
        "--device",
        "cpu",
        "--output",
        tmp_path / "o",
    ]
    assert "phantom facts" in succeeds(*asked, *short, "--judge", "facts")
    answers = [{"question_id": f"{number}", "text": "a cyst"} for number in range(2)]
    file = write_lines(tmp_path / "a.jsonl", answers)
    assert "no call" in succeeds(*asked, "--answers", file, "--judge", "overlap", "--dry-run")
    assert "word overlap" in succeeds(*asked, *short, "--judge", "overlap")


def test_the_explorer():
    explorer = explore(settings=SHORT)
    try:
        explorer.run()
        assert explorer.wait(120)
    finally:
        explorer.close()
