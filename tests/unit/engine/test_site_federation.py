from __future__ import annotations

import numpy as np
import pytest
from engine_parts import (
    DIGEST,
    RUN,
    Part,
    Ping,
    Pong,
    ScriptedEngine,
    add_up,
    bodies,
    federation_over,
    part,
    refusal,
    reply_to,
    tell,
)
from hypothesis import given
from hypothesis import strategies as st

from medfed.core.errors import QuorumLost, Refused
from medfed.core.wire import Failure
from medfed.engine.federation import share

SITES = ["east", "north", "south", "west"]
HELLO = {site: Pong(f"hello from {site}") for site in SITES}
PARTS = {site: part(float(k), rows=k) for k, site in enumerate(SITES, start=1)}
BROKEN = Failure("internal", "the step failed; its trace is in the site's own log", "engine_parts.add_up")


def test_a_sum_is_the_total_of_all_sites() -> None:
    total = federation_over(ScriptedEngine(bodies(PARTS)), SITES).sum(add_up, Ping(1))
    assert total.rows == 1 + 2 + 3 + 4
    np.testing.assert_array_equal(total.values, np.array([10.0], np.float32))
    np.testing.assert_array_equal(total.squares, [1.0 + 4.0 + 9.0 + 16.0])


def test_the_requests_say_run_task_round_call_step_and_the_versions() -> None:
    engine = ScriptedEngine(lambda rs: [reply_to(r, HELLO[r.site], version=r.base + 1) for r in rs])
    fed = federation_over(engine, SITES, round_=3)
    fed.conversation.begin_round(3, {"east": 8, "west": 2})
    fed.ask(tell, Ping(1))
    fed.ask(tell, Ping(2), sites=["west"])
    *first, second = engine.asked
    assert [r.site for r in first] == SITES
    assert {(r.run, r.task, r.round, r.call, r.step) for r in first} == {(RUN, DIGEST, 3, 0, "engine_parts.tell")}
    assert [(r.base, r.settled) for r in first] == [(8, 8), (0, 0), (0, 0), (2, 2)]
    assert (second.site, second.call, second.base, second.settled, second.message.number) == ("west", 1, 3, 2, 2)  # type: ignore[attr-defined]


def test_a_mapping_gives_each_site_its_own_message() -> None:
    engine = ScriptedEngine(bodies(HELLO))
    federation_over(engine, SITES).ask(tell, {site: Ping(k) for k, site in enumerate(SITES)}, sites=SITES[1:3])
    assert [(r.site, r.message.number) for r in engine.asked] == [("north", 1), ("south", 2)]  # type: ignore[attr-defined]


def test_answers_come_sorted_and_a_stream_in_order_of_arrival() -> None:
    engine = ScriptedEngine(lambda rs: [reply_to(r, HELLO[r.site]) for r in reversed(rs)])
    fed = federation_over(engine, SITES)
    assert list(fed.ask(tell, Ping(1))) == SITES
    assert [site for site, _ in fed.stream(tell, Ping(1))] == SITES[::-1]


@pytest.mark.parametrize(
    ("quorum", "answering", "enough"),
    [
        (1.0, 4, True),
        (1.0, 3, False),
        (3, 3, True),
        (3, 2, False),
        (1, 1, True),
        (9, 4, True),
        (9, 3, False),
        (0.5, 2, True),
        (0.5, 1, False),
        (0.51, 2, False),
        (0.75, 3, True),
    ],
)
def test_the_quorum_as_a_count_and_as_a_fraction(quorum: float, answering: int, enough: bool) -> None:
    present = SITES[:answering]
    summed = federation_over(ScriptedEngine(bodies({s: PARTS[s] for s in present})), SITES, quorum=quorum)
    asked = federation_over(ScriptedEngine(bodies({s: HELLO[s] for s in present})), SITES, quorum=quorum)
    if enough:
        assert summed.sum(add_up, Ping(1)).rows == sum(PARTS[s].rows for s in present)
        assert list(asked.ask(tell, Ping(1))) == present
        return
    for work in (lambda: summed.sum(add_up, Ping(1)), lambda: asked.ask(tell, Ping(1))):
        with pytest.raises(QuorumLost, match=f"{SITES[-1]}: no reply before the deadline") as lost:
            work()
        assert lost.value.exit_status == 4


