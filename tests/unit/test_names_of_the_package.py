"""What ``import medfed`` gives stays what it is, whatever parts of the package were imported since."""

import subprocess
import sys

import medfed

_PROGRAM = """
import importlib, pkgutil, medfed
for part in pkgutil.iter_modules(medfed.__path__):
    if part.name != "__main__":
        importlib.import_module(f"medfed.{part.name}")
importlib.import_module("medfed.api")
for name in set(medfed.__all__) - {"__version__"}:
    assert callable(getattr(medfed, name)), name
"""


def test_no_room_of_the_package_hides_a_function() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(medfed.__all__) > 8
