"""The command line: ``medfed --help``."""
