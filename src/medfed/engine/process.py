"""A run as a process that can be stepped by hand: ``state = initialize()``, ``state, metrics = next(state)``.

A state is a message: it can be kept, written, and gone on from. Stepping the newest state twice asks the sites the
same questions, and they give the stored answers; what led to it they have forgotten by then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain

import numpy as np

from medfed.core.errors import DataError, QuorumLost, Refused, UserError
from medfed.core.examples import Split
from medfed.core.messages import Counts, Message, Vector
from medfed.core.protocols import Algorithm
from medfed.data.encoding import Encoding
from medfed.data.prepare import adopt, adopt_encoding, agreed_columns, describe_sites, fit_encoding, offer_encoding
from medfed.data.quality import DataSheet
from medfed.engine.distilling import give_teacher
from medfed.engine.federation import Absence, SiteFederation
from medfed.engine.finetuning import Finished, fine_tune
from medfed.engine.partial import give_elements
from medfed.engine.start import Start
from medfed.engine.stopping import Progress, stop_reason
from medfed.engine.strategies import Lane, Strategy
from medfed.engine.teacher import KeptTeacher
from medfed.evaluate.appraisal import Appraisal, appraise, appraise_apart
from medfed.evaluate.evaluation import (
    FEDERATED,
    Candidate,
    class_total,
    evaluate,
    evaluate_apart,
    no_answers,
    own_metrics,
)
from medfed.evaluate.explanation import Average, average
from medfed.metrics.classification import ClassificationSums
from medfed.metrics.measure import Measure, Measures
from medfed.models.catalogue import NetworkCache
from medfed.models.elements import EVERYTHING, Elements
from medfed.models.layers import frozen_elements
from medfed.models.local_layers import local_elements, tuned_elements
from medfed.models.pruning import pruned_elements
from medfed.spec.task import ModelSpec, TaskSpec

_NOTHING: Vector = np.empty(0, np.float32)

OWN_METRICS = 50
"""Sites whose own metrics are asked for after every round; where more take part, after the last one only."""


@dataclass(frozen=True, eq=False)
class LaneState(Message, wire="run.lane_state"):
    """One lane: how its rows become numbers, its algorithm's state, and which of the network's elements that is of."""

    encoding: Encoding
    algorithm: Message
    elements: Elements = EVERYTHING


@dataclass(frozen=True, eq=False)
class SiteVersions(Message, wire="run.site_versions"):
    """The version of each site's memory on which the next request builds."""

    sites: tuple[str, ...]
    numbers: Counts

    @classmethod
    def of(cls, versions: Mapping[str, int]) -> SiteVersions:
        """From a mapping of sites to numbers."""
        sites = tuple(sorted(versions))
        return cls(sites, np.array([versions[site] for site in sites], np.int64))

    def by_site(self) -> dict[str, int]:
        """Site → number."""
        return dict(zip(self.sites, self.numbers.tolist(), strict=True))


