"""``medfed``: the commands, and how every error is told.

Exit status: 0 done, 2 the user's mistake, 3 refused by a site's policy, 4 quorum lost, 1 a fault of MedFed's own,
130 interrupted.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from types import FrameType
from typing import NoReturn

import typer

from medfed.cli import (
    audit,
    checking,
    coordinator,
    coordinator_admission,
    coordinator_running,
    data,
    demo,
    doctor,
    evaluation,
    explaining,
    export,
    ledger,
    prediction,
    running,
    site,
    training,
)
from medfed.cli.options import printable
from medfed.core.errors import MedFedError

app = typer.Typer(
    name="medfed",
    help="Federated learning and analysis across hospitals whose patient data never leave them.",
    epilog="Start here: medfed demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("demo")(demo.demo)
app.command("check")(checking.check)
app.command("run")(running.run)
app.command("compare")(running.compare)
app.command("train")(training.train)
app.command("predict")(prediction.predict)
app.command("evaluate")(evaluation.evaluate)
app.command("export")(export.export)
app.command("audit")(audit.audit)
app.command("explain")(explaining.explain)
app.command("doctor")(doctor.doctor)
app.add_typer(data.app, name="data")
app.add_typer(ledger.app, name="ledger")
app.command("provision")(coordinator_admission.provision)
app.command("submit")(coordinator_running.submit)
app.add_typer(coordinator.app, name="coordinator")
app.add_typer(site.app, name="site")

_INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command and exit with its status; a person's mistake never shows a traceback."""
    given = sys.argv[1:] if arguments is None else arguments
    signal.signal(signal.SIGTERM, _interrupted)
    try:
        status = app(args=given, standalone_mode=False) or 0  # typer returns an Exit's status, 130 for Ctrl-C
    except MedFedError as error:
        _tell(error, as_json="--json" in given)
        status = error.exit_status
    except (KeyboardInterrupt, typer.Abort):
        status = _INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except Exception as error:
        status = _usage(error)
    if status == _INTERRUPTED:
        print("interrupted", file=sys.stderr)
    sys.exit(status)


def _interrupted(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _tell(error: MedFedError, *, as_json: bool) -> None:
    if as_json:
        told = {"error": error.code, "where": error.where, "cause": error.cause, "remedy": error.remedy}
        print(json.dumps(told, ensure_ascii=False))
    else:
        print(printable(f"error: {error}"), file=sys.stderr)


def _usage(error: Exception) -> int:
    """A wrong option or argument shows its own message; anything else is a fault of ours."""
    show = getattr(error, "show", None)
    if show is not None:
        show()
        return int(getattr(error, "exit_code", 2))
    if os.environ.get("MEDFED_DEBUG"):
        traceback.print_exc()
    print(
        f"error: a fault of MedFed's own ({type(error).__name__}); please report it with the output of the same "
        "command under MEDFED_DEBUG=1, after removing what is confidential",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    main()
