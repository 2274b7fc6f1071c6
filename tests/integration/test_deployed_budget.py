"""The privacy budget of deployed sites: over tasks, runs, restarts and names, and against who would reset it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dp_accounting
import pytest
from consortium_in_memory import SITES, Consortium, MemoryCarrier, task_over
from dp_accounting.pld import PLDAccountant
from typer.testing import CliRunner

from medfed.cli.site import app
from medfed.core.errors import Refused
from medfed.engine.deployed.folders import SiteFolder
from medfed.engine.deployed.spent import budgets
from medfed.govern.entries import OFFICE
from medfed.govern.spends import charges_on_disk
from medfed.govern.verify import verify_ledgers
from medfed.report.card import write_model_card
from medfed.spec.loading import TaskFile, task_of


@pytest.fixture
def consortium(tmp_path: Path) -> Iterator[Consortium]:
    yield Consortium.make(tmp_path)


def private(name: str, *, dataset: str = "rows", record: dict[str, Any] | None = None, **federation: Any) -> TaskFile:
    fields = task_over(dict.fromkeys(SITES, dataset), **federation).spec.model_dump(mode="json")
    fields |= {"name": name, "privacy": {"record": record or {"noise_multiplier": 2.0}}}
    return task_of(fields)


def conduct(consortium: Consortium, task: TaskFile) -> Path:
    """Submit, approve and run; the sites are opened anew, as after a restart."""
    submission = consortium.submit(task)
    consortium.approve(submission.proposal())
    consortium.conductor(submission, MemoryCarrier(consortium.open_sites())).conduct()
    return submission.folder


def set_budget(site: SiteFolder, epsilon: float) -> None:
    lines = [line for line in site.settings.read_text().splitlines() if "epsilon" not in line]
    site.settings.write_text("\n".join([*lines, f"  epsilon: {epsilon}"]) + "\n")


def charges(site: SiteFolder) -> list[Any]:
    return charges_on_disk(site.ledger(OFFICE) / f"{site.site}.jsonl")


def cost(site: SiteFolder) -> float:
    """Everything in a site's office ledger, by dp-accounting itself."""
    accountant = PLDAccountant()
    for charge in charges(site):
        spend = charge.spend
        event = dp_accounting.GaussianDpEvent(spend.noise_multiplier)
        accountant.compose(dp_accounting.PoissonSampledDpEvent(spend.sampling_rate, event), spend.steps)
    return float(accountant.get_epsilon(1e-5))


def test_every_site_writes_its_spends_into_its_offices_ledger(consortium: Consortium) -> None:
    folder = conduct(consortium, private("first"))
    for site in consortium.sites.values():
        found = charges(site)
        assert [(c.round, c.spend.steps, c.dataset, c.title) for c in found] == [
            (round_, 3, "rows", "first") for round_ in (1, 2, 3)
        ]
        assert len({c.source for c in found}) == 1 and str(consortium.root) not in found[0].source
        key = site.key().verify_key
        verify_ledgers(site.ledger(OFFICE), key, finished=False)
    assert json.loads((folder / "results.json").read_text())["privacy"] == {}
    assert "medfed site budget" in write_model_card(folder).read_text()


def test_another_task_a_new_name_and_a_restart_find_the_budget_spent(consortium: Consortium) -> None:
    conduct(consortium, private("first"))
    nord = consortium.sites["nord"]
    spent = cost(nord)
    set_budget(nord, spent * 1.0001)
    for renamed in (private("second"), private("first", lr=0.051)):
        with pytest.raises(Refused, match=r"nord: the dataset's privacy budget"):
            conduct(consortium, renamed)
        assert cost(nord) == spent
    refusals = [
        line
        for path in nord.path.glob("ledger/*/nord.jsonl")
        for line in path.read_text().splitlines()
        if '"policy.epsilon"' in line
    ]
    assert len(refusals) == 2
    set_budget(nord, spent * 3)
    conduct(consortium, private("third"))
    assert spent < cost(nord) < spent * 3


def test_two_names_of_one_file_share_a_budget_and_two_files_do_not(consortium: Consortium) -> None:
    copy = consortium.root / "copies"
    copy.mkdir()
    for name, site in consortium.sites.items():
        table = consortium.tables[name]
        (copy / table.name).write_bytes(table.read_bytes())
        text = site.settings.read_text()
        more = f"  alias: {{path: {table.parent}/../tables/{table.name}, id: id}}\n"
        more += f"  other: {{path: {copy / table.name}, id: id}}\n"
        site.settings.write_text(text.replace("policy:", more + "policy:"))
    conduct(consortium, private("first"))
    nord = consortium.sites["nord"]
    set_budget(nord, cost(nord) * 1.0001)
    with pytest.raises(Refused, match="nord: the dataset's privacy budget"):
        conduct(consortium, private("second", dataset="alias"))
    conduct(consortium, private("third", dataset="other"))
    shown = {each.dataset: each.spent for each in budgets(nord.path)}
    assert shown["rows"] == shown["alias"] > 0 and shown["other"] > 0


def test_under_a_budget_no_deployed_site_trains_without_differential_privacy(consortium: Consortium) -> None:
    set_budget(consortium.sites["nord"], 1000.0)
    with pytest.raises(Refused, match=r"nord: .*trains without differential privacy"):
        conduct(consortium, task_over(dict.fromkeys(SITES, "rows")))
    assert charges(consortium.sites["nord"]) == []


