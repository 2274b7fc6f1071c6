"""A site's rows are those with which its run began, or the run does not go on."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from pathlib import Path

from medfed.core.errors import DataError
from medfed.core.files import write_atomically
from medfed.data.table import SiteTable

_KEY_BYTES = 32


def check_cohort(path: Path, table: SiteTable) -> None:
    """Write the keyed digest of a site's rows, or compare it with the one written when the run began.

    The key is random and stays in the same file, which only its owner reads: the digest tells nobody of the rows.
    Raises DataError where rows, patients, labels or splits have changed.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        key = secrets.token_bytes(_KEY_BYTES)
        write_atomically(path, key + _digest(key, table), mode=0o600)
        return
    content = path.read_bytes()
    if not hmac.compare_digest(content[_KEY_BYTES:], _digest(content[:_KEY_BYTES], table)):
        raise DataError(
            "the rows are not those with which this run began",
            where=table.site,
            remedy="bring the old rows back, or start a new run",
        )


def _digest(key: bytes, table: SiteTable) -> bytes:
    hashed = hmac.new(key, digestmod=hashlib.sha256)
    for name, values in (
        *table.columns.items(),
        ("ids", table.ids),
        ("targets", table.targets),
        ("split", table.split),
    ):
        content = repr(values.tolist()).encode() if values.dtype == object else values.tobytes()
        hashed.update(f"{name}\0{len(content)}\0".encode() + content)
    return hashed.digest()
