"""A deployed site's ``site.yaml``: whom to call, its datasets, its policy, and how tasks are approved."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from medfed.core.errors import TaskError
from medfed.spec.attestation import Attestation
from medfed.spec.document import Document, read_yaml
from medfed.spec.loading import validated
from medfed.spec.policy import Digest, Policy, TimeZone
from medfed.spec.task import Name, Plugin, Section, named


def _one_line(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise PydanticCustomError(
            "explained",
            "is empty or more than a line of plain text",
            {"remedy": "write one line of letters, digits and signs"},
        )
    return text


Line = Annotated[str, AfterValidator(_one_line)]
"""One line of text that people read."""

Contact = Annotated[
    Line, Field(max_length=500, description="a text (in quotes, if it is a number) that says whom to write to or call")
]


class Dataset(Section):
    """A table, or images, that tasks may name.

    path: absolute, or below the site's folder: see :func:`dataset_path`. id, label: the columns of the patients' ids
    and of what is predicted; a task that names others is refused. time_zone: of its dates and times.
    """

    connector: Annotated[Plugin, BeforeValidator(named)] = Plugin(name="csv")
    path: Annotated[Line, Field(description="the path of a file or folder")]
    id: Annotated[Line, Field(description="a column's name")] | None = None
    label: Annotated[Line, Field(description="a column's name")] | None = None
    time_zone: TimeZone = "UTC"


def _always(required: Any) -> Any:
    if required is not True:
        raise PydanticCustomError(
            "explained",
            "can only be true: no task runs here without approval",
            {"remedy": "leave it out; a task to be approved unseen goes into approvals.auto_approve by its digest"},
        )
    return required


class Approvals(Section):
    """How tasks are approved: by a steward, or beforehand by their digests (``auto_approve``)."""

    required: Annotated[Literal[True], BeforeValidator(_always)] = True
    auto_approve: tuple[Digest, ...] = ()


class SiteFile(Section):
    """What a site's people say: whom to call, which data there are, what is allowed, how tasks are approved."""

    contact: Contact
    datasets: dict[Name, Dataset] = Field(default={})
    policy: Policy = Policy()
    approvals: Approvals = Approvals()
    attestation: Attestation = Attestation()


def load_site(path: str | os.PathLike[str]) -> SiteFile:
    """A site's file. Raises TaskError, with file and line, which lists every fault found."""
    return validated(SiteFile, read_yaml(path))


def dataset_path(site_folder: Path, name: str, dataset: Dataset) -> Path:
    """Where the dataset of this name lies; links are followed. It need not exist.

    Raises TaskError for a relative path that leads out of the site's folder.
    """
    try:
        folder = site_folder.resolve()
        path = (folder / dataset.path).resolve()
    except (OSError, RuntimeError) as error:
        raise TaskError(
            f"the path of the dataset {name!r} cannot be followed",
            where=str(site_folder / "site.yaml"),
            remedy="look for links that lead in a circle, and mend the folders' permissions",
        ) from error
    if not Path(dataset.path).is_absolute() and not path.is_relative_to(folder):
        raise TaskError(
            f"the path of the dataset {name!r} leads out of the site's folder",
            where=str(site_folder / "site.yaml"),
            remedy=f"write the whole path if this is meant: {path}",
        )
    return path


def default_site_file(contact: str) -> str:
    """The text of a ``site.yaml`` that allows nothing yet; an empty contact is left to be filled in.

    Raises TaskError for a contact that is not one line of text.
    """
    contact = contact or "to be filled in"
    validated(SiteFile, Document("site.yaml", {"contact": contact}))
    return _DEFAULT.replace("CONTACT", json.dumps(contact, ensure_ascii=False), 1)


