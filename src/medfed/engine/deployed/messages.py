"""What travels between a coordinator and a deployed site, around a request and its reply.

Every message to a site shows it the heads of the other parties' ledgers, and every answer shows the coordinator the
site's own: a history that was once shown can then be rewritten by nobody without being found out.
"""

from __future__ import annotations

from dataclasses import dataclass

from medfed.core.messages import Message
from medfed.govern.heads import Head
from medfed.govern.proposals import Proposal


@dataclass(frozen=True, eq=False)
class ShownHead(Message, wire="deployed.shown_head"):
    """A party's signed head, and the proof (RFC 6962, 2.1.2; in hex) that it extends that party's head before it.

    since: the size of that head before it (0: none, and no proof).
    """

    party: str
    head: Head
    since: int
    proof: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Figure(Message, wire="deployed.figure"):
    """A metric of a site, or of all (``federated``); value: None where it is withheld or does not exist."""

    site: str
    metric: str
    value: float | None


@dataclass(frozen=True, eq=False)
class RoundFigures(Message, wire="deployed.round_figures"):
    """What was measured after a round, for the people at a site to see how the run goes."""

    round: int
    figures: tuple[Figure, ...]


@dataclass(frozen=True, eq=False)
class ToSite(Message, wire="deployed.to_site"):
    """One message to a site. run: id of the run; task: SHA-256 of its resolved task.

    heads: of the other parties, as far as they are new. known: the size of the site's own last head that the
    coordinator holds, from which the site proves that the next one goes on. told: the rounds that were measured since
    the site last answered.
    """

    run: str
    task: str
    heads: tuple[ShownHead, ...]
    known: int
    content: Message
    told: tuple[RoundFigures, ...] = ()


@dataclass(frozen=True, eq=False)
class FromSite(Message, wire="deployed.from_site"):
    """A site's answer, and its newest head; none outside of a run.

    known: the size of the coordinator's last head that the site holds.
    """

    site: str
    head: ShownHead | None
    known: int
    content: Message


@dataclass(frozen=True, eq=False)
class PartyKey(Message, wire="deployed.party_key"):
    """A party's name and its Ed25519 public key (raw, in hex), by which its heads verify."""

    party: str
    key: str


@dataclass(frozen=True, eq=False)
class Propose(Message, wire="deployed.propose"):
    """A task to be approved, and the keys of the parties that would take part."""

    proposal: Proposal
    parties: tuple[PartyKey, ...]


@dataclass(frozen=True, eq=False)
class Standing(Message, wire="deployed.standing"):
    """How a proposal stands at a site: its status, and a sentence that says what is wanting."""

    status: str
    sentence: str


@dataclass(frozen=True, eq=False)
class Attest(Message, wire="deployed.attest"):
    """The coordinator demands evidence of the site's build (not with kind ``none``), and asks what the site does."""

    kind: str
    nonce: str


@dataclass(frozen=True, eq=False)
class Evidence(Message, wire="deployed.evidence"):
    """The site's evidence, and the kind that it demands itself of the coordinator, with its own nonce."""

    kind: str
    token: bytes
    demand: str
    nonce: str


@dataclass(frozen=True, eq=False)
class ShownEvidence(Message, wire="deployed.shown_evidence"):
    """The coordinator's evidence for the site's nonce."""

    kind: str
    token: bytes


@dataclass(frozen=True, eq=False)
class EndRun(Message, wire="deployed.end_run"):
    """The run is over; ``status`` goes into the site's ledger."""

    status: str


@dataclass(frozen=True, eq=False)
class Ended(Message, wire="deployed.ended"):
    """The site closed its ledger of the run."""


@dataclass(frozen=True, eq=False)
class Trained(Message, wire="deployed.trained"):
    """The trained model, for the site to keep: its safetensors, and the encoding of the rows that it reads."""

    model: bytes
    encoding: bytes


@dataclass(frozen=True, eq=False)
class Kept(Message, wire="deployed.kept"):
    """The site has the model on its disk."""
