"""Patients whom two simulated sites have, found by a keyed hash of their ids.

Between machines this is the set intersection's work (:mod:`medfed.privacy.psi`): here all rows are in one place anyhow,
and the key, drawn anew each time, only keeps the ids themselves out of what is compared.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping

from medfed.privacy.identifiers import normalised


def repeated_patients(ids: Mapping[str, Iterable[str]]) -> dict[str, int]:
    """Site → how many of its patients another site has too; sites without any are left out."""
    key = secrets.token_bytes(32)
    tokens = {site: {_token(key, patient) for patient in patients} for site, patients in ids.items()}
    at = Counter(token for found in tokens.values() for token in found)
    counts = {site: sum(at[token] > 1 for token in found) for site, found in tokens.items()}
    return {site: count for site, count in counts.items() if count}


def _token(key: bytes, patient: str) -> bytes:
    return hmac.digest(key, normalised(patient).encode(errors="surrogatepass"), hashlib.sha256)
