"""What each attack of an audit found, in plain words and a figure."""

from __future__ import annotations

from dataclasses import dataclass

from medfed.attacks.results import Audit, Canaries, Inversion, Labels, Membership, Proportion, Reconstruction, Success
from medfed.report.canvas import FEDERATED_STROKE, Dot, Dots, Trace, dot_panel, rates_panel, stroke
from medfed.report.figures import Legend, Panel, Panels
from medfed.report.words import number, plural

_TWICE, _MANY = 2, 10
"""How many times as often as outsiders members are named, for it to be told; and to be told in strong words."""


_WHOLE = (-0.03, 1.03)
"""The axis of a share."""


@dataclass(frozen=True)
class Finding:
    """One attack. got, guess: what it reached, and what guessing reaches, in a few words. serious: whether it recovered
    something from the run as it was."""

    key: str
    title: str
    after: str
    got: str
    guess: str
    serious: bool
    tried: str
    recovered: tuple[str, ...]
    means: str
    figure: Panels | None


def findings(audit: Audit) -> tuple[Finding, ...]:
    """The attacks that were tried, in order."""
    sender = "the total over the sites" if audit.total else "one site’s update"
    found = (
        audit.inversion and _inversion(audit.inversion, sender),
        audit.labels and _labels(audit.labels, sender),
        audit.reconstruction and _reconstruction(audit.reconstruction),
        audit.membership and _membership(audit.membership),
        audit.canary and _canary(audit.canary),
    )
    return tuple(each for each in found if each)


def percent(share: float) -> str:
    """A share in per cent: whole, but for what is below ten or close to all."""
    return f"{100 * share:.{0 if 0.1 <= share <= 0.95 or share in (0, 1) else 1}f} %"


def _inversion(found: Inversion, sender: str) -> Finding:
    serious = found.update.count > 0
    alone, sent = found.single, found.update
    if serious:
        means = (
            "Single records can be read off the updates of this very task. Do not send them in the clear: use secure "
            "aggregation, larger batches, and differential privacy by record."
        )
    elif alone.count:
        means = (
            "Averaging over a batch and several steps hid single records from this attack. A task that sends one "
            "record’s gradient, by a batch of one and a single step, hands that record over. Averaging is no proof: "
            "other attacks use more than this one does."
        )
    else:
        means = "Even a record sent alone did not come back: noise, clipping or the optimizer destroy what is read off."
    return Finding(
        key="inversion",
        title="Records read off gradients",
        after="the training records themselves",
        got=f"{sent.count:,} of {sent.of:,} records",
        guess="none",
        serious=serious,
        tried=(
            "The first layer of this model multiplies a record by weights. Its gradient for one record contains the "
            "record, up to a factor that stands beside it, so that one division gives it back. The attack tries this "
            f"for each neuron: on records sent alone, the worst case, and on {sender} of the first round, as the task "
            f"sends it (up to {plural(found.updates, 'local step')})."
        ),
        recovered=(
            f"Sent alone: {alone.count:,} of {alone.of:,} records came back, to a thousandth of their size.",
            f"As this task sends them: {sent.count:,} of the {sent.of:,} records behind the updates came back, "
            f"among {plural(found.candidates, 'candidate')}.",
        ),
        means=means,
        figure=_shares("inversion", "Share of records recovered", {"sent alone": alone, "as sent": sent}),
    )


def _labels(found: Labels, sender: str) -> Finding:
    alone = found.single
    better = found.update_error < found.guess_error / 2
    return Finding(
        key="labels",
        title="Diagnoses read off gradients",
        after="the class of a record, or how frequent each class is",
        got=f"shares of classes to within {100 * found.update_error:.0f} points",
        guess=f"{100 * found.guess_error:.0f} points",
        serious=better,
        tried=(
            "The gradient of the last layer says how far the predictions are from the truth. Of one record that is its "
            f"class; of many, how frequent each class is among them. The attack tried single records, and {sender} of "
            "the first round, with held-out rows as knowledge of what patients look like."
        ),
        recovered=(
            f"Sent alone: the class of {alone.count:,} of {alone.of:,} records was right. Naming the most frequent "
            f"class is right for {percent(found.majority)}.",
            f"As this task sends them: the classes’ shares were off by {100 * found.update_error:.1f} percentage "
            f"points on average. Taking all classes for equally frequent is off by {100 * found.guess_error:.1f}.",
        ),
        means=(
            "Whoever sees an update learns about how many of a site’s patients have the diagnosis, but not who."
            if better
            else "The update as sent told hardly more of the classes’ shares than a guess."
        ),
        figure=_shares("labels", "Share of classes right, sent alone", {"attack": alone, "guess": found.majority}),
    )


