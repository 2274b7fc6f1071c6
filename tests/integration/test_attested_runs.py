"""Evidence of builds in a consortium: who demands it, who gives it, and what a relayed or repeated one is worth."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from consortium_in_memory import SITES, Consortium, MemoryCarrier, task_over

from medfed.core.codec import decode, encode
from medfed.core.errors import QuorumLost, Unattested
from medfed.engine.deployed.attesting import TlsKeys
from medfed.engine.deployed.conduct import Conductor
from medfed.engine.deployed.messages import Evidence, FromSite, ShownEvidence, ToSite
from medfed.engine.deployed.site import DeployedSite
from medfed.govern.attestors.software import measured
from medfed.govern.entries import OFFICE

TLS = {party: f"{number:02x}" * 32 for number, party in enumerate(("coordinator", *SITES))}
OTHER = "0" * 64


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    return Consortium.make(tmp_path)


def demand_of_sites(consortium: Consortium, measurement: str, kind: str = "software") -> None:
    path = consortium.coordinator.path / "consortium.yaml"
    about = json.loads(path.read_text())
    path.write_text(json.dumps(about | {"attestation": {"demand": kind, "measurements": [measurement]}}))


def demand_of_coordinator(consortium: Consortium, site: str, measurement: str) -> None:
    path = consortium.sites[site].settings
    path.write_text(path.read_text() + f"attestation: {{demand: software, measurements: ['{measurement}']}}\n")


def tls_of(party: str) -> TlsKeys:
    return TlsKeys(lambda: TLS[party], lambda peer: TLS[peer])


def sites_of(consortium: Consortium) -> dict[str, DeployedSite]:
    return {site: DeployedSite(folder, tls_of(site)) for site, folder in consortium.sites.items()}


def conduct(consortium: Consortium, carrier: MemoryCarrier, **federation: object) -> list[dict[str, Any]]:
    """Conduct an approved run; what its events tell."""
    submission = consortium.submit(task_over(dict.fromkeys(SITES, "rows"), **federation))
    consortium.approve(submission.proposal())
    tls = tls_of("coordinator")
    Conductor(consortium.coordinator, submission, carrier, lambda site: None, tls=tls).conduct()
    return [event for _, event in submission.events()]


def refusals(folder: Path, party: str) -> list[str]:
    path = folder / f"{party}.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line["sentence"] for line in lines if line["kind"] == "refusal" and line["code"] == "attestation"]


def test_with_allowed_builds_at_both_ends_the_run_is_as_ever(consortium: Consortium) -> None:
    demand_of_sites(consortium, measured())
    demand_of_coordinator(consortium, "nord", measured())
    carrier = MemoryCarrier(sites_of(consortium))
    told = conduct(consortium, carrier)
    assert sum(event["event"] == "round" for event in told) == 3
    assert not any(event.get("absent") for event in told)


def test_where_nothing_is_demanded_nothing_is_asked(consortium: Consortium) -> None:
    carrier = MemoryCarrier(sites_of(consortium))
    conduct(consortium, carrier)
    assert not any(b"attest" in content or b"evidence" in content for _, _, content in carrier.spied)


def test_sites_of_another_build_are_refused_before_any_step(consortium: Consortium) -> None:
    demand_of_sites(consortium, OTHER)
    carrier = MemoryCarrier(sites_of(consortium))
    with pytest.raises(Unattested, match="not among those allowed") as refused:
        conduct(consortium, carrier)
    assert refused.value.exit_status == 3 and refused.value.where in SITES
    assert len(carrier.spied) == 2 * len(SITES), "a question and an answer each, and no proposal"
    found = refusals(consortium.coordinator.ledger(OFFICE), "coordinator")
    assert [each.split(":")[0] for each in found] == sorted(SITES)


def test_a_coordinator_of_another_build_is_refused_before_any_step(consortium: Consortium) -> None:
    demand_of_coordinator(consortium, "nord", OTHER)
    carrier = MemoryCarrier(sites_of(consortium))
    with pytest.raises(Unattested, match="demands evidence") as refused:
        conduct(consortium, carrier, quorum=1.0)
    assert refused.value.where == "nord"
    found = refusals(consortium.sites["nord"].ledger(OFFICE), "nord")
    assert any("not among those allowed" in each for each in found)
    assert not list(consortium.sites["nord"].ledger("x").parent.glob("[0-9a-f]*")), "no run was opened there"


def test_the_others_go_on_where_the_quorum_allows_it(consortium: Consortium) -> None:
    demand_of_coordinator(consortium, "nord", OTHER)
    told = conduct(consortium, MemoryCarrier(sites_of(consortium)), quorum=0.75)
    (begun,) = [event for event in told if event["event"] == "begun"]
    assert begun["sites"] == sorted(set(SITES) - {"nord"})


class Meddling(MemoryCarrier):
    """Changes the answers that carry evidence, or the coordinator's own evidence."""

    change: Callable[[str, Evidence], Evidence] = staticmethod(lambda site, given: given)
    shown: Callable[[str, ToSite], ToSite] = staticmethod(lambda site, message: message)

    def carry(self, messages: Mapping[str, ToSite], deadline: float | None) -> Iterator[tuple[str, bytes]]:
        messages = {site: self.shown(site, message) for site, message in messages.items()}
        for site, answer in super().carry(messages, deadline):
            opened = decode(answer, FromSite)
            if isinstance(opened.content, Evidence):
                content = self.change(site, opened.content)
                yield site, encode(FromSite(opened.site, opened.head, opened.known, content))
            else:
                yield site, answer


