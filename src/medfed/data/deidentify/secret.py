"""The site's own secret, from which every pseudonym, UID and date shift is derived."""

from __future__ import annotations

import hmac
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path

from medfed.core.errors import UserError
from medfed.core.files import write_once

_HEAD = "medfed de-identification key 1"
_BYTES = 32


@dataclass(frozen=True)
class Secret:
    """256 bits that never leave the site: who has them can tell whose file it was."""

    key: bytes = field(repr=False)

    def mac(self, purpose: str, text: str | bytes) -> bytes:
        """HMAC-SHA-256 (RFC 2104) of a text for one purpose: 32 bytes; purposes never collide."""
        data = text.encode(errors="surrogatepass") if isinstance(text, str) else text
        return hmac.digest(self.key, purpose.encode() + b"\0" + data, "sha256")

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that tell keys apart, and nothing of the key."""
        return self.mac("fingerprint", b"").hex()[:16]


def load_or_create_secret(path: Path) -> Secret:
    """The secret in a file, which the first call makes from the operating system's randomness, for its owner alone.

    Two processes that call at once get the same. Raises UserError where others may read the file, or where it is no
    such key, or cannot be read or written.
    """
    if not path.exists():
        write_once(path, f"{_HEAD}\n{secrets.token_hex(_BYTES)}\n".encode(), mode=0o600)
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise UserError("others than its owner may read this key", where=str(path), remedy=f"chmod 600 {path}")
        lines = path.read_bytes().decode("ascii").split("\n")
        head, digits = lines[0], lines[1]
        key = bytes.fromhex(digits)
    except OSError as error:
        raise UserError(f"the key cannot be read ({error.strerror})", where=str(path)) from error
    except (ValueError, IndexError) as error:
        raise _no_key(path) from error
    if head != _HEAD or len(key) != _BYTES:
        raise _no_key(path)
    return Secret(key)


def _no_key(path: Path) -> UserError:
    return UserError(
        "this is not a key of medfed site deidentify",
        where=str(path),
        remedy="bring back a copy of the key; with a new one, the same patients get other pseudonyms",
    )
