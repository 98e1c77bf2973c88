"""Mutations of a valid file: of its bytes, and of the values in it where it is JSON or YAML."""

from __future__ import annotations

import json
import random
from typing import Any

import yaml

from vqa_train.store.seal import sealed

DEEP = 2000


def hostile_values() -> list[Any]:
    """What nobody expects at a place."""
    return [
        None, True, -1, 0, 2**63, -(2**63) - 1, 10**400, 1e308, -0.0, "", "..", "../../etc/passwd", "/etc/passwd", "a\x00b",
        "\ud800", "\u202e", "x" * 100_000, "💥", [], {}, [[]], {"": ""}, [None] * 1000, float("nan"), float("inf"),
        "vqa-train/store/999999", "C:\\x", "${HOME}", "!!python/name:os.system", " ", "\n", "1_0", "0x10", "NaN", b"\xff",
    ]  # fmt: skip


def mutate_bytes(rng: random.Random, data: bytes) -> bytes:
    """Up to eight small damages: flips, cuts, copies, overwrites, insertions."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        size = len(changed)
        at, length = rng.randrange(size + 1), rng.choice((1, 1, 2, 4, 16, 64))
        kind = rng.randrange(7)
        if kind == 0 and size:
            changed[at % size] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del changed[at : at + length]
        elif kind == 2:
            changed[at:at] = rng.randbytes(length)
        elif kind == 3:
            changed[at : at + length] = rng.choice((b"\x00", b"\xff", b"\x7f", b"\x80")) * length
        elif kind == 4:
            start = rng.randrange(size + 1)
            changed[at:at] = changed[start : start + length]
        elif kind == 5:
            del changed[at:]
        else:
            changed[at:at] = rng.choice(
                (
                    b'"',
                    b"{",
                    b"[",
                    b"\n",
                    b",",
                    b"- ",
                    b": ",
                    b"&a ",
                    b"*a ",
                    b"\xef\xbb\xbf",
                    b"\r",
                    b"%",
                    b"#",
                    b"1e999",
                    b"'",
                )
            )
    return bytes(changed)


def mutate_value(rng: random.Random, value: Any) -> Any:
    """`value` with one or a few of its places replaced, dropped, doubled or renamed."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 1, 3))):
        holder, key = _place(rng, value)
        if holder is None:
            return rng.choice(hostile_values())
        kind = rng.randrange(6)
        if kind == 0:
            holder.pop(key)
        elif kind == 1 and isinstance(holder, dict):
            holder[f"{key}x"] = holder[key]
        elif kind == 1:
            holder.append(holder[key])
        elif kind == 2 and isinstance(holder, dict):
            holder[rng.choice(("", "__class__", "schema", "x" * 300, "🙂"))] = holder.pop(key)
        else:
            holder[key] = rng.choice(hostile_values())
    return value


def _place(rng: random.Random, value: Any) -> tuple[Any, Any]:
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, child in items:
            places.append((node, key))
            walk(child)

    walk(value)
    return rng.choice(places) if places else (None, None)


def mutate(rng: random.Random, data: bytes, form: str) -> bytes:
    """A mutation of a seed of `form`; sealed files are often sealed anew, so that what comes after the seal is met."""
    if form == "bytes" or rng.random() < 0.3:
        return mutate_bytes(rng, data)
    if rng.random() < 0.02:
        opening, closing = rng.choice(((b"[", b"]"), (b'{"a":', b"}")))
        return opening * DEEP + closing * DEEP
    try:
        if form == "yaml":
            return yaml.safe_dump(mutate_value(rng, yaml.safe_load(data)), allow_unicode=True).encode(
                "utf-8", "surrogatepass"
            )
        if form == "lines":
            lines = [_dumps(mutate_value(rng, json.loads(line))) for line in data.splitlines()]
            return b"\n".join(lines) + b"\n"
        value = mutate_value(rng, json.loads(data))
        if form == "sealed" and isinstance(value, dict):
            return sealed(value)
        return _dumps(value)
    except (ValueError, TypeError, yaml.YAMLError):
        # Some hostile values cannot be written in this form.
        return mutate_bytes(rng, data)


def _dumps(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
