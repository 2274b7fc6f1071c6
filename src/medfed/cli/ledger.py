"""``medfed ledger``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medfed.cli.options import Json, print_json
from medfed.core.errors import RunFolderError

app = typer.Typer(help="Check the ledgers that say what left each hospital.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Check the ledgers that say what left each hospital."""


@app.command()
def verify(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    key: Annotated[
        Path | None,
        typer.Option("--key", metavar="FILE", help="The public key to trust; this user's simulation key if not given."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Verify every party's ledger: its chain of entries, its Merkle tree, its signed heads, and who saw them.

    Trust comes from a public key outside the run folder: a ledger rewritten and signed anew does not verify.

    \b
    Examples:
      medfed ledger verify runs/heart-20260131-101500
      medfed ledger verify ./received-run --key ./hospital.pub
    """
    from medfed.govern.keys import home, read_public_key
    from medfed.govern.verify import verify_ledgers

    folder = run / "ledger"
    if not folder.is_dir():
        raise RunFolderError("there are no ledgers in this folder", where=str(run), remedy="name a run's folder")
    trusted = read_public_key(key or home() / "keys" / "simulation.pub")
    verified = verify_ledgers(folder, trusted, finished=(run / "results.json").exists())
    for party in verified:
        if as_json:
            print_json({"party": party.party, "entries": party.entries, "heads": party.heads, "root": party.root})
        else:
            print(
                f"{party.party}: {party.entries} entries, {party.heads} signed heads, root {party.root[:16]}…: verified"
            )
