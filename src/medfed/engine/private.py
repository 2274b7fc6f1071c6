"""Training under record-level differential privacy at a site: planned, allowed and charged before it computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from medfed.core.errors import RefusalReason, Refused, UserError
from medfed.core.spending import Charge
from medfed.core.wire import Request
from medfed.engine.budget import RunBudget, SiteBudget
from medfed.govern.entries import FailureEntry
from medfed.govern.ledger import Ledger
from medfed.models.catalogue import build_network, outputs_for
from medfed.models.loss import row_losses
from medfed.models.network import Network
from medfed.models.training import updates_of
from medfed.privacy.accountant import pld_epsilon
from medfed.privacy.dpsgd import DpSgd
from medfed.privacy.extra import require_privacy
from medfed.privacy.layers import check_layers
from medfed.privacy.plan import Plan, plan_for
from medfed.spec.loading import TaskFile
from medfed.spec.policy import Policy
from medfed.spec.task import TaskSpec

_SOME_COLUMNS = (8,)

if TYPE_CHECKING:
    from medfed.engine.site import SiteNode


def check_private(task: TaskFile) -> None:
    """Refuse, before anything runs, what cannot train under the task's differential privacy, if it has any.

    Raises MissingExtra; TaskError, located in the file, where the model has a layer that forbids it. A model whose
    inputs are not known yet is checked at the sites.
    """
    spec = task.spec
    if spec.privacy.record is None:
        return
    require_privacy()
    try:
        network = build_network(spec.model, spec.model.input_size or _SOME_COLUMNS, outputs_for(0), spec.seed)
    except UserError:
        return
    try:
        check_layers(network.module)
    except UserError as error:
        raise task.error("model", cause=error.cause, remedy=error.remedy) from error


def check_trainable(task: TaskSpec, policy: Policy) -> None:
    """Raise Refused where a policy sets a budget, and the task would train past it, without differential privacy."""
    if policy.epsilon is not None and task.privacy.record is None:
        raise Refused(
            f"the site's policy sets a privacy budget (epsilon: {policy.epsilon:g}), and this task trains without "
            "differential privacy",
            reason=RefusalReason.BUDGET,
            remedy="train with privacy.record, or ask the site to take epsilon out of its policy file",
        )


def private_gradients(
    node: SiteNode, request: Request, policy: Policy, network: Network, rows: int, *, first: bool
) -> DpSgd | None:
    """The private gradients of a request's local training, after its cost was charged; None where the task has none.

    first: it is the first training of this request in this process, which may have been charged before a kill.
    Raises Refused where the dataset's budget or the run's plan does not allow it, DataError and UserError where rows
    or layers do not.
    """
    privacy, federation = node.task.privacy.record, node.task.federation
    if privacy is None:
        return None
    require_privacy()
    batch, updates = updates_of(federation, rows)
    plan = plan_for(
        privacy, rows=rows, batch=batch, round_steps=updates, rounds=federation.total_rounds, site=node.site
    )
    gradients = DpSgd(
        network.module,
        row_losses(node.task.task_type, federation),
        clip_norm=privacy.clip_norm,
        noise_multiplier=plan.noise_multiplier,
        sampling_rate=plan.sampling_rate,
        expected_batch=plan.expected_batch,
    )
    _charge(node, request, policy, plan, first=first)
    return gradients


def _charge(node: SiteNode, request: Request, policy: Policy, plan: Plan, *, first: bool) -> None:
    budget = node.budget() if node.budget else SiteBudget(RunBudget(node.ledger, node.run), node.site)
    charge = Charge(
        dataset=budget.dataset,
        source=budget.source,
        task=node.digest,
        title=node.task.name,
        run=request.run,
        round=request.round,
        call=request.call,
        step=request.step,
        request=request.digest(),
        mark=node.ledger.size,
        version=node.memory.newest_version,
        spend=plan.round,
    )

    def allow(earlier: Sequence[Charge]) -> bool:
        """Whether it is to be recorded; raises Refused."""
        same_rows = [other for other in earlier if other.concerns(charge)]
        of_run = [other for other in same_rows if other.run == charge.run]
        if first and of_run and _stands(of_run[-1], charge, node.ledger):
            return False
        check_plan(of_run, charge, plan)
        check_budget(same_rows, charge, policy)
        return True

    budget.store.charge(charge, allow)


def _stands(last: Charge, charge: Charge, ledger: Ledger) -> bool:
    """Whether the same request was charged before a process ended, and nothing that it computed can have left since.

    What a step computed leaves by a reply, which is a version of the site's memory before that, or by a failure that
    tells of it, which is an entry of the run's ledger.
    """
    same = (last.request, last.spend, last.version) == (charge.request, charge.spend, charge.version)
    return same and next(ledger.entries(FailureEntry, since=last.mark), None) is None


def check_plan(of_run: Sequence[Charge], charge: Charge, plan: Plan) -> None:
    """Raise Refused where a run would take more steps than those for which its noise was chosen.

    Steps whose outcome a coordinator abandoned count: it may have seen it.
    """
    if sum(other.spend.steps for other in of_run) + charge.spend.steps > plan.steps:
        raise Refused(
            f"this run has taken the steps for which its noise was chosen ({plan.steps}), repeated ones included",
            reason=RefusalReason.PLANNED_STEPS,
            remedy="end the run with the model of the last round, or begin a new one",
        )


def check_budget(same_rows: Sequence[Charge], charge: Charge, policy: Policy) -> None:
    """Raise Refused where all that was spent on these rows, and this charge, cost more than the policy's epsilon."""
    if policy.epsilon is None:
        return
    spends = [other.spend for other in same_rows]
    if pld_epsilon([*spends, charge.spend], policy.delta) > policy.epsilon:
        raise Refused(
            f"the dataset's privacy budget (epsilon: {policy.epsilon:g} at delta: {policy.delta:g}) does not allow "
            f"{charge.spend.steps} more steps of training",
            reason=RefusalReason.BUDGET,
            remedy="train with fewer rounds or more noise, or ask the site to raise epsilon in its policy file",
        )
