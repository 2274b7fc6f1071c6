"""Evidence of builds: which kinds there are, and whether what a peer showed is what was demanded."""

from __future__ import annotations

from medfed.core.errors import MissingExtra, Unattested, UserError
from medfed.core.protocols import Attestor, Claim
from medfed.core.registry import Registry
from medfed.govern.keys import SigningKey, VerifyKey
from medfed.spec.attestation import Attestation

ATTESTORS: Registry[type[Attestor]] = Registry(
    "kind of evidence", "medfed.govern.attestors", "Attestor", group="medfed.attestation"
)


def evidence(kind: str, claim: Claim, key: SigningKey) -> bytes:
    """A token of this kind. Raises Unattested where this machine knows no such kind; what its attestor raises."""
    return _attestor(kind).generate(claim, key.sign)


def check_evidence(demanded: Attestation, kind: str, token: bytes, claim: Claim, key: VerifyKey) -> str:
    """The measurement that a token proves. key: the party's own.

    Raises Unattested where none came or evidence of another kind, where it does not verify, and where the build is not
    among those that are allowed.
    """
    if kind != demanded.demand:
        came = "none was given" if kind == "none" else "another kind was given"
        raise Unattested(f"evidence of the kind {demanded.demand} is demanded, and {came}", where=claim.party)
    try:
        measurement = _attestor(kind).verify(token, claim, key.verifies)
    except Unattested as error:
        raise Unattested(error.cause, remedy=error.remedy, where=claim.party) from error
    check_measurement(demanded, measurement, claim.party)
    return measurement


def check_measurement(demanded: Attestation, measurement: str, party: str) -> None:
    """Raise Unattested where this build is not among those that are allowed."""
    if measurement not in demanded.measurements:
        raise Unattested(
            f"the build that runs there is not among those allowed (its measurement: {measurement[:64]})",
            where=party,
            remedy="install the agreed version there, or add its measurement to attestation.measurements here",
        )


def _attestor(kind: str) -> Attestor:
    try:
        return ATTESTORS.get(kind)()
    except MissingExtra:
        raise
    except UserError as error:
        raise Unattested(f"no kind of evidence is called {kind!r} here", remedy=error.remedy) from error
