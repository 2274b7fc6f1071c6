"""``medfed demo --distributed``: a whole consortium on this machine, by the commands that its people would type."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medfed.cli.demo import SEED, TASK
from medfed.cli.options import print_json
from medfed.core.errors import MedFedError, UserError

if TYPE_CHECKING:
    from medfed.engine.flare.companion import Companion

_INTERRUPTED = 130
"""How a command that Ctrl-C ended says so, rather than to raise what it met."""

SITES = {"metropolitan": "Metropolitan", "regional": "Regional", "rural": "Rural"}
"""The demo's hospitals by the names of their sites."""

ROUNDS = 12
_REVOKED = "rural"
_WHY = (
    *("--purpose", "To show MedFed: tell malignant from benign tumours by their cells"),
    *("--legal-basis", "public data of 1993, without persons"),
    *("--ethics-id", "none-needed"),
    *("--ethics-expires", "2999-12-31"),
)
_CONNECTED_WITHIN = 60.0
_SITE_FILE = {
    "contact": "the demo",
    "policy": {
        **{"task_types": ["classification"], "algorithms": ["fedavg"], "steps": "*", "releases": "*"},
        "minimum_patients": 10,
    },
}


def distributed_demo(output: Path | None, *, quiet: bool, as_json: bool) -> None:
    """Set a consortium up, train, verify, revoke; every process that was started has ended when this returns."""
    from medfed.engine.flare.extra import require_flare

    require_flare()
    from medfed.engine.flare.companion import together

    root = output or Path("runs") / f"consortium-{time.strftime('%Y%m%d-%H%M%S')}"
    if root.exists() and any(root.iterdir()):
        raise UserError("the folder is not empty", where=str(root), remedy="name a new one by --output")
    root.mkdir(parents=True, exist_ok=True)
    stage = _Stage(root, quiet=quiet, as_json=as_json)
    coordinator = stage.root / "coordinator"
    _set_up(stage, coordinator)
    with together(_services(stage, coordinator)):
        run = _work(stage, coordinator)
        stage.say("The coordinator and the sites stop.")
    stage.end(coordinator / "runs" / run)


def _set_up(stage: _Stage, coordinator: Path) -> None:
    stage.say("A coordinator is set up. Its private keys are made here and stay here.")
    stage.medfed("provision", _consortium_file(stage.root), "--output", coordinator, as_json=True)
    for site in SITES:
        _join(stage, coordinator, site)
    stage.say("All of them start. The sites only dial out, and prove by their certificates who they are (mutual TLS).")


def _work(stage: _Stage, coordinator: Path) -> str:
    """All that needs the services; the run's id."""
    stage.say("A task is proposed. Nothing of it runs before each hospital's steward has approved.")
    task = stage.root / "task.yaml"
    _write_task(task, "breast cancer")
    submitted = stage.medfed("submit", task, *_WHY, "--folder", coordinator, "--detach", as_json=True)[0]
    run = str(submitted["run"])
    _approve(stage, run)
    stage.say(f"They train: {ROUNDS} rounds.")
    stage.medfed("submit", "--resume", run, "--folder", coordinator)

    stage.say("Each party's ledger says what left it. All are verified, and compared with what the others saw of them.")
    stage.medfed("ledger", "verify", coordinator, *map(stage.site, SITES), "--complete")

    stage.say(f"The hospital {_REVOKED} is revoked. From now on it is refused, though it still has its keys.")
    stage.medfed("coordinator", "revoke", _REVOKED, "--reason", "a laptop was stolen", "--folder", coordinator)
    stage.medfed("coordinator", "sites", "--folder", coordinator)
    other = stage.root / "second-task.yaml"
    _write_task(other, "breast cancer again")
    told = stage.medfed("submit", other, *_WHY, "--folder", coordinator, "--propose-only", as_json=True)
    stage.say(f"The next task reaches the other two only: {_standing(told)}.")
    return run


def _consortium_file(root: Path) -> Path:
    path = root / "consortium.yaml"
    port, admin_port = _free_ports()
    sites = "".join(f"  {site}: {{contact: demo@{site}.example}}\n" for site in SITES)
    address = f"{{host: localhost, port: {port}, admin_port: {admin_port}}}"
    path.write_text(f"name: demo\ncoordinator: {address}\nsites:\n{sites}")
    return path


def _free_ports() -> tuple[int, int]:
    with socket.create_server(("", 0)) as one, socket.create_server(("", 0)) as other:
        return int(one.getsockname()[1]), int(other.getsockname()[1])


def _join(stage: _Stage, coordinator: Path, site: str) -> None:
    """Admit a site, whose people read a fingerprint to the coordinator's."""
    from medfed.data.partition import breast_cancer_hospitals

    folder = stage.site(site)
    stage.say(f"The hospital {site} makes its keys, and reads the fingerprint of its request over the telephone.")
    invitation = coordinator / "invitations" / f"{site}.json"
    told = stage.medfed("site", "init", invitation, "--output", folder, as_json=True)[0]
    stage.medfed(
        *("coordinator", "admit", folder / f"{site}.request.zip", "--fingerprint", told["fingerprint"]),
        *("--folder", coordinator),
    )
    stage.medfed("site", "join", coordinator / "admitted" / f"{site}.signed.zip", "--folder", folder)
    rows = folder / "patients.csv"
    breast_cancer_hospitals(SEED)[SITES[site]].to_csv(rows, index=False)
    dataset = {"datasets": {"default": {"path": rows.name, "id": "id", "label": "diagnosis"}}}
    (folder / "site.yaml").write_text(json.dumps(_SITE_FILE | dataset, indent=1) + "\n")
    stage.medfed("site", "check", "--folder", folder)


