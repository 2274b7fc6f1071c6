"""Signed heads: a party's word, under its key, that its ledger had this size and this Merkle root."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, get_type_hints

from medfed.core.messages import Message
from medfed.govern.entries import CanonicalForm, expect, now, parse_object
from medfed.govern.keys import SigningKey, VerifyKey

_DOMAIN = b"medfed ledger head 1\0"
_LONGEST_TIME = 40


@dataclass(frozen=True)
class Head(Message, wire="ledger.head"):
    """The head of a ledger after a round; ``root`` and ``signature`` (Ed25519) are in hex.

    The signature covers the party's name too, so a head cannot pass for another party's.
    """

    size: int
    root: str
    round: int
    time: str
    signature: str

    @classmethod
    def sign(cls, party: str, size: int, root: bytes, round: int, key: SigningKey) -> Head:  # noqa: A002
        """A head signed now."""
        signed = _Signed(party, size, root.hex(), round, now())
        return cls(size, signed.root, round, signed.time, key.sign(signed.content).hex())

    def verifies(self, party: str, key: VerifyKey) -> bool:
        """Whether that party signed this head with the private half of ``key``.

        Of the spellings that hex allows for a signature, only the one that :meth:`sign` writes is accepted.
        """
        if len(self.time) > _LONGEST_TIME:
            return False
        try:
            signature = bytes.fromhex(self.signature)
        except ValueError:
            return False
        signed = _Signed(party, self.size, self.root, self.round, self.time)
        return signature.hex() == self.signature and key.verifies(signature, signed.content)


@dataclass(frozen=True)
class Seen:
    """What is remembered of a party's head: its size, and its root in hex."""

    size: int
    root: str


class _Signed(NamedTuple):
    """What a head's signature covers."""

    party: str
    size: int
    root: str
    round: int
    time: str

    @property
    def content(self) -> bytes:
        """The signed bytes."""
        return _DOMAIN + _SIGNED_FORM.encode(self)


def encode_head(head: Head) -> bytes:
    """The head's line in ``<party>.heads.jsonl``, without its newline."""
    return _FORM.encode(head)


def decode_head(line: bytes) -> Head:
    """The head of a line. Raises ValueError where :func:`encode_head` would not write just that."""
    fields = parse_object(line)
    if fields.keys() != _TYPES.keys():
        raise ValueError(f"a head has the fields {', '.join(sorted(_TYPES))}")
    head = Head(**{name: expect(kind, fields[name]) for name, kind in _TYPES.items()})
    if encode_head(head) != line:
        raise ValueError("it is not in canonical form")
    return head


_TYPES: dict[str, type] = {"size": int, "root": str, "round": int, "time": str, "signature": str}
_FORM = CanonicalForm(_TYPES)
_SIGNED_FORM = CanonicalForm(get_type_hints(_Signed))
