"""Where a deployed party keeps its things."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from medfed.core.errors import Refused, UserError
from medfed.govern.keys import SigningKey, VerifyKey, load_or_create_key, read_public_key

_RUN = re.compile(r"[0-9a-f]{32}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def check_ids(run: str, task: str) -> None:
    """Raise Refused for an id of a run or a task that could not be one, and would be a path."""
    if not _RUN.fullmatch(run) or not _DIGEST.fullmatch(task):
        raise Refused("the message names no possible run or task")


@dataclass(frozen=True)
class SiteFolder:
    """A hospital's folder, which ``medfed site init`` made."""

    path: Path

    @classmethod
    def open(cls, path: Path) -> SiteFolder:
        """Raises UserError where there is no site in it."""
        if not (path / "identity.json").is_file():
            raise UserError(
                "there is no site in this folder",
                where=str(path),
                remedy="name a site's folder by --folder, or make one: medfed site init INVITATION",
            )
        return cls(path.resolve())

    @property
    def site(self) -> str:
        """The site's name. Raises UserError where identity.json is damaged."""
        return str(_field(self.path / "identity.json", "site"))

    @property
    def settings(self) -> Path:
        """The file that the site's people edit."""
        return self.path / "site.yaml"

    @property
    def proposals(self) -> Path:
        """Proposals and what was decided on them."""
        return self.path / "proposals"

    @property
    def flare(self) -> Path:
        """FLARE's workspace."""
        return self.path / "flare"

    def key(self) -> SigningKey:
        """The site's own key."""
        return load_or_create_key(self.path / "keys", "site")

    def coordinator_key(self) -> VerifyKey:
        """The coordinator's public key, from the invitation."""
        return read_public_key(self.path / "keys" / "coordinator.pub")

    def ledger(self, run: str) -> Path:
        """The folder of a run's ledger, or of that outside of runs."""
        return self.path / "ledger" / run

    def memory(self, run: str) -> Path:
        """The store of what the site keeps of a run."""
        return self.path / "memory" / run / "store"

    def models(self, run: str) -> Path:
        """What the site has of a run for its own people: the trained model, once the run is over."""
        return self.path / "models" / run

    def log(self, run: str) -> Path:
        """The site's own log of a run, which may quote patients' values."""
        return self.path / "log" / f"{run}.log"


@dataclass(frozen=True)
class CoordinatorFolder:
    """A coordinator's folder, which ``medfed provision`` made."""

    path: Path

    @classmethod
    def open(cls, path: Path) -> CoordinatorFolder:
        """Raises UserError where there is no coordinator in it."""
        if not (path / "consortium.yaml").is_file():
            raise UserError(
                "there is no coordinator in this folder",
                where=str(path),
                remedy="name a coordinator's folder by --folder, or make one: medfed provision consortium.yaml",
            )
        return cls(path.resolve())

    @property
    def runs(self) -> Path:
        """The run folders."""
        return self.path / "runs"

    @property
    def revoked(self) -> Path:
        """The sites that may take part no longer."""
        return self.path / "revoked.json"

    def key(self) -> SigningKey:
        """The coordinator's own key."""
        return load_or_create_key(self.path / "keys", "coordinator")

    def site_keys(self) -> dict[str, VerifyKey]:
        """The public key of every admitted site."""
        found = sorted((self.path / "keys" / "sites").glob("*.pub"))
        return {path.stem: read_public_key(path) for path in found}

    def ledger(self, run: str) -> Path:
        """The folder of the coordinator's ledger outside of runs."""
        return self.path / "ledger" / run


def _field(path: Path, name: str) -> object:
    try:
        return json.loads(path.read_text())[name]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError("this file is damaged", where=str(path), remedy="bring back a copy of it") from error