def _reconstruction(found: Reconstruction) -> Finding:
    hits = sum(picture.found for picture in found.pictures)
    best = max(picture.psnr for picture in found.pictures)
    values = {f"image {i + 1}": picture.psnr for i, picture in enumerate(found.pictures)}
    means = {f"image {i + 1}": picture.mean_psnr for i, picture in enumerate(found.pictures)}
    return Finding(
        key="reconstruction",
        title="Images rebuilt from gradients",
        after="what an image shows",
        got=f"{hits} of {len(found.pictures)} images sent alone",
        guess="none",
        serious=False,
        tried=(
            "From noise, the attack changes an image step by step until its gradient points the same way as the one "
            f"it saw ({found.iterations:,} steps an image, Inverting Gradients). Each image was sent alone: the worst "
            "case."
        ),
        recovered=(
            f"{hits} of {plural(len(found.pictures), 'image')} could be told among the {found.images:,} of the site: "
            "the original was the nearest to what the attack made.",
            f"The best came back with {best:.1f} dB. The mean of all images in its place gives "
            f"{max(p.mean_psnr for p in found.pictures):.1f} dB at best; from about 20 dB on a picture is recognised.",
        ),
        means=(
            "One image’s gradient shows the image. Larger batches and more local steps make it harder, which this "
            "audit did not try; secure aggregation and differential privacy by record prevent it."
            if hits
            else "The gradient of one image, as this task forms it, did not show the image to this attack."
        ),
        figure=Panels(
            (Legend("Attack", stroke(1)), Legend("Mean of all images", stroke(0))),
            (
                Panel(
                    "Likeness to the original (dB)",
                    dot_panel(
                        tuple(values),
                        (
                            Dots(tuple(Dot(i, v) for i, v in enumerate(values.values())), stroke(1)),
                            Dots(tuple(Dot(i, v) for i, v in enumerate(means.values())), stroke(0)),
                        ),
                        name="reconstruction",
                        alt="Likeness in dB. "
                        + "; ".join(f"{k}: {v:.1f}, mean {means[k]:.1f}" for k, v in values.items()),
                    ),
                ),
            ),
        ),
    )


def _rate(found: Success) -> str:
    return f"{percent(found.tpr)} (95 % interval {percent(found.tpr_low)} to {percent(found.tpr_high)})"


def _membership(found: Membership) -> Finding:
    shadows, own = found.shadows, found.own
    told = shadows.tpr_low > shadows.false_positives and shadows.tpr >= _TWICE * shadows.false_positives
    recovered = [
        f"Models trained as this one was: where 1 % of outsiders are wrongly accused, {_rate(shadows)} of the members "
        f"are named. Over all thresholds the area under the curve is {number(shadows.auc)} ({number(shadows.auc_low)} "
        f"to {number(shadows.auc_high)}); a guess has 0.5.",
    ]
    if own:
        recovered.append(
            f"The run’s own model: {_rate(own)} of the members, area {number(own.auc)} ({number(own.auc_low)} to "
            f"{number(own.auc_high)})."
        )
    curves = [
        ("Models trained alike", shadows, stroke(1)),
        *([("This run’s model", own, FEDERATED_STROKE)] if own else []),
    ]
    return Finding(
        key="membership",
        title="Who was among the patients",
        after="whether a known record was trained on",
        got=f"{percent(shadows.tpr)} of members, at 1 % false alarms",
        guess="1 %",
        serious=told,
        tried=(
            "The attacker has a person’s record, diagnosis included, and wants to know whether it was used. It trains "
            f"{plural(found.models, 'model')} of its own by the same task, each on {percent(found.share)} of "
            f"{plural(found.records, 'record')}, and compares how sure the model is of this record with how sure "
            "models are that had it, and models that had it not (LiRA)."
        ),
        recovered=tuple(recovered),
        means=_told(shadows) if told else _UNTOLD,
        figure=Panels(
            tuple(Legend(label, look) for label, _, look in curves),
            (
                Panel(
                    "Members named against outsiders accused",
                    rates_panel(
                        tuple(Trace(each.curve_fpr, each.curve_tpr, look) for _, each, look in curves),
                        name="membership",
                        alt="True positive rate against false positive rate, both logarithmic. "
                        + "; ".join(f"{label}: {percent(each.tpr)} at 1 %" for label, each, _ in curves),
                    ),
                ),
            ),
        ),
    )


