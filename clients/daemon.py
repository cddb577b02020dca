"""`atoll-client`: what a platform's engineer types."""

from __future__ import annotations

import os

# Else gRPC's core writes lines of its own on standard error, before ours. It reads this once, when
# it is first imported, and Flower would set another value.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from clients import egress, report
from clients.balance import Balance, balance_of
from clients.commands import approvals, audit, compare, doctor, join, pairs, recommend
from clients.commands import up as serving
from clients.ledger import entries
from clients.readiness import (
    comparable,
    encoder_lines,
    policy_of,
    privacy_line,
    usable_parts,
)
from shared import terminal
from shared.config import read_toml
from shared.errors import ConfigError, PlanError
from shared.plan import Plan
from shared.tables.config import load_platform
from shared.tables.table import read_platform
from shared.text import unknown_tokens

cli = typer.Typer(
    name="atoll-client",
    help="A platform's side: its rows, its budget, its recommendations. Rows never leave it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

PlatformFile = Annotated[
    Path, typer.Option("--platform", "-p", help="The platform's TOML file.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


@cli.callback()
def _client() -> None:
    """A platform's side: its rows, its budget, its recommendations. Rows never leave it."""


cli.command(epilog=join.EXAMPLE)(join.join)
cli.command(epilog=serving.EXAMPLE)(serving.up)
cli.command(epilog=doctor.EXAMPLE)(doctor.doctor)
cli.command(epilog=pairs.EXAMPLE)(pairs.pairs)
cli.command(epilog=recommend.EXAMPLE)(recommend.recommend)
cli.command(epilog=compare.EXAMPLE)(compare.compare)
cli.add_typer(approvals.cli, name="approvals")
cli.add_typer(audit.cli, name="audit")


@cli.command(epilog="Example: atoll-client check -p runs/demo/platforms/kiosk.toml")
def check(platform: PlatformFile, as_json: AsJson = False) -> None:
    """Read the tables and the encoder: what was kept, what was dropped and why.

    It ends with an error where compare, recommend or training would.
    """
    config = load_platform(platform)
    encoder = usable_parts(config)
    rows = read_platform(config)
    comparable(config, rows)
    report = rows.report
    privacy = privacy_line(config.policy, report.shoppers)
    unknown = unknown_tokens(rows.catalogue.texts, encoder)
    if as_json:
        found = {"platform": config.name, **asdict(report), "unknown_tokens": unknown}
        terminal.console.print_json(json.dumps(found))
        return
    for line in [*report.lines(), *encoder_lines(config.encoder, unknown), privacy]:
        told = f"{config.name}: {line}"
        terminal.console.print(told, highlight=False, soft_wrap=True, markup=False)


@cli.command(epilog="Example: atoll-client budget -p boutique.toml --json")
def budget(platform: PlatformFile, as_json: AsJson = False) -> None:
    """What of the privacy budget is spent, reserved and left, and how many rounds still fit."""
    config = load_platform(platform)
    policy = policy_of(config, platform)
    if policy.plan is None:
        raise PlanError(
            "is unprotected, so it has no budget",
            where=platform,
            todo="write a Plan under [privacy] in its place",
        )
    held = entries(policy)
    found = balance_of(held, dataset=policy.dataset, plan=policy.plan)
    noise = sorted({entry.noise for entry in held})
    if as_json:
        plan = policy.plan.public()
        told = {"platform": config.name, **asdict(found), "noise": noise, "plan": plan}
        terminal.console.print_json(json.dumps(told))
        return
    for line in [*budget_lines(found, policy.plan), *(SIMULATED if "simulated" in noise else ())]:
        terminal.console.print(line, highlight=False, soft_wrap=True, markup=False)


SIMULATED = ("SIMULATED noise, which a seed repeats: nobody is protected by these releases",)


def budget_lines(found: Balance, plan: Plan) -> list[str]:
    """A Balance for people."""
    left = found.left if found.left >= 1e-4 else 0.0  # what rounding leaves buys nothing
    return [
        f"Plan: noise multiplier {plan.noise_multiplier:.4g}, clip {plan.clip:g}, sampling rate"
        f" {plan.sampling_rate:g}, {plan.steps} steps a round",
        f"data set {found.dataset}, one record a {found.unit}, delta {found.delta:.3g}",
        f"epsilon {found.epsilon:g}: {found.spent:.4g} spent in {found.releases} releases,"
        f" {found.reserved:.4g} reserved, {left:.4g} left",
        f"{found.rounds_left} more rounds of the current Plan fit",
    ]


@cli.command(
    "report", epilog="Example: atoll-client report -p boutique.toml --audit runs/audit/audit.json"
)
def report_command(
    platform: Annotated[
        Path | None,
        typer.Option("--platform", "-p", help="The platform's TOML file.", show_default=False),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("privacy"),
    audit: Annotated[
        Path | None,
        typer.Option(help="What atoll-sim audit --json printed.", show_default=False),
    ] = None,
    statement: Annotated[
        Path | None,
        typer.Option(help="TOML file of what only people can state.", show_default=False),
    ] = None,
    verify: Annotated[
        Path | None,
        typer.Option(help="Check the signature of a report instead.", show_default=False),
    ] = None,
) -> None:
    """Write the privacy report for a data-protection officer, signed; or verify one."""
    if (platform is None) == (verify is None):
        raise ConfigError("need either --platform or --verify", todo="give exactly one of them")
    if verify is not None:
        document = report.verify(verify)
        terminal.console.print(
            f"signature holds: facts {document['digest']}, key {document['fingerprint']}",
            highlight=False,
            soft_wrap=True,
        )
        return
    assert platform is not None
    config = load_platform(platform)
    policy = policy_of(config, platform)
    held = entries(policy) if policy.plan else []
    told = report.facts(
        config,
        entries=held,
        # Of the same entries: a round may end while this is made.
        balance=balance_of(held, dataset=policy.dataset, plan=policy.plan) if policy.plan else None,
        audit=read_audit(audit) if audit else None,
        refused=[" ".join(note.values()) for note in egress.notes(policy)],
        statement=read_toml(statement, report.Statement).model_dump() if statement else None,
        now=datetime.now(UTC),
    )
    written = report.write(config, out, told=told)
    for path in (written, written.with_suffix(".html")):
        terminal.console.print(str(path), highlight=False, soft_wrap=True)


def read_audit(path: Path) -> dict[str, Any]:
    """What `atoll-sim audit` wrote: the checks of every ε, and the bound of the largest.

    Raises:
        ConfigError: it is something else.
    """
    try:
        audits = json.loads(path.read_text(encoding="utf-8-sig"))["audits"]
        last = max(audits, key=lambda it: it["claim"]["epsilon"])
        checks = [
            {
                "name": f"epsilon {it['claim']['epsilon']:g}, {check['name']}",
                "passed": check["passed"],
                "told": check["told"],
            }
            for it in audits
            for check in it["checks"]
        ]
        return {
            **{name: last[name] for name in ("claim", "lower_bound", "limits")},
            "checks": checks,
        }
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as fault:
        raise ConfigError(
            f"is no audit ({type(fault).__name__})",
            where=path,
            todo="give the audit.json that atoll-sim audit wrote",
        ) from fault


def main() -> None:
    """Entry point."""
    terminal.run(cli)
