"""Fill in the tables of the pages that describe files: ``python docs/reference/generate.py``.

Keys, types and defaults come from the pydantic models that read those files; the meanings below are by hand. A key
without a meaning, or a meaning without a key, is an error. In a page, a table stands between ``<!-- keys: SECTION -->``
and ``<!-- end -->``; ``top`` are the keys that have none below them. A section that has a meaning itself is one row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from medfed.spec.consortium import ConsortiumSpec
from medfed.spec.policy import Policy
from medfed.spec.site import SiteFile
from medfed.spec.task import TaskSpec

HERE = Path(__file__).parent

TASK_MEANINGS = {
    "name": "The run's name: in its folder's name, its report and its model card.",
    "task_type": "What is learnt: a class, a number, or (`segmentation`) a class for each pixel of an image: see "
    "[segment images](../how-to/segment-images.md).",
    "model.name": "`logistic`, `linear`, `mlp`, `cnn`, `rnn`, `resnet18`, `densenet121`, and for "
    "segmentation `unet`, `segresnet` (the last four: extra `imaging`), or a "
    "[model of your own](../how-to/add-a-model-by-entry-point.md). Further keys are the model's options: see "
    "[below](#models).",
    "model.input_size": "The shape of one input without the batch. Needed for images and time series; tables "
    "tell it themselves.",
    "model.num_classes": "The number of classes. Checked against `data.label`; needed by a segmentation without one.",
    "model.pretrained.path": "Begins with the weights of this safetensors file, a path below the task file's folder; "
    "with `sha256`. The text alone stands for `path`. See [transfer learning](../how-to/transfer-learning.md).",
    "model.pretrained.run": "In place of `path`: begins with the model of this finished run, whose encoding of rows is "
    "kept. The same as `medfed run --from`.",
    "model.pretrained.sha256": "The SHA-256 of the weights' file, in hexadecimal; required with `path`. It is part of "
    "the task's digest.",
    "model.pretrained.head": "`new`: the last layer starts afresh, as for other classes. `kept`: its weights are "
    "taken too.",
    "model.pretrained.fresh": "Other layers that start afresh, named as in `freeze`.",
    "model.pretrained.parent": "The id of the earlier run; MedFed fills it in.",
    "model.freeze": "Layers that are neither trained nor sent: names of the network's modules, which take in all below "
    "them, or patterns such as `layer*`. Their running statistics stay as they are.",
    "federation.strategy.name": "`fedavg`, `fedprox`, `scaffold`, `fedadam`, `ditto`, or a baseline: `local`, "
    "`pooled`. Further keys are the strategy's options: see [below](#strategies).",
    "federation.epochs": "Rounds of one local epoch each. Not together with the next three.",
    "federation.rounds": "The number of federated rounds. With none of these four keys there are 10 rounds of one "
    "epoch.",
    "federation.local_epochs": "Epochs at each site in a round; 1 if absent.",
    "federation.local_updates": "Optimiser steps at each site in a round, in place of epochs.",
    "federation.batch_size": "Rows of one local step; `full` takes all training rows of the site.",
    "federation.accumulate": "Computes each batch in so many pieces, one after the other, for one step of their "
    "gradients' weighted mean: the same step in a fraction of the memory. Batch normalisation sees the pieces alone.",
    "federation.lr": "The learning rate of local training.",
    "federation.optimizer": "The local optimiser. Adam has β₁ = 0.9, β₂ = 0.999, ε = 1e-8.",
    "federation.momentum": "Momentum of `sgd`.",
    "federation.weight_decay": "Added to the gradient as `weight_decay · w`.",
    "federation.schedule.name": "How the learning rate changes over rounds r = 1 … R.",
    "federation.schedule.step": "`step`: rounds between two falls; the rate is lr · gamma^⌊(r − 1) / step⌋.",
    "federation.schedule.gamma": "`step`: the factor of each fall.",
    "federation.schedule.floor": "`cosine`: the last rate as a share of lr; the rate falls along half a cosine.",
    "federation.clip_norm": "The largest norm of a local step's gradient.",
    "federation.precision": "`bfloat16` computes the layers of local training, forward and backward, in 16 bits, for "
    "large networks on processors made for it; weights, optimiser, totals and evaluation stay in 32.",
    "federation.compression.name": "How a site sends its updates: `bfloat16` in 2 bytes a number, `int8` in 1, `topk` "
    "only the largest. See [Less to send](../explanation/compression.md).",
    "federation.compression.fraction": "`topk`: the share of an update's numbers that is sent.",
    "federation.compression.zstd": "Squeezes what is sent, without loss (extra `zstd`).",
    "federation.pruning.share": "[Structured pruning](../explanation/compression.md#pruned-units): the share of each "
    "layer's units, those of least norm, that is removed; the last layer keeps its own.",
    "federation.pruning.after": "The round after which this is done; those that follow fine-tune what is left.",
    "federation.distillation.teacher.run": "[Distillation](../explanation/compression.md#distillation): the finished "
    "run whose model teaches, a path below the task file's folder; its encoding of rows is kept. The text alone "
    "stands for `teacher`.",
    "federation.distillation.teacher.sha256": "The SHA-256 of its weights' file; MedFed fills it in, and checks it "
    "where it is given.",
    "federation.distillation.teacher.parent": "The id of that run; MedFed fills it in.",
    "federation.distillation.teacher.model.name": "The teacher's network, with its options; MedFed fills it in.",
    "federation.distillation.temperature": "T, by which the outputs of both are divided: higher, and the teacher's "
    "small probabilities count for more.",
    "federation.distillation.alpha": "α, the weight of the teacher's answers; 1 − α is that of the labels.",
    "federation.class_weights": "Weights of the loss by true class: `balanced` is n / (C · n_c) of the site's own "
    "training rows (of masks: pixels, whose cross-entropy is weighed); a list gives one weight a class, in order.",
    "federation.data_position": "`kept`: a site goes on in its shuffled rows where its last round ended. `fresh`: "
    "every round begins a new shuffle.",
    "federation.optimizer_state": "Whether a site's momentum or Adam moments go on from its last round. If absent: "
    "kept for the baselines, fresh for federated strategies.",
    "federation.cohort": "Sites that train in a round: a whole number of them, or a share (`1.0`: all). Drawn anew "
    "each round from the seed.",
    "federation.quorum": "Sites that must answer a request, of those asked: a whole number, or a share (`1.0`: all).",
    "federation.deadline": "Seconds that a site has for one request; a later reply does not count. None if absent.",
    "federation.local_layers": "Layers that every site keeps for itself, and that are in no update: `statistics` "
    "(running means and variances), `norm` (all of normalisation: FedBN), `head` (the last layer), or a list of layers "
    "by name. See [Models of each hospital's own](../explanation/personalisation.md).",
    "federation.fine_tune.layers": "After the last round each site trains these layers on, and keeps the model for "
    "itself: `all`, or as `local_layers`.",
    "federation.fine_tune.epochs": "The epochs of that.",
    "federation.fine_tune.lr": "Its constant learning rate; that of training if absent.",
    "data.connector.name": "How a site's rows are read: `csv`, `npz`, `image_folder`, `dicom` (extra `imaging`). "
    "Further keys are its options: see [below](#connectors).",
    "data.label.column": "The column to predict. Required for tables; sites given as arrays carry their targets. Of "
    "segmentation it is `mask`.",
    "data.label.positive": "Values that make class 1 (`positive`) of two.",
    "data.label.negative": "With `positive`: values that make class 0 (`negative`); any other value is then an error. "
    "Without it every other value is class 0.",
    "data.label.classes": "All class names, in order; any other value is an error. Not together with `positive`. With "
    "neither, the sites report the names that enough patients share. Of segmentation: the names of the masks' numbers "
    "0, 1, …, or whole numbers as they stand in the masks; the first is the background. If absent, 0 to "
    "`model.num_classes` − 1.",
    "data.id": "The column of the patients' ids. It decides the splits and is never a feature. If absent, it is what "
    "the site's file says; for images, DICOM's `patient` or an archive's `id`, where every labelled one has it. Else "
    "each row is a patient.",
    "data.columns": "The feature columns. If empty, every column but label, id and split is a feature, and its type is "
    "found: numbers are continuous, or binary with at most two values; text is categorical.",
    "data.columns.*.type": "What the column holds. `ignore`: not used.",
    "data.columns.*.levels": "The values of a categorical or binary column; the first is the reference. A value "
    "outside them is an error. If absent, the sites report the values that enough patients share, and the rest "
    "become `other`.",
    "data.columns.*.minimum": "Smallest legal number of a continuous column; a smaller one is an error.",
    "data.columns.*.maximum": "Largest legal number of a continuous column; a larger one is an error.",
    "data.missing.markers": "Texts that mean missing, in every column. A list of your own replaces this one; an empty "
    "field is always missing.",
    "data.missing.strategy": "`drop`: rows without a feature are left out. `impute`: a missing number becomes the "
    "mean, a missing level the most frequent level, over all sites' training rows. Rows without a label are always "
    "left out.",
    "data.standardize": "`federated`: by mean and standard deviation over all sites' training rows, formed from sums. "
    "`site`: by each site's own, which never leave it. `none`: not at all. Arrays of more than two dimensions are used "
    "as they are.",
    "data.split.train": "Share of each site's patients. The three sum to 1.",
    "data.split.validation": "Share of each site's patients.",
    "data.split.test": "Share of each site's patients.",
    "data.split.stratify": "`false`: each patient falls by a hash of the id alone. `true`: exact proportions within "
    "each class; an added patient may move one neighbour.",
    "data.split.seed": "Decides the splits alone; the task's `seed` if absent.",
    "data.split.column": "A column that says `train`, `validation` or `test` for each row, of images for each that has "
    "a label; the shares are then not used.",
    "data.images.channels": "1: grey, of colours their luminance; 3: colours, grey three times. As the files have it, "
    "if absent; all images of a task have to agree.",
    "data.images.transforms": "What is done to every image once, in order: see [below](#images).",
    "data.images.augment": "What varies every training batch anew: see [below](#images).",
    "data.images.max_unreadable": "The largest share of a site's files that may be left out because they cannot be "
    "read. Beyond it the site's data are an error.",
    "partition.data": "One data set, a path below the data folder, that is divided over simulated sites, by patient. "
    "Not together with `sites`.",
    "partition.sites": "How many sites: `site-1`, `site-2`, …",
    "partition.by": "`even`: patients fall to sites alike. `quantity`: the sites' sizes are drawn from a Dirichlet "
    "distribution of `alpha`. `label`: each class is divided by a draw of its own, so that sites differ in their "
    "classes. `acquisition`: patients fall to sites alike, and each site's images are changed, before `data.images`, "
    "as a scanner of its own would give them.",
    "partition.alpha": "The smaller, the more the sites differ.",
    "partition.minimum": "The least patients of a site; the draw is repeated until all have them.",
    "partition.vary": "`acquisition`: in what the sites' images differ. `contrast`: gamma and window. `noise`: its "
    "standard deviation. `scanner`: blur, gain and offset.",
    "partition.strength": "`acquisition`: how far they differ. At 1 gamma is from ½ to 2, each end of the window is "
    "cut by up to a fifth of an image's range, noise is up to a fifth, blur up to a 25th of the shortest side, gain "
    "from 0.7 to 1.4, offset up to a quarter.",
    "sites": "The hospitals by name. If empty, each folder below the data folder is one.",
    "sites.*.data": "The site's file or folder, as its connector takes it; a path below the data folder.",
    "sites.*.policy": "The site's [policy file](site-policy.md), a path below the data folder. Without one a simulated "
    "site allows everything but small counts.",
    "evaluation.every": "Rounds between two measurements; the last round is always measured.",
    "evaluation.split": "The part measured after each round. If absent: validation where it has a share, else test.",
    "evaluation.threshold": "Probability from which class 1 is predicted (two classes; not for segmentation).",
    "evaluation.bins": "Bins of the score histogram from which the [federated AUC](metrics.md#the-federated-auc) "
    "comes; `auto`: 200 for two classes, and for more 50 each.",
    "evaluation.holdout": "Sites that never train ([external validation](../how-to/external-validation.md)). The model "
    "is measured on all of their rows, as the part `external`, which is in no figure over all sites.",
    "evaluation.explanations": "Ask the sites, at the end, for what the model's answers rest on, on average: only "
    "those add to it whose policy says `explanations: averages`. Needs the extra `imaging`. See [how to explain a "
    "model](../how-to/explain-a-model.md).",
    "stop.metric": "The metric to watch, federated, on the part measured after each round.",
    "stop.target": "Stop when the metric is at least this good.",
    "stop.patience": "Stop after this many measurements without a better value.",
    "stop.min_delta": "How much better counts as better.",
    "stop.tolerance": "Stop when the model's relative change in a round, ‖w′ − w‖ / ‖w‖, is at most this.",
    "privacy.aggregation": "How totals are formed. `clear`: the coordinator's process adds what it receives. `secure`: "
    "it receives each site's part under masks that cancel in the total alone; three sites or more, of which more than "
    "two thirds have to answer. See [secure aggregation](../explanation/secure-aggregation.md). `encrypted` (extra "
    "`he`): it adds them encrypted under a key that the sites share, and a site decrypts the total; 3 to 127 sites. "
    "Safer is `secure`: see [homomorphic encryption](../explanation/homomorphic-encryption.md).",
    "privacy.update_bound": "With `secure` or `encrypted`: the largest number in a site's update, as a rule the change "
    "of a weight times the training rows. Numbers of type float32 then take half the bytes (under masks 4 in place of "
    "8), rounded to 2⁻³⁰ of this bound times the number of sites, about. A site whose update exceeds it fails by name.",
    "privacy.record.epsilon": "Differential privacy by record ([DP-SGD](../explanation/differential-privacy.md), extra "
    "`privacy`): the epsilon of all the run's training for one training row of a site. Each site finds its noise from "
    "it.",
    "privacy.record.noise_multiplier": "In place of `epsilon`: the noise's standard deviation over `clip_norm`.",
    "privacy.record.delta": "The delta of this epsilon. It must lie below one over the training rows of every site.",
    "privacy.record.clip_norm": "The norm to which each row's gradient is clipped.",
    "privacy.site.epsilon": "Differential privacy [of a whole site](../explanation/site-privacy.md): the epsilon of "
    "all rounds for all rows of a site together. The noise follows from it.",
    "privacy.site.noise_multiplier": "In place of `epsilon`: the standard deviation of the noise in a total over "
    "`clip_norm`.",
    "privacy.site.delta": "The delta of this epsilon.",
    "privacy.site.clip_norm": "The norm to which each site's update, the change of all weights in a round, is clipped. "
    "With `adaptive`: the norm to begin with.",
    "privacy.site.adaptive.quantile": "The norm follows the updates: the share of them that it leaves as they are.",
    "privacy.site.adaptive.rate": "By how much the norm's logarithm moves where the share is off by 1.",
    "privacy.site.adaptive.count_noise": "The standard deviation of the noise in the number of updates within the "
    "norm. If absent: a twentieth of the sites, but no less than the noise multiplier.",
    "privacy.labels.epsilon": "[Randomised response](../explanation/noisy-labels.md) on every training label, drawn "
    "once: the epsilon of one label. Classification only.",
    "privacy.release.mechanism": "Noise in every sum that a site releases [beside its training]"
    "(../explanation/noisy-sums.md). `laplace`: discrete Laplace; `gaussian`: discrete Gaussian.",
    "privacy.release.epsilon": "The epsilon of each such sum, for all rows of one patient. Sums add up in the "
    "dataset's budget.",
    "privacy.release.delta": "With `gaussian`: the delta of this epsilon.",
    "privacy.release.rows_per_patient": "The most rows of one patient that the noise covers; a site where a patient "
    "has more refuses.",
    "privacy.release.loss_bound": "To which each row's logarithmic loss is cut before it is summed.",
    "privacy.release.outcome": "Regression: the range to which outcomes and predictions are cut before they are "
    "summed.",
    "engine.name": "What carries requests to sites. In a task file the simulation alone; `medfed submit` and `medfed "
    "train` carry them between machines.",
    "engine.workers": "Processes that the simulated sites are spread over; `auto`: one a core, as far as there is work "
    "for them. Any number gives the same bits.",
    "engine.batched": "`auto`: small sites are trained together where model and task allow it, which agrees with `off` "
    "to 1e-6: see [speed](../explanation/speed.md#never-stacked). `off`: each by itself.",
    "engine.device": "Where networks are trained. `auto`: on a graphics processor (CUDA) where the machine has one. "
    "`cuda`: an error where it has none. [The same bits](../explanation/randomness.md) are promised for `cpu` alone, "
    "where small models are faster.",
    "compare.strategies": "What `medfed compare` runs: names, or names with options as under `federation.strategy`.",
    "compare.overrides": "Strategy, or a label of your own → keys of `federation`, and below `model` of that, which "
    "differ for it: see [compare strategies](../how-to/compare-strategies.md).",
    "seed": "All randomness derives from it: see [randomness](../explanation/randomness.md).",
}

POLICY_MEANINGS = {
    "tasks": "Approved tasks, by the digest that `medfed check TASK` prints.",
    "task_types": "`classification`, `regression`, `segmentation`.",
    "algorithms": "Strategies by name: `fedavg`, `fedprox`, `scaffold`, `fedadam`, `ditto`, `local`, `pooled`, or a "
    "plugin's.",
    "steps": "Steps by name: see [below](#steps).",
    "releases": "Kinds of reply that may leave.",
    "minimum_patients": "The fewest distinct patients a step may read. A split without any patients may be read, for "
    "it describes nobody.",
    "explanations": "What may leave of what a model's answers rest on: `local`, nothing; `averages`, means over "
    "patients, in a total. Maps and attributions of single patients never leave.",
    "minimum_count": "The smallest non-zero count of patients on which a number of a data sheet, a metric or the name "
    "of a level may rest. Others are withheld; a part with fewer patients is left out of federated metrics too.",
    "limits.rounds": "The last round that may be asked.",
    "limits.requests": "The number of requests in a run.",
    "limits.request_bytes": "The size of one request.",
    "limits.released_bytes": "The bytes of all replies of a run.",
    "quiet_hours": "Hours in which no request is answered: a list of sections.",
    "quiet_hours.*.from": "When they begin, `HH:MM` from `00:00` to `23:59`.",
    "quiet_hours.*.to": "When they end, `HH:MM` from `00:00` to `24:00`. Of the next day, if earlier than `from`.",
    "quiet_hours.*.days": "The days on which they begin; every day if absent.",
    "quiet_hours.*.time_zone": "Whose clock is meant: a name of the IANA database, such as `Europe/Berlin`.",
    "cpus": "Processors that a deployed site's process may use. None: no limit.",
    "memory": "Memory that a deployed site's process may use, in MiB, GiB or TiB: `512 MiB`, `4 GiB`. None: no limit.",
    "epsilon": "The [privacy budget](../explanation/differential-privacy.md#the-budget) of each dataset, over all runs "
    "of all tasks. A request that would exceed it is refused before it computes, and so is all training without "
    "`privacy.record`. None: no limit; what is spent is recorded all the same.",
    "delta": "The delta of this epsilon.",
}

SITE_MEANINGS = {
    "contact": "Whom to write to or call when something is the matter: one line of text.",
    "datasets": "The tables that a task may name. A task that names none means the one called `default`.",
    "datasets.*.connector.name": "How the table is read. Further keys are its options: see the [task file]"
    "(task-file.md#connectors).",
    "datasets.*.path": "The file or folder, as the connector takes it: a whole path, or one below the site's folder.",
    "datasets.*.id": "The column of the patients' ids. A task that names another is refused. If absent, the task "
    "says; see `data.id` of the task file.",
    "datasets.*.label": "The column to predict. A task that names another is refused. If absent, the task says.",
    "datasets.*.time_zone": "Whose clock the table's dates and times are by: a name of the IANA database, such as "
    "`Europe/Berlin`.",
    "policy": "What is allowed here: the keys of the [policy file](site-policy.md). If absent, nothing is.",
    "approvals.required": "Every task waits for a steward's approval. Nothing else can be written.",
    "approvals.auto_approve": "Tasks approved beforehand, by the digest that `medfed check TASK` prints.",
    "attestation.demand": "The kind of evidence of its build that the coordinator must show before anything of it is "
    "answered: `software`, one of an installed verifier, or `none`. See [attestation](../explanation/attestation.md).",
    "attestation.measurements": "The builds that are allowed: what `medfed doctor` prints at the coordinator.",
}

CONSORTIUM_MEANINGS = {
    "name": "The consortium's name, in its certificates.",
    "coordinator.host": "The name or IPv4 address under which the sites reach the coordinator.",
    "coordinator.port": "The one port that sites dial.",
    "coordinator.admin_port": "The port of the coordinator's own administrators. Sites need no way to it.",
    "attestation.demand": "The kind of evidence of its build that a site must give before it is sent a task: "
    "`software`, one of an installed verifier, or `none`. See [attestation](../explanation/attestation.md).",
    "attestation.measurements": "The builds that are allowed: what `medfed doctor` prints at the sites.",
    "sites": "The hospitals by name, at least one: at most 63 of `A-Z`, `a-z`, `0-9`, `_` and `-`, the first a letter "
    "or digit. Not `admin`, `coordinator`, `federated`, `localhost`, `pooled`, `server`, nor the coordinator's host.",
    "sites.*.contact": "Whom to call there to hear the fingerprint of the site's keys. It is also the contact that the "
    "site's own file begins with.",
}


@dataclass(frozen=True)
class Key:
    """One key of a file: its dotted path, and its schema."""

    path: str
    schema: dict[str, Any]
    required: bool


def keys_of(model: type[BaseModel], whole: Collection[str] = ()) -> list[Key]:
    """Every key that a file may hold, in the models' order; ``*`` stands for a name that the writer chooses.

    In a list of sections it stands for each. whole: sections to be left as one key.
    """
    root = model.model_json_schema()
    return list(_walk("", root, root, whole, required=True))


def _walk(
    path: str, schema: dict[str, Any], root: dict[str, Any], whole: Collection[str], *, required: bool
) -> Iterator[Key]:
    here = _resolved(schema, root)
    if "properties" in here and path not in whole:
        defaults = schema.get("default") or {}
        for name, declared in here["properties"].items():
            below = f"{path}.{name}" if path else name
            child = {**declared, "default": defaults[name]} if name in defaults else declared
            yield from _walk(below, child, root, whole, required=name in here.get("required", ()))
        return
    yield Key(path, schema, required)
    each = here.get("additionalProperties") or next(iter(here.get("patternProperties", {}).values()), None)
    if isinstance(each, dict) and "properties" in _resolved(each, root):
        yield from _walk(f"{path}.*", each, root, whole, required=True)
    elif "anyOf" in (here.get("items") or {}):
        return  # sections of several kinds, which the page describes itself
    elif _resolved(here.get("items") or {}, root).get("additionalProperties") is False:
        yield from _walk(f"{path}.*", here["items"], root, whole, required=True)


def _resolved(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    """The schema behind a reference, or the member with keys of its own of a choice."""
    if "$ref" in schema:
        return _resolved(root["$defs"][schema["$ref"].rsplit("/", 1)[-1]], root)
    members = [_resolved(member, root) for member in schema.get("anyOf", ())]
    return next((member for member in members if "properties" in member), schema)


def type_of(schema: dict[str, Any]) -> str:
    """What a key accepts, in words."""
    if "anyOf" in schema:
        return ", or ".join(dict.fromkeys(type_of(m) for m in schema["anyOf"] if m.get("type") != "null"))
    if "const" in schema or "enum" in schema:
        return " · ".join(f"`{_plain(value)}`" for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of: {type_of(schema.get('items', {}))}"
    words = {"integer": "whole number", "number": "number", "boolean": "`true` · `false`", "string": "text"}
    return words.get(schema.get("type", ""), "section") + _range(schema)


def _range(schema: dict[str, Any]) -> str:
    signs = {"minimum": "≥ ", "exclusiveMinimum": "> ", "maximum": "≤ ", "exclusiveMaximum": "< "}
    bounds = [
        f"{sign}{'2⁶³' if schema[name] >= 2**63 else format(schema[name], 'g')}"
        for name, sign in signs.items()
        if name in schema
    ]
    return f" {', '.join(bounds)}" if bounds else ""


def default_of(key: Key) -> str:
    """The default as one would write it; *required* where there is none."""
    if "default" not in key.schema:
        return "*required*" if key.required else "none"
    default = key.schema["default"]
    if isinstance(default, dict) and default:
        return "its keys' own"
    return "none" if default is None else f"`{_plain(default)}`"


def _plain(value: Any) -> str:
    """A value as one would write it in a file."""
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        value = [item["name"] for item in value]
        return f"[{', '.join(value)}]"
    return value if isinstance(value, str) and value != "*" else json.dumps(value, ensure_ascii=False)


def table(keys: list[Key], meanings: dict[str, str]) -> str:
    """The keys as a table, a row each."""
    rows = [(f"`{key.path}`", type_of(key.schema), default_of(key), meanings[key.path]) for key in keys]
    lines = [f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |" for row in rows]
    return "\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *lines])


def sections_of(model: type[BaseModel], meanings: dict[str, str]) -> dict[str, list[Key]]:
    """The keys by top-level section, and under ``top`` those that stand alone. Raises ValueError for stale meanings."""
    keys = keys_of(model, whole=meanings)
    if unlike := {key.path for key in keys} ^ meanings.keys():
        raise ValueError(f"keys and their meanings differ: {', '.join(sorted(unlike))}")
    nested = {key.path.partition(".")[0] for key in keys if "." in key.path}
    sections: dict[str, list[Key]] = {}
    for key in keys:
        head = key.path.partition(".")[0]
        sections.setdefault(head if head in nested else "top", []).append(key)
    return sections


def filled(page: str, model: type[BaseModel], meanings: dict[str, str]) -> str:
    """The page with its tables as they should be. Raises ValueError where a section has no place in it, or no keys."""
    sections = sections_of(model, meanings)
    places = re.findall(r"<!-- keys: (\w+) -->", page)
    if sorted(places) != sorted(sections):
        raise ValueError(f"the page has places for {places}, the file has {list(sections)}")

    def with_table(match: re.Match[str]) -> str:
        return f"{match[1]}\n{table(sections[match[2]], meanings)}\n<!-- end -->"

    return re.sub(r"(<!-- keys: (\w+) -->)\n.*?<!-- end -->", with_table, page, flags=re.DOTALL)


PAGES: dict[str, tuple[type[BaseModel], dict[str, str]]] = {
    "task-file.md": (TaskSpec, TASK_MEANINGS),
    "site-policy.md": (Policy, POLICY_MEANINGS),
    "site-file.md": (SiteFile, SITE_MEANINGS),
    "consortium-file.md": (ConsortiumSpec, CONSORTIUM_MEANINGS),
}
"""Each page, the model of the file that it describes, and the keys' meanings."""


if __name__ == "__main__":
    for name, (model, meanings) in PAGES.items():
        (HERE / name).write_text(filled((HERE / name).read_text(), model, meanings))
