"""What the recipe's job ships to each site: the network, and a local epoch of SGD as FLARE's tutorials write it."""

import argparse
import time
from pathlib import Path

import nvflare.client as flare
import torch
from torch import nn

FEATURES, HIDDEN, CLASSES = 30, 32, 2
BATCH, LEARNING_RATE = 32, 0.05


class Mlp(nn.Sequential):
    """30-32-2: 1,058 parameters."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(FEATURES, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))


def main() -> None:
    """Train when asked; append the machine's clock at the end of each local training to the site's file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--stamps", type=Path, required=True)
    options = parser.parse_args()
    torch.manual_seed(0)
    features, targets = torch.randn(options.rows, FEATURES), torch.randint(CLASSES, (options.rows,))
    model = Mlp()
    flare.init()
    stamps = options.stamps / flare.get_site_name()
    while flare.is_running():
        received = flare.receive()
        model.load_state_dict({name: torch.as_tensor(value) for name, value in received.params.items()})
        optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
        for rows in torch.randperm(options.rows).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(features[rows]), targets[rows]).backward()
            optimizer.step()
        with stamps.open("a") as file:
            file.write(f"{time.monotonic()}\n")  # FLARE puts a print of its own in place of Python's
        meta = {"NUM_STEPS_CURRENT_ROUND": -(-options.rows // BATCH)}
        params = {name: value.numpy() for name, value in model.state_dict().items()}
        flare.send(flare.FLModel(params=params, meta=meta))


if __name__ == "__main__":
    main()
