"""Training under record-level differential privacy at a site: planned, and charged before it computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medfed.core.errors import RefusalReason, Refused, UserError
from medfed.core.wire import Request
from medfed.engine.charging import charge
from medfed.engine.labels import kept_of
from medfed.models.catalogue import build_network, outputs_for
from medfed.models.layers import frozen_elements
from medfed.models.loss import row_losses
from medfed.models.network import Network
from medfed.models.training import updates_of
from medfed.privacy.dpsgd import DpSgd
from medfed.privacy.extra import require_privacy
from medfed.privacy.layers import check_layers
from medfed.privacy.plan import plan_for
from medfed.spec.loading import TaskFile
from medfed.spec.policy import Policy
from medfed.spec.task import Privacy, TaskSpec

_SOME_COLUMNS = (8,)

if TYPE_CHECKING:
    from medfed.engine.site import SiteNode


def check_private(task: TaskFile) -> None:
    """Refuse, before anything runs, what cannot train under the task's differential privacy, if it has any.

    Raises MissingExtra; TaskError, located in the file, where the model has a layer that forbids it. A model whose
    inputs are not known yet is checked at the sites.
    """
    spec, privacy = task.spec, task.spec.privacy
    if privacy == Privacy(aggregation=privacy.aggregation, update_bound=privacy.update_bound):
        return
    require_privacy()
    if privacy.record is None and privacy.site is None:
        return
    try:
        network = build_network(spec.model, spec.model.input_size or _SOME_COLUMNS, outputs_for(0), spec.seed)
    except UserError:
        return
    network.restrict(frozen_elements(network, spec.model.freeze))
    try:
        if privacy.record is not None:
            check_layers(network.module)
        elif network.has_statistics:
            raise UserError(
                "the model keeps running statistics (batch normalisation), which the noise of an update would spoil",
                remedy="use a network with GroupNorm or LayerNorm in its place; or train without privacy.site",
            )
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
    node: SiteNode, request: Request, policy: Policy, network: Network, rows: int, classes: int, *, first: bool
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
        row_losses(node.task.task_type, federation, kept_of(node.task.privacy, classes)),
        clip_norm=privacy.clip_norm,
        noise_multiplier=plan.noise_multiplier,
        sampling_rate=plan.sampling_rate,
        expected_batch=plan.expected_batch,
    )
    charge(node, request, policy, plan.round, most=plan.steps, first=first)
    return gradients
