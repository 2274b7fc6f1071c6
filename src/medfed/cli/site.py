"""``medfed site``: what a hospital's people do."""

from __future__ import annotations

import typer

from medfed.cli import explaining, site_approvals, site_budget, site_deidentify, site_keys, site_running

app = typer.Typer(help="A hospital's side: join a consortium, decide on tasks, connect.", no_args_is_help=True)
app.command("init")(site_keys.init)
app.command("join")(site_keys.join)
app.command("renew")(site_keys.renew)
app.command("check")(site_running.check)
app.command("start")(site_running.start)
app.command("status")(site_running.status)
app.command("budget")(site_budget.budget)
app.command("explain")(explaining.explain_at_site)
app.command("deidentify")(site_deidentify.deidentify)
app.command("proposals")(site_approvals.proposals)
app.command("approve")(site_approvals.approve)
app.command("refuse")(site_approvals.refuse)
app.command("withdraw")(site_approvals.withdraw)