def _told(found: Success) -> str:
    times = found.tpr / found.false_positives
    how = (
        "For some persons one can tell with confidence that they were"
        if times >= _MANY
        else "Some persons stand out as"
    )
    return (
        f"{how} among the patients: members are named {times:.1f} times as often as outsiders. Where that alone is "
        "sensitive, train with differential privacy by record, or less long."
    )


_UNTOLD = (
    "This attack can hardly tell members from others. It is one of the strongest known, but no proof: an attacker with "
    "more models, or one that sees every round’s update, does better."
)


def _canary(found: Canaries) -> Finding:
    beyond = found.accounted is not None and found.epsilon > found.accounted
    accounted = "no bound" if found.accounted is None else f"epsilon {number(found.accounted)}"
    if beyond:
        means = (
            "The attack found more than the accounts allow. By chance that happens in one audit of twenty; if it "
            "happens again, the differential privacy of this run does not hold: report it."
        )
    elif found.accounted is None:
        means = (
            "The run promised no bound, and so none could be broken. What is measured is the least that it leaks: an "
            "epsilon of 3 would mean that odds change twentyfold. Zero does not mean that nothing leaks."
        )
    else:
        means = (
            "What was measured lies below what was promised, as it must. A gap between the two is normal: the promise "
            "holds against every attacker, and this one saw the final model only."
        )
    return Finding(
        key="canary",
        title="Planted records",
        after="whether a planted record was trained on",
        got=f"epsilon at least {found.epsilon:.2g}",
        guess="epsilon 0",
        serious=beyond or (found.accounted is None and found.epsilon > 1),
        tried=(
            f"The task was trained {plural(found.trainings, 'more time')} with training records given a wrong "
            f"diagnosis. A coin decided for each whether it was left in: {plural(found.planted, 'coin')}. The attacker "
            "guessed the coins of those of which the final model was surest and least sure."
        ),
        recovered=(
            f"{found.right:,} of {plural(found.guesses, 'guess')} were right.",
            f"{_bound(found)} The run’s accounts say: {accounted}.",
        ),
        means=means,
        figure=_epsilons(found),
    )


def _bound(found: Canaries) -> str:
    if found.epsilon == 0:
        return "That is no more than chance explains: no epsilon is too small for it."
    return (
        f"With {percent(found.confidence)} confidence, no differential privacy with an epsilon below "
        f"{found.epsilon:.2g} (delta {found.delta:g}) allows so many."
    )


def _epsilons(found: Canaries) -> Panels | None:
    """What was measured beside what was accounted for; of the first alone no picture says more than its number."""
    if found.accounted is None:
        return None
    dots = (Dots((Dot(0, found.epsilon),), stroke(1)), Dots((Dot(1, found.accounted),), FEDERATED_STROKE))
    svg = dot_panel(
        ("measured", "accounted"),
        dots,
        name="canary",
        alt=f"Epsilon. Measured: {number(found.epsilon)}; accounted: {number(found.accounted)}.",
        limits=(-0.05 * found.accounted, 1.1 * max(found.accounted, found.epsilon)),
    )
    return Panels((), (Panel("Epsilon: measured at least, accounted at most", svg),))


def _shares(name: str, caption: str, rows: dict[str, Proportion | float]) -> Panels:
    """Shares by row, with their intervals; a bare number has none."""
    dots = tuple(
        Dot(i, each.value, (each.low, each.high)) if isinstance(each, Proportion) else Dot(i, each)
        for i, each in enumerate(rows.values())
    )
    said = [f"{row}: {percent(dot.value)}" for row, dot in zip(rows, dots, strict=True)]
    svg = dot_panel(
        tuple(rows), (Dots(dots, stroke(1)),), name=name, alt=f"{caption}. {'; '.join(said)}.", limits=_WHOLE
    )
    return Panels((), (Panel(caption, svg),))
