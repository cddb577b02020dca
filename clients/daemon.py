"""`atoll-client`: what a platform's engineer types."""

from __future__ import annotations

import os

# Else gRPC's core writes lines of its own on standard error, before ours. It reads this once, when
# it is first imported, and Flower would set another value.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from clients import egress, report, report_template
from clients.balance import Balance, balance_of
from clients.commands import approvals, audit, compare, doctor, erase, join, pairs, recommend
from clients.commands import up as serving
from clients.erasure_record import erasures
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
from shared.files import replacing
from shared.plan import Plan, large_delta
from shared.strict_parsing import json_file
from shared.tables.config import load_platform
from shared.tables.table import read_platform
from shared.text import unknown_tokens

LARGEST_AUDIT = 64 * 2**20  # bytes of an audit.json

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
cli.command(epilog=erase.EXAMPLE)(erase.erase)
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
        terminal.print_json({"platform": config.name, **asdict(report), "unknown_tokens": unknown})
        return
    warned = large_delta(config.policy.plan.delta) if config.policy and config.policy.plan else None
    encoding = encoder_lines(config.encoder, unknown)
    for line in [*report.lines(), *encoding, privacy, *filter(None, [warned])]:
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
    found = balance_of(held, policy=policy)
    noise = sorted({entry.noise for entry in held})
    if as_json:
        plan = policy.plan.public()
        warned = [line for line in [large_delta(policy.plan.delta)] if line]
        told = {"platform": config.name, **asdict(found), "noise": noise, "plan": plan}
        told["warnings"] = warned
        terminal.print_json(told)
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
        f" {found.reserved:.4g} reserved, {found.set_aside:.4g} set aside, {left:.4g} left",
        f"{found.rounds_left} more rounds of the current Plan fit, of {found.rounds} in all",
        *set_aside_lines(found),
        *filter(None, [large_delta(plan.delta)]),
    ]


def set_aside_lines(found: Balance) -> list[str]:
    """What is kept for releases other than rounds, for people; nothing where nothing is."""
    named = (("sums", found.sums_left), ("metrics", found.metrics_left))
    kept = [f"{count} of {name}" for name, count in named if count]
    if kept:
        return [f"set aside from the start, asked for or not: releases, {' and '.join(kept)}"]
    if found.set_aside >= 1e-4:
        return ["set aside: what an earlier Plan of this data set allowed and nobody asked for"]
    return []


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
    template: Annotated[
        Path | None,
        typer.Option(help="Write a file of blanks for --statement instead.", show_default=False),
    ] = None,
) -> None:
    """Write the privacy report for a data-protection officer, signed; or verify one."""
    if sum(it is not None for it in (platform, verify, template)) != 1:
        what = "need one of --platform, --verify and --template"
        raise ConfigError(what, todo="give exactly one of them")
    if template is not None:
        write_template(template)
        return
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
        balance=balance_of(held, policy=policy) if policy.plan else None,
        audit=read_audit(audit) if audit else None,
        refused=[" ".join(note.values()) for note in egress.notes(policy)],
        statement=read_toml(statement, report.Statement).model_dump() if statement else None,
        erasures=erasures(config.events.erased),
        now=datetime.now(UTC),
    )
    written = report.write(config, out, told=told)
    for path in (written, written.with_suffix(".html")):
        terminal.console.print(str(path), highlight=False, soft_wrap=True)


def write_template(path: Path) -> None:
    """Write the blanks that the controller fills in.

    Raises:
        ConfigError: the file is there already, or cannot be written.
    """
    if path.exists():
        raise ConfigError("is there already", where=path, todo="name another file")
    with replacing(path) as part:
        part.write_text(report_template.template(), encoding="utf-8")
    terminal.console.print(str(path), highlight=False, soft_wrap=True)


def read_audit(path: Path) -> dict[str, Any]:
    """What `atoll-sim audit` wrote: the checks of every ε, and the bound of the largest.

    Raises:
        ConfigError: it is something else.
    """
    try:
        audits = json_file(path, largest=LARGEST_AUDIT)["audits"]
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
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as fault:
        raise ConfigError(
            f"is no audit ({type(fault).__name__})",
            where=path,
            todo="give the audit.json that atoll-sim audit wrote",
        ) from fault


def main() -> None:
    """Entry point."""
    terminal.run(cli)