@given(st.integers(1, 50), st.floats(0.001, 1))
def test_a_share_is_the_least_count_that_reaches_the_fraction(whole: int, fraction: float) -> None:
    count = share(fraction, whole)
    assert 1 <= count <= whole or whole * fraction < 1e-9
    assert count >= whole * fraction - 1e-6
    assert count - 1 < whole * fraction


def test_a_fraction_of_a_whole_that_floating_point_overshoots_is_exact() -> None:
    assert share(0.07, 100) == 7
    assert share(1 / 3, 3) == 1


def test_no_reply_at_all_is_a_lost_quorum_even_where_none_is_asked_for() -> None:
    with pytest.raises(QuorumLost):
        federation_over(ScriptedEngine(bodies({})), SITES, quorum=0.01).sum(add_up, Ping(1))


def test_a_failure_becomes_an_absence_with_its_own_code_and_sentence() -> None:
    fed = federation_over(ScriptedEngine(bodies(PARTS | {"north": BROKEN})), SITES, quorum=3)
    assert fed.sum(add_up, Ping(1)).rows == 1 + 3 + 4
    (absence,) = fed.conversation.absences
    assert (absence.site, absence.code, absence.sentence, absence.step) == (
        "north",
        BROKEN.code,
        BROKEN.sentence,
        BROKEN.step,
    )


def test_a_message_of_another_type_is_an_absence_that_names_the_step() -> None:
    fed = federation_over(ScriptedEngine(bodies(PARTS | {"north": Pong("I am not a part")})), SITES, quorum=3)
    assert fed.sum(add_up, Ping(1)).rows == 1 + 3 + 4
    (absence,) = fed.conversation.absences
    assert (absence.site, absence.code, absence.step) == ("north", "codec", "engine_parts.add_up")
    assert "north" not in fed.conversation.versions


def test_a_second_reply_of_a_site_is_ignored() -> None:
    engine = ScriptedEngine(lambda rs: [reply_to(r, part(k), version=10 * k) for r in rs for k in (1, 2)])
    fed = federation_over(engine, SITES)
    assert fed.sum(add_up, Ping(1)).values.tolist() == [4.0]
    assert set(fed.conversation.versions.values()) == {10}


@pytest.mark.parametrize(
    "stray", [{"site": "nowhere"}, {"request": "ab" * 32}, {"request": ""}], ids=["site", "request", "no request"]
)
def test_stray_replies_are_ignored(stray: dict[str, str]) -> None:
    engine = ScriptedEngine(lambda rs: [reply_to(rs[0], part(1e6), **stray), *(reply_to(r, PARTS[r.site]) for r in rs)])
    fed = federation_over(engine, SITES)
    assert fed.sum(add_up, Ping(1)).values.tolist() == [10.0]
    assert not fed.conversation.absences
    assert sorted(fed.conversation.versions) == SITES


def test_a_late_reply_to_an_abandoned_request_of_the_same_number_is_ignored() -> None:
    late = []

    def answer(requests):  # type: ignore[no-untyped-def]
        replies = [reply_to(r, part(1e6) if r.message.number == 1 else PARTS[r.site]) for r in requests]
        late.extend(replies)
        return [] if requests[0].message.number == 1 else late

    fed = federation_over(ScriptedEngine(answer), SITES)
    with pytest.raises(QuorumLost):
        fed.sum(add_up, Ping(1))
    fed.conversation.begin_round(1, {})
    assert fed.sum(add_up, Ping(2)).values.tolist() == [10.0]


def test_a_stray_reply_does_not_stand_in_for_a_silent_site() -> None:
    engine = ScriptedEngine(lambda rs: [reply_to(r, PARTS[r.site], request="ab" * 32) for r in rs])
    with pytest.raises(QuorumLost, match="no reply before the deadline"):
        federation_over(engine, SITES).sum(add_up, Ping(1))


