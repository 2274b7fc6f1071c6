from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from proposed_tasks import COORDINATOR, STEPS, proposed, resigned, spec_of

from medfed.core.codec import decode, encode
from medfed.core.errors import CodecError, Refused, TaskError, UserError
from medfed.core.messages import Counts, Message, Moments, Vector, adds
from medfed.core.protocols import SiteContext
from medfed.core.steps import Release, step
from medfed.govern.keys import SigningKey
from medfed.govern.proposals import (
    MAX_BYTES,
    Proposal,
    check_proposal,
    check_releases,
    is_day,
    is_over,
    proposed_releases,
)
from medfed.spec.canonical import task_digest

KEY = COORDINATOR.verify_key


class Side(enum.StrEnum):
    LEFT = "left"
    RIGHT = "right"


@dataclass(frozen=True, eq=False)
class Leaf(Message, wire="test.proposals.leaf"):
    side: Side
    count: int | None


@dataclass(frozen=True, eq=False)
class Mixed(Message, wire="test.proposals.mixed"):
    weights: Vector
    mask: NDArray[np.bool_]
    leaves: tuple[Leaf, ...]
    note: str


@dataclass(frozen=True, eq=False)
class Totals(Message, wire="test.proposals.totals"):
    sums: Moments = adds(bound=2.0**10)
    counts: Counts = adds(bound=50)
    loss: float = adds(bound=8.0)


@step(releases=Release.SITE)
def mixed(site: SiteContext, message: Leaf) -> Mixed:
    raise AssertionError


@step(releases=Release.SUM)
def totals(site: SiteContext, message: Leaf) -> Totals:
    raise AssertionError


def test_a_signed_proposal_is_accepted_after_its_journey() -> None:
    proposal = proposed()
    arrived = decode(encode(proposal), Proposal)
    assert arrived == proposal
    check_proposal(arrived, KEY)
    assert arrived.digest == task_digest(spec_of()) == task_digest(arrived.task_file().spec)
    assert arrived.rounds == 20
    assert set(arrived.steps) == {step.name for step in STEPS}


def test_releases_tell_type_and_bound_of_every_field() -> None:
    found = proposed_releases([totals, mixed, totals])
    assert [(release.step, release.kind) for release in found] == [
        ("test_proposals.mixed", Release.SITE),
        ("test_proposals.totals", Release.SUM),
    ]
    assert found[0].fields == (
        "weights: array of numbers",
        "mask: array of whole numbers",
        "leaves: list of (side: one of left, right; count: whole number, or nothing)",
        "note: text",
    )
    assert found[1].fields == (
        "sums: array of numbers, at most 1.02e+03 in size",
        "counts: array of whole numbers, at most 50 in size",
        "loss: number, at most 8 in size",
    )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"task": proposed(spec_of(seed=8)).task}, "digest is not that"),
        ({"digest": "ab" * 32}, "digest is not that"),
        ({"digest": "../../etc"}, "digest is not that"),
        ({"task": f"# approve me\n{proposed().task}"}, "digest is not that"),
        ({"task": "not: [a task"}, "no task that this site can read"),
        ({"task": "- 1"}, "no task that this site can read"),
        ({"task": "x: 1"}, "no task that this site can read"),
        ({"rounds": 1}, "number of rounds"),
        ({"purpose": " \n"}, "purpose"),
        ({"purpose": "x" * 2001}, "purpose"),
        ({"legal_basis": ""}, "legal_basis"),
        ({"ethics_id": "x" * 201}, "ethics_id"),
        ({"ethics_expires": "30.06.2027"}, "ethics board"),
        ({"ethics_expires": "20270630"}, "ethics board"),
        ({"ethics_expires": "2027-02-30"}, "ethics board"),
        ({"steps": ("x" * MAX_BYTES,)}, "larger than 1 MiB"),
    ],
)
def test_what_is_not_as_it_says_is_refused_though_the_coordinator_signed_it(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(Refused, match=why) as caught:
        check_proposal(resigned(proposed(), **changes), KEY)
    assert caught.value.remedy
    assert len(str(caught.value)) < 2000


def test_another_key_is_refused() -> None:
    with pytest.raises(Refused, match="not signed"):
        check_proposal(proposed(key=SigningKey.generate()), KEY)


@given(
    st.sampled_from(["task", "digest", "purpose", "legal_basis", "ethics_id", "ethics_expires", "proposed"]), st.data()
)
def test_no_character_of_a_signed_proposal_may_change(name: str, data: st.DataObject) -> None:
    proposal = proposed()
    text = getattr(proposal, name)
    position = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters(exclude_categories=["Cs"]).filter(lambda c: c != text[position]))
    changed = replace(proposal, **{name: text[:position] + other + text[position + 1 :]})
    assert not changed.verifies(KEY)