_DEFAULT = """\
## What this hospital lends to the consortium, and on which terms.
##
## A running site reads this file anew whenever it is saved. A change with a mistake in it does not take effect: the
## terms that held before go on holding, and the site's log says what is wrong. Look first: medfed site check
##
## Lines that begin with two signs explain. Lines that begin with one are examples: take the sign and the space away to
## make use of them.

## Whom the coordinator writes to or calls when something is the matter: a person or an office, one line.
contact: CONTACT

## DATASETS (IT lead). The tables that a task may name; it sees no other file, and it cannot give a path itself.
##   path       a .csv file, or the folder with one in it. A whole path, or one below the folder of this file.
##              Let the account that MedFed runs under read it, and not write it.
##   connector  how it is read, if not as csv: npz, image_folder, or dicom with its options. Images lie in a folder.
##   id         the column of the patients' ids. Rows with the same id are one patient. It is never sent anywhere.
##   label      the column to be predicted. A task that wants another is refused. Left out: the task says which.
##   time_zone  the zone that dates and times in the table are in.
## A task that names no dataset means the one called default.
# datasets:
#   default:
#     path: /srv/medfed/data/heart.csv
#     id: patient_id
#     label: diagnosis
#     time_zone: Europe/Berlin

## POLICY (data steward). What may run here at all. A task must keep to it and be approved besides: see below.
## In each of these lists stands what is allowed. [] is nothing, and "*" (in quotes) is everything.
policy:
  ## What may be learnt: classification (yes or no, or one of several classes), regression (a number), segmentation (a
  ## class for each pixel of an image).
  task_types: []
  ## How sites learn together, by name.
  algorithms: []
  # algorithms: [fedavg, fedprox]
  ## The single things that a task may ask to be computed here. "*" leaves that to the lists above and below: a site
  ## computes only what its own installed copy of MedFed can, and what the algorithm declares.
  steps: []
  ## What may leave the hospital:
  ##   sum     this site's part of a total over all sites, such as the change of a model's weights. Without it the site
  ##           takes no part.
  ##   site    figures on this hospital alone, such as its own accuracy. The most telling of the three.
  ##   levels  the names of categories, such as the values of "smoker", that minimum_count patients share.
  releases: []
  ## A computation that would read fewer patients than this is refused.
  minimum_patients: 10
  ## A figure that rests on fewer patients than this is withheld.
  minimum_count: 5
  ## What a model's answers rest on (heat maps, the weight of each column): local keeps it here, for your own readers;
  ## averages lets means over minimum_count patients or more leave within a total. Single cases never leave.
  explanations: local
  ## Ceilings of one run: rounds, requests, the bytes of one request, the bytes that leave in all. None unless given.
  # limits: {rounds: 100, requests: 1000, request_bytes: 100000000, released_bytes: 1000000000}
  ## Hours in which nothing is computed here; each request is refused until they are over. They may run over midnight;
  ## days are those on which they begin (mon, tue, wed, thu, fri, sat, sun), every day if left out.
  # quiet_hours:
  #   - {from: "07:00", to: "18:00", days: [mon, tue, wed, thu, fri], time_zone: Europe/Berlin}
  ## How much of this machine MedFed may take (IT lead): processors, and memory as MiB or GiB. No limit unless given.
  # cpus: 4
  # memory: 8 GiB
  ## The privacy budget of each dataset: all training on its rows, of all tasks and runs together, may cost this epsilon
  ## at this delta. Training without differential privacy is then refused. medfed site budget shows what is spent.
  # epsilon: 3.0
  # delta: 1e-5

## APPROVALS (data steward). Every task waits for a person here to approve it: medfed site proposals, then
## medfed site approve. That cannot be turned off. A task that was agreed on beforehand is let through by its digest,
## the 64 characters that medfed check prints; any change of the task gives another digest.
approvals:
  auto_approve: []

## ATTESTATION (IT lead). Evidence that the coordinator must show before anything of it is answered here: that it runs
## one of these builds. Its people see theirs by: medfed doctor. The kind software believes an honest machine alone.
# attestation:
#   demand: software
#   measurements: ["0000000000000000000000000000000000000000000000000000000000000000"]
"""
