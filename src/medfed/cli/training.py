"""``medfed train``: a guest and a host, on two machines or simulated on one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medfed.cli.options import Json, Quiet, Settings, print_json, printable
from medfed.cli.progress import Watcher, round_line
from medfed.cli.running import announce, resumable
from medfed.core.errors import UserError

if TYPE_CHECKING:
    from medfed.engine.deployed.messages import Figure
    from medfed.engine.flare.twoparty.pair import Pair
    from medfed.engine.process import RoundMetrics
    from medfed.spec.loading import TaskFile
    from medfed.spec.party import PartyConfig

_EVERY = 5.0


def train(
    config: Annotated[Path, typer.Option("--config", help="The task file (YAML), the same at both parties.")],
    data: Annotated[Path, typer.Option("--data", help="The folder with this party's rows.")],
    output: Annotated[Path, typer.Option("--output", help="Where the model goes, and at the guest the report.")],
    party_config: Annotated[Path, typer.Option("--party_config", help="The parties (JSON).")],
    reconnect_interval: Annotated[
        float, typer.Option("--reconnect_interval", min=0.0, help="Seconds between attempts to reach the other party.")
    ] = _EVERY,
    accept: Annotated[
        str | None,
        typer.Option("--accept", metavar="FINGERPRINT", help="At the first contact, as the other party reads it out."),
    ] = None,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Simulate all parties here, each with a folder of its own below --data.")
    ] = False,
    settings: Settings = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train with another party: the same command on two machines, at one as guest and at the other as host.

    The guest listens on the port of the addresses in both party_config.json, the host dials it. At the first contact
    both people compare a fingerprint; whoever starts the command approves the task by that. After Ctrl-C, a crash or a
    cut the same command goes on.

    \b
    Examples:
      medfed train --config federated_task.yaml --data ./local_data --output ./model_weights \\
                   --party_config party_config.json --reconnect_interval 5
      medfed train --config federated_task.yaml --data ./both --output ./model_weights \\
                   --party_config party_config.json --simulate
    """
    from medfed import api
    from medfed.spec.party import load_party_config

    task, parties = api.read_task(config, settings or []), load_party_config(party_config)
    if task.spec.model.pretrained is not None:
        raise task.error(
            *("model", "pretrained"),
            cause="two parties begin with fresh weights, which both can see are those of the task's seed",
            remedy="leave it out; or train from these weights by medfed submit, in a consortium",
        )
    if task.spec.federation.distillation is not None:
        raise task.error(
            *("federation", "distillation"),
            cause="two parties have no earlier run in common whose model could teach",
            remedy="leave it out; or distil by medfed run or medfed submit, in a consortium",
        )
    if simulate:
        _simulate(task, data, output, party_config, quiet=quiet, as_json=as_json)
        return
    screen = _Screen(task, quiet=quiet, as_json=as_json)
    _train(task, parties, (party_config, data, output), max(reconnect_interval, 0.1), accept, screen)


def _simulate(task: TaskFile, data: Path, output: Path, party_config: Path, *, quiet: bool, as_json: bool) -> None:
    from medfed import api
    from medfed.engine.parties import party_sites

    sites = party_sites(party_config, data)
    unfinished = (output / "task.yaml").exists() and not (output / "results.json").exists()
    if unfinished and api.read_task(output / "task.yaml").spec != task.spec:
        raise UserError(
            "another task was begun in this folder",
            where=str(output),
            remedy="name another folder by --output, or give the task as it was",
        )
    with Watcher(quiet=quiet, as_json=as_json) as watcher:
        outcome = resumable(
            lambda: (
                api.resume(output, sites, observer=watcher)
                if unfinished
                else api.run(task, sites, data=data, output=output, observer=watcher)
            ),
            output,
        )
    announce(outcome, quiet=quiet, as_json=as_json)


