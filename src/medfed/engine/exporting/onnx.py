"""ONNX: the network with the run's standardisation before it and probabilities after it, checked against torch."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medfed.core.errors import MedFedError, MissingExtra, UserError
from medfed.core.files import write_atomically, written_whole
from medfed.engine.exporting.about import About
from medfed.engine.process import input_shape
from medfed.engine.trained import TrainedModel

if TYPE_CHECKING:
    import torch

_EPSILON = 1e-9
_ROWS = 8
_TOLERANCE = 1e-4
"""Probabilities, or values over their size, further apart than this are another model's."""


@dataclass(frozen=True)
class Exported:
    """What was written. difference: the largest between ONNX Runtime's outputs and torch's; None: not compared."""

    path: Path
    difference: float | None


def export_onnx(model: TrainedModel, about: About, path: Path) -> Exported:
    """Write ``path`` and, beside it, what it takes and gives as ``.json``.

    Its input ``features`` are rows before standardisation, in the order of the features' names; its input ``image`` are
    images after the task's own transforms, before the run's intensities. Its output is ``probabilities``, (rows,
    classes), or ``prediction``, (rows,). Raises MissingExtra, UserError for a segmentation, and MedFedError where ONNX
    Runtime finds other numbers.
    """
    if model.task.task_type == "segmentation":
        raise UserError("a model of masks is not exported", remedy="use medfed predict RUN IMAGES --masks DIR")
    if find_spec("onnx") is None:
        raise MissingExtra(
            "ONNX needs the extra 'export' (onnx is not installed)", remedy="pip install 'medfed[export]'"
        )
    module, sample = _served(model), _sample(model)
    names = ("image" if model.encoding.is_array else "features", _output(model))
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as partial:
        _convert(module, sample, names, partial)
        difference = _difference(partial, module, sample, names[0])
        if difference is not None and difference > _TOLERANCE:
            raise MedFedError(f"the exported model differs from the trained one by {difference:.3g}")
    about_it = {
        **about.as_json(model),
        "input": {"name": names[0], "shape": ["rows", *sample.shape[1:]], "dtype": "float32"},
        "output": {
            "name": names[1],
            "shape": ["rows", len(model.encoding.classes)] if names[1] != "prediction" else ["rows"],
        },
        "largest_difference": difference,
    }
    write_atomically(path.with_suffix(".json"), json.dumps(about_it, indent=1, ensure_ascii=False) + "\n")
    return Exported(path, difference)


def _output(model: TrainedModel) -> str:
    return "probabilities" if model.encoding.classes else "prediction"


def _served(model: TrainedModel) -> torch.nn.Module:
    """The whole way from a row to probabilities as one module."""
    import torch

    class Served(torch.nn.Module):
        """Standardisation, network, probabilities."""

        mean: torch.Tensor
        factor: torch.Tensor

        def __init__(self, mean: NDArray[np.float64], factor: NDArray[np.float64]) -> None:
            super().__init__()
            self.network = model.network.module
            self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
            self.register_buffer("factor", torch.tensor(factor, dtype=torch.float32))

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            outputs = self.network((rows - self.mean) * self.factor)
            if not model.encoding.classes:
                return torch.squeeze(outputs, -1)
            if outputs.shape[-1] == 1:
                positive = outputs.sigmoid()
                return torch.cat([1 - positive, positive], dim=1)
            return torch.softmax(outputs, dim=-1)

    return Served(*_standardisation(model)).eval()


def _standardisation(model: TrainedModel) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(mean, factor) as they broadcast over rows; a constant feature's factor is 0."""
    encoding, dimensions = model.encoding, len(input_shape(model.encoding, model.task.model))
    if encoding.standardize == "none":
        return np.zeros(1), np.ones(1)
    shape = (-1, *[1] * (dimensions - 1)) if encoding.is_array else (-1,)
    constant = (encoding.scale == 0) & (not encoding.is_array)
    factor = np.where(constant, 0.0, 1 / (encoding.scale + _EPSILON))
    return encoding.mean.reshape(shape), factor.reshape(shape)


def _sample(model: TrainedModel) -> torch.Tensor:
    """Some rows of about the training rows' mean and spread, made up."""
    import torch

    mean, factor = _standardisation(model)
    drawn = np.random.default_rng(0).normal(size=(_ROWS, *input_shape(model.encoding, model.task.model)))
    spread = np.divide(1.0, factor, out=np.zeros_like(factor), where=factor != 0)
    return torch.tensor(mean + spread * drawn, dtype=torch.float32)


def _convert(module: torch.nn.Module, sample: torch.Tensor, names: tuple[str, str], path: Path) -> None:
    import torch

    given, output = names
    with (
        warnings.catch_warnings()
    ):  # the converter in use is the old one, which needs onnx alone and a tenth of the time
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (sample,),
            str(path),
            input_names=[given],
            output_names=[output],
            dynamic_axes={given: {0: "rows"}, output: {0: "rows"}},
            dynamo=False,
        )


def _difference(path: Path, module: torch.nn.Module, sample: torch.Tensor, given: str) -> float | None:
    if find_spec("onnxruntime") is None:
        return None
    import torch

    runtime: Any = __import__("onnxruntime")
    (found,) = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(
        None, {given: sample.numpy()}
    )
    with torch.no_grad():
        expected = module(sample).numpy()
    return float(np.max(np.abs(found - expected) / np.maximum(np.abs(expected), 1.0)))
