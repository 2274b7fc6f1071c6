"""A MONAI bundle: a folder with the weights, what prepares an image, and what it all is, in the form of MONAI's.

The layout is that of MONAI's bundle specification: ``configs/metadata.json``, ``configs/inference.json``, ``models/``,
``docs/README.md``. The weights are there twice: as safetensors, and as the ``model.pt`` that MONAI loads, which holds a
state dictionary of tensors alone.
"""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from medfed.core.errors import RunFolderError, UserError
from medfed.core.files import write_atomically, written_whole
from medfed.data.connectors.dicom import stated_window
from medfed.engine.exporting.about import INTENDED_USE, About
from medfed.engine.exporting.transforms import preprocessing
from medfed.engine.process import input_shape
from medfed.engine.trained import TrainedModel
from medfed.models.catalogue import MODELS, outputs_for
from medfed.version import __version__


def export_bundle(model: TrainedModel, about: About, folder: Path, licence: Path | None) -> Path:
    """Write a bundle into a new folder. Raises RunFolderError; UserError for a model that is not of images' classes,
    and a licence that cannot be read.
    """
    if not model.encoding.is_array or len(input_shape(model.encoding, model.task.model)) not in (3, 4):
        raise UserError("a MONAI bundle is for models of images", remedy="use --format onnx, which takes any model")
    if model.task.task_type != "classification":
        masks = model.task.task_type == "segmentation"
        remedy = "use medfed predict RUN IMAGES --masks DIR" if masks else "use --format onnx"
        raise UserError(f"a bundle of a model for {model.task.task_type} is not supported", remedy=remedy)
    if folder.exists() and any(folder.iterdir()):
        raise RunFolderError("something is in this folder already", where=str(folder), remedy="name a new one")
    inference = inference_config(model)
    text = _text_of(licence) if licence is not None else None
    for part in ("configs", "models", "docs"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    _write_json(folder / "configs" / "metadata.json", metadata(model, about, inference))
    _write_json(folder / "configs" / "inference.json", inference)
    write_atomically(folder / "docs" / "README.md", about.card)
    if text is not None:
        write_atomically(folder / "LICENSE", text)
    _write_weights(model, folder / "models")
    return folder


def _text_of(licence: Path) -> str:
    try:
        return licence.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise UserError(
            f"the licence cannot be read ({reason})", where=str(licence), remedy="name a text file by --license"
        ) from error


def inference_config(model: TrainedModel) -> dict[str, Any]:
    """``configs/inference.json``: MONAI's transforms in the task's order, the network, and what runs them.

    Raises UserError where the task reads its images as MONAI cannot.
    """
    data, shape = model.task.data, input_shape(model.encoding, model.task.model)
    window = stated_window(data, "the task") if data.connector.name == "dicom" else None
    steps = preprocessing(data, model.encoding, dimensions=len(shape) - 1, window=window)
    softmax = outputs_for(len(model.encoding.classes)) > 1
    infer = "@inferer(batch['image'].to(@device), @network).detach().cpu()"
    return {
        "imports": ["$import glob", "$import torch"],
        "bundle_root": ".",
        "device": "$torch.device('cpu')",
        "dataset_dir": "$@bundle_root + '/data'",
        "classes": list(model.encoding.classes),
        "network_def": network_config(model, shape),
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": steps},
        "datalist": "$[{'image': path} for path in sorted(glob.glob(@dataset_dir + '/*'))]",
        "dataset": {"_target_": "Dataset", "data": "@datalist", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {
            "_target_": "Activationsd",
            "keys": "pred",
            "softmax" if softmax else "sigmoid": True,
        },
        "checkpoint": "$@bundle_root + '/models/model.pt'",
        "initialize": [
            "$@network.load_state_dict(torch.load(@checkpoint, map_location=@device, weights_only=True))",
            "$@network.eval()",
        ],
        "predictions": f"$[@postprocessing({{'pred': {infer}[0]}})['pred'].tolist() for batch in @dataloader]",
        "run": ["$print(list(zip([each['image'] for each in @datalist], @predictions)))"],
    }


def network_config(model: TrainedModel, shape: tuple[int, ...]) -> dict[str, Any]:
    """How the network is built: MONAI's own class where it is one as it comes, else the installed factory's path."""
    spec, outputs = model.task.model, outputs_for(len(model.encoding.classes))
    dimensions, plain = len(shape) - 1, spec.options.get("norm", "batch") == "batch"
    if spec.name == "resnet18" and plain:
        about = {"spatial_dims": dimensions, "n_input_channels": shape[0], "num_classes": outputs}
        return {"_target_": "monai.networks.nets.resnet.resnet18", **about}
    if spec.name == "densenet121" and plain:
        about = {"spatial_dims": dimensions, "in_channels": shape[0], "out_channels": outputs}
        return {"_target_": "DenseNet121", **about, "dropout_prob": spec.options.get("dropout", 0.0)}
    factory: Any = MODELS.get(spec.name)
    target = f"{factory.__module__}.{factory.__qualname__}"
    return {"_target_": target, "input_shape": list(shape), "outputs": outputs, **spec.options}


def metadata(model: TrainedModel, about: About, inference: dict[str, Any]) -> dict[str, Any]:
    """``configs/metadata.json``, with the keys that MONAI's specification requires and all that MedFed knows."""
    shape, classes = input_shape(model.encoding, model.task.model), model.encoding.classes
    outputs = outputs_for(len(classes))
    names = list(classes) if outputs > 1 else [classes[1]]
    needed = ["nibabel"] if len(shape) == 4 else ["pillow"]
    needed = ["pydicom"] if model.task.data.connector.name == "dicom" else needed
    packages = {name: found for name in needed if (found := _version(name))}
    if str(inference["network_def"]["_target_"]).startswith("medfed."):
        packages["medfed"] = __version__
    known = about.as_json(model)
    return {
        "version": "0.1.0",
        "changelog": {"0.1.0": f"exported from the run {known['run']}"},
        "monai_version": _version("monai") or "",
        "pytorch_version": (_version("torch") or "").partition("+")[0],
        "numpy_version": _version("numpy") or "",
        "required_packages_version": packages,
        "name": known["name"],
        "task": f"classification: {', '.join(classes)}",
        "description": f"{model.task.model.name}, trained by {known['strategy']} at {len(known['trained_at'])} sites.",
        "authors": ", ".join(known["trained_at"]),
        "copyright": "the hospitals that trained it",
        "data_type": model.task.data.connector.name,
        "intended_use": INTENDED_USE,
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "magnitude",
                    "num_channels": shape[0],
                    "spatial_shape": list(shape[1:]),
                    "dtype": "float32",
                    "value_range": [],
                    "is_patch_data": False,
                    "channel_def": {str(k): f"channel {k}" for k in range(shape[0])},
                }
            },
            "outputs": {
                "pred": {
                    "type": "probabilities",
                    "format": "classes",
                    "num_channels": outputs,
                    "spatial_shape": [],
                    "dtype": "float32",
                    "value_range": [0, 1],
                    "is_patch_data": False,
                    "channel_def": {str(k): name for k, name in enumerate(names)},
                }
            },
        },
        "medfed": known,
    }


def _write_weights(model: TrainedModel, folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().clone() for name, tensor in model.network.module.state_dict().items()}
    with written_whole(folder / "model.safetensors") as partial:
        save_file(tensors, partial)
    with written_whole(folder / "model.pt") as partial:
        torch.save(tensors, partial)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
