"""Trained models on disk: weights as safetensors under the network's own names, beside the encoding of their rows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medfed.core.codec import decode, encode
from medfed.core.errors import CodecError, RunFolderError, UserError
from medfed.core.examples import Examples
from medfed.core.files import write_atomically, written_whole
from medfed.core.messages import Vector
from medfed.data.encoding import Encoding, encode_rows
from medfed.data.raw import RawTable
from medfed.engine.process import Process, RunState, input_shape
from medfed.engine.segmenting import shares
from medfed.metrics.classification import class_probabilities
from medfed.models.catalogue import build_network, outputs_for
from medfed.models.training import pixel_probabilities, predict
from medfed.spec.loading import load_task
from medfed.spec.task import TaskSpec

if TYPE_CHECKING:
    from medfed.models.network import Network


def save_models(process: Process, state: RunState, folder: Path) -> None:
    """``model.safetensors`` and ``encoding.bin``; with one model per site, both below ``models/<site>/``."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    for (lane, weights), kept in zip(process.weights(state).items(), state.lanes, strict=True):
        place = folder / "models" / lane if lane else folder
        place.mkdir(parents=True, exist_ok=True)
        network = _network(process.task, kept.encoding, weights)
        tensors = {name: tensor.numpy() for name, tensor in network.module.state_dict().items()}
        about = {"task": process.federation.conversation.task}  # one entry: the library writes several in any order
        with written_whole(place / "model.safetensors") as partial:
            try:
                save_file(tensors, partial, about)
            except SafetensorError as error:  # a full disk, say
                raise OSError(str(error)) from error
        write_atomically(place / "encoding.bin", encode(kept.encoding))


@dataclass(frozen=True)
class TrainedModel:
    """A model that was read back: the task it was trained for, its encoding and its network."""

    task: TaskSpec
    encoding: Encoding
    network: Network

    @classmethod
    def load(cls, folder: Path, site: str | None = None) -> TrainedModel:
        """The model of a finished run; ``site`` chooses where each site has its own, or standardised by itself.

        Raises RunFolderError where the folder holds no such model, UserError where a site has to be named.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        task = load_task(folder / "task.yaml").spec
        models = sorted(path.name for path in (folder / "models").glob("*/")) if (folder / "models").is_dir() else []
        if models and site not in models:
            raise UserError("each site has its own model here", remedy=f"add --site, one of: {', '.join(models)}")
        place = folder / "models" / str(site) if models else folder
        try:
            encoding = decode((place / "encoding.bin").read_bytes(), Encoding)
            tensors = load((place / "model.safetensors").read_bytes())
        except OSError as error:
            raise RunFolderError(
                "there is no trained model in this folder",
                where=str(folder),
                remedy=f"finish the run first: medfed run --resume {folder}",
            ) from error
        except (CodecError, SafetensorError) as error:
            raise _damaged(place) from error
        if not encoding.fitted:
            encoding = _encoding_of_site(folder, site)
        network = _network(task, encoding)
        try:
            network.module.load_state_dict(tensors)
        except RuntimeError as error:
            raise _damaged(place) from error
        return cls(task, encoding, network)

    def predict(self, raw: RawTable) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """(scores as in ``Predictions``, the index of each scored row); rows with missing features are left out."""
        features, kept = encode_rows(raw, self.task.data, self.encoding)
        if self.task.task_type == "segmentation":
            return pixel_probabilities(self.network, features).argmax(1).astype(np.uint8), kept
        examples = Examples(features, np.zeros(len(kept), np.float32))
        return predict(self.network, examples, self.task.task_type).scores, kept

    def columns(self, scores: NDArray[Any], kept: NDArray[np.int64], rows: int) -> dict[str, list[object]]:
        """The scores as columns over all rows, None where a row has none: probabilities and class, or the value.

        Of masks: the share of each class in its image.
        """
        if self.task.task_type == "segmentation":
            return {name: _spread(found, kept, rows) for name, found in shares(scores, self.encoding.classes).items()}
        if self.task.task_type == "regression":
            return {"prediction": _spread(scores, kept, rows)}
        names, probabilities = self.encoding.classes, class_probabilities(scores)
        chosen = (scores >= self.task.evaluation.threshold).astype(int) if scores.ndim == 1 else scores.argmax(1)
        columns = {f"probability_{name}": _spread(probabilities[:, k], kept, rows) for k, name in enumerate(names)}
        return columns | {"predicted": _spread(np.array(names, dtype=object)[chosen], kept, rows)}


def _damaged(place: Path) -> RunFolderError:
    return RunFolderError(
        "the trained model is damaged, or belongs to another task", where=str(place), remedy="run the task again"
    )


def _spread(values: NDArray[Any], kept: NDArray[np.int64], rows: int) -> list[object]:
    spread: list[object] = [None] * rows
    for index, value in zip(kept.tolist(), values.tolist(), strict=True):
        spread[index] = value
    return spread


def _network(task: TaskSpec, encoding: Encoding, weights: Vector | None = None) -> Network:
    shape = input_shape(encoding, task.model)
    return build_network(task.model, shape, outputs_for(len(encoding.classes)), task.seed, weights)


def _encoding_of_site(folder: Path, site: str | None) -> Encoding:
    """The encoding with the mean and scale that a simulated site kept to itself (``standardize: site``)."""
    from medfed.engine.store import RunStore, store_paths

    known = sorted(json.loads((folder / "results.json").read_text())["rows"])
    if site not in known:
        raise UserError(
            "every site standardised its rows by its own mean and scale",
            remedy=f"add --site to say whose the new rows are: {', '.join(known)}",
        )
    for path in store_paths(folder):
        with RunStore.open(path) as store:
            if store.cohort(str(site)) is not None:
                return store.site(str(site)).newest(Encoding)
    raise RunFolderError("what the sites kept is gone", where=str(folder), remedy="run the task again")
