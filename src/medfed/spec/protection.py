"""What the section ``privacy`` of a task must agree on, in itself and with the rest."""

from __future__ import annotations

from collections.abc import Iterator

from medfed.spec.document import Keys
from medfed.spec.problems import Problem
from medfed.spec.task import FederationSpec, RecordPrivacy, ReleasePrivacy, SitePrivacy, TaskSpec

_LEAST_GAUSSIAN = 0.01


def check_privacy(spec: TaskSpec) -> Iterator[Problem]:
    """Every disagreement of a task's privacy."""
    if spec.privacy.update_bound is not None and not spec.privacy.hides_parts:
        yield Problem(
            ("privacy", "update_bound"),
            "`update_bound` is for secure aggregation and encryption, and totals are in the clear",
            "leave it out, or add `aggregation: secure`",
        )
    yield from _record_privacy(spec)
    yield from _site_privacy(spec)
    yield from _label_privacy(spec)
    yield from _release_privacy(spec)
    yield from _stratified(spec)


def _stratified(spec: TaskSpec) -> Iterator[Problem]:
    """Where a patient may move a neighbour to another part, noise for one patient's rows is too little."""
    privacy = spec.privacy
    for name, section in (("record", privacy.record), ("labels", privacy.labels), ("release", privacy.release)):
        if section is not None and spec.data.split.stratify:
            yield Problem(
                ("data", "split", "stratify"),
                f"with exact proportions one patient can move another from part to part, which the noise of "
                f"`privacy.{name}` does not cover",
                "write `stratify: false`",
            )
            return


def _record_privacy(spec: TaskSpec) -> Iterator[Problem]:
    record = spec.privacy.record
    if record is None:
        return
    both, example = "each site finds its noise from `epsilon`", "record: {epsilon: 3, delta: 1e-5}"
    yield from _strength(record, "record", both, example)
    yield from check_private_training(spec.federation, ("federation",))


def _strength(section: RecordPrivacy | SitePrivacy, name: str, both: str, example: str) -> Iterator[Problem]:
    """Noise is said by exactly one of two keys. both: what is the case where the two are given."""
    if section.epsilon is not None and section.noise_multiplier is not None:
        yield Problem(
            ("privacy", name, "noise_multiplier"),
            f"`epsilon` and `noise_multiplier` are both given, but {both}",
            "keep one of the two",
        )
    elif section.epsilon is None and section.noise_multiplier is None:
        yield Problem(
            ("privacy", name),
            f"`privacy.{name}` says neither `epsilon` nor `noise_multiplier`",
            f"write, for example: `{example}`",
        )


def _site_privacy(spec: TaskSpec) -> Iterator[Problem]:
    site = spec.privacy.site
    if site is None:
        return
    both, example = "the noise follows from `epsilon`", "site: {epsilon: 8, delta: 1e-5, clip_norm: 1.0}"
    yield from _strength(site, "site", both, example)
    if spec.federation.compression.name != "none":
        yield Problem(
            ("federation", "compression"),
            "the noise of `privacy.site` is in the sum of updates as they are, and not in that of compressed ones",
            "leave it out; `{zstd: true}` alone loses nothing and may stay",
        )


def _label_privacy(spec: TaskSpec) -> Iterator[Problem]:
    if spec.privacy.labels is None:
        return
    if spec.task_type != "classification":
        yield Problem(
            ("privacy", "labels"),
            f"randomised response needs classes to answer with, and {spec.task_type} has none",
            "remove `privacy.labels`; `privacy.record` protects outcomes, too",
        )
    elif spec.data.label is None or (spec.data.label.positive is None and spec.data.label.classes is None):
        yield Problem(
            ("data", "label"),
            "which classes there are would be read off the true labels (prepare.report_levels)",
            "declare them, for example: `label: {column: ill, classes: [0, 1]}`",
        )
    if spec.federation.class_weights == "balanced":
        yield Problem(
            ("federation", "class_weights"),
            "`balanced` would weigh by counts of noisy labels (`privacy.labels`)",
            "list one weight for each class, or write `none`",
        )