@pytest.mark.parametrize(
    "changes", [{"rounds": 21}, {"steps": ()}, {"releases": ()}, {"signature": ""}, {"signature": "zz"}]
)
def test_no_other_field_may_change_either(changes: dict[str, Any]) -> None:
    assert not replace(proposed(), **changes).verifies(KEY)


def test_a_signature_has_one_spelling() -> None:
    proposal = proposed()
    assert not replace(proposal, signature=f" {proposal.signature}").verifies(KEY)
    assert not replace(proposal, signature=proposal.signature.upper()).verifies(KEY)


@given(st.binary(max_size=200), st.integers(0, 10**6))
def test_spoilt_bytes_are_no_proposal_or_not_signed(rubbish: bytes, position: int) -> None:
    whole = encode(_ONE)
    at = position % len(whole)
    spoilt = whole[:at] + rubbish + whole[at + len(rubbish) :]
    try:
        arrived = decode(spoilt, Proposal)
    except CodecError:
        return
    assert arrived == _ONE or not arrived.verifies(KEY)


_ONE = proposed()


def test_a_task_that_is_too_long_is_not_even_read() -> None:
    with pytest.raises(TaskError, match="larger than 1 MiB"):
        replace(_ONE, task="#" * (MAX_BYTES + 1)).task_file()


def test_terms_are_the_same_whenever_they_are_proposed_and_change_with_any_of_them() -> None:
    terms = proposed().terms
    assert resigned(proposed(), proposed="2020-01-01T00:00:00+00:00").terms == terms
    for name in ("purpose", "legal_basis", "ethics_id"):
        assert proposed(**{name: "another"}).terms != terms
    assert proposed(ethics_expires="2998-12-31").terms != terms
    assert proposed(spec_of(seed=3)).terms != terms


def test_a_proposal_that_sites_would_refuse_is_not_signed() -> None:
    for said in ({"purpose": ""}, {"ethics_expires": "soon"}):
        with pytest.raises(UserError) as caught:
            proposed(**said)
        assert caught.value.remedy


def test_the_coordinators_word_on_releases_is_held_against_the_software_that_is_installed() -> None:
    proposal = proposed()
    check_releases(proposal, reversed(STEPS))
    hidden = tuple(release for release in proposal.releases if release.kind is not Release.SITE)
    renamed = (replace(proposal.releases[0], kind=Release.LEVELS), *proposal.releases[1:])
    for lie in (hidden, renamed):
        with pytest.raises(Refused, match="other things"):
            check_releases(resigned(proposal, releases=lie), STEPS)
    with pytest.raises(Refused):
        check_releases(resigned(proposal, steps=proposal.steps[1:]), STEPS)
    with pytest.raises(Refused):
        check_releases(proposal, STEPS[1:])


def test_a_day_is_over_at_midnight_utc() -> None:
    midnight = datetime(2027, 7, 1, tzinfo=UTC)
    assert is_over("2027-06-30", midnight)
    assert not is_over("2027-06-30", midnight - timedelta(microseconds=1))
    assert not is_over("2027-06-30", midnight.replace(tzinfo=timezone(timedelta(hours=2))))
    assert not is_over("9999-12-31", midnight)


@given(st.dates(), st.datetimes(timezones=st.timezones()))
def test_days_that_are_over_stay_over(day: Any, moment: datetime) -> None:
    assert is_day(day.isoformat())
    if datetime(2, 1, 1, tzinfo=UTC) < moment < datetime(9998, 1, 1, tzinfo=UTC):
        later = moment + timedelta(hours=1)
        assert is_over(day.isoformat(), later) or not is_over(day.isoformat(), moment)
