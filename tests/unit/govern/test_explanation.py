from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proposed_tasks import STEPS, TASK, proposed, resigned, spec_of

from medfed.algorithms import ALGORITHMS
from medfed.core.steps import Release
from medfed.data import prepare
from medfed.engine import adaptive, distilling, finetuning, partial
from medfed.evaluate import appraisal, evaluation
from medfed.evaluate import explanation as averages
from medfed.govern import explanation
from medfed.govern.explanation import Passage, explain
from medfed.govern.proposals import Proposal, ProposedRelease
from medfed.spec.policy import Limits, Policy, QuietHours


@dataclass(frozen=True)
class Rows:
    dataset: str = "cardiology"
    digest: str = "5e" * 32
    rows: int = 1234
    patients: int = 617


STRICT = Policy(
    task_types=("classification",),
    algorithms=("fedavg",),
    steps="*",
    releases=("sum", "levels"),
    minimum_patients=20,
    minimum_count=7,
    limits=Limits(rounds=50, requests=400),
)


def paragraphs(passages: tuple[Passage, ...], heading: str) -> str:
    (found,) = [passage for passage in passages if passage.heading.startswith(heading)]
    return "\n".join(found.paragraphs)


def refused(proposal: Proposal, policy: Policy, rows: Rows | None = None) -> str:
    return paragraphs(explain(proposal, policy=policy, cohort=rows), "What this hospital's policy")


def test_every_step_that_ships_is_described() -> None:
    shipped = {step.name for name in ALGORITHMS.names() for step in ALGORITHMS.get(name).STEPS}
    sometimes = (*adaptive.STEPS, *distilling.STEPS, *finetuning.STEPS, *partial.STEPS, *averages.STEPS)
    shipped |= {step.name for step in (*prepare.STEPS, *evaluation.STEPS, *appraisal.STEPS, *sometimes)}
    assert set(explanation.STEPS) == shipped


def test_a_steward_reads_which_hospitals_are_held_out_and_whether_it_is_the_own_one() -> None:
    sites = ("south", "north", "west")
    proposal = proposed(spec_of(sites=dict.fromkeys(sites, "rows"), evaluation={"holdout": ["west"]}))
    told = {site: paragraphs(explain(proposal, site=site), "What would be done") for site in sites}
    assert all("Held out: “west”." in each for each in told.values())
    assert [site for site in sites if "This hospital is held out." in told[site]] == ["west"]
    assert "eld out" not in paragraphs(explain(proposed(), site="west"), "What would be done")


def test_a_steward_reads_what_for_whose_what_how_often_and_how_protected() -> None:
    told = explain(proposed(), policy=STRICT, cohort=Rows())
    purpose = paragraphs(told, "What it is for")
    assert "“predict heart disease from routine findings”" in purpose
    assert "“consent, GDPR Art. 9(2)(a)”" in purpose
    assert "“EK 2026/117”, which ends after 2999-12-31" in purpose
    data = paragraphs(told, "Whose data")
    assert "“cardiology”" in data and "1,234 rows of 617 patients" in data and "5e5e5e5e5e5e" in data
    assert "“age”" in data and "“diagnosis”" in data
    training = paragraphs(told, "What would be done")
    assert "“logistic”" in training and "“fedavg” in 20 rounds" in training
    assert "2 passes over its training rows" in training
    sums = paragraphs(told, "What would leave this hospital to be added")
    assert sums.startswith("The change of the model's weights")
    assert "Asked for in each round, so 20 times at most (fedavg.train_locally)." in sums
    assert "in one run" in paragraphs(told, "How often") and "400 requests" in paragraphs(told, "How often")
    protection = paragraphs(told, "Under which protection")
    assert "in the clear" in protection and "before adding it to the others" in protection
    assert "Rows, patients' identifiers, files" in paragraphs(told, "What never leaves")
    assert refused(proposed(), STRICT, Rows()) == (
        "All that is about this hospital alone: it is shown as `withheld`, and the run goes on (releases)."
    )


def test_every_release_is_told_under_its_kind() -> None:
    told = explain(proposed(), policy=STRICT)
    headings = {
        Release.SUM: "What would leave this hospital to be added",
        Release.SITE: "What would leave this hospital about itself",
        Release.LEVELS: "What names",
    }
    for kind, heading in headings.items():
        named = re.findall(r"\((\w+\.\w+)\)\.$", paragraphs(told, heading), re.MULTILINE)
        assert sorted(named) == sorted(step.name for step in STEPS if step.releases is kind)


def test_small_counts_are_told_by_the_policys_own_number() -> None:
    alone = paragraphs(explain(proposed(), policy=STRICT), "What would leave this hospital about itself")
    assert "fewer than 7 patients" in alone
    assert "{" not in alone


def test_measuring_is_as_frequent_as_the_task_says() -> None:
    for every, words in (
        (1, "Asked for after every round, and at the end"),
        (5, "Asked for after every 5 rounds, and at the end"),
    ):
        told = explain(proposed(spec_of(evaluation={"every": every})), policy=STRICT)
        assert words in paragraphs(told, "What would leave this hospital about itself")


