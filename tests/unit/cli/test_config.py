from __future__ import annotations

import json
from pathlib import Path

import pytest

from factory.cli import settings
from factory.cli.main import main


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "SITE", tmp_path / "no such file")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for key in settings.KEYS:
        monkeypatch.delenv(f"SINGFACTORY_{key.name.upper()}", raising=False)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("", ""),
        ('registry = "https://GHCR.io/org/images/"', "ghcr.io/org/images"),
        ('registry = "http://box:5000/x"', "http://box:5000/x"),
        ('engine = "x"', ""),
    ],
)
def test_one_setting_is_printed_on_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, line: str, shown: str
) -> None:
    (tmp_path / "factory.toml").write_text(line)
    assert main(["config", "registry"]) == 0
    assert capsys.readouterr().out == f"{shown}\n"


def test_an_invalid_registry_address_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "factory.toml").write_text('registry = "ghcr.io/x\\nLD_PRELOAD=/tmp/x"')
    assert main(["config", "registry"]) == 2
    assert capsys.readouterr().out == ""


def test_all_settings_are_listed_with_their_origins(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "factory.toml").write_text('registry = "ghcr.io/x"')
    monkeypatch.setenv("SINGFACTORY_ENGINE", "mine\x1b[31m")
    assert main(["config"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"registry = ghcr.io/x  (from {tmp_path / 'factory.toml'})",
        "engine = mine?[31m  (from SINGFACTORY_ENGINE)",
    ]
    assert main(["config", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"registry": "ghcr.io/x", "engine": "mine\x1b[31m"}
