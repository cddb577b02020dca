from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from server.daemon import main
from server.registry import Registry
from shared.backbone import load_backbone
from simulations.harness import Fault

Typed = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]


def test_pretrain_says_the_digest_and_where_backbone_and_card_are(
    typed: Typed, trio: dict[str, Path], encoder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "b.safetensors"
    words = ("pretrain", trio["atelier"], "--out", out, "--encoder", encoder, "--epochs", "1")
    code, told, _ = typed(main, *words)
    assert code == 0
    shown = told.replace("\n", "")
    assert f"backbone {load_backbone(out).digest}" in shown
    assert str(out) in shown
    assert str(tmp_path / "b.md") in shown


def test_pretrain_replaces_a_file_only_with_force(
    typed: Typed, refused: Refused, trio: dict[str, Path], encoder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "b.safetensors"
    out.write_bytes(b"precious")
    words = ("pretrain", trio["atelier"], "--out", out, "--encoder", encoder, "--epochs", "1")
    line = refused(main, *words)
    assert line == f"{out}: is there already; name another file or use --force"
    assert typed(main, *words, "--force")[0] == 0
    assert load_backbone(out).digest


def test_pretrain_spares_a_card_that_is_there_too(
    refused: Refused, trio: dict[str, Path], encoder: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.md").write_text("precious")
    out = tmp_path / "notes.safetensors"
    words = ("pretrain", trio["atelier"], "--out", out, "--encoder", encoder, "--epochs", "1")
    assert "notes.md: is there already" in refused(main, *words)


@pytest.mark.parametrize("name", ["no-such/encoder", "."])
def test_pretrain_without_a_text_encoder_says_so(
    name: str, refused: Refused, trio: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "b.safetensors"
    line = refused(main, "pretrain", trio["atelier"], "--out", out, "--encoder", name)
    assert f"text encoder '{name}'" in line


def test_rounds_lists_what_was_recorded(
    typed: Typed,
    run_federation: Callable[..., Registry],
    trio: dict[str, Path],
    tmp_path: Path,
) -> None:
    faults = [Fault("kiosk", 1, "drop"), Fault("atelier", 2, "corrupt", corruption="nan")]
    registry = run_federation(trio, tmp_path, faults=faults)
    code, told, _ = typed(main, "rounds", tmp_path)
    assert code == 0
    zero, one, two = told.splitlines()
    digests = [registry.load(number)[0].adapter.digest[:16] for number in range(3)]
    assert zero == f"round 0  {digests[0]}  0 updates"
    assert one == f"round 1  {digests[1]}  2 updates; missing kiosk"
    assert two.startswith(f"round 2  {digests[2]}  2 updates; refused atelier: tensor ")


def test_a_folder_without_rounds_is_told(refused: Refused, tmp_path: Path) -> None:
    assert refused(main, "rounds", tmp_path) == (
        f"{tmp_path}: holds no recorded rounds; wait until the first is recorded,"
        " or name a run's folder"
    )