@dataclass(frozen=True, eq=False)
class RunState(Message, wire="run.state"):
    """Everything the coordinator knows between two rounds. stopped: why the run is over, or empty."""

    round: int
    lanes: tuple[LaneState, ...]
    versions: SiteVersions
    progress: Progress
    absences: tuple[Absence, ...]
    stopped: str


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the metrics: whose, of which split, and the measure."""

    round: int
    site: str
    split: Split
    measure: Measure


@dataclass(frozen=True)
class RoundMetrics:
    """What was measured after a round, and the sites that did not answer as asked."""

    round: int
    rows: tuple[Row, ...]
    absences: tuple[Absence, ...] = ()

    def value(self, metric: str, site: str = FEDERATED) -> float | None:
        """The value of a metric at a site, or over all; None where there is none."""
        return next((r.measure.value for r in self.rows if r.site == site and r.measure.metric == metric), None)


@dataclass(frozen=True)
class Process:
    """A task over a federation of the hospitals, ready to run.

    external: sites that are held out. They are told how rows become numbers and asked for their metrics, and nothing of
    theirs reaches the federation's. start: the weights that it begins from, if any. teacher: whose answers sites
    learn from, if any.
    """

    task: TaskSpec
    strategy: Strategy
    federation: SiteFederation
    networks: NetworkCache
    external: tuple[str, ...] = ()
    start: Start | None = None
    teacher: KeptTeacher | None = None

    def initialize(self) -> RunState:
        """Prepare the sites' data and give every lane its initial model. The state before the first round."""
        self.federation.conversation.begin_round(0, {})
        data = self.task.data
        agreed = agreed_columns(self.federation, data, self.task.task_type)
        check_classes(len(agreed.classes), self.task)
        earlier = self.teacher or self.start  # the same encoding, where both are of runs
        continued = earlier.encoding(agreed) if earlier is not None else None
        initial = cache(self._initial)  # many lanes, hardly ever different inputs
        teaching = None if self.teacher is None else cache(self.teacher.weights)
        lanes = []
        for lane in self.strategy.lanes:
            trainers = self.federation.restricted(lane.trainers)
            encoding = continued or fit_encoding(trainers, agreed, data)
            weights, elements = initial(input_shape(encoding, self.task.model), len(encoding.classes))
            for sites in dict.fromkeys((lane.trainers, lane.serves)):
                adopt_encoding(self.federation.restricted(sites), encoding)
                if not elements.everything:
                    give_elements(self.federation.restricted(sites), elements)
            if teaching is not None:
                give_teacher(trainers, teaching(input_shape(encoding, self.task.model), len(encoding.classes)))
            lanes.append(LaneState(encoding, self._algorithm(weights).initialize(trainers), elements))
        if self.measures_external:
            offer_encoding(self.federation, lanes[0].encoding, self.external)
        return RunState(0, tuple(lanes), self._versions(), Progress(), self._absences(()), "")

    def sheets(self, state: RunState) -> dict[str, DataSheet]:
        """Each site's data sheet; a site that withholds its own is absent."""
        return dict(sorted(self.each_sheet(state)))

    def each_sheet(self, state: RunState) -> Iterator[tuple[str, DataSheet]]:
        """:meth:`sheets` as they come, one at a time."""
        self._revisit(state)
        outside = self.federation.restricted(self.external)
        return chain(describe_sites(self.federation), describe_sites(outside) if self.external else ())

    def next(self, state: RunState) -> tuple[RunState, RoundMetrics]:
        """One round of every lane that is not done, and the metrics after it. Raises QuorumLost, Refused."""
        number = state.round + 1
        self._begin(state, number)
        lanes = tuple(self._advance(lane, kept) for lane, kept in zip(self.strategy.lanes, state.lanes, strict=True))
        pruning = self.task.federation.pruning
        if pruning is not None and number == pruning.after:
            pairs = zip(self.strategy.lanes, lanes, strict=True)
            lanes = tuple(self._pruned(lane, kept, pruning.share) for lane, kept in pairs)
        limit = number >= self.task.federation.total_rounds
        done = all(self._algorithm().done(lane.algorithm) for lane in lanes)
        due = done or limit or number % self.task.evaluation.every == 0
        split = Split(self.task.monitored_split)
        metrics = self._measure(lanes, split, number, self.federation.cohort()) if due else RoundMetrics(number, ())
        if due and self.measures_external:
            metrics = replace(metrics, rows=metrics.rows + self._measure_external(lanes, number, state.absences))
        progress = state.progress.after(metrics.value(self.task.stop.metric or ""), self.task.stop)
        reason = stop_reason(progress, self.task.stop, done=done, limit=limit)
        if reason and self.task.federation.fine_tunes:
            self._fine_tune(lanes)
        new = tuple(self.federation.conversation.absences)
        after = RunState(number, lanes, self._versions(), progress, self._absences(state.absences), reason)
        return after, replace(metrics, absences=new)

    def done(self, state: RunState) -> bool:
        """Whether the run is over."""
        return bool(state.stopped)

    def measure(self, state: RunState, split: Split) -> RoundMetrics:
        """The metrics of a state's models on a split, at every site."""
        self._revisit(state)
        metrics = self._measure(state.lanes, split, state.round, self.federation.sites, own=True)
        return replace(metrics, absences=tuple(self.federation.conversation.absences))

    def appraise(self, state: RunState, split: Split) -> tuple[RoundMetrics, dict[str, Appraisal]]:
        """:meth:`measure`, and the appraisals by site and federated, of classification alone; one total serves both."""
        if self.task.task_type != "classification":
            return self.measure(state, split), {}
        self._revisit(state)
        fed, candidates = self.federation, self._candidates(state.lanes, split, self.federation.sites)
        total = class_total(fed, candidates)
        metrics = self._measure(state.lanes, split, state.round, fed.sites, own=True, total=total)
        appraised = appraise(fed, candidates, self.task, total, own=len(candidates) <= OWN_METRICS)
        return replace(metrics, absences=tuple(fed.conversation.absences)), appraised

    @property
    def measures_external(self) -> bool:
        """Whether there are held-out sites, and one model to be measured at them; each site's own is not."""
        return bool(self.external) and len(self.strategy.lanes) == 1

    def measure_external(self, state: RunState) -> RoundMetrics:
        """The metrics of a state's model on all rows of each held-out site; of those sites together, none."""
        self._revisit(state)
        rows = self._measure_external(state.lanes, state.round, state.absences)
        return RoundMetrics(state.round, rows, tuple(self.federation.conversation.absences))

    def appraise_external(self, state: RunState) -> dict[str, Appraisal]:
        """The final appraisal of a state's classifier by each held-out site that releases one."""
        if self.task.task_type != "classification":
            return {}
        self._revisit(state)
        prepared = [site for site in self.external if site not in self._unprepared(state.absences)]
        return appraise_apart(self.federation, dict.fromkeys(prepared, self._external_candidate(state.lanes)))

    def explain(self, state: RunState, split: Split) -> Average | None:
        """What the answers of a state's models rest on, on average over sites.

        None where the task does not ask for it or policies keep it. It ends no run: where too few sites answer there
        is none either.
        """
        if not self.task.evaluation.explanations:
            return None
        self._revisit(state)
        with suppress(QuorumLost):
            return average(self.federation, self._candidates(state.lanes, split, self.federation.sites))
        return None

    def weights(self, state: RunState) -> dict[str, Vector]:
        """Each lane's model as a flat vector, the elements that are not trained included, by the lane's name."""
        models = zip(self._models(state.lanes), state.lanes, strict=True)
        return {lane.name: kept.elements.whole(weights) for (lane, _, weights), kept in models}

    def _advance(self, lane: Lane, kept: LaneState) -> LaneState:
        algorithm = self._algorithm()
        if algorithm.done(kept.algorithm):
            return kept
        trainers = self.federation.restricted(lane.trainers)
        return replace(kept, algorithm=algorithm.round(trainers, kept.algorithm))

    def _fine_tune(self, lanes: tuple[LaneState, ...]) -> None:
        """Have every site train a model of its own, also those that were in no cohort of late."""
        for lane, _, weights in self._models(lanes):
            self.federation.restricted(lane.serves).sum(fine_tune, Finished(weights))

    def _pruned(self, lane: Lane, kept: LaneState, share: float) -> LaneState:
        """The lane with a share of its model's units removed; its algorithm begins anew with what is left."""
        model = kept.elements.whole(self._algorithm().result(kept.algorithm).weights)
        network = self.networks.fresh(input_shape(kept.encoding, self.task.model), len(kept.encoding.classes))
        elements = pruned_elements(network, model, kept.elements, share)
        for sites in dict.fromkeys((lane.trainers, lane.serves)):
            give_elements(self.federation.restricted(sites), elements)
        begun = self._algorithm(elements.chosen(model)).initialize(self.federation.restricted(lane.trainers))
        return LaneState(kept.encoding, begun, elements)

    def _initial(self, shape: tuple[int, ...], classes: int) -> tuple[Vector, Elements]:
        """The trained elements of the first model, and which they are."""
        network = self.networks.fresh(shape, classes)
        if self.start is not None:
            self.start.apply(network)
        elements = frozen_elements(network, self.task.model.freeze)
        network.restrict(elements)
        local = self.task.federation.local_layers
        if local != "none":
            local_elements(network, local)  # a layer that is not there is told before anything is sent
        tune = self.task.federation.fine_tune
        if tune is not None:
            tuned_elements(network, tune.layers)
        if network.has_statistics and local not in ("norm", "statistics") and not self.strategy.kind.AVERAGES:
            strategy, model = self.task.federation.strategy.name, self.task.model.name
            raise UserError(
                f"{strategy} cannot aggregate the running statistics (batch normalisation) of {model}",
                remedy="choose a strategy that averages: fedavg, fedprox or scaffold; or keep them at the sites: "
                "local_layers: statistics",
            )
        return network.vector(), elements

    def _algorithm(self, initial: Vector = _NOTHING) -> Algorithm[Message]:
        """The lanes' algorithm; once there is a state, it needs the initial weights no more."""
        return self.strategy.algorithm(initial, self.task.federation.total_rounds, self.task.stop.tolerance)

    def _models(self, lanes: tuple[LaneState, ...]) -> Iterator[tuple[Lane, Encoding, Vector]]:
        for lane, kept in zip(self.strategy.lanes, lanes, strict=True):
            yield lane, kept.encoding, self._algorithm().result(kept.algorithm).weights

    def _candidates(self, lanes: tuple[LaneState, ...], split: Split, sites: tuple[str, ...]) -> dict[str, Candidate]:
        chosen = frozenset(sites)
        candidates: dict[str, Candidate] = {}
        for lane, encoding, weights in self._models(lanes):
            candidate = Candidate(weights, split, len(encoding.classes))
            candidates.update((site, candidate) for site in lane.serves if site in chosen)
        return candidates

    def _measure(
        self,
        lanes: tuple[LaneState, ...],
        split: Split,
        number: int,
        sites: tuple[str, ...],
        *,
        own: bool = False,
        total: ClassificationSums | None = None,
    ) -> RoundMetrics:
        """The metrics at some sites, and each one's own if ``own``, or if they are few. total: as of ``evaluate``.

        A site that failed is told from one that withholds. Where the task draws a cohort, a round's metrics are those
        of its sites.
        """
        own = own or len(sites) <= OWN_METRICS
        recentre = self.task.privacy.release is None  # noisy sums have a fixed centre, and each one costs
        candidates, classes = self._candidates(lanes, split, sites), lanes[0].encoding.classes
        masks = classes if self.task.task_type == "segmentation" else ()
        measured = evaluate(self.federation, candidates, masks=masks, own=own, recentre=recentre, total=total)
        absences = self.federation.conversation.absences
        failed = {a.site for a in absences if a.step == own_metrics.name and a.code != Refused.code}
        for site in failed:
            measured[site] = Measures(tuple(replace(m, reason="no answer") for m in measured[site].measures))
        return RoundMetrics(number, tuple(_rows(number, split, measured)))

    def _measure_external(
        self, lanes: tuple[LaneState, ...], number: int, before: tuple[Absence, ...]
    ) -> tuple[Row, ...]:
        """The metrics at held-out sites; of one whose rows do not fit, why that is. before: absences until now."""
        candidate, unprepared = self._external_candidate(lanes), self._unprepared(before)
        prepared = [site for site in self.external if site not in unprepared]
        measured = evaluate_apart(self.federation, dict.fromkeys(prepared, candidate), self.task.task_type)
        self.federation.conversation.absences += [replace(each, round=number) for each in unprepared.values()]
        measured |= dict.fromkeys(unprepared, no_answers(self.task.task_type))
        return tuple(_rows(number, Split.EXTERNAL, measured))

    def _unprepared(self, before: tuple[Absence, ...]) -> dict[str, Absence]:
        """The held-out sites whose rows the encoding does not fit, each with the first absence that says why."""
        failed = [each for each in before if each.step == adopt.name and each.code in (DataError.code, Refused.code)]
        return {each.site: each for each in reversed(failed) if each.site in self.external}

    def _external_candidate(self, lanes: tuple[LaneState, ...]) -> Candidate:
        """The whole model: sites that never train are not told of elements that are not trained."""
        _, encoding, weights = next(self._models(lanes))
        return Candidate(lanes[0].elements.whole(weights), Split.EXTERNAL, len(encoding.classes))

    def _begin(self, state: RunState, number: int) -> None:
        self.federation.conversation.begin_round(number, state.versions.by_site())

    def _revisit(self, state: RunState) -> None:
        """Ask about a state, after what was asked about it before: sites keep those replies, to give them again."""
        conversation, versions = self.federation.conversation, state.versions.by_site()
        if (conversation.round, conversation.settled) != (state.round, versions):
            self._begin(state, state.round)
        conversation.absences.clear()

    def _absences(self, before: tuple[Absence, ...]) -> tuple[Absence, ...]:
        return before + tuple(self.federation.conversation.absences)

    def _versions(self) -> SiteVersions:
        return SiteVersions.of(self.federation.conversation.versions)


def _rows(number: int, split: Split, measured: dict[str, Measures]) -> Iterator[Row]:
    for site, measures in measured.items():
        for measure in measures.measures:
            yield Row(number, site, split, measure)


def check_classes(classes: int, task: TaskSpec) -> None:
    """Raise UserError where the data have another number of classes than the task says elsewhere."""
    weights, declared = task.federation.class_weights, task.model.num_classes
    if isinstance(weights, tuple) and len(weights) != classes:
        raise UserError(
            f"federation.class_weights has {len(weights)} weights, and the data have {classes} classes",
            remedy="give one weight a class, in the order of the classes, or write: balanced",
        )
    if declared is not None and declared != classes:
        raise UserError(
            f"model.num_classes is {declared}, and the data have {classes} classes",
            remedy="leave it out, or declare all classes by data.label.classes",
        )


def input_shape(encoding: Encoding, model: ModelSpec) -> tuple[int, ...]:
    """The shape of one input. Raises UserError where the data are arrays and the task does not say their shape."""
    if not encoding.is_array:
        return (len(encoding.features),)
    if model.input_size is None:
        raise UserError(
            "the data are arrays of unstated shape",
            remedy="add to the task: model: {input_size: [1, 28, 28]}",
        )
    return model.input_size
