"""A task's differential privacy in a steward's words."""

from __future__ import annotations

from collections.abc import Iterator

from medfed.spec.task import RecordPrivacy, SitePrivacy, TaskSpec


def noise(spec: TaskSpec) -> Iterator[str]:
    """What the task's noise covers, and what it does not."""
    privacy = spec.privacy
    if all(each is None for each in (privacy.record, privacy.site, privacy.labels, privacy.release)):
        yield "No noise is added: the task trains without differential privacy (privacy.record)."
        return
    if privacy.record is not None:
        yield from _by_record(privacy.record, noisy_sums=privacy.release is not None)
    else:
        yield "No noise protects single rows in training: the task trains without privacy.record."
    if privacy.site is not None:
        yield from _by_site(privacy.site, hidden=privacy.hides_parts)
    if privacy.labels is not None:
        yield (
            "Before it trains, this hospital exchanges some of its training labels for random ones, once for this task "
            f"and its rows: whatever is seen, one row's label changes its odds by a factor of e to the "
            f"{privacy.labels.epsilon:g} at most. This protects labels alone, not the rest of a row."
        )
    if privacy.release is not None:
        yield (
            "Every sum beside the training is released with noise drawn at this hospital, so that a patient with "
            f"{_rows(privacy.release.rows_per_patient)} changes the odds of what is seen by a factor of e to the "
            f"{privacy.release.epsilon:g} at most, each time it is asked for; figures about this hospital alone do not "
            "leave it."
        )


def _rows(most: int) -> str:
    return "one row" if most == 1 else f"up to {most:,} rows"


def _by_site(site: SitePrivacy, *, hidden: bool) -> Iterator[str]:
    """What protects a hospital as a whole, and from whom."""
    strength = (
        f"epsilon is {site.epsilon:g} at most"
        if site.epsilon is not None
        else f"it is {site.noise_multiplier:g} times that bound"
    )
    norm = f"{site.clip_norm:g}" + (" to begin with" if site.adaptive is not None else "")
    yield (
        f"The change of the model's weights by this hospital is bounded as a whole (clip_norm {norm}) and counts as "
        f"much as any other's; the hospitals together add so much noise to the total that {strength}, at delta "
        f"{site.delta:g}, for all rows of this hospital together (privacy.site)."
    )
    if not hidden:
        yield (
            "That noise is shared between the hospitals: this one adds a part of it, and the coordinator, who sees "
            "this hospital's own contribution, is trusted with what the part does not hide. Others see the total."
        )


def _by_record(record: RecordPrivacy, *, noisy_sums: bool) -> Iterator[str]:
    """What protects a row in training."""
    strength = (
        f"so much noise that epsilon is {record.epsilon:g} at most"
        if record.epsilon is not None
        else f"noise of {record.noise_multiplier:g} times that bound, whose epsilon depends on this hospital's rows"
    )
    yield (
        f"In training, each row's part in a step is bounded (clip_norm {record.clip_norm:g}), and noise is added at "
        f"this hospital: {strength} over the whole run, at delta {record.delta:g} (differential privacy by record, "
        "DP-SGD). Whether a row was there at all changes the odds of anything that the model shows by a factor of e to "
        "the epsilon at most, but for a chance of about delta: the smaller epsilon, the less it can tell of one row."
    )
    if not noisy_sums:
        yield (
            "The noise covers the change of the model's weights alone. The numbers of rows, the sums that standardise "
            "columns, the names of categories and all measurements leave as described above, without noise. It "
            "protects one row: a patient with several rows is protected less."
        )
