"""Set intersection against Python's sets, and against parties that do not keep to the protocol."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.privacy.psi_sessions import KEY, PHASES, SIGNING, Claims, advance, carried, intersect, pair, party

from medfed.core.codec import encode
from medfed.core.errors import DataError, MedFedError, Refused, UserError
from medfed.privacy.curve import as_array, as_points, elligator2, multiplied
from medfed.privacy.identifiers import InputReport, normalised
from medfed.privacy.psi import Cardinality, Party, Sizes, _digest, opens
from medfed.privacy.psi_messages import BlindedSet, Commitment, DoublyBlinded, OrderedSet, Pledge, SignedCommitment

NORTH = ["Anna-1", "Bert-2", "Cleo-3", "Dora-4", "Emil-5"]
SOUTH = ["Emil-5", "Xena-9", "bert-2 ", "Yves-8"]

IDENTIFIERS = st.one_of(
    st.none(),
    st.sampled_from(["", " ", "a", "A", " a", "ß", "SS", "é", "e\u0301", "\u1e9e", "1", "１", "b"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
)


def first_rows(given: list[str | None]) -> dict[str, int]:
    rows: dict[str, int] = {}
    for row, identifier in enumerate(given):
        if identifier is not None and normalised(identifier):
            rows.setdefault(normalised(identifier), row)
    return rows


@settings(max_examples=60)
@given(st.lists(IDENTIFIERS, max_size=8), st.lists(IDENTIFIERS, max_size=8))
def test_the_intersection_is_that_of_pythons_sets(first: list[str | None], second: list[str | None]) -> None:
    north, south = first_rows(first), first_rows(second)
    common = north.keys() & south.keys()
    if not north or not south:
        with pytest.raises(Refused, match="0 identifiers"):
            intersect(first, second)
    elif not common:
        with pytest.raises(Refused, match="fewer than 1"):
            intersect(first, second)
    else:
        at_north, at_south = intersect(first, second)
        assert {*zip(at_north.rows.tolist(), at_south.rows.tolist(), strict=True)} == {
            (north[identifier], south[identifier]) for identifier in common
        }


def test_the_number_comes_first_and_the_report_counts_what_was_left_out() -> None:
    north, south = pair([*NORTH, None, "ANNA-1", ""], SOUTH)
    assert advance(north, south, "count") == (Cardinality(5, 4, 2), Cardinality(4, 5, 2))
    assert north.report == InputReport(given=8, used=5, missing=2, duplicates=1)


def test_progress_covers_both_blindings() -> None:
    told: list[tuple[int, int]] = []
    names = [f"p{n}" for n in range(1000)]
    advance(party("north", names, progress=lambda *at: told.append(at)), party("south", names), "pledge")
    assert told == [(1000, 2000), (2000, 2000)]


# What a transcript tells


def test_a_match_may_stand_anywhere_in_each_transcript() -> None:
    """χ² of the place of one match among five, for each shuffle: four degrees of freedom, beyond 33.4 once in 10⁶."""
    places: dict[type, Counter[int]] = {BlindedSet: Counter(), DoublyBlinded: Counter()}
    sessions = 500
    for _ in range(sessions):
        north, south = pair(NORTH, ["Cleo-3"])
        seen: list[Any] = []
        advance(north, south, "count", seen)
        of_north = next(m for m in seen if isinstance(m, BlindedSet) and m.party == "north")
        doubled = next(m for m in seen if isinstance(m, DoublyBlinded) and m.party == "south")
        of_south = next(m for m in seen if isinstance(m, BlindedSet) and m.party == "south")
        (match,) = multiplied(X25519PrivateKey.from_private_bytes(north.scalar_for_audit()), as_points(of_south.points))
        again = multiplied(X25519PrivateKey.from_private_bytes(south.scalar_for_audit()), as_points(of_north.points))
        places[BlindedSet][again.index(match)] += 1
        places[DoublyBlinded][as_points(doubled.points).index(match)] += 1
    for counted in places.values():
        expected = sessions / 5
        assert sum((counted[place] - expected) ** 2 / expected for place in range(5)) < 33.4


def test_counting_alone_does_not_say_which_even_when_all_but_one_match() -> None:
    """The order in which north gets its doubly blinded points back is independent of the one it sent them in."""
    fixed = 0
    sessions = 300
    for _ in range(sessions):
        north, south = pair(NORTH, NORTH[:4])
        seen: list[Any] = []
        advance(north, south, "count", seen)
        sent = next(m for m in seen if isinstance(m, BlindedSet) and m.party == "north")
        back = next(m for m in seen if isinstance(m, DoublyBlinded) and m.party == "south")
        true = multiplied(X25519PrivateKey.from_private_bytes(south.scalar_for_audit()), as_points(sent.points))
        assert sorted(true) == sorted(as_points(back.points))
        fixed += sum(one == other for one, other in zip(true, as_points(back.points), strict=True))
    assert abs(fixed - sessions) < 5 * sessions**0.5  # a random permutation has one fixed point, with variance one


def test_points_of_the_same_identifiers_differ_between_sessions_parties_and_projects() -> None:
    blinded: list[bytes] = []
    for project in ("lungs", "hearts"):
        for _ in range(2):
            sent = advance(*pair(NORTH, NORTH, project=project), "blind")
            blinded += [point for message in sent for point in as_points(message.points)]
    assert len(blinded) == len(set(blinded)) == 2 * 2 * 2 * len(NORTH)


def test_projects_with_the_same_key_and_scalar_still_have_other_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(X25519PrivateKey, "generate", lambda: X25519PrivateKey.from_private_bytes(b"\7" * 32))
    lungs, hearts = (
        advance(*pair(NORTH, NORTH, project=project), "blind")[0].points for project in ("lungs", "hearts")
    )
    assert set(as_points(lungs)).isdisjoint(as_points(hearts))


def test_no_message_holds_an_identifier_or_its_hash() -> None:
    seen: list[Any] = []
    advance(*pair(NORTH, SOUTH), "match", seen)
    sent = b"".join(encode(message) for message in seen if hasattr(type(message), "WIRE"))
    for identifier in [*NORTH, *SOUTH]:
        assert normalised(identifier).encode() not in sent and identifier.encode() not in sent


# What is committed to


def test_an_auditor_opens_a_commitment_to_just_these_identifiers() -> None:
    north = party("north", [*NORTH, None, "anna-1"])
    committed = north.commit().commitment
    scalar = north.scalar_for_audit()
    assert opens(committed, scalar, KEY, NORTH[::-1])
    assert not opens(committed, scalar, KEY, NORTH[:-1])
    assert not opens(committed, scalar, KEY, [*NORTH[:-1], "Invented-6"])
    assert not opens(committed, bytes(32), KEY, NORTH)
    assert not opens(dataclasses.replace(committed, session="two"), scalar, KEY, NORTH)


def after(phase: str, first: list[str] = NORTH, second: list[str] = SOUTH, **changes: Any) -> tuple[Party, Any, Party]:
    """North, the message that it gets next from south, and south."""
    north, south = pair(first, second, **({"session": "one"} | changes))
    return north, carried(advance(north, south, phase)[1]), south


def signed(commitment: Commitment, name: str = "south") -> SignedCommitment:
    return SignedCommitment(commitment, SIGNING[name].sign(commitment.statement()))


def test_a_set_that_was_substituted_after_the_commitment_is_refused() -> None:
    north, message, _ = after("blind")
    other = after("blind", second=["Anna-1", *SOUTH[1:]])[1]
    with pytest.raises(Refused, match="committed to"):
        north.pledge(dataclasses.replace(message, points=other.points))


def test_one_changed_point_is_refused() -> None:
    north, message, _ = after("blind")
    points = message.points.copy()
    points[2, 0] ^= 1
    with pytest.raises(Refused, match="committed to"):
        north.pledge(dataclasses.replace(message, points=points))


def test_a_commitment_that_others_signed_or_that_was_changed_is_refused() -> None:
    for forged in (
        lambda m: signed(m.commitment, "north"),
        lambda m: dataclasses.replace(m, commitment=dataclasses.replace(m.commitment, size=3)),
    ):
        north, message, _ = after("commit")
        with pytest.raises(Refused, match="not signed by its key"):
            north.blind(forged(message))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"session": "zero"}, "another session"),
        ({"party": "north"}, "not from the peer"),
        ({"party": "west"}, "not from the peer"),
        ({"project": "hearts"}, "another project"),
        ({"key_check": bytes(32)}, "another key"),
        ({"size": 0}, "0 identifiers"),
        ({"size": 1001}, "1001 identifiers"),
    ],
)
def test_a_signed_commitment_to_something_else_is_refused(changes: dict[str, Any], reason: str) -> None:
    north, message, _ = after("commit")
    with pytest.raises(Refused, match=reason):
        north.blind(signed(dataclasses.replace(message.commitment, **changes)))


def test_another_key_is_noticed_rather_than_an_empty_intersection() -> None:
    north, south = party("north", NORTH), party("south", NORTH, key=b"\1" * 32)
    with pytest.raises(Refused, match="another key"):
        north.blind((north.commit(), south.commit())[1])


# Attacks


def test_a_session_is_claimed_once() -> None:
    claims = Claims()
    party("north", NORTH, claims=claims).commit()
    with pytest.raises(Refused, match="used before"):
        party("north", NORTH, claims=claims).commit()
    party("north", NORTH, claims=claims, session="two").commit()


@pytest.mark.parametrize("phase", ["commit", "blind", "pledge", "reply", "agree", "order"])
def test_a_message_of_an_earlier_session_is_refused(phase: str) -> None:
    old = after(phase, session="old")[1]
    north = after(phase)[0]
    with pytest.raises(Refused, match="another session"):
        getattr(north, PHASES[PHASES.index(phase) + 1])(old)


@pytest.mark.parametrize("phase", ["commit", "blind", "pledge", "reply", "agree", "order"])
def test_a_message_that_comes_back_to_its_sender_is_refused(phase: str) -> None:
    north, south = pair(NORTH, SOUTH)
    own, _ = advance(north, south, phase)
    with pytest.raises(Refused, match="not from the peer"):
        getattr(north, PHASES[PHASES.index(phase) + 1])(own)


def shown(north: Party, message: SignedCommitment, points: list[bytes]) -> BlindedSet:
    """North takes a signed commitment to these points; then they are shown to it."""
    digest = _digest("set", "lungs", "one", "south", points)
    north.blind(signed(dataclasses.replace(message.commitment, size=len(points), digest=digest)))
    return BlindedSet("one", "south", as_array(points))


def honest(count: int) -> list[bytes]:
    return multiplied(X25519PrivateKey.generate(), [elligator2(r).to_bytes(32, "little") for r in range(1, count + 1)])


def test_own_points_under_the_peers_name_are_refused() -> None:
    north, message, _ = after("commit")
    blinded = shown(north, message, [north._own[0], *honest(2)])
    with pytest.raises(Refused, match="own points back"):
        north.pledge(blinded)


def test_repeated_points_are_refused() -> None:
    north, message, _ = after("commit")
    points = honest(3)
    blinded = shown(north, message, [*points, points[1]])
    with pytest.raises(Refused, match="a point twice: whoever repeats"):
        north.pledge(blinded)


def test_a_point_repeated_in_disguise_is_refused() -> None:
    """P and P + (0, 0), whose u-coordinate is 1/u, differ, and have the same multiple by any clamped scalar."""
    points = honest(3)
    disguised = pow(int.from_bytes(points[0], "little"), -1, 2**255 - 19).to_bytes(32, "little")
    scalar = X25519PrivateKey.generate()
    assert disguised != points[0] and multiplied(scalar, [disguised]) == multiplied(scalar, points[:1])
    north, message, _ = after("commit")
    blinded = shown(north, message, [*points, disguised])
    with pytest.raises(Refused, match="in disguise"):
        north.pledge(blinded)


def test_marked_points_of_the_twist_are_refused() -> None:
    north, message, _ = after("commit")
    blinded = shown(north, message, [*honest(3), (2).to_bytes(32, "little")])
    with pytest.raises(Refused, match="twist"):
        north.pledge(blinded)


@pytest.mark.parametrize("low", [0, 1, 325606250916557431795983626356110631294008115727848805560023387167927233504])
def test_points_of_low_order_are_refused(low: int) -> None:
    north, message, _ = after("commit")
    blinded = shown(north, message, [*honest(3), low.to_bytes(32, "little")])
    with pytest.raises(Refused, match="low order"):
        north.pledge(blinded)


def test_fewer_or_more_points_than_committed_are_refused() -> None:
    for change in (lambda p: p[:-1], lambda p: np.vstack([p, as_array(honest(1))]), lambda p: p[:, :31]):
        north, message, _ = after("blind")
        with pytest.raises(Refused, match="4 points of 32 bytes"):
            north.pledge(dataclasses.replace(message, points=change(message.points)))


def test_a_reply_that_was_not_pledged_is_refused() -> None:
    """South cannot wait for north's reply and pass its points on as its own, which would make everything match."""
    north, south = pair(NORTH, [*SOUTH, "Zoe-7"], session="one")
    to_south, _ = advance(north, south, "reply")
    with pytest.raises(Refused, match="pledged"):
        north.count(DoublyBlinded("one", "south", to_south.points))


