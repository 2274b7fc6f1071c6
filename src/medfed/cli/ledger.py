"""``medfed ledger``."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from medfed.cli.options import Json, print_json, printable
from medfed.core.errors import LedgerError, UserError
from medfed.core.files import write_atomically

if TYPE_CHECKING:
    from medfed.govern.entries import Recorded
    from medfed.govern.keys import VerifyKey
    from medfed.govern.places import Holding, Place, Trust
    from medfed.govern.verify import Findings, Verified

app = typer.Typer(help="Check the ledgers that say what left each hospital.", no_args_is_help=True)

_Place: TypeAlias = Annotated[
    Path, typer.Argument(metavar="PLACE", help="A run folder, a ledger folder, a site's folder, or a bundle.")
]
_Keys: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--key", metavar="[PARTY=]FILE", help="The public key to trust, of one party or of all others (repeatable)."
    ),
]
_Run: TypeAlias = Annotated[
    str | None, typer.Option("--run", metavar="NAME", help="Which run's ledger, if the place holds several.")
]


@app.callback()
def _group() -> None:
    """Check the ledgers that say what left each hospital."""


@app.command()
def verify(
    places: Annotated[
        list[Path],
        typer.Argument(metavar="PLACE...", help="Run folders, ledger folders, sites' folders, or bundles."),
    ],
    key: _Keys = None,
    complete: Annotated[
        bool, typer.Option("--complete", help="Fail if the ledger of a party that was witnessed is in none of them.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Verify every party's ledger: its chain of entries, its Merkle tree, its signed heads, and who saw them.

    Several places are compared: each party's ledger as each of them holds it, and all witnessed heads. Trust comes from
    public keys outside the ledgers: one rewritten and signed anew does not verify. Without --key, a site's or a
    coordinator's own folder is verified by the keys in it, and anything else by this user's simulation key.

    \b
    Examples:
      medfed ledger verify runs/heart-20260131-101500
      medfed ledger verify ./received-run --key ./hospital.pub
      medfed ledger verify /srv/medfed north.zip --key north=north.pub --complete
    """
    from medfed.govern.verify import verify_holdings

    with ExitStack() as stack:
        opened = [_open(place, stack) for place in places]
        trust, simulated = _trust(opened, key)
        holdings = [holding for place in opened for holding in place.holdings]
        findings = verify_holdings(holdings, trust, complete=complete or simulated)
    _tell_json(findings) if as_json else _tell(findings)
    if findings.wrong:
        raise _together(findings.wrong)


@app.command()
def prove(
    place: _Place,
    party: Annotated[str, typer.Option("--party", metavar="PARTY", help="Whose ledger.")],
    entry: Annotated[int, typer.Option("--entry", metavar="N", help="Which entry, from 0: line N + 1.")],
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="FILE|SIZE",
            help="A head that the reader holds; the last signed one if absent.",
        ),
    ] = None,
    run: _Run = None,
    key: _Keys = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to write it; printed if absent.")
    ] = None,
) -> None:
    """Prove to somebody who has not the ledger that an entry stands in it, under a head that its party signed.

    Against a head older than the entry, the proof shows too that the ledger only grew since. The file of a head is a
    line of a heads file, a witness entry, or another proof.

    \b
    Examples:
      medfed ledger prove /srv/medfed --run 4f1c2a --party north --entry 12 --output entry-12.json
      medfed ledger prove north.zip --party north --entry 12 --against 9 --key north=north.pub
    """
    from medfed.govern import proofs

    with ExitStack() as stack:
        opened = _open(place, stack)
        trust, _ = _trust([opened], key)
        holding = _chosen(opened, party, run)
        seen = proofs.read_seen(against) if against is not None else None
        proof = proofs.prove(holding.folder, party, entry, trust.key_of(party), seen).to_json()
    if output is None:
        print(proof, end="")
    else:
        write_atomically(output, proof)


@app.command("verify-proof")
def verify_proof(
    proof: Annotated[Path, typer.Argument(metavar="PROOF", help="A file that medfed ledger prove wrote.")],
    key: Annotated[Path, typer.Option("--key", metavar="FILE", help="The public key of the party whose ledger it is.")],
    as_json: Json = False,
) -> None:
    """Check a proof without the ledger, and print the entry that it proves.

    \b
    Example:
      medfed ledger verify-proof entry-12.json --key north.pub
    """
    from medfed.govern.keys import read_public_key
    from medfed.govern.proofs import Proof

    try:
        content = proof.read_bytes()
    except OSError as error:
        raise UserError(f"the proof cannot be read ({error.strerror})", where=str(proof)) from error
    read = Proof.from_json(content, str(proof))
    recorded = read.check(read_public_key(key))
    earlier = None if read.earlier is None else asdict(read.earlier)
    if as_json:
        head = {"size": read.head.size, "root": read.head.root, "time": read.head.time}
        print_json({"party": read.party, "entry": _fields(recorded), "head": head, "extends": earlier})
        return
    print(printable(f"{read.party}: entry {read.index} (line {read.index + 1}) of {read.head.size}: proven"))
    if read.earlier is not None:
        print(f"  the ledger extends the head at size {read.earlier.size}, root {read.earlier.root}")
    for name, value in _fields(recorded).items():
        print(printable(f"  {name}: {value}").replace("\n", "\\n"))


