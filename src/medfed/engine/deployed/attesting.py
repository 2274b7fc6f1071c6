"""Who has shown that it runs an allowed build, at both ends of a consortium.

The coordinator asks, since sites only answer: ``Attest`` carries its demand, and the site's ``Evidence`` carries the
site's own. Nonces are of whoever demands, and good for one answer. A party that was found wanting is refused by name
until the next job of the run asks anew.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from medfed.core.codec import Buffer, decode
from medfed.core.errors import MedFedError, Unattested
from medfed.core.protocols import Claim
from medfed.core.wire import Failure
from medfed.engine.deployed.carrier import Carrier
from medfed.engine.deployed.folders import CoordinatorFolder, SiteFolder
from medfed.engine.deployed.messages import Attest, Evidence, FromSite, ShownEvidence, ToSite
from medfed.engine.deployed.plausible import brief
from medfed.engine.simulation import COORDINATOR
from medfed.govern.attestation import check_evidence, check_measurement, evidence
from medfed.govern.entries import OFFICE, RefusalEntry
from medfed.govern.ledger import open_briefly
from medfed.spec.attestation import Attestation
from medfed.spec.consortium import load_consortium

_NONE = "none"
_NONCE_BYTES = 32
_NONCE = re.compile(r"[0-9a-f]{64}")


def _untold(party: str = "") -> str:
    raise Unattested("the TLS key of the connection is not known", where=party)


@dataclass(frozen=True)
class TlsKeys:
    """What a transport knows: own: SHA-256 of this party's TLS key; peer: that of whom a connection led to.

    Both raise Unattested where it is not known.
    """

    own: Callable[[], str] = _untold
    peer: Callable[[str], str] = _untold


@dataclass
class CoordinatorAttests:
    """The coordinator's side in one job of a run. shown: the measurement of each site that gave evidence."""

    folder: CoordinatorFolder
    run: str
    task: str
    carrier: Carrier
    tls: TlsKeys
    deadline: float
    shown: dict[str, str] = field(default_factory=dict)
    refused: dict[str, Unattested] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._demanded = load_consortium(self.folder.path / "consortium.yaml").attestation

    def ask(self, sites: list[str]) -> None:
        """Ask for evidence those that have neither given it nor been refused, if the consortium demands any."""
        if self._demanded.demand != _NONE:
            self._exchange([site for site in sites if site not in self.shown and site not in self.refused])

    def show(self, sites: list[str]) -> None:
        """Show the coordinator's own evidence to sites that demand it."""
        self._exchange(sites)

    def check(self, site: str) -> None:
        """Raise Unattested for a site that has not given what the consortium demands."""
        if site in self.refused:
            raise self.refused[site]
        if self._demanded.demand != _NONE and site not in self.shown:
            raise Unattested("it has given no evidence of its build yet", where=site)

    def _exchange(self, sites: list[str]) -> None:
        nonces = {site: secrets.token_hex(_NONCE_BYTES) for site in sites}
        asked = {site: self._message(Attest(self._demanded.demand, nonce)) for site, nonce in nonces.items()}
        wanted: dict[str, ToSite] = {}
        for site, content in self.carrier.carry(asked, self.deadline) if asked else ():
            try:
                answer = _evidence_of(content)
                if self._demanded.demand != _NONE:
                    self._verify(site, answer, nonces[site])
                if answer.demand != _NONE:
                    wanted[site] = self._message(self._own(answer))
            except MedFedError as error:
                self._refuse(site, error)
        for _ in self.carrier.carry(wanted, self.deadline) if wanted else ():
            pass  # whether it was believed, the site's answer to the proposal says

    def _message(self, content: Attest | ShownEvidence) -> ToSite:
        return ToSite(self.run, self.task, (), 0, content)

    def _verify(self, site: str, answer: Evidence, nonce: str) -> None:
        claim = Claim(site, self.tls.peer(site), nonce)
        key = self.folder.site_keys().get(site)
        if key is None:
            raise Unattested("its key is not known: it was not admitted", where=site)
        self.shown[site] = check_evidence(self._demanded, answer.kind, answer.token, claim, key)

    def _own(self, answer: Evidence) -> ShownEvidence:
        claim = Claim(COORDINATOR, self.tls.own(), answer.nonce)
        return ShownEvidence(answer.demand, evidence(answer.demand, claim, self.folder.key()))

    def _refuse(self, site: str, error: MedFedError) -> None:
        """By name, and in the coordinator's own ledger."""
        self.refused[site] = Unattested(brief(error.cause), remedy=error.remedy, where=site)
        with open_briefly(self.folder.ledger(OFFICE), self.folder.key(), COORDINATOR) as ledger:
            ledger.append(RefusalEntry(OFFICE, 0, 0, "", Unattested.code, f"{site}: {brief(error.cause)}"))


def _evidence_of(content: Buffer) -> Evidence:
    answer = decode(content, FromSite).content
    if isinstance(answer, Failure):
        raise Unattested(f"it gave no evidence of its build: {answer.sentence}")
    if not isinstance(answer, Evidence):
        raise Unattested("it gave no evidence of its build, but another answer")
    return answer


@dataclass
class SiteAttests:
    """The site's side. One nonce, for one run, is open at a time, and is gone with the first evidence."""

    folder: SiteFolder
    tls: TlsKeys
    asked: tuple[str, str] | None = None
    shown: dict[str, str] = field(default_factory=dict)

    def answer(self, demanded: Attestation, run: str, asked: Attest) -> Evidence:
        """This site's evidence, where it is asked for, and its own demand with a fresh nonce."""
        token = b""
        if not _NONCE.fullmatch(asked.nonce):
            raise Unattested("the question has no nonce of 64 hexadecimal digits", where=COORDINATOR)
        if asked.kind != _NONE:
            claim = Claim(self.folder.site, self.tls.own(), asked.nonce)
            token = evidence(asked.kind, claim, self.folder.key())
        nonce = secrets.token_hex(_NONCE_BYTES)
        self.asked = run, nonce
        return Evidence(asked.kind, token, demanded.demand, nonce)

    def see(self, demanded: Attestation, run: str, given: ShownEvidence) -> None:
        """Take the coordinator's evidence. Raises Unattested where it is not what site.yaml demands."""
        asked, self.asked = self.asked, None
        if asked is None or asked[0] != run:
            raise Unattested("evidence came that nobody asked for, or for the second time", where=COORDINATOR)
        claim = Claim(COORDINATOR, self.tls.peer(COORDINATOR), asked[1])
        self.shown[run] = check_evidence(demanded, given.kind, given.token, claim, self.folder.coordinator_key())

    def check(self, demanded: Attestation, run: str) -> None:
        """Raise Unattested where site.yaml, as it is now, demands evidence that the coordinator has not given."""
        if demanded.demand == _NONE:
            return
        if run not in self.shown:
            raise Unattested(
                f"this site demands evidence of the coordinator's build ({demanded.demand}), and none was given",
                where=COORDINATOR,
            )
        check_measurement(demanded, self.shown[run], COORDINATOR)
