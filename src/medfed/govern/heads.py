"""Signed heads: a party's word, under its key, that its ledger had this size and this Merkle root."""

from __future__ import annotations

from dataclasses import dataclass

from medfed.core.messages import Message
from medfed.govern.entries import canonical, expect, now, parse_object
from medfed.govern.keys import SigningKey, VerifyKey

_DOMAIN = b"medfed ledger head 1\0"


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
        time = now()
        signature = key.sign(_signed_bytes(party, size, root.hex(), round, time))
        return cls(size, root.hex(), round, time, signature.hex())

    def verifies(self, party: str, key: VerifyKey) -> bool:
        """Whether that party signed this head with the private half of ``key``.

        Of the spellings that hex allows for a signature, only the one that :meth:`sign` writes is accepted.
        """
        try:
            signature = bytes.fromhex(self.signature)
        except ValueError:
            return False
        return signature.hex() == self.signature and key.verifies(
            signature, _signed_bytes(party, self.size, self.root, self.round, self.time)
        )


def _signed_bytes(party: str, size: int, root: str, round_: int, time: str) -> bytes:
    return _DOMAIN + canonical({"party": party, "size": size, "root": root, "round": round_, "time": time})


def encode_head(head: Head) -> bytes:
    """The head's line in ``<party>.heads.jsonl``, without its newline."""
    return canonical({name: getattr(head, name) for name in _TYPES})


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