def test_sites_that_refuse_to_tell_do_not_count_for_the_quorum() -> None:
    fed = federation_over(ScriptedEngine(bodies(HELLO | {"east": refusal(), "west": refusal()})), SITES)
    assert list(fed.ask(tell, Ping(1))) == ["north", "south"]
    assert [a.code for a in fed.conversation.absences] == ["refused", "refused"]
    everyone = federation_over(ScriptedEngine(bodies({s: refusal() for s in SITES})), SITES)
    assert everyone.ask(tell, Ping(1)) == {}


def test_a_site_that_fails_to_tell_does_count() -> None:
    with pytest.raises(QuorumLost, match="north: the step failed"):
        federation_over(ScriptedEngine(bodies(HELLO | {"north": BROKEN})), SITES).ask(tell, Ping(1))


def test_a_sum_lost_to_refusals_alone_is_refused_and_with_a_failure_it_is_a_lost_quorum() -> None:
    engine = ScriptedEngine(bodies(PARTS | {"east": refusal(), "north": refusal()}))
    with pytest.raises(Refused, match=r"east: .*; north: ") as refused:
        federation_over(engine, SITES).sum(add_up, Ping(1))
    assert refused.value.exit_status == 3
    engine = ScriptedEngine(bodies(PARTS | {"east": refusal(), "north": BROKEN}))
    with pytest.raises(QuorumLost, match=r"east: .*; north: ") as lost:
        federation_over(engine, SITES).sum(add_up, Ping(1))
    assert lost.value.exit_status == 4


def test_refusals_that_leave_a_quorum_let_the_sum_go_on() -> None:
    engine = ScriptedEngine(bodies(PARTS | {"east": refusal()}))
    assert federation_over(engine, SITES, quorum=0.75).sum(add_up, Ping(1)).rows == 2 + 3 + 4


MANY = [f"site {n:02}" for n in range(20)]


@pytest.mark.parametrize(("cohort", "size"), [(5, 5), (0.25, 5), (0.26, 6), (1, 1), (20, 20), (99, 20), (1.0, 20)])
def test_a_cohort_has_its_size_and_nobody_twice(cohort: float, size: int) -> None:
    for round_ in range(1, 30):
        drawn = federation_over(ScriptedEngine(bodies({})), MANY, cohort=cohort, round_=round_).cohort()
        assert len(drawn) == len(set(drawn)) == size
        assert set(drawn) <= set(MANY)
        assert list(drawn) == sorted(drawn)


def test_a_cohort_depends_on_seed_and_round_alone() -> None:
    def cohorts(seed: int) -> list[tuple[str, ...]]:
        return [
            federation_over(ScriptedEngine(bodies({})), MANY, cohort=5, seed=seed, round_=r).cohort()
            for r in range(1, 11)
        ]

    assert cohorts(1) == cohorts(1)
    assert cohorts(1) != cohorts(2)
    assert len(set(cohorts(1))) > 5


def test_over_many_rounds_every_site_is_drawn_about_equally_often() -> None:
    rounds = 2000
    counts = dict.fromkeys(MANY, 0)
    fed = federation_over(ScriptedEngine(bodies({})), MANY, cohort=5)
    for round_ in range(rounds):
        fed.conversation.begin_round(round_, {})
        for site in fed.cohort():
            counts[site] += 1
    mean, deviation = rounds * 5 / 20, (rounds * 0.25 * 0.75) ** 0.5
    assert all(abs(count - mean) < 5 * deviation for count in counts.values())


def test_a_smaller_federation_shares_the_conversation() -> None:
    fed = federation_over(ScriptedEngine(bodies(PARTS)), SITES)
    fewer = fed.restricted(["west", "east"])
    assert fewer.sites == ("east", "west")
    assert fewer.sum(add_up, Ping(1)).rows == 1 + 4
    assert fed.conversation.call == 1
    assert isinstance(fewer.sum(add_up, Ping(1)), Part)


def test_a_new_round_forgets_the_absences_of_the_last() -> None:
    fed = federation_over(ScriptedEngine(bodies(PARTS | {"north": BROKEN})), SITES, quorum=1)
    fed.sum(add_up, Ping(1))
    fed.conversation.begin_round(2, {"east": 4})
    assert not fed.conversation.absences
    assert (fed.round, fed.conversation.call, fed.conversation.versions) == (2, 0, {"east": 4})