def test_points_that_come_back_as_they_were_sent_are_refused() -> None:
    for whose in ("_own", "_blinded_by_peer"):
        north, south = pair(NORTH, [*SOUTH, "Zoe-7"], session="one")
        advance(north, south, "pledge")
        points = sorted(getattr(north, whose))
        north.reply(Pledge("one", "south", _digest("reply", "lungs", "one", "south", points)))
        with pytest.raises(Refused, match="not blinded again"):
            north.count(DoublyBlinded("one", "south", as_array(points)))


def test_the_ordered_points_have_to_be_those_that_were_counted() -> None:
    north, message, _ = after("order")
    assert isinstance(message, OrderedSet)
    with pytest.raises(Refused, match="pledged"):
        north.match(OrderedSet("one", "south", as_array(honest(5))))


def test_an_agreement_to_another_count_or_by_another_is_refused() -> None:
    for change, by, reason in (
        ({"common": 3}, "south", "another count"),
        ({"transcript": bytes(32)}, "south", "another count"),
        ({"project": "hearts"}, "south", "another count"),
        ({}, "north", "not signed"),
    ):
        north, message, _ = after("agree")
        lie = dataclasses.replace(message.agreement, **change)
        with pytest.raises(Refused, match=reason):
            north.order(dataclasses.replace(message, agreement=lie, signature=SIGNING[by].sign(lie.statement())))


