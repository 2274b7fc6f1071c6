"""UCI Heart Disease: four hospitals' patients, fetched, verified, and laid out as four sites.

Source: A. Janosi, W. Steinbrunn, M. Pfisterer, R. Detrano, "Heart Disease", UCI Machine Learning Repository,
1988, DOI 10.24432/C52P4X, CC BY 4.0.
"""

from __future__ import annotations

import csv
import hashlib
import http.client
import io
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medfed.core.errors import DataError
from medfed.core.files import write_atomically

if TYPE_CHECKING:
    import pandas

_ADDRESS = "https://archive.ics.uci.edu/ml/machine-learning-databases/heart-disease/"
_LARGEST_FILE = 2**20
_TIMEOUT = 30.0

SITES = {"cleveland": "Cleveland", "hungarian": "Hungarian", "switzerland": "Switzerland", "va": "VA"}
"""Folder of each site → its name."""

MD5 = {
    "cleveland": "2d91a8ff69cfd9616aa47b59d6f843db",
    "hungarian": "22e96bee155b5973568101c93b3705f6",
    "switzerland": "9a87f7577310b3917730d06ba9349e20",
    "va": "4249d03ca7711e84f4444768c9426170",
}
"""MD5 of each site's file at the repository."""

COLUMNS = (
    *("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg"),
    *("thalach", "exang", "oldpeak", "slope", "ca", "thal", "num"),
)
"""The files' columns in order; ``num`` is the diagnosis (0: no disease)."""

_UNUSED = ("slope", "ca", "thal")
"""Columns that most hospitals did not record."""

_LICENSE = """\
Heart Disease (Cleveland, Hungarian, Switzerland, VA Long Beach), UCI Machine Learning Repository.
Licence: Creative Commons Attribution 4.0 International (CC BY 4.0), https://creativecommons.org/licenses/by/4.0/
Cite: Janosi, A., Steinbrunn, W., Pfisterer, M., & Detrano, R. (1988). Heart Disease [Dataset].
UCI Machine Learning Repository. https://doi.org/10.24432/C52P4X
Changed here: one folder per hospital, a line of column names, and a running patient id.
"""

_TASK = """\
# Heart disease in four hospitals: run it by  medfed run task.yaml
name: heart-disease
task_type: classification
model: logistic
federation: {strategy: fedavg, epochs: 50, batch_size: 16, lr: 0.02}
sites:
  Cleveland: cleveland/data.csv
  Hungarian: hungarian/data.csv
  Switzerland: switzerland/data.csv
  VA: va/data.csv
data:
  id: id
  label: {column: num, positive: [1, 2, 3, 4], negative: [0]}
  missing: {markers: ["?"], strategy: drop}
  split: {train: 0.66, validation: 0, test: 0.34, stratify: true}
  columns:
    age: continuous
    sex: {type: binary, levels: [0, 1]}
    cp: {type: categorical, levels: [1, 2, 3, 4]}
    trestbps: continuous
    chol: continuous
    fbs: {type: binary, levels: [0, 1]}
    restecg: {type: categorical, levels: [0, 1, 2]}
    thalach: continuous
    exang: {type: binary, levels: [0, 1]}
    oldpeak: continuous
    slope: ignore
    ca: ignore
    thal: ignore
"""


def fetch_heart(target: Path, source: Path | None = None) -> list[Path]:
    """Write the four sites below ``target`` and return the files: data, LICENSE.txt and task.yaml.

    A task.yaml that is there already is left as it is, for it may have been edited.

    source: a folder that already holds the repository's files (``processed.cleveland.data``, …); without it
    they are downloaded. Raises DataError where a file cannot be had or is not the one that was published.
    """
    files = []
    for site in SITES:
        content = _verified(site, source)
        path = target / site / "data.csv"
        _make_folder(path.parent)
        write_atomically(path, _with_header(site, content))
        files.append(path)
    write_atomically(target / "LICENSE.txt", _LICENSE)
    if not (target / "task.yaml").exists():
        write_atomically(target / "task.yaml", _TASK)
    return [*files, target / "LICENSE.txt", target / "task.yaml"]


def published_benchmark(source: Path) -> dict[str, pandas.DataFrame]:
    """Each site's rows, with a column ``split``, exactly as in the published benchmark Fed-Heart-Disease.

    Complete rows only, without slope, ca and thal; scikit-learn's ``train_test_split`` at 0.66/0.34 under
    seed 43, stratified where each label has more than two rows. Source: J. Ogier du Terrail et al., "FLamby",
    NeurIPS 2022.
    """
    import pandas
    from sklearn.model_selection import train_test_split

    sites = {}
    for site, name in SITES.items():
        text = io.StringIO(_with_header(site, _verified(site, source)))
        frame = pandas.read_csv(text, na_values="?").drop(columns=list(_UNUSED)).dropna().reset_index(drop=True)
        diseased = frame["num"] > 0
        counts = diseased.value_counts()
        train, _test = train_test_split(
            frame.index,
            train_size=0.66,
            test_size=0.34,
            random_state=43,
            shuffle=True,
            stratify=diseased if (counts > 2).all() else None,
        )
        frame["split"] = np.where(frame.index.isin(train), "train", "test")
        sites[name] = frame
    return sites


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"the folder cannot be made ({error.strerror})", where=str(folder), remedy="name another folder"
        ) from None


def _with_header(site: str, content: str) -> str:
    """The rows under a line of column names, each with its patient's id: the place in the published file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", *COLUMNS])
    for number, row in enumerate(csv.reader(io.StringIO(content)), start=1):
        writer.writerow([f"{site}-{number:03d}", *row])
    return text.getvalue()


def _verified(site: str, source: Path | None) -> str:
    name = f"processed.{site}.data"
    content = _download(name) if source is None else _local(source / name)
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != MD5[site]:
        raise DataError(
            f"{name} is not the published file (its MD5 differs)",
            where=str(source or _ADDRESS),
            remedy="download the four processed files anew and name their folder by --from",
        )
    return content.decode("ascii")


def _local(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot be read ({error.strerror})",
            where=str(file),
            remedy="name the folder of the four files by --from",
        ) from None


def _download(name: str) -> bytes:
    """One file by HTTPS; redirections to anything else are not followed."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    try:
        with opener.open(_ADDRESS + name, timeout=_TIMEOUT) as response:
            content: bytes = response.read(_LARGEST_FILE + 1)
    except (OSError, http.client.HTTPException) as error:
        raise DataError(
            f"cannot be downloaded ({type(error).__name__})",
            where=_ADDRESS + name,
            remedy="download the four processed files by hand and name their folder by --from",
        ) from None
    return content
