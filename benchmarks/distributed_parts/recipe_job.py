"""The process that submits the recipe's job: FLARE's FedAvg for PyTorch with nothing set that has a default.

python -m benchmarks.distributed_parts.recipe_job --kit ADMIN --sites 4 --rounds 5 --rows 1000 --stamps FOLDER
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe
from nvflare.recipe.prod_env import ProdEnv

NETWORK = "benchmarks.distributed_parts.recipe_client.Mlp"
SUBMITTED = "submitted"
"""The file of the clock when the job was about to be submitted."""


def main() -> None:
    """Submit, and end without waiting for the job."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kit", type=Path, required=True, help="the administrator's folder")
    parser.add_argument("--sites", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--stamps", type=Path, required=True)
    options = parser.parse_args()
    recipe = FedAvgRecipe(
        name="benchmark",
        model={"class_path": NETWORK, "args": {}},
        min_clients=options.sites,
        num_rounds=options.rounds,
        train_script=str(Path(__file__).with_name("recipe_client.py")),
        train_args=f"--rows {options.rows} --stamps {options.stamps}",
    )
    (options.stamps / SUBMITTED).write_text(str(time.monotonic()))
    recipe.execute(ProdEnv(str(options.kit), username=options.kit.name))


if __name__ == "__main__":
    main()