@app.command()
def export(
    place: _Place,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE.zip", help="The bundle; PLACE-ledger.zip if absent.")
    ] = None,
    run: _Run = None,
    key: _Keys = None,
    as_json: Json = False,
) -> None:
    """Write ledgers, heads and the public keys that are known to one file, for an auditor or another party.

    It holds digests, sizes and names, no patient's value. Verify it with medfed ledger verify. Ledgers are exported as
    they are, so also one that does not verify.

    \b
    Examples:
      medfed ledger export /srv/medfed --output north.zip
      medfed ledger export runs/heart-20260131-101500
    """
    from medfed.govern.bundle import export as write

    target = output or Path(f"{place.resolve().name.removesuffix('.zip')}-ledger.zip")
    with ExitStack() as stack:
        opened = _open(place, stack)
        named, others = _named(key)
        holdings = [holding for holding in opened.holdings if run in (None, holding.name)]
        if not holdings:
            raise _no_run(opened, run)
        parties = {party for holding in holdings for party in holding.parties()}
        known = dict.fromkeys(parties, others) if others is not None else {}
        finished = frozenset(holding.name for holding in holdings if holding.finished)
        folders = {holding.name: holding.folder for holding in holdings}
        written = write(folders, finished, known | dict(opened.keys) | named, target)
    if as_json:
        print_json({"bundle": str(target), "ledgers": sorted(folders), "parties": written})
    else:
        print(printable(f"{target}: {', '.join(sorted(folders))}; {', '.join(written)}"))


def _open(place: Path, stack: ExitStack) -> Place:
    from medfed.govern.places import open_place

    return stack.enter_context(open_place(place))


def _named(options: list[str] | None) -> tuple[dict[str, VerifyKey], VerifyKey | None]:
    """The keys that --key gave: of parties by name, and of all others."""
    from medfed.govern.keys import read_public_key

    named: dict[str, VerifyKey] = {}
    others: VerifyKey | None = None
    for option in options or []:
        party, separator, file = option.partition("=")
        if separator and not Path(option).exists():
            named[party] = read_public_key(Path(file))
        elif others is not None:
            raise UserError("--key names the key of all other parties twice", remedy="name each by --key PARTY=FILE")
        else:
            others = read_public_key(Path(option))
    return named, others


def _trust(places: list[Place], options: list[str] | None) -> tuple[Trust, bool]:
    """The keys to trust, and whether they are a simulation's by default."""
    from medfed.govern.keys import home, read_public_key
    from medfed.govern.places import Trust

    named, others = _named(options)
    own: dict[str, VerifyKey] = {}
    for place in places:
        for party, key in place.keys.items():
            if own.setdefault(party, key) != key and party not in named and others is None:
                raise UserError(
                    "two places name different keys of this party",
                    where=party,
                    remedy=f"name one by --key {party}=FILE",
                )
    if options or own:
        return Trust((own if others is None else {}) | named, others), False
    simulation = home() / "keys" / "simulation.pub"
    if not simulation.exists():
        raise UserError(
            "there is no public key to trust: no simulation was run here",
            where=str(simulation),
            remedy="obtain the party's key from the party itself, and name it by --key PARTY=FILE",
        )
    return Trust({}, read_public_key(simulation)), True


def _chosen(place: Place, party: str, run: str | None) -> Holding:
    """The one folder with this party's ledger. Raises UserError where there is none or more than one."""
    found = [each for each in place.holdings if run in (None, each.name)]
    if not found:
        raise _no_run(place, run)
    found = [each for each in found if party in each.parties()]
    if not found:
        raise UserError("there is no ledger of this party", where=party, remedy="name another by --party")
    if len(found) > 1:
        names = ", ".join(each.name for each in found)
        raise UserError("there are ledgers of several runs here", where=party, remedy=f"name one by --run: {names}")
    return found[0]


def _no_run(place: Place, run: str | None) -> UserError:
    names = ", ".join(each.name for each in place.holdings)
    return UserError(f"there is no ledger of a run {run!r}", remedy=f"name one by --run: {names}")


def _tell(findings: Findings) -> None:
    runs = sorted({each.run for each in findings.verified})
    for run in runs:
        if len(runs) > 1:
            print(printable(f"run {run}"))
        for each in findings.verified:
            if each.run == run:
                print(printable(_sentence(each)))
        for absent in findings.absent:
            if absent.run == run:
                heads = f"its {absent.heads} witnessed heads" if absent.heads > 1 else "its one witnessed head"
                print(printable(f"{absent.party}: not here: {heads} could not be checked"))


def _sentence(party: Verified) -> str:
    unsigned = party.entries - party.signed
    after = f" up to the last head, {unsigned} unsigned after it" if unsigned else ""
    held = f", in {len(party.places)} places" if len(party.places) > 1 else ""
    return (
        f"{party.party}: {party.entries} entries, {party.heads} signed heads, root {party.root[:16]}…{held}: "
        f"verified{after}"
    )


def _tell_json(findings: Findings) -> None:
    for each in findings.verified:
        print_json(asdict(each))
    for absent in findings.absent:
        print_json({"party": absent.party, "run": absent.run, "absent": True, "witnessed": absent.heads})


def _together(wrong: tuple[LedgerError, ...]) -> LedgerError:
    if len(wrong) == 1:
        return wrong[0]
    return LedgerError("\n".join([f"{len(wrong)} ledgers or runs do not verify:", *(f"  {each}" for each in wrong)]))


def _fields(recorded: Recorded) -> dict[str, object]:
    entry = recorded.entry
    return {"index": recorded.index, "time": recorded.time, "kind": str(entry.KIND), **asdict(entry)}
