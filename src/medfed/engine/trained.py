"""Trained models on disk: weights as safetensors under the network's own names, beside the encoding of their rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from medfed.core.codec import decode, encode
from medfed.core.errors import CodecError, MemoryLost, RunFolderError, UserError
from medfed.core.examples import Examples
from medfed.core.files import write_atomically, written_whole
from medfed.core.messages import Message, Vector
from medfed.core.protocols import OwnModel
from medfed.data.encoding import Encoding, encode_rows
from medfed.data.raw import RawTable
from medfed.engine.personal import LocalElements, personal_weights
from medfed.engine.process import Process, RunState, input_shape
from medfed.metrics.classification import class_probabilities
from medfed.models.catalogue import build_network, outputs_for
from medfed.models.elements import EVERYTHING, Elements
from medfed.models.training import pixel_probabilities, predict
from medfed.spec.loading import load_task
from medfed.spec.task import TaskSpec

if TYPE_CHECKING:
    from medfed.engine.memory import SiteMemory
    from medfed.models.network import Network

M = TypeVar("M", bound=Message)


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
        task = load_task(folder / "task.yaml").spec
        models = _own_models(folder)
        if models and site not in models:
            raise UserError("each site has its own model here", remedy=f"add --site, one of: {', '.join(models)}")
        encoding, network = _read(task, folder, folder / "models" / str(site) if models else folder)
        if not encoding.fitted:
            encoding = _encoding_of_site(folder, site)
        if site is None and task.federation.keeps_layers and (folder / "results.json").exists():  # not at a site itself
            raise UserError("each site has layers of its own here", remedy=f"add --site, one of: {_known(folder)}")
        if site is not None and not models and _is_simulated(folder):
            with _memory_of(folder, site) as memory:
                _make_personal(memory, task, network)
        elif site is not None and task.federation.keeps_layers and (folder / "results.json").exists():
            raise UserError(
                "the layers of each site's own are not in this folder",
                remedy="use the model that the site itself keeps, below its folder's models",
            )
        return cls(task, encoding, network)

    @property
    def digest(self) -> str:
        """SHA-256 of the weights in use, in hexadecimal."""
        return hashlib.sha256(self.network.flat.numpy(force=True).tobytes()).hexdigest()

    def predict(self, raw: RawTable) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """(scores as in ``Predictions``, the index of each scored row); rows with missing features are left out."""
        features, kept = encode_rows(raw, self.task.data, self.encoding)
        return self.scores(features), kept

    def scores(self, features: NDArray[np.float32]) -> NDArray[Any]:
        """The scores of encoded rows (n, …) as in ``Predictions``; of segmentation masks of class indices, uint8."""
        if self.task.task_type == "segmentation":
            return np.asarray(pixel_probabilities(self.network, features).argmax(1), np.uint8)
        examples = Examples(features, np.zeros(len(features), np.float32))
        return predict(self.network, examples, self.task.task_type).scores

    def columns(self, scores: NDArray[Any], kept: NDArray[np.int64], rows: int) -> dict[str, list[object]]:
        """The scores as columns over all rows, None where a row has none: probabilities and class, or the value.

        Of masks: the share of each class in its image.
        """
        if self.task.task_type == "segmentation":
            from medfed.engine.segmenting import shares

            return {name: _spread(found, kept, rows) for name, found in shares(scores, self.encoding.classes).items()}
        if self.task.task_type == "regression":
            return {"prediction": _spread(scores, kept, rows)}
        names, probabilities = self.encoding.classes, class_probabilities(scores)
        chosen = (scores >= self.task.evaluation.threshold).astype(int) if scores.ndim == 1 else scores.argmax(1)
        columns = {f"probability_{name}": _spread(probabilities[:, k], kept, rows) for k, name in enumerate(names)}
        return columns | {"predicted": _spread(np.array(names, dtype=object)[chosen], kept, rows)}


def as_the_site_uses_it(task: TaskSpec, memory: SiteMemory, encoding: bytes, model: bytes) -> bytes | None:
    """A trained model as safetensors with the layers that a site keeps for itself, or its own model; None where it has
    neither. encoding, model: as a coordinator sent them. Raises CodecError where they are not those of such a model.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load, save

    kept = _Kept(memory)
    if kept.recall(LocalElements) is None and kept.recall(OwnModel) is None:
        return None
    network = _network(task, decode(encoding, Encoding))
    try:
        network.module.load_state_dict(load(model))
    except (SafetensorError, RuntimeError) as error:
        raise CodecError("the trained model that came is not one of this task") from error
    _make_personal(kept, task, network)
    tensors = {name: tensor.contiguous().clone() for name, tensor in network.module.state_dict().items()}
    found: bytes = save(tensors)
    return found


