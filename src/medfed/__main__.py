"""``python -m medfed``."""

from medfed.cli.main import main

main()
