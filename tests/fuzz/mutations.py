"""Damage to what is read: bytes changed, cut and repeated, values of JSON replaced by what nobody expects."""

import copy
import random
from typing import Any

HOSTILE = (
    *(None, True, -1, 0, 1.5, 10**9, 10**30, float("nan"), float("inf"), -float("inf")),
    *("", "x" * 5000, "\ud800", "\0", "../../etc/passwd", "<|mdm_mask|>", "\u2028", "9" * 5000, "\x1b[31m"),
    *([], {}, [[]], {"": {}}, [None], ["a"] * 1000),
)
POISON = (b"\0" * 64, b"\xff" * 64, b"[" * 5000, b'{"a":' * 5000, b"\n", b"\r", b'"', b"\\", b"9" * 5000)


def damage_bytes(content: bytes, rng: random.Random) -> bytes:
    """Change, cut, repeat or insert some bytes, one to four times."""
    content = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(content) + 1)
        kind = rng.randrange(5)
        if kind == 0 and content:
            for _ in range(rng.randint(1, 8)):
                content[rng.randrange(len(content))] = rng.randrange(256)
        elif kind == 1:
            del content[at:]
        elif kind == 2:
            content[at:at] = rng.choice(POISON)
        elif kind == 3:
            content[at:at] = content[at : at + rng.randint(1, 200)] * rng.randint(1, 5)
        else:
            del content[at : at + rng.randint(1, 64)]
    return bytes(content)


def damage_value(value: Any, rng: random.Random) -> Any:
    """Replace, drop, wrap or rename something in a JSON value, one to three times."""
    whole = [copy.deepcopy(value)]
    for _ in range(rng.randint(1, 3)):
        parent, key = rng.choice(list(_places(whole)))
        kind = rng.randrange(5)
        if kind <= 1:
            parent[key] = copy.deepcopy(rng.choice(HOSTILE))
        elif kind == 2 and parent is not whole:
            del parent[key]
        elif kind == 3:
            for _ in range(rng.choice((1, 3, 100))):
                parent[key] = [parent[key]] if rng.random() < 0.5 else {"a": parent[key]}
        elif isinstance(parent, dict):
            parent[rng.choice(["", "unknown", str(key).upper()])] = parent.pop(key)
    return whole[0]


def _places(part: Any):
    """All places of a value: (list or dict, index or key)."""
    keys = range(len(part)) if isinstance(part, list) else list(part) if isinstance(part, dict) else ()
    for key in keys:
        yield part, key
        yield from _places(part[key])
