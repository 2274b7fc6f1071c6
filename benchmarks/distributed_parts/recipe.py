"""The peer of small rounds: FLARE's FedAvg recipe at its defaults, between real processes under mutual TLS."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.distributed_parts.recipe_job import SUBMITTED
from benchmarks.distributed_parts.session import Processes, free_ports

_ROOT = Path(__file__).parents[2]
SERVER, ADMIN = "server", "admin@consortium.org"
_SHARED_STORE = "/tmp/nvflare"  # noqa: S108  what FLARE writes into every kit
_START_SECONDS, _JOB_SECONDS = 60.0, 120.0
"""What starting and what a whole job may take."""


@dataclass(frozen=True)
class Recipe:
    """seconds_per_round: the median of all rounds but the first, from one local training's end to the next's.

    seconds_to_first_round: from before the start of the submitting process to the end of the last site's first local
    training. seconds_of_submission: what of this went by before the job was submitted (imports, the recipe's building).
    """

    seconds_per_round: float
    seconds_to_first_round: float
    seconds_of_submission: float


def recipe_rounds(rounds: int, sites: int, rows: int) -> Recipe:
    """Provision a consortium, start it, submit the recipe's job, and measure its rounds. Raises Failed."""
    with tempfile.TemporaryDirectory(prefix="recipe-") as temporary, Processes(Path(temporary)) as processes:
        folder = Path(temporary)
        stamps = folder / "stamps"
        stamps.mkdir()
        names = [f"site-{number}" for number in range(1, sites + 1)]
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        environment = {"HOME": str(folder), "PATH": path, "PYTHONPATH": str(_ROOT)}
        kits = provisioned(folder, names, processes, environment)
        for name in (SERVER, *names):
            processes.start(name, ["bash", kits / name / "startup" / "sub_start.sh", "--once"], environment)
        joined = "Successfully registered client"
        registered = lambda: all(joined in processes.said(name).read_text(errors="replace") for name in names)  # noqa: E731
        processes.await_that(registered, "all sites to register", _START_SECONDS)
        job = ["--sites", sites, "--rounds", rounds, "--rows", rows, "--stamps", stamps]
        module = [sys.executable, "-m", f"{__package__}.recipe_job", "--kit", kits / ADMIN]
        begun = time.monotonic()
        processes.start("job", [str(each) for each in [*module, *job]], environment)
        finished = lambda: all(len(read(stamps / name)) == rounds for name in names)  # noqa: E731
        processes.await_that(finished, "the job's last round", _JOB_SECONDS)
        ends = [max(end) for end in zip(*(read(stamps / name) for name in names), strict=True)]
        (submitted,) = read(stamps / SUBMITTED)
        return Recipe(float(np.median(np.diff(ends))), ends[0] - begun, submitted - begun)


def read(stamps: Path) -> list[float]:
    """The clock's values in a file, whole lines alone; none where it is not there yet."""
    text = stamps.read_text() if stamps.exists() else ""
    return [float(line) for line in text.splitlines()]


def provisioned(folder: Path, sites: list[str], processes: Processes, environment: dict[str, str]) -> Path:
    """The folder of the parties' kits; the server keeps its jobs below ``folder``, not in a place that all share."""
    port, admin_port = free_ports(2)
    server = {"name": SERVER, "type": "server", "org": "consortium", "default_host": "localhost"}
    builders = "nvflare.lighter.impl"
    project = {
        "api_version": 3,
        "name": "benchmark",
        "description": "sites on loopback",
        "participants": [
            server | {"fed_learn_port": port, "admin_port": admin_port},
            {"name": ADMIN, "type": "admin", "org": "consortium", "role": "project_admin"},
            *({"name": site, "type": "client", "org": "hospital"} for site in sites),
        ],
        "builders": [
            {"path": f"{builders}.workspace.WorkspaceBuilder", "args": {"template_file": ["master_template.yml"]}},
            {"path": f"{builders}.static_file.StaticFileBuilder", "args": {"config_folder": "config"}},
            {"path": f"{builders}.cert.CertBuilder"},
            {"path": f"{builders}.signature.SignatureBuilder"},
        ],
    }
    (folder / "project.yml").write_text(json.dumps(project))
    command = ["nvflare", "provision", "-p", "project.yml", "-w", "kits"]
    processes.start("provision", ["env", "-C", folder, *command], environment)
    processes.wait("provision", _START_SECONDS)
    kits = folder / "kits" / "benchmark" / "prod_00"
    local = kits / SERVER / "local"
    resources = (local / "resources.json.default").read_text().replace(_SHARED_STORE, str(folder / "jobs"))
    (local / "resources.json").write_text(resources)
    return kits
