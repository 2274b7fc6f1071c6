"""A summed message whose updates are compressed, with error feedback: at the site before it leaves, and back.

Error feedback (Seide et al. 2014; Karimireddy et al. 2019, Algorithm 2): a site sends C(p) of p = update + e, and keeps
e ← p − C(p) for the next round, so that nothing is lost for good.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from medfed.core.errors import CodecError
from medfed.core.messages import Message, Vector, additive_fields, field_names, out_of_bounds
from medfed.engine.compression.packed import Exact, HalfPrecision, Int8, Packed, Sparse
from medfed.engine.compression.squeezed import Squeezed
from medfed.spec.task import Compression

M = TypeVar("M", bound=Message)

_NOTHING = np.empty(0, np.float32)


@dataclass(frozen=True, eq=False)
class Compressed(Message, wire="compression.compressed"):
    """A message with empty arrays in place of its updates, and these as they are sent, in the order of its fields."""

    content: Message
    updates: tuple[Message, ...]


@dataclass(frozen=True, eq=False)
class Residual(Message, wire="compression.residual"):
    """e: what a site has not sent yet of each update."""

    errors: tuple[Vector, ...]


def update_fields(kind: type[Message]) -> list[str]:
    """The fields of a summed message that a task may have sent compressed."""
    return [name for name, declared in additive_fields(kind).items() if declared.update]


def compressed(body: Message, compression: Compression, residual: Residual | None) -> tuple[Message, Residual | None]:
    """What is sent of a summed message, and what is kept for the next time; the message itself where it has no updates.

    ``body``'s arrays are left as they are. A residual of other shapes belongs to another model, and is dropped.
    """
    names = update_fields(type(body))
    if not names:
        return body, None
    wanted = [getattr(body, name) for name in names]
    feedback = compression.name in ("int8", "topk")
    if feedback and residual is not None and [e.shape for e in residual.errors] == [w.shape for w in wanted]:
        wanted = [update + error for update, error in zip(wanted, residual.errors, strict=True)]
    packed = [_packed(update, compression) for update in wanted]
    kept = None
    if feedback:
        kept = Residual(tuple(p - each.unpacked() for p, each in zip(wanted, packed, strict=True)))
    content = replace(body, **dict.fromkeys(names, _NOTHING))  # type: ignore[type-var]
    sent = tuple(Squeezed.pack(each) if compression.zstd else each for each in packed)
    return Compressed(content, sent), kept


def expanded(message: Compressed, kind: type[M], most: int) -> M:
    """The summed message of this kind again, whose updates have ``most`` elements at most.

    Raises CodecError for what no site's own software sends.
    """
    content = message.content
    if not isinstance(content, kind):
        raise CodecError("another message came compressed than was asked for")
    names = update_fields(kind)
    if len(names) != len(message.updates) or any(getattr(content, name).size for name in names):
        raise CodecError("a compressed message has other updates than its kind")
    updates = [_unpacked(each, most) for each in message.updates]
    whole = replace(content, **dict(zip(names, updates, strict=True)))  # type: ignore[type-var]
    if (name := out_of_bounds(whole)) is not None:
        raise CodecError(f"its {name!r} is not finite or exceeds the declared bound")
    return whole


def longest(message: Message) -> int:
    """The elements of a message's longest array: no update is longer than the weights that it changes."""
    values = [getattr(message, name) for name in field_names(type(message))]
    return max((value.size for value in values if isinstance(value, np.ndarray)), default=0)


def _packed(update: Vector, compression: Compression) -> Exact | HalfPrecision | Int8 | Sparse:
    match compression.name:
        case "bfloat16":
            return HalfPrecision.pack(update)
        case "int8":
            return Int8.pack(update)
        case "topk":
            return Sparse.pack(update, compression.fraction)
        case _:
            return Exact(update)


def _unpacked(update: Message, most: int) -> Vector:
    packed = update.opened(most) if isinstance(update, Squeezed) else update
    if not isinstance(packed, Packed) or packed.size() > most:
        raise CodecError("a compressed update is larger than there is reason for")
    return packed.unpacked()