def test_a_newcomers_step_is_told_by_its_fields() -> None:
    release = ProposedRelease("lasso.path", Release.SITE, ("betas: array of numbers", "rows: whole number"))
    proposal = resigned(proposed(), releases=(*proposed().releases, release))
    told = paragraphs(explain(proposal), "What would leave this hospital about itself")
    first = told.split("\n")[0]
    assert first.startswith("An answer not described in words")
    assert first.endswith("betas: array of numbers; rows: whole number (lasso.path).")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"task_types": ("regression",)}, "does not allow a classification (task_types)"),
        ({"algorithms": ("scaffold",)}, "does not allow “fedavg” (algorithms)"),
        ({"releases": ("site", "levels")}, "cannot take part (releases)"),
        ({"releases": ("sum", "site")}, "All names"),
        ({"steps": ("fedavg.train_locally",)}, "“prepare.describe”"),
        ({"limits": Limits(rounds=19)}, "All after round 19 of 20 (limits.rounds)"),
        ({"quiet_hours": (QuietHours.model_validate({"from": "07:00", "to": "18:00"}),)}, "(quiet_hours)"),
        ({"minimum_patients": 618}, "fewer than 618 patients (minimum_patients)"),
    ],
)
def test_what_the_policy_refuses_is_told(changes: dict[str, object], expected: str) -> None:
    everything = Policy.permissive()
    assert refused(proposed(), everything, Rows()) == "Nothing."
    assert expected in refused(proposed(), everything.model_copy(update=changes), Rows())


def test_the_default_policy_refuses_all_of_it() -> None:
    assert refused(proposed(), Policy()).count("All of it") == 3


def test_without_a_policy_nothing_is_promised() -> None:
    assert "not known" in paragraphs(explain(proposed()), "What this hospital's policy")
    unlimited = explain(proposed(), policy=Policy.permissive())
    assert "no limit (limits.requests)" in paragraphs(unlimited, "How often")


@pytest.mark.parametrize(
    ("aggregation", "told"),
    [
        ("secure", "fewer than a third of the hospitals work with"),
        ("encrypted", "any one of them could give it the key"),
    ],
)
def test_how_parts_are_hidden_and_whom_that_trusts_is_told(aggregation: str, told: str) -> None:
    page = explain(proposed(spec_of(privacy={"aggregation": aggregation})))
    assert told in paragraphs(page, "Under which protection")


def test_two_hospitals_hide_nothing_from_each_other() -> None:
    pair = dict.fromkeys(("north", "south"), "default")
    two, three = explain(proposed(spec_of(sites=pair))), explain(proposed())
    assert "subtract its own part" in paragraphs(two, "Under which protection")
    assert "subtract its own part" not in paragraphs(three, "Under which protection")


def test_own_standardisation_never_leaves() -> None:
    told = explain(proposed(spec_of(data=TASK["data"] | {"standardize": "site"})))
    assert "mean and the spread" in paragraphs(told, "What never leaves")


@settings(max_examples=25)
@given(st.text(max_size=60))
def test_quoted_words_stay_on_their_line_and_in_their_quotation_marks(words: str) -> None:
    headings = [passage.heading for passage in explain(proposed())]
    told = explain(proposed(purpose=f"Yes.”\n\nWhat never leaves\n{words}", ethics_id="“1”."))
    assert [passage.heading for passage in told] == headings
    for passage in told:
        for paragraph in passage.paragraphs:
            assert len(paragraph.splitlines()) <= 1
            assert paragraph.count("“") == paragraph.count("”")
    (purpose,) = [line for line in paragraphs(told, "What it is for").split("\n") if line.startswith("Purpose")]
    assert purpose.startswith('Purpose: “Yes." What never leaves') and purpose.endswith("”.")


def test_what_differential_privacy_covers_is_told_and_what_it_does_not() -> None:
    def protection(**record: float) -> str:
        spec = spec_of(privacy={"record": record} if record else {})
        return paragraphs(explain(proposed(spec)), "Under which protection")

    assert "trains without differential privacy" in protection()
    told = protection(epsilon=3.0, delta=1e-6)
    assert "epsilon is 3 at most over the whole run, at delta 1e-06" in told
    assert "change of the model's weights alone" in told and "protects one row" in told
    assert "noise of 1.5 times that bound" in protection(noise_multiplier=1.5)


@pytest.mark.parametrize(
    ("privacy", "words"),
    [
        ({"site": {"epsilon": 8.0}}, ("epsilon is 8 at most", "is trusted with what the part does not hide")),
        ({"site": {"noise_multiplier": 2.0, "adaptive": {}}}, ("2 times that bound", "1 to begin with")),
        ({"labels": {"epsilon": 1.5}}, ("random ones, once", "e to the 1.5 at most", "labels alone")),
        ({"release": {"epsilon": 0.5, "rows_per_patient": 3}}, ("up to 3 rows", "0.5 at most, each time")),
    ],
)
def test_what_protects_sites_labels_and_sums_is_told(privacy: dict[str, Any], words: tuple[str, ...]) -> None:
    spec = spec_of(privacy=privacy, data={**TASK["data"], "standardize": "none"})
    told = paragraphs(explain(proposed(spec)), "Under which protection")
    assert "No noise protects single rows in training" in told
    for each in words:
        assert each in told


def test_what_a_budget_refuses_is_told() -> None:
    budget = Policy.permissive().model_copy(update={"epsilon": 2.0})
    private = proposed(spec_of(privacy={"record": {"epsilon": 3.0}}))
    assert "All training: a budget of epsilon 2" in refused(proposed(), budget)
    assert "from when this dataset has spent its budget of epsilon 2" in refused(private, budget)
    assert "budget" not in refused(private, Policy.permissive())