def _release_privacy(spec: TaskSpec) -> Iterator[Problem]:
    release = spec.privacy.release
    if release is None:
        return
    yield from _release_mechanism(release, spec.task_type)
    if spec.data.standardize != "none":
        yield Problem(
            ("data", "standardize"),
            "means and scales depend on all rows, so that one patient would move every prediction, and "
            "`privacy.release` is for what that patient's own rows move",
            "write `standardize: none`",
        )
    if spec.data.images.federated:
        yield Problem(
            ("data", "images", "transforms"),
            "`normalise` sums intensities (prepare.intensities), which declare no sensitivity for `privacy.release`",
            "write `{name: normalise, by: image}`, or give its values",
        )
    if spec.data.missing.strategy == "impute":
        yield Problem(
            ("data", "missing", "strategy"),
            "`impute` sums columns (prepare.moments), which declare no sensitivity for `privacy.release`",
            "write `strategy: drop`",
        )
    for name, column in spec.data.columns.items():
        if column.type in {"categorical", "binary"} and column.levels is None:
            yield Problem(
                ("data", "columns", name),
                "its levels would be counted (prepare.moments), without sensitivity for `privacy.release`",
                "declare its `levels`",
            )


def _release_mechanism(release: ReleasePrivacy, task_type: str) -> Iterator[Problem]:
    at: Keys = ("privacy", "release")
    if (release.delta is not None) != (release.mechanism == "gaussian"):
        yield Problem(
            (*at, "delta") if release.delta is not None else at,
            f"`mechanism: {release.mechanism}` {'takes no' if release.delta is not None else 'needs a'} `delta`",
            "write `{mechanism: gaussian, epsilon: 0.5, delta: 1e-6}`, or `{mechanism: laplace, epsilon: 0.5}`",
        )
    if release.mechanism == "gaussian" and release.epsilon <= _LEAST_GAUSSIAN:
        yield Problem(
            (*at, "epsilon"),
            f"epsilon of {_LEAST_GAUSSIAN:g} or less is within the error of the accountant of Gaussian noise",
            "write a larger one, or `mechanism: laplace`",
        )
    if task_type == "regression" and release.outcome is None:
        yield Problem(
            at,
            "the sums of outcomes and errors have no bound for which `privacy.release` could choose its noise",
            "write the range of the outcome, for example: `outcome: [0, 200]`",
        )
    if release.outcome is not None and task_type != "regression":
        yield Problem((*at, "outcome"), f"`outcome` is a range of numbers, and {task_type} has none", "remove it")
    if release.outcome is not None and not release.outcome[0] < release.outcome[1]:
        yield Problem((*at, "outcome"), "`outcome` is no range", "write the smaller number first")


def check_private_training(federation: FederationSpec, at: Keys) -> Iterator[Problem]:
    """What differential privacy by record excludes of local training."""
    if federation.class_weights == "balanced":
        yield Problem(
            (*at, "class_weights"),
            "`balanced` weighs by counts of a site's own rows, which the noise of `privacy.record` does not cover",
            "list one weight for each class, or write `none`",
        )
    if federation.precision == "bfloat16":
        yield Problem(
            (*at, "precision"),
            "`bfloat16` is too coarse for gradients whose norm `privacy.record` bounds for every row",
            "write `precision: float32`",
        )
    if federation.pruning is not None:
        yield Problem(
            (*at, "pruning"),
            "`privacy.record` clips the gradients of whole layers, not of the units that pruning leaves in them",
            f"remove `{'.'.join(map(str, at))}.pruning`, or train without `privacy.record`",
        )
    if federation.accumulate > 1:
        yield Problem(
            (*at, "accumulate"),
            "`privacy.record` draws batches of unknown size, and computes them in pieces that fit memory already",
            f"remove `{'.'.join(map(str, at))}.accumulate`",
        )
    if federation.clip_norm is not None:
        yield Problem(
            (*at, "clip_norm"),
            "`privacy.record` clips each row's gradient already, to its own `clip_norm`",
            f"remove `{'.'.join(map(str, at))}.clip_norm`",
        )
