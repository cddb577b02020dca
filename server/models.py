"""Which version platforms are given: found by name, promoted, rolled back, handed out as files.

    "3", "9f86d081" ─find→ Version ─promote→ history ─roll_back→ the one before
    Version ─export→ NAME.safetensors + NAME.json, manifest and signature

Only what verifies is promoted or exported.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from server.registry import Promotion, Registry, Version
from shared import manifest, wire
from shared.adapter import save_adapter
from shared.errors import AtollError, ConfigError, RoundError
from shared.files import replacing

Tell = Callable[[Version], object]
NOTHING_SHARED = (
    "validation: no platform shared metrics, so nothing here says which version is best;"
    " let platforms judge one with atoll-client compare, or set share_metrics in their files"
)
SHORTEST = 8  # hexadecimal digits that name a digest; fewer might name two


def nobody(_version: Version) -> None:
    """Who is told where nobody is."""


def find(registry: Registry, name: str) -> Version:
    """A version by its round in the run that goes on, or by its Adapter's or manifest's digest.

    Of several with the same Adapter, which no round moved, the last.

    Raises:
        RoundError: there is none, or several, of that name.
    """
    found = registry.versions()
    if re.fullmatch(r"\d{1,5}", name):
        rounds = {it.manifest.round: it for it in found if it.manifest.run == run_of(found)}
        if int(name) not in rounds:
            raise RoundError(
                f"no round {name} is recorded", where=registry.path, todo="see models list"
            )
        return rounds[int(name)]
    if not re.fullmatch(rf"[0-9a-f]{{{SHORTEST},64}}", name):
        raise ConfigError(
            f"{name!r} names no version",
            todo=f"give the number of a round, or {SHORTEST} digits or more of a digest",
        )
    named = [
        it for it in found if name in (it.manifest.adapter[: len(name)], it.digest[: len(name)])
    ]
    adapters = {it.manifest.adapter for it in named}
    if len(adapters) != 1:
        many = "several versions have" if adapters else "no version has"
        raise RoundError(
            f"{many} a digest that begins with {name}", where=registry.path, todo="see models list"
        )
    return named[-1]


def run_of(versions: Sequence[Version]) -> str:
    """The run that goes on."""
    return versions[-1].manifest.run if versions else ""


def promote(
    registry: Registry,
    version: Version,
    *,
    who: str,
    why: str,
    public: str | None = None,
    tell: Tell = nobody,
) -> Promotion:
    """Give platforms this version from now on.

    Args:
        registry: where it is.
        version: that one.
        who: decided it.
        why: for whoever asks later; there must be a reason.
        public: the key that must have signed it and all before it.
        tell: is called with the version once all holds, before it is done.

    Raises:
        ConfigError: without a reason.
        RoundError: it is promoted already, or damaged.
        IdentityError: `public` did not sign it.
    """
    _check_reason(why)
    standing = stack(registry.promotions())
    if standing and standing[-1] == version.manifest.version:
        raise RoundError(
            f"{title(version)} is promoted already", where=registry.path, todo="choose another"
        )
    tell(registry.verify(version.manifest.version, public=public))
    return registry.promote(version.manifest.version, who=who, why=why)


def roll_back(
    registry: Registry, *, who: str, why: str, public: str | None = None, tell: Tell = nobody
) -> Promotion:
    """Give platforms again what they had before the promotion that stands; else as `promote`.

    Raises:
        ConfigError: without a reason.
        RoundError: there was none before, or it is damaged.
        IdentityError: `public` did not sign it.
    """
    _check_reason(why)
    standing = stack(registry.promotions())
    if len(standing) < 2:
        raise RoundError(
            "no version was promoted before" if standing else "no version is promoted",
            where=registry.path,
            todo="promote the version that you want",
        )
    tell(registry.verify(standing[-2], public=public))
    return registry.promote(standing[-2], who=who, why=why, kind="rollback")


def stack(history: Sequence[Promotion]) -> list[int]:
    """Versions that a rollback, and the next, would go back through; the last one stands."""
    standing = list[int]()
    for it in history:
        if it.kind == "rollback":
            standing.pop()
        else:
            standing.append(it.version)
    return standing


def basis(registry: Registry, version: Version) -> str:
    """What there is to choose this version by: validation summed over the platforms that share it.

    Versions are compared over the platforms that shared this one's metrics; of one that some of
    them shared nothing of, nothing is said. Under a Plan each platform's metrics are noised.

    Raises:
        RoundError: another version of Atoll wrote a report.
    """
    mine = _shared(registry.report(version).validation)
    if not mine:
        return NOTHING_SHARED
    reports = {
        it.manifest.round: registry.report(it)
        for it in registry.versions()
        if it.present and it.manifest.run == version.manifest.run
    }
    sums = {
        round_: sum(shared[name] for name in mine)
        for round_, report in reports.items()
        if mine.keys() <= (shared := _shared(report.validation)).keys()
    }
    noised = {n for it in reports.values() for n, how in it.noise.items() if how != "none"}
    best = max(sums, key=lambda round_: sums[round_])
    total, count = sum(mine.values()), len(mine)
    return (
        f"validation: {wire.NDCG} {total:.4f} summed over {count} platforms"
        f" ({len(noised & mine.keys())} of them noised), mean {total / count:.4f};"
        f" of {len(sums)} versions round {best} has the most, {sums[best]:.4f}"
    )


def _shared(validation: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """NDCG@10 by platform, of those that share it."""
    return {name: it[wire.NDCG] for name, it in validation.items() if wire.NDCG in it}


def export(
    registry: Registry,
    version: Version,
    out: Path,
    *,
    force: bool = False,
    public: str | None = None,
    tell: Tell = nobody,
) -> None:
    """Write the Adapter to `out` and its manifest beside it.

    Both are whole and on the disk before either has its name, and the manifest gets its name
    first: no adapter is ever there without one. `tell` is called before, as by `promote`.

    Raises:
        ConfigError: a file is there already, or cannot be written.
        RoundError: the version is damaged.
        IdentityError: `public` did not sign it.
    """
    if out.suffix != ".safetensors":
        raise ConfigError("is no name for an adapter", where=out, todo="end it in .safetensors")
    for path in (out, manifest.beside(out)):
        if path.exists() and not force:
            raise ConfigError(
                "is there already", where=path, todo="name another file or use --force"
            )
    tell(registry.verify(version.manifest.version, public=public))
    adapter, _moments = version.tensors()
    # Left inside out: first the manifest gets its name.
    with replacing(out) as tensors, replacing(manifest.beside(out)) as told:
        save_adapter(adapter, tensors)
        manifest.write(told, version.manifest, version.signature)


def checked(registry: Registry, version: Version, *, public: str | None) -> str:
    """What verification says of a version, in one line."""
    try:
        registry.verify(version.manifest.version, public=public)
    except AtollError as fault:
        return str(fault)
    if not version.signature:
        return "whole, unsigned"
    return "whole, its signature holds" if public else "whole, signed; no key here to check it by"


def _check_reason(why: str) -> None:
    if not why.strip():
        raise ConfigError(
            "what platforms are given changes for a reason, and none was given",
            todo="say it with --why '…'; it goes into the history",
        )


def title(version: Version) -> str:
    """A version in a few words."""
    return f"round {version.manifest.round} ({version.manifest.adapter[:16]})"
