"""The page of a run's audit, ``audit.html``, and the one of reconstructed images, ``audit-pictures.html``.

The first never holds a value of a record. The second holds images of records, and is written only where the reader
asks.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from medfed.attacks.reconstruction import Image, Reconstructed
from medfed.attacks.results import Attack, Audit
from medfed.core.errors import RunFolderError
from medfed.core.files import write_atomically
from medfed.report.audit_findings import Finding, findings
from medfed.report.rendering import templates
from medfed.report.words import capital, listed, plural, spelled

AUDIT, PAGE, PICTURES = "audit.json", "audit.html", "audit-pictures.html"

ATTACKS = {
    Attack.INVERSION: "Records read off gradients",
    Attack.LABELS: "Diagnoses read off gradients",
    Attack.RECONSTRUCTION: "Images rebuilt from gradients",
    Attack.MEMBERSHIP: "Who was among the patients",
    Attack.CANARY: "Planted records",
}


@dataclass(frozen=True)
class AuditPage:
    """Everything that the template of an audit shows. pictures: whether there is a page of reconstructed images."""

    audit: Audit
    lede: tuple[str, ...]
    findings: tuple[Finding, ...]
    not_tried: tuple[tuple[str, str], ...]
    pictures: bool
    report: bool


@dataclass(frozen=True)
class Pair:
    """An image beside what the attack made of it, both as PNG in a data address, and its likeness in dB."""

    original: str
    found: str
    psnr: float


def read_audit(folder: Path) -> Audit:
    """The audit in a run's folder. Raises RunFolderError where there is none, or it is malformed."""
    file = folder / AUDIT
    try:
        return TypeAdapter(Audit).validate_json(file.read_bytes())
    except OSError as error:
        raise RunFolderError("this run was not audited", where=str(folder), remedy=f"medfed audit {folder}") from error
    except ValidationError as error:
        raise RunFolderError("the file is malformed", where=str(file), remedy=f"medfed audit {folder}") from error


def write_audit(folder: Path, pictures: Sequence[Reconstructed] = ()) -> Path:
    """Write the page of a run's audit, and that of the ``pictures`` where there are any; an older one of those goes.

    Raises RunFolderError.
    """
    audit = read_audit(folder)
    if pictures:
        pairs = tuple(Pair(_png(each.original, each), _png(each.found, each), each.picture.psnr) for each in pictures)
        html = templates().get_template("audit_pictures.html.j2").render(audit=audit, pairs=pairs)
        write_atomically(folder / PICTURES, html, mode=0o600)
    else:
        (folder / PICTURES).unlink(missing_ok=True)
    page = AuditPage(
        audit=audit,
        lede=_lede(audit),
        findings=findings(audit),
        not_tried=tuple((ATTACKS[each.attack], each.why) for each in audit.not_tried),
        pictures=bool(pictures),
        report=(folder / "report.html").is_file(),
    )
    write_atomically(folder / PAGE, templates().get_template("audit.html.j2").render(page=page))
    return folder / PAGE


def _lede(audit: Audit) -> tuple[str, ...]:
    found = findings(audit)
    serious = [each for each in found if each.serious]
    alone = _came_back(audit)
    tried = capital(plural(len(found), "attack", spell=True))
    first = f"{tried} on this run {'was' if len(found) == 1 else 'were'} tried, on the machine where its data are."
    if not found:
        return ("No attack on this run could be tried.",)
    if not serious:
        return (first, f"None got more out of it, as it was trained, than a guess would.{alone}")
    which = listed([each.title.lower() for each in serious])
    return (first, capital(f"{spelled(len(serious))} of them told more than a guess would: {which}.{alone}"))


def _came_back(audit: Audit) -> str:
    """What stands between the records and the attacker, where a record sent alone comes back."""
    records = audit.inversion is not None and audit.inversion.single.count > 0
    images = audit.reconstruction is not None and any(each.found for each in audit.reconstruction.pictures)
    if not records and not images:
        return ""
    which = "images" if images else "records"
    return f" Single {which}, sent alone, do come back: it is averaging over many that hides them."


def _png(image: Image, pair: Reconstructed) -> str:
    """An image (channels, height, width) as a PNG in a data address, in the grey or colour scale of the original."""
    from matplotlib.image import imsave

    shown = image if len(image) == 3 else image[:1]
    low, high = float(pair.original.min()), float(pair.original.max())
    scaled = np.clip((shown - low) / max(high - low, 1e-12), 0, 1).transpose(1, 2, 0)
    buffer = io.BytesIO()
    imsave(buffer, np.repeat(scaled, 4 - scaled.shape[2], axis=2)[..., :3], format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
