"""A site's rows are those with which its run began, or the run does not go on."""

from __future__ import annotations

import hashlib
import hmac
import secrets

from medfed.core.errors import DataError
from medfed.data.table import SiteTable
from medfed.engine.store import RunStore

KEY_BYTES = 32


def check_cohort(store: RunStore, table: SiteTable) -> None:
    """Store the keyed digest of a site's rows, or compare it with the one stored when the run began.

    The key is random and stays beside its digest, where only the owner reads: the digest tells nobody of the rows.
    Raises DataError where rows, patients, labels or splits have changed.
    """
    frozen = store.cohort(table.site)
    if frozen is None:
        key = secrets.token_bytes(KEY_BYTES)
        store.freeze_cohort(table.site, key + digest_of_rows(key, table))
    elif not hmac.compare_digest(frozen[KEY_BYTES:], digest_of_rows(frozen[:KEY_BYTES], table)):
        raise DataError(
            "the rows are not those with which this run began",
            where=table.site,
            remedy="bring the old rows back, or start a new run",
        )


def digest_of_rows(key: bytes, table: SiteTable) -> bytes:
    """HMAC-SHA-256 of a site's rows, patients, labels and splits, in their order."""
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