@dataclass(frozen=True, eq=False)
class KeptModel:
    """A finished run's model as sites take it: how rows become numbers, which each site may still have to fill in.

    name: the site whose own it is; empty where there is one for all.
    """

    name: str
    encoding: Encoding
    weights: Vector


def kept_models(folder: Path) -> tuple[KeptModel, ...]:
    """Every model of a finished run: that of all sites, where there is one, then each site's own.

    Raises RunFolderError where the folder holds none, or one is damaged.
    """
    task, own = load_task(folder / "task.yaml").spec, _own_models(folder)
    places = {name: folder / "models" / name for name in own}
    if not own or (folder / "model.safetensors").is_file():
        places = {"": folder} | places
    found = []
    for name, place in places.items():
        encoding, network = _read(task, folder, place)
        found.append(KeptModel(name, encoding, network.vector()))
    return tuple(found)


def _own_models(folder: Path) -> list[str]:
    """The sites that have a model of their own."""
    return sorted(path.name for path in (folder / "models").glob("*/")) if (folder / "models").is_dir() else []


def _read(task: TaskSpec, folder: Path, place: Path) -> tuple[Encoding, Network]:
    from safetensors import SafetensorError
    from safetensors.torch import load

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
    network = _network(task, encoding)
    try:
        network.module.load_state_dict(tensors)
    except RuntimeError as error:
        raise _damaged(place) from error
    return encoding, network


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

    if site is None:
        raise UserError(
            "every site standardised its rows by its own mean and scale",
            remedy=f"add --site to say whose the new rows are: {_known(folder)}",
        )
    with _memory_of(folder, site) as memory:
        found = memory.recall(Encoding)
    if found is None:
        raise _gone(folder)
    return found


@dataclass(frozen=True)
class _Kept:
    """What a simulated site keeps of a run that is over."""

    memory: SiteMemory

    def recall(self, kind: type[M]) -> M | None:
        try:
            return self.memory.newest(kind)
        except MemoryLost:
            return None


def _is_simulated(folder: Path) -> bool:
    """Whether what the sites kept lies in the run's folder, as that of simulated sites does."""
    from medfed.engine.store import store_paths

    return bool(store_paths(folder))


def _make_personal(memory: _Kept, task: TaskSpec, network: Network) -> None:
    """Give a network with the federated weights what a site has for itself."""
    network.restrict(memory.recall(Elements) or EVERYTHING)
    network.load(personal_weights(memory, task.federation, network, network.vector()))


@contextmanager
def _memory_of(folder: Path, site: str) -> Iterator[_Kept]:
    """What a site of a simulated run kept. Raises UserError for a site that was not in it, RunFolderError."""
    from medfed.engine.store import RunStore, store_paths

    if site not in _known(folder).split(", "):
        raise UserError(f"there is no site {site!r} in this run", remedy=f"its sites: {_known(folder)}")
    for path in store_paths(folder):
        with RunStore.open(path) as store:
            if store.cohort(site) is not None:
                yield _Kept(store.site(site))
                return
    raise _gone(folder)


def _known(folder: Path) -> str:
    return ", ".join(sorted(json.loads((folder / "results.json").read_text())["rows"]))


def _gone(folder: Path) -> RunFolderError:
    return RunFolderError("what the sites kept is gone", where=str(folder), remedy="run the task again")
