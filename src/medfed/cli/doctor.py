"""``medfed doctor``."""

from __future__ import annotations

from dataclasses import dataclass

import typer

from medfed.cli.options import Json, print_json

_IMAGING = (
    *("monai", "pydicom", "gdcm", "openjpeg", "rle", "nibabel", "PIL"),
    *("captum", "highdicom", "dicomanonymizer", "jpeg_ls"),
)
"""What the extra brings, by what is imported of it."""


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    name: str
    fine: bool
    told: str


def doctor(as_json: Json = False) -> None:
    """Look whether this machine is ready: Python, packages, keys, disk. Tells this build's measurement too.

    \b
    Example:
      medfed doctor
    """
    findings = examine()
    for finding in findings:
        if as_json:
            print_json({"name": finding.name, "fine": finding.fine, "told": finding.told})
        else:
            print(f"{'ok  ' if finding.fine else 'FAIL'}  {finding.name}: {finding.told}")
    if not all(finding.fine for finding in findings):
        raise typer.Exit(2)


def examine() -> list[Finding]:
    """Every check, in the order in which one would mend them."""
    import shutil
    import sys
    from importlib.util import find_spec
    from pathlib import Path

    from medfed.core.errors import MedFedError
    from medfed.engine.outcome import environment
    from medfed.govern.attestors.software import measured
    from medfed.govern.keys import home, load_or_create_key

    found = environment()
    findings = [Finding("python", sys.version_info >= (3, 11), f"{found['python']} (3.11 or newer)")]
    findings += [Finding(name, True, version) for name, version in found["packages"].items()]
    whole = all(map(find_spec, _IMAGING))
    imaging = "installed" if whole else "not installed (needed for images only)"
    findings.append(Finding("extra imaging", True, imaging))
    findings.append(Finding("measurement", True, measured()))
    try:
        load_or_create_key(home() / "keys", "simulation")
        findings.append(Finding("keys", True, str(home() / "keys")))
    except MedFedError as error:
        findings.append(Finding("keys", False, str(error)))
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    findings.append(Finding("disk", free > 1, f"{free:.0f} GiB free here (1 or more)"))
    return findings