def test_whoever_replays_a_run_message_by_message_makes_no_site_train_or_spend_again(consortium: Consortium) -> None:
    submission = consortium.submit(private("first"))
    consortium.approve(submission.proposal())
    carrier = MemoryCarrier(consortium.open_sites())
    consortium.conductor(submission, carrier).conduct()
    nord = consortium.sites["nord"]
    before = charges(nord)
    again = consortium.open_sites()["nord"]
    messages = [content for site, way, content in carrier.spied if (site, way) == ("nord", "there")]
    assert len(messages) > 6
    for content in messages:
        again.answer(content)
    assert charges(nord) == before and len(before) == 3


def test_the_command_shows_spent_and_left_by_task_and_draws_it(consortium: Consortium, tmp_path: Path) -> None:
    conduct(consortium, private("first"))
    conduct(consortium, private("second", record={"noise_multiplier": 3.0}))
    nord = consortium.sites["nord"]
    before = cost(nord)
    set_budget(nord, 20.0)
    run = CliRunner().invoke(app, ["budget", "--folder", str(nord.path), "--json"])
    (shown,) = [json.loads(line) for line in run.stdout.splitlines()]
    assert (shown["dataset"], shown["limit"], shown["delta"]) == ("rows", 20.0, 1e-5)
    assert shown["spent"] == pytest.approx(before, rel=1e-3)
    assert shown["left"] == pytest.approx(20.0 - before, rel=1e-3)
    assert [(t["title"], t["runs"], t["requests"], t["steps"]) for t in shown["tasks"]] == [
        ("first", 1, 3, 9),
        ("second", 1, 3, 9),
    ]
    assert shown["tasks"][0]["epsilon"] > shown["tasks"][1]["epsilon"]
    assert max(t["epsilon"] for t in shown["tasks"]) < shown["spent"] < sum(t["epsilon"] for t in shown["tasks"])
    picture = tmp_path / "budget.png"
    run = CliRunner().invoke(app, ["budget", "--folder", str(nord.path), "--output", str(picture)])
    assert run.exit_code == 0 and picture.read_bytes().startswith(b"\x89PNG")
    assert f"{before:.3f} spent of epsilon 20 at delta 1e-05; {20 - before:.3f} left" in run.stdout
    assert "first" in run.stdout and "9 noisy steps" in run.stdout


def protected(name: str, aggregation: str = "clear", **privacy: Any) -> TaskFile:
    fields = task_over(dict.fromkeys(SITES, "rows"), aggregation).spec.model_dump(mode="json")
    fields["data"]["standardize"] = "none"
    fields |= {"name": name, "privacy": {"aggregation": aggregation, **privacy}}
    return task_of(fields)


def spends(site: SiteFolder) -> dict[str, int]:
    return dict(Counter(charge.spend.mechanism.value for charge in charges(site)))


def test_noisy_labels_are_drawn_and_charged_once_for_a_task_over_all_its_runs(consortium: Consortium) -> None:
    task, nord = protected("labels", labels={"epsilon": 1.0}), consortium.sites["nord"]
    for _ in range(2):
        conduct(consortium, task)
    assert spends(nord) == {"randomized response": 1}
    conduct(consortium, protected("other", labels={"epsilon": 1.0}))
    assert spends(nord) == {"randomized response": 2}
    (shown,) = budgets(nord.path)
    assert shown.spent == pytest.approx(2.0, abs=0.01)


@pytest.mark.parametrize("aggregation", ["clear", "secure"])
def test_deployed_sites_protect_sites_labels_and_sums_as_simulated_ones_do(
    consortium: Consortium, aggregation: str
) -> None:
    task = protected(
        "all",
        aggregation,
        record={"noise_multiplier": 3.0},
        labels={"epsilon": 1.0},
        release={"epsilon": 0.1},
        site={"noise_multiplier": 2.0, "adaptive": {}},
    )
    folder = conduct(consortium, task)
    nord = consortium.sites["nord"]
    sums = 3 + 3  # three rounds, three parts
    assert spends(nord) == {
        "Gaussian with Poisson sampling": 3,
        "Gaussian on the clipped update of a whole site": 3,
        "randomized response": 1,
        "discrete Laplace": sums,
    }
    found = json.loads((folder / "results.json").read_text())
    accountant = PLDAccountant()
    accountant.compose(dp_accounting.GaussianDpEvent(2.0), 3)
    whole = found["privacy"]["nord"]["site"]
    assert whole["epsilon"] == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-3)
    (shown,) = budgets(nord.path)
    assert shown.tasks[0].site_epsilon == pytest.approx(whole["epsilon"]) and shown.spent < 5
    set_budget(nord, shown.spent + 0.05)
    with pytest.raises(Refused, match="nord: the dataset's privacy budget"):
        conduct(consortium, protected("more", aggregation, record={"noise_multiplier": 9.0}, release={"epsilon": 0.5}))


def test_the_command_before_anything_was_spent(consortium: Consortium) -> None:
    ost = consortium.sites["ost"]
    run = CliRunner().invoke(app, ["budget", "--folder", str(ost.path)])
    assert "rows: 0.000 spent (the policy sets no epsilon)" in run.stdout
    assert run.exit_code == 0
