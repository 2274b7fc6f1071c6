"""By which mechanism a task's totals are formed, at the coordinator and at each site."""

from __future__ import annotations

from collections.abc import Mapping

from medfed.engine.federation import HiddenSums, share
from medfed.engine.hiding import FormedSums, Hiding, Openings
from medfed.privacy.agreement import Signs, Verifies
from medfed.privacy.extra import require_he
from medfed.spec.task import TaskSpec


def sums_of(spec: TaskSpec, sites: int, identities: Mapping[str, Verifies]) -> HiddenSums | None:
    """How the coordinator forms totals of so many sites; None: in the clear. Raises MissingExtra."""
    bound = spec.privacy.update_bound
    match spec.privacy.aggregation:
        case "secure":
            from medfed.engine.securesum import SecureSums

            return SecureSums(sites, identities, bound)
        case "encrypted":
            from medfed.engine.encryptedsum import EncryptedSums

            require_he()
            return EncryptedSums(sites, identities, bound)
    return None


def hiding_at(
    site: str,
    spec: TaskSpec,
    belongs: tuple[str, str],
    identity: Signs,
    parties: Mapping[str, Verifies],
    sums: FormedSums,
    asked: int | None = None,
) -> Hiding | None:
    """A site's part in hidden sums; None where totals are in the clear. Raises MissingExtra.

    belongs: the task's digest and the run. parties: the identities of all its sites. asked: the sites that are asked in
    a sum at least; a cohort's size if not given.
    """
    least = share(spec.federation.cohort, len(parties)) if asked is None else asked
    openings = Openings(*belongs, least, len(parties), sums)
    match spec.privacy.aggregation:
        case "secure":
            from medfed.engine.masking import Masking

            return Masking(site, identity, parties, openings, spec.privacy.update_bound)
        case "encrypted":
            from medfed.engine.encrypting import Encrypting

            require_he()
            return Encrypting(site, identity, parties, openings, spec.privacy.update_bound)
    return None
