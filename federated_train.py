"""Train between the parties of a party_config.json: the same as ``medfed train``, with the same flags."""

import sys

from medfed.cli.main import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
