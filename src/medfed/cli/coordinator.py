"""``medfed coordinator``: what the people who run a consortium do."""

from __future__ import annotations

import typer

from medfed.cli import coordinator_admission, coordinator_running

app = typer.Typer(help="The coordinator's side: admit sites, listen for them.", no_args_is_help=True)
app.command("admit")(coordinator_admission.admit)
app.command("revoke")(coordinator_admission.revoke)
app.command("restore")(coordinator_admission.restore)
app.command("sites")(coordinator_admission.sites)
app.command("start")(coordinator_running.start)
app.command("status")(coordinator_running.status)
