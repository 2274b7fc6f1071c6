"""Which of a network's numbers a run trains and sends: the one mechanism behind frozen layers and pruned units.

An algorithm, the messages it sends and what protects them know a flat vector of the trained elements alone. The other
elements are given to each site once (:mod:`medfed.engine.partial`), and a network puts both together again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from medfed.core.errors import CodecError
from medfed.core.messages import Message, Vector


@dataclass(frozen=True, eq=False)
class Elements(Message, wire="models.elements"):
    """The trained elements of a network's flat vector, and the values of those that stay as they are.

    length: D, of the whole vector; 0 stands for a network that is trained as a whole. trained: a bit for each element,
    in the order of :data:`Vector`, packed into bytes, the first of them highest: ⌈D/8⌉ bytes. fixed: the values of the
    elements that are not trained, in order.
    """

    length: int
    trained: NDArray[np.uint8]
    fixed: Vector

    @classmethod
    def of(cls, whole: Vector, trained: NDArray[np.bool_]) -> Elements:
        """The elements where ``trained`` (D,) is true; all others keep their values in ``whole`` (D,)."""
        return cls(whole.size, np.packbits(trained), whole[~trained])

    @property
    def everything(self) -> bool:
        """Whether the network is trained as a whole."""
        return self.length == 0

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """Which elements are trained, shape (D,). Raises CodecError where the parts do not fit together."""
        if self.length < 0 or self.trained.shape != (-(-self.length // 8),):
            raise CodecError("the trained elements of a network have another length than they say")
        mask = np.unpackbits(self.trained, count=self.length).astype(bool)
        if self.fixed.shape != (self.length - np.count_nonzero(mask),) or not np.isfinite(self.fixed).all():
            raise CodecError("the elements of a network that are not trained do not fit those that are")
        return mask

    def chosen(self, whole: Vector) -> Vector:
        """The trained elements (d,) of a whole vector (D,)."""
        if self.everything:
            return whole
        chosen: Vector = whole[self.mask]
        return chosen

    def whole(self, chosen: Vector) -> Vector:
        """The whole vector (D,) from its trained elements (d,)."""
        if self.everything:
            return chosen
        whole = np.empty(self.length, np.float32)
        whole[self.mask], whole[~self.mask] = chosen, self.fixed
        return whole

    def same(self, other: Elements) -> bool:
        """Whether both train the same elements, and keep the others at the same values."""
        if self is other or self.length != other.length:
            return self is other
        return np.array_equal(self.trained, other.trained) and np.array_equal(self.fixed, other.fixed)


EVERYTHING = Elements(0, np.empty(0, np.uint8), np.empty(0, np.float32))
"""A network that is trained and sent as a whole."""
