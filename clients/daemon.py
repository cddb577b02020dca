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
from rich.markup import escape
from rich.table import Table

from clients import egress, report
from clients.balance import Balance, balance_of
from clients.beside import remembered
from clients.commands import approvals, audit, doctor, join, pairs
from clients.commands import up as serving
from clients.ledger import entries
from clients.platform import frozen_parts, open_platform
from clients.readiness import policy_of, privacy_line
from clients.recommend import Slate, history_of, recommend
from shared import manifest, terminal
from shared.adapter import load_adapter
from shared.config import read_toml
from shared.errors import ConfigError, PlanError
from shared.plan import Plan
from shared.tables.config import load_platform
from shared.tables.table import read_platform
from shared.tasks import next_item

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
cli.add_typer(approvals.cli, name="approvals")
cli.add_typer(audit.cli, name="audit")


@cli.command(epilog="Example: atoll-client check -p runs/demo/platforms/kiosk.toml")
def check(platform: PlatformFile, as_json: AsJson = False) -> None:
    """Read the platform's tables and say what was kept, what was dropped and why."""
    config = load_platform(platform)
    if config.backbone is not None:  # tables may be checked before there is one
        frozen_parts(config)
    report = read_platform(config).report
    privacy = privacy_line(config.policy, report.shoppers)
    if as_json:
        terminal.console.print_json(json.dumps({"platform": config.name, **asdict(report)}))
        return
    for line in [*report.lines(), privacy]:
        terminal.console.print(f"{config.name}: {line}", highlight=False, soft_wrap=True)


@cli.command(
    "recommend",
    epilog="Example: atoll-client recommend -p runs/demo/platforms/kiosk.toml"
    " --adapter runs/demo/adapters/kiosk.safetensors --history kiosk-00168,kiosk-00282",
)
def recommend_command(
    platform: PlatformFile,
    adapter: Annotated[
        Path | None,
        typer.Option(help="Adapter file; left out, the untrained prior.", show_default=False),
    ] = None,
    history: Annotated[
        str | None,
        typer.Option(
            help="Item identifiers, the latest last, with commas between.", show_default=False
        ),
    ] = None,
    shopper: Annotated[
        str | None,
        typer.Option(help="A known shopper, in place of --history.", show_default=False),
    ] = None,
    sums: Annotated[
        Path | None,
        typer.Option(
            help="File of the sums that the platforms took; left out, own memory alone.",
            show_default=False,
        ),
    ] = None,
    memory: Annotated[
        bool, typer.Option(help="Use what the platform's own rows say of items.")
    ] = True,
    count: Annotated[int, typer.Option(min=1, max=1000, help="Items to rank.")] = 10,
    coordinator: Annotated[
        Path | None,
        typer.Option(
            help="File of the coordinator's key; left out, coordinator.pub of the platform's home.",
            show_default=False,
        ),
    ] = None,
    unsigned: Annotated[
        bool, typer.Option("--unsigned", help="Take an adapter that has no manifest.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Rank the catalogue for a shopper, known or new, and say what drove each item."""
    if (history is None) == (shopper is None):
        raise ConfigError("need either --history or --shopper", todo="give exactly one of them")
    config = load_platform(platform)
    known = coordinator or platform.parent / f"{config.name}.atoll" / "coordinator.pub"
    if sums is not None and not memory:
        raise ConfigError("--sums stand beside own memory", todo="leave --no-memory out")
    if coordinator is not None or known.is_file():
        for file in filter(None, (adapter, sums)):
            manifest.check_file(file, manifest.read_public(known), unsigned=unsigned)
    with terminal.showing(quiet=as_json) as progress:
        opened = open_platform(config, progress=progress)
    state = opened.untrained
    if adapter is not None:
        state = load_adapter(adapter, backbone=opened.digest, task=next_item.NAME)
    if history is not None:
        items = [item.strip() for item in history.split(",") if item.strip()]
    else:
        items = history_of(opened, str(shopper))
    beside = remembered(opened, sums) if memory else None
    slate = recommend(opened, state, items, count=count, beside=beside)
    if as_json:
        terminal.console.print_json(json.dumps([asdict(line) for line in slate.lines]))
        return
    terminal.console.print(slate_table(slate, opened.config.name))


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
        terminal.console.print(line, highlight=False, soft_wrap=True)


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
        audits = json.loads(path.read_text(encoding="utf-8"))["audits"]
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
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise ConfigError(
            f"is no audit ({type(fault).__name__})",
            where=path,
            todo="give the audit.json that atoll-sim audit wrote",
        ) from fault


def slate_table(slate: Slate, name: str) -> Table:
    """A Slate for people."""
    table = Table(title=f"{name}: what comes next", title_justify="left")
    for heading in ("", "item", "score", "learnt", "because of"):
        table.add_column(heading, justify="right" if heading in ("", "score", "learnt") else "left")
    for place, line in enumerate(slate.lines, start=1):
        reason = line.reasons[0]
        table.add_row(
            str(place),
            escape(line.text) + (f" [dim]{escape(line.item)}[/]" if line.item != line.text else ""),
            f"{line.score:.2f}",
            f"{line.learnt:+.2f}" if abs(line.learnt) >= 0.005 else "0",
            f"{escape(reason.text)} [dim]{reason.share:+.2f}[/]",
        )
    return table


def main() -> None:
    """Entry point."""
    terminal.run(cli)
