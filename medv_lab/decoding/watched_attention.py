"""Eager attention that shows its weights to whoever watches the passes of its own thread.

What is watched is known to the thread alone (a context variable): the model, which other threads may be using in the
same moment, is not touched. A configuration that is asked for its attention in a watched thread names this one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import eager_attention_forward

WATCHED = "watched_eager"
Watcher = Callable[
    [int, torch.Tensor], None
]  # takes a layer's number and its weights (rows, heads, queries, keys)

_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Show a watcher the attention of every language model's pass that this thread makes inside."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def is_watched() -> bool:
    """Return True while this thread's passes are watched; every layer is then computed at every index."""
    # a compiled graph cannot read the variable, and shows nothing
    return not torch.compiler.is_compiling() and _watcher.get() is not None


def attend(module: torch.nn.Module, *inputs: Any, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend as eager attention does, and show the weights."""
    output, weights = eager_attention_forward(module, *inputs, **options)
    watcher = _watcher.get()
    if watcher is not None:
        watcher(module.layer_idx, weights)
    return output, weights


ALL_ATTENTION_FUNCTIONS.register(WATCHED, attend)
ALL_MASK_ATTENTION_FUNCTIONS.register(WATCHED, ALL_MASK_ATTENTION_FUNCTIONS["eager"])
