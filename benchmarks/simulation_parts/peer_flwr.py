"""The same training by Flower's simulation (1.41): two actors of one core each, and no evaluation."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import islice
from typing import Any

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from torch import nn

from benchmarks.simulation_parts.raw import Batch, batches, loss_of, network, own_order, tensors
from benchmarks.simulation_parts.workloads import SEED, WORKLOADS, Workload

ACTORS = 2


class Timed(FedAvg):
    """FedAvg that reads the clock when a round is aggregated."""

    def __init__(self, work: Workload) -> None:
        super().__init__(fraction_train=work.taking_part / work.sites, fraction_evaluate=0.0)
        self.ends: list[float] = []

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The end of a round."""
        found: Any = super().aggregate_train(server_round, replies)
        self.ends.append(time.monotonic())
        return found


def flwr(work: Workload) -> list[float]:
    """The clock at the end of each round."""
    strategy = Timed(work)
    server, client = ServerApp(), ClientApp()

    @server.main()
    def serve(grid: Grid, context: Context) -> None:
        torch.manual_seed(SEED)
        strategy.start(grid, ArrayRecord(network(work).state_dict()), num_rounds=work.rounds)

    @client.train()
    def train(message: Message, context: Context) -> Message:
        return trained(work.name, int(context.node_config["partition-id"]), message)

    resources = {"num_cpus": 1, "num_gpus": 0.0}
    run_simulation(
        server,
        client,
        num_supernodes=work.sites,
        backend_config={"client_resources": resources, "init_args": {"num_cpus": ACTORS}},
    )
    return strategy.ends


def trained(name: str, site: int, message: Message) -> Message:
    """One site's local training, as the raw loop does it."""
    work, (model, visits, rows) = WORKLOADS[name], prepared(name, site)
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=work.lr, foreach=True)
    for features, targets in islice(visits, work.updates(rows)):
        optimizer.zero_grad()
        loss_of(model(features), targets).backward()
        optimizer.step()
    reply = {"arrays": ArrayRecord(model.state_dict()), "metrics": MetricRecord({"num-examples": rows})}
    return Message(content=RecordDict(reply), reply_to=message)


@cache
def prepared(name: str, site: int) -> tuple[nn.Module, Iterator[Batch], int]:
    """What an actor keeps of a site between rounds: the model, the batches, the number of training rows."""
    work = WORKLOADS[name]
    data = tensors(work.site(site).train)
    return model_of(name), batches(work, site, data, own_order), len(data[1])


@cache
def model_of(name: str) -> nn.Module:
    """The one model of an actor."""
    torch.set_num_threads(1)
    return network(WORKLOADS[name])