def test_a_scalar_for_each_identifier_tells_which_in_the_first_part_and_cannot_be_opened_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the protocol does not hold against, as the page says, and what proves it to an auditor."""
    scalars = [X25519PrivateKey.generate() for _ in SOUTH]

    def each_by_its_own(_: Any, points: list[bytes], progress: Any = None) -> list[bytes]:
        return [multiplied(scalar, [point])[0] for scalar, point in zip(scalars, points, strict=True)]

    north, cheat = pair(NORTH, SOUTH, session="one")
    with monkeypatch.context() as patch:
        patch.setattr("medfed.privacy.psi.multiplied", each_by_its_own)
        committed = cheat.commit()
    to_cheat = north.commit()
    blinded = cheat.blind(to_cheat)
    of_north = north.blind(committed)
    north.pledge(blinded)
    back = as_points(north.reply(Pledge("one", "south", bytes(32))).points)
    learned = {
        name
        for name, scalar in zip(cheat._shuffled, scalars, strict=True)
        if not set(multiplied(scalar, as_points(of_north.points))).isdisjoint(back)
    }
    assert learned == {"bert-2", "emil-5"}
    for scalar in scalars:
        assert not opens(committed.commitment, scalar.private_bytes_raw(), KEY, SOUTH)


# Limits


def test_too_small_an_intersection_is_withheld_with_its_number() -> None:
    north, south = pair(NORTH, SOUTH, least_common=3)
    to_south, to_north = advance(north, south, "reply")
    with pytest.raises(Refused, match="fewer than 3") as refusal:
        north.count(to_north)
    assert "2" not in str(refusal.value)
    with pytest.raises(MedFedError, match="ended"):
        north.agree()
    with pytest.raises(Refused, match="fewer than 3"):
        south.count(to_south)
    assert advance(*pair(NORTH, SOUTH, least_common=2), "count")[0].common == 2


@pytest.mark.parametrize(("count", "allowed"), [(2, False), (3, True), (5, True), (6, False)])
def test_own_and_peers_sizes_have_both_ends(count: int, allowed: bool) -> None:
    names = [f"p{n}" for n in range(count)]
    limits = Sizes(3, 5)
    if allowed:
        party("north", names, own=limits)
        advance(*pair(NORTH, names, others=Sizes(3, 5)), "blind")
        return
    with pytest.raises(Refused, match=f"{count} identifiers, where 3 to 5"):
        party("north", names, own=limits)
    north, south = party("north", NORTH, others=limits), party("south", names)
    with pytest.raises(Refused, match=f"the peer's set has {count}"):
        north.blind((north.commit(), south.commit())[1])


@pytest.mark.parametrize(
    "changes",
    [
        {"key": bytes(31)},
        {"peer": "north"},
        {"own": Sizes(0, 5)},
        {"others": Sizes(6, 5)},
        {"least_common": 0},
    ],
)
def test_terms_that_protect_nothing_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        party("north", NORTH, **changes)


# Order of the phases


def call(subject: Party, phase: str, messages: dict[str, Any]) -> Any:
    return getattr(subject, phase)(*([messages[phase]] if phase in messages else []))


def recorded() -> dict[str, Any]:
    """For each phase that takes one, the message of a session that north would get."""
    north, south = pair(NORTH, SOUTH, session="one")
    messages: dict[str, Any] = {}
    seen: list[Any] = []
    advance(north, south, "match", seen)
    for index, phase in enumerate(PHASES):
        if phase not in ("commit", "agree"):
            messages[phase] = seen[2 * index - 1]
    return messages


def test_phases_out_of_turn_raise_and_end_the_session() -> None:
    messages = recorded()
    for done in PHASES[:-1]:
        for wrong in PHASES:
            if PHASES.index(wrong) == PHASES.index(done) + 1:
                continue
            north, south = pair(NORTH, SOUTH, session="one")
            advance(north, south, done)
            with pytest.raises(MedFedError, match=f"^{wrong} was called when") as error:
                call(north, wrong, messages)
            assert type(error.value) is MedFedError
            with pytest.raises(MedFedError, match="had ended"):
                call(north, PHASES[PHASES.index(done) + 1], messages)


def test_nothing_follows_the_end() -> None:
    messages = recorded()
    for phase in PHASES:
        north, south = pair(NORTH, SOUTH, session="one")
        advance(north, south, "match")
        with pytest.raises(MedFedError, match="had ended"):
            call(north, phase, messages)


def test_a_refusal_ends_the_session() -> None:
    north, message, _ = after("commit")
    with pytest.raises(Refused):
        north.blind(dataclasses.replace(message, signature=bytes(64)))
    with pytest.raises(MedFedError, match="had ended"):
        north.blind(message)


# Nothing quotes an identifier


def test_no_error_and_no_representation_names_an_identifier_or_the_key() -> None:
    names = ["SECRET-1", "SECRET-2", "SECRET-2"]
    errors: list[BaseException] = []
    for changes in ({"own": Sizes(5, 9)}, {"own": Sizes(1, 1)}):
        with pytest.raises(Refused) as refusal:
            party("north", names, **changes)
        errors.append(refusal.value)
    for bad in ([*names, None], [*names, "SECRET-3\ud800"]):
        with pytest.raises(DataError) as wrong:
            party("north", bad, drop_missing=False)
        errors.append(wrong.value)
    for phase in ("commit", "blind", "reply", "agree", "order"):
        north, message, _ = after(phase, first=names, second=names)
        is_signed = phase in ("commit", "agree")
        broken: dict[str, Any] = {"signature": b""} if is_signed else {"points": np.zeros((1, 32), np.uint8)}
        with pytest.raises(Refused) as refusal:
            getattr(north, PHASES[PHASES.index(phase) + 1])(dataclasses.replace(message, **broken))
        errors.append(refusal.value)
    assert len(errors) == 9
    for error in errors:
        assert "secret" not in (str(error) + repr(error.args)).casefold()
    north = party("north", names)
    assert "secret" not in repr((north, north.report, north._terms)).casefold()
    assert repr(KEY) not in repr(north._terms)