def _train(
    task: TaskFile,
    parties: PartyConfig,
    paths: tuple[Path, Path, Path],
    every: float,
    accept: str | None,
    screen: _Screen,
) -> None:
    from medfed.engine.flare.extra import require_flare

    require_flare()
    from medfed import api
    from medfed.engine.flare.twoparty.contact import meet_guest, meet_host
    from medfed.engine.flare.twoparty.pair import own_rows, pair_of, pair_task
    from medfed.engine.flare.twoparty.training import Work, train
    from medfed.govern.keys import home

    party_config, data, output = paths
    pair = pair_of(parties, party_config, home() / "parties")
    screen.labels = pair.labels
    work = Work(
        pair, pair_task(task, pair), own_rows(parties.local, data), output, every, screen.tell, screen.show_round
    )
    work.check()
    try:
        if not pair.met:
            compare = _Comparison(pair, accept)
            if pair.coordinates:
                meet_host(pair, compare, screen.tell)
            else:
                meet_guest(pair, compare, screen.tell, every)
        train(work)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on", file=sys.stderr)
        raise
    report = api.write_report(output) if pair.coordinates else None
    screen.finish(output, report)


class _Comparison:
    """Asks this side's person to compare the fingerprint, or compares it with the one that was given."""

    def __init__(self, pair: Pair, accept: str | None) -> None:
        self._pair, self._accept = pair, accept
        self._accepted = ""

    def __call__(self, fingerprint: str) -> bool:
        """Whether the other side sees the same; asked once."""
        if fingerprint == self._accepted:
            return True
        if same := self._asked(fingerprint):
            self._accepted = fingerprint
        return same

    def _asked(self, fingerprint: str) -> bool:
        from medfed.engine.flare.certificates import heard, spoken

        other = self._pair.host if self._pair.coordinates else self._pair.guest
        print(f"fingerprint of this first contact with {other}:\n  {spoken(fingerprint)}", file=sys.stderr, flush=True)
        if self._accept is not None:
            same = heard(self._accept) == fingerprint
            if not same:
                print("it is not the one that --accept gives", file=sys.stderr, flush=True)
            return same
        print(
            "Ring the other party, at a number that you had before. Does it see the same? Type yes: ",
            file=sys.stderr,
            end="",
            flush=True,
        )
        answer = sys.stdin.readline()
        if not answer:
            raise UserError(
                "nobody is here to compare the fingerprint",
                remedy=f"compare it with the other party's, then start again with --accept '{spoken(fingerprint)}'",
            )
        return answer.strip().lower() in ("y", "yes")


class _Screen:
    """What this side's person, or a program, sees of the run."""

    def __init__(self, task: TaskFile, *, quiet: bool, as_json: bool) -> None:
        self._task, self._quiet, self._json = task, quiet, as_json
        self.labels: dict[str, str] = {}

    def tell(self, sentence: str) -> None:
        """Show a sentence."""
        if self._json:
            print_json({"event": "told", "sentence": sentence})
        elif not self._quiet:
            print(printable(sentence), flush=True)

    def show_round(self, number: int, figures: Sequence[Figure]) -> None:
        """Show a round: ``Epoch 10/50 - Guest Loss: 0.215 | Acc: 89.2% - Host … - Federated …``."""
        if self._json:
            metrics = [{"site": f.site, "metric": f.metric, "value": f.value} for f in figures]
            print_json({"event": "round", "round": number, "metrics": metrics})
        elif not self._quiet:
            labelled = [replace(f, site=self.labels.get(f.site, f.site)) for f in figures]
            print(printable(round_line(_metrics(number, labelled), self._task.spec, number)), flush=True)

    def finish(self, output: Path, report: Path | None) -> None:
        """Say what there is now, and where."""
        if self._json:
            print_json({"event": "finished", "folder": str(output), "report": str(report) if report else None})
        elif not self._quiet:
            print(f"finished; the model: {output / 'model.safetensors'}")
            if report is not None:
                print(f"report: {report}")


def _metrics(number: int, figures: Sequence[Figure]) -> RoundMetrics:
    """The figures as a round's metrics; how many rows they rest on is not told."""
    from medfed.core.disclosure import WITHHELD
    from medfed.core.examples import Split
    from medfed.engine.process import RoundMetrics, Row
    from medfed.metrics.measure import Measure

    def measure(figure: Figure) -> Measure:
        return Measure(figure.metric, figure.value, 0, reason=WITHHELD if figure.value is None else None)

    return RoundMetrics(number, tuple(Row(number, f.site, Split.VALIDATION, measure(f)) for f in figures))
