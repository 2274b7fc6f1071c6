"""What a site charges to a dataset's privacy budget before it computes: recorded durably, or refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from medfed.core.errors import RefusalReason, Refused
from medfed.core.spending import Charge, Mechanism, Spend
from medfed.core.wire import Request
from medfed.engine.budget import RunBudget, SiteBudget
from medfed.govern.entries import FailureEntry
from medfed.govern.ledger import Ledger
from medfed.privacy.accountant import pld_epsilon
from medfed.spec.policy import Policy

if TYPE_CHECKING:
    from medfed.engine.site import SiteNode

_PLANNED_IN = {
    Mechanism.SAMPLED_GAUSSIAN: RefusalReason.PLANNED_STEPS,
    Mechanism.WHOLE_SITE: RefusalReason.PLANNED_UPDATES,
    Mechanism.RESPONSE: RefusalReason.PLANNED_LABELS,
}


def charge(
    node: SiteNode, request: Request, policy: Policy, spend: Spend, *, most: int | None = None, first: bool = True
) -> None:
    """Record what a request is about to spend.

    most: the uses for which a run's noise was chosen; None: each stands by itself. first: it is the first such spend of
    this request in this process, which may have been recorded before a kill. Raises Refused where the dataset's budget
    or the run's plan does not allow it, or it cannot be recorded.
    """
    budget = _budget(node)
    mine = _drawn_up(node, budget, request, spend, request.digest())

    def allow(earlier: Sequence[Charge]) -> bool:
        """Whether it is to be recorded; raises Refused."""
        same_rows = [other for other in earlier if other.concerns(mine)]
        of_run = [o for o in same_rows if o.run == mine.run and o.spend.mechanism is spend.mechanism]
        if first and of_run and _stands(of_run[-1], mine, node.ledger):
            return False
        if most is not None:
            check_plan(of_run, mine, most)
        check_budget(same_rows, mine, policy)
        return True

    budget.store.charge(mine, allow)


def charge_once(node: SiteNode, request: Request, policy: Policy, spend: Spend, drawn: str) -> None:
    """Record what is spent once, however often it is used: a draw that is kept, and ``drawn`` identifies.

    Raises Refused where the dataset's budget does not allow it, or it cannot be recorded.
    """
    budget = _budget(node)
    mine = _drawn_up(node, budget, request, spend, drawn)

    def allow(earlier: Sequence[Charge]) -> bool:
        same_rows = [other for other in earlier if other.concerns(mine)]
        alike = [other for other in same_rows if other.spend.mechanism is spend.mechanism]
        if any((other.request, other.spend) == (drawn, spend) for other in alike):
            return False
        check_plan([other for other in alike if other.run == mine.run], mine, most=1)
        check_budget(same_rows, mine, policy)
        return True

    budget.store.charge(mine, allow)


def _budget(node: SiteNode) -> SiteBudget:
    return node.budget() if node.budget else SiteBudget(RunBudget(node.ledger, node.run), node.site)


def _drawn_up(node: SiteNode, budget: SiteBudget, request: Request, spend: Spend, asked: str) -> Charge:
    """The charge of a spend. asked: what tells it from others, the request's digest as a rule."""
    return Charge(
        dataset=budget.dataset,
        source=budget.source,
        task=node.digest,
        title=node.task.name,
        run=request.run,
        round=request.round,
        call=request.call,
        step=request.step,
        request=asked,
        mark=node.ledger.size,
        version=node.memory.newest_version,
        spend=spend,
    )


def _stands(last: Charge, charge: Charge, ledger: Ledger) -> bool:
    """Whether the same request was charged before a process ended, and nothing that it computed can have left since.

    What a step computed leaves by a reply, which is a version of the site's memory before that, or by a failure that
    tells of it, which is an entry of the run's ledger.
    """
    same = (last.request, last.spend, last.version) == (charge.request, charge.spend, charge.version)
    return same and next(ledger.entries(FailureEntry, since=last.mark), None) is None


def check_plan(of_run: Sequence[Charge], charge: Charge, most: int) -> None:
    """Raise Refused where a run would use a mechanism more often than its noise was chosen for.

    Steps whose outcome a coordinator abandoned count: it may have seen it.
    """
    if sum(other.spend.steps for other in of_run) + charge.spend.steps > most:
        raise Refused(
            f"this run has taken the steps for which its noise was chosen ({most}), repeated ones included"
            if charge.spend.mechanism is not Mechanism.RESPONSE
            else "this run has drawn its noisy labels, for other classes or rows than are asked for now",
            reason=_PLANNED_IN[charge.spend.mechanism],
            remedy="end the run with the model of the last round, or begin a new one",
        )


def check_budget(same_rows: Sequence[Charge], charge: Charge, policy: Policy) -> None:
    """Raise Refused where all that was spent on these rows, and this charge, cost more than the policy's epsilon.

    What protects a whole site is of another unit, and has no part in it.
    """
    if policy.epsilon is None or not charge.spend.of_rows:
        return
    spends = [other.spend for other in same_rows if other.spend.of_rows]
    if pld_epsilon([*spends, charge.spend], policy.delta) > policy.epsilon:
        raise Refused(
            f"the dataset's privacy budget (epsilon: {policy.epsilon:g} at delta: {policy.delta:g}) does not allow "
            f"{_USES[charge.spend.mechanism].format(charge.spend.steps)}",
            reason=RefusalReason.BUDGET,
            remedy="ask less of it, or with more noise; or ask the site to raise epsilon in its policy file",
        )


_USES = {
    Mechanism.SAMPLED_GAUSSIAN: "{} more steps of training",
    Mechanism.GAUSSIAN: "another noisy sum",
    Mechanism.LAPLACE: "another noisy sum",
    Mechanism.RESPONSE: "another draw of noisy labels",
}