def with_token(given: Evidence, token: bytes, kind: str = "software") -> Evidence:
    return Evidence(kind, token, given.demand, given.nonce)


def test_a_site_that_shows_anothers_evidence_is_refused(consortium: Consortium) -> None:
    """The relay: nord hands on the token that ost gave."""
    demand_of_sites(consortium, measured())
    carrier = Meddling(sites_of(consortium))
    tokens: dict[str, bytes] = {}

    def change(site: str, given: Evidence) -> Evidence:
        tokens[site] = given.token
        return with_token(given, tokens["nord"]) if site == "ost" else given

    carrier.change = change
    with pytest.raises(Unattested, match="not signed by this party's key") as refused:
        conduct(consortium, carrier)
    assert refused.value.where == "ost"


def test_evidence_for_another_connection_is_refused(consortium: Consortium) -> None:
    demand_of_sites(consortium, measured())
    sites = sites_of(consortium)
    sites["west"] = DeployedSite(consortium.sites["west"], TlsKeys(lambda: "ee" * 32, lambda peer: TLS[peer]))
    with pytest.raises(Unattested, match="another TLS key") as refused:
        conduct(consortium, MemoryCarrier(sites))
    assert refused.value.where == "west"


def test_evidence_of_an_earlier_run_is_refused(consortium: Consortium) -> None:
    demand_of_sites(consortium, measured())
    carrier = Meddling(sites_of(consortium))
    old: dict[str, bytes] = {}

    def change(site: str, given: Evidence) -> Evidence:
        return with_token(given, old.setdefault(site, given.token))

    carrier.change = change
    conduct(consortium, carrier)
    with pytest.raises(Unattested, match="not fresh"):
        conduct(consortium, carrier, rounds=2)


@pytest.mark.parametrize(("kind", "said"), [("none", "none was given"), ("tdx", "another kind was given")])
def test_a_site_that_gives_none_or_another_kind_is_refused(consortium: Consortium, kind: str, said: str) -> None:
    demand_of_sites(consortium, measured())
    carrier = Meddling(sites_of(consortium))
    carrier.change = lambda site, given: with_token(given, given.token, kind) if site == "sued" else given
    with pytest.raises(Unattested, match=said):
        conduct(consortium, carrier)


def test_an_unknown_kind_is_refused_at_the_site_too(consortium: Consortium) -> None:
    demand_of_sites(consortium, measured(), "sev-snp")
    with pytest.raises(Unattested, match="no kind of evidence is called 'sev-snp'"):
        conduct(consortium, MemoryCarrier(sites_of(consortium)))


def test_a_coordinators_old_evidence_is_refused(consortium: Consortium) -> None:
    demand_of_coordinator(consortium, "nord", measured())
    carrier = Meddling(sites_of(consortium))
    old: list[ShownEvidence] = []

    def shown(site: str, message: ToSite) -> ToSite:
        if not isinstance(message.content, ShownEvidence):
            return message
        old.append(message.content)
        return ToSite(message.run, message.task, (), 0, old[0])

    carrier.shown = shown
    conduct(consortium, carrier)
    with pytest.raises((Unattested, QuorumLost)):
        conduct(consortium, carrier, rounds=2)
    assert any("not fresh" in each for each in refusals(consortium.sites["nord"].ledger(OFFICE), "nord"))


def test_a_request_without_evidence_is_refused_and_a_build_may_be_taken_off_the_list(consortium: Consortium) -> None:
    """Also in the middle of a run: site.yaml is read at each message."""
    demand_of_coordinator(consortium, "nord", measured())
    carrier = Meddling(sites_of(consortium))
    seen: list[str] = []

    def shown(site: str, message: ToSite) -> ToSite:
        if site == "nord" and type(message.content).__name__ == "Request":
            seen.append(site)
            if len(seen) == 8:
                path = consortium.sites["nord"].settings
                path.write_text(path.read_text().replace(measured(), OTHER))
        return message

    carrier.shown = shown
    told = conduct(consortium, carrier, quorum=0.75)
    absent = [each for event in told if event["event"] == "round" for each in event["absent"]]
    assert absent and {each["site"] for each in absent} == {"nord"}
    assert all("not among those allowed" in each["sentence"] for each in absent)