def _services(stage: _Stage, coordinator: Path) -> list[Companion]:
    from medfed.engine.flare.companion import Companion

    services = [("coordinator", coordinator), *(("site", stage.site(site)) for site in SITES)]
    for kind, folder in services:
        stage.show_command(kind, "start", "--folder", folder)
    return [Companion(kind, folder) for kind, folder in services]


def _write_task(path: Path, name: str) -> None:
    federation = {"strategy": "fedavg", "epochs": ROUNDS, "batch_size": 16, "lr": 0.05}
    sites = dict.fromkeys(SITES, "default")
    path.write_text(json.dumps(TASK | {"name": name, "federation": federation, "sites": sites}, indent=1) + "\n")


def _approve(stage: _Stage, run: str) -> None:
    """As soon as the task has arrived: one steward's page is shown whole."""
    coordinator = stage.root / "coordinator"
    events = coordinator / "runs" / run / "events.jsonl"
    digest = _filed(stage, events)
    for number, site in enumerate(SITES):
        stage.say(f"The steward of {site} reads what would leave the hospital, and approves.")
        arguments = (
            "site",
            "approve",
            digest[:12],
            "--by",
            f"Dr. {site.title()}",
            "--yes",
            "--folder",
            stage.site(site),
        )
        stage.medfed(*arguments, shown=number == 0)


def _filed(stage: _Stage, events: Path) -> str:
    """The digest of the proposal, once every site has it. Raises MedFedError where that takes too long."""
    until = time.monotonic() + _CONNECTED_WITHIN
    while time.monotonic() < until:
        filed = [next((stage.site(site) / "proposals").glob("*/proposal.bin"), None) for site in SITES]
        found = [path.parent.name for path in filed if path is not None]
        if len(found) == len(SITES):
            return found[0]
        time.sleep(0.2)
    raise MedFedError(
        f"the sites were not connected within {_CONNECTED_WITHIN:.0f} s",
        where=str(events),
        remedy="read service.log in the folders of the coordinator and the sites",
    )


def _standing(told: list[dict[str, Any]]) -> str:
    sites: dict[str, str] = next((event["sites"] for event in reversed(told) if event.get("event") == "proposed"), {})
    return ", ".join(f"{site}: {status}" for site, status in sorted(sites.items()))


@dataclass
class _Stage:
    """Where the demo plays, and what its audience sees of it."""

    root: Path
    quiet: bool
    as_json: bool

    def site(self, name: str) -> Path:
        """A site's folder."""
        return self.root / "sites" / name

    def say(self, sentence: str) -> None:
        """Explain the next step."""
        if self.as_json:
            print_json({"event": "step", "sentence": sentence})
        elif not self.quiet:
            print(f"\n{sentence}", flush=True)

    def show_command(self, *arguments: object) -> None:
        """Show a command."""
        if not (self.quiet or self.as_json):
            print(f"  $ medfed {shlex.join(map(str, arguments))}", flush=True)

    def medfed(self, *arguments: object, as_json: bool = False, shown: bool = True) -> list[dict[str, Any]]:
        """Run a command and show it; with ``as_json``, what it printed, as it prints that for programs."""
        from medfed.cli.main import app

        self.show_command(*arguments)
        given = [str(each) for each in arguments] + (["--json"] if as_json else [])
        said = io.StringIO()
        with self._heard(said, show=shown and not as_json):
            status = app(args=given, standalone_mode=False)
        if status == _INTERRUPTED:
            raise KeyboardInterrupt
        if status:
            raise MedFedError(f"medfed {shlex.join(given)} ended with status {status}")
        lines = said.getvalue().splitlines()
        if self.as_json:
            print_json({"event": "command", "command": ["medfed", *given], "output": lines})
        return [json.loads(line) for line in lines] if as_json else []

    @contextlib.contextmanager
    def _heard(self, said: io.StringIO, *, show: bool) -> Iterator[None]:
        """What a command prints goes to the screen as it comes, or is kept."""
        if show and not self.quiet and not self.as_json:
            yield
            return
        with contextlib.redirect_stdout(said):
            yield

    def end(self, run: Path) -> None:
        """Say where everything is."""
        if self.as_json:
            print_json({"event": "finished", "folder": str(self.root), "run": str(run)})
        elif not self.quiet:
            site = self.site(next(iter(SITES)))
            print(f"\nAll of it is in {self.root}; nothing of it runs any more. Look at:")
            print(f"  {run / 'report.html'}: the report")
            print(f"  {site / 'models' / run.name}: the model, as each hospital has it")
            print(f"  {site / 'site.yaml'}: what a hospital allows")
            print(f"  medfed site proposals --folder {site}: what was asked of it, and decided")
