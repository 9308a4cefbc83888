"""`singfactory convert`: what it prints, writes and returns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from factory.cli.convert import LOSSY
from factory.cli.main import main


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_an_exact_translation_is_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "Dockerfile").write_text("FROM debian:12\nRUN echo x\n")
    assert main(["convert", "Dockerfile"]) == 0
    printed = capsys.readouterr()
    assert "Bootstrap: docker\nFrom: debian:12\n" in printed.out
    assert "Dockerfile:1: note:" in printed.err
    assert main(["convert", "-q", "Dockerfile"]) == 0
    assert capsys.readouterr().err == ""


def test_losses_are_explained_and_change_the_exit_code(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "Dockerfile").write_text("FROM debian:12\nEXPOSE 80\n")
    assert main(["convert", "-q", "Dockerfile"]) == LOSSY
    printed = capsys.readouterr()
    assert printed.err.startswith("Dockerfile:2: lost: EXPOSE 80: ")
    assert "\n    let the user choose a free port\n" in printed.err
    assert "From: debian:12" in printed.out


def test_a_file_of_the_user_is_never_replaced(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "Dockerfile").write_text("FROM debian:12\n")
    (folder / "image.def").write_text("mine")
    assert main(["convert", "Dockerfile", "-o", "image.def"]) == 8
    assert "image.def is in the way" in capsys.readouterr().err
    assert (folder / "image.def").read_text() == "mine"
    assert main(["convert", "Dockerfile", "-o", "new.def"]) == 0
    assert capsys.readouterr().out == "new.def\n"
    assert "From: debian:12" in (folder / "new.def").read_text()


def test_every_mistake_is_shown_and_nothing_is_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "Dockerfile").write_text("FROM debian:12\nRUM x\nENV A\n")
    assert main(["convert", "Dockerfile", "-o", "new.def"]) == 2
    printed = capsys.readouterr()
    assert "Dockerfile:3: error: ENV 'A' has no value" in printed.err
    assert "Dockerfile:2: there is no instruction 'RUM'\n  did you mean RUN?\n" in printed.err
    assert printed.out == ""
    assert not (folder / "new.def").exists()


def test_the_document_has_everything(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "Dockerfile").write_text("ARG T=1\nFROM a:$T AS one\nEXPOSE 80\nFROM one\n")
    assert main(["convert", "Dockerfile", "--json", "--target", "one", "--build-arg", "T=2"]) == LOSSY
    document = json.loads(capsys.readouterr().out)
    assert "From: a:2\n" in document["definition"]
    assert document["exact"] is False
    assert [(loss["line"], loss["file"]) for loss in document["losses"]] == [(3, "Dockerfile")]


def test_another_context_can_be_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "docker").mkdir()
    (folder / "app.py").write_text("")
    (folder / "docker/Dockerfile").write_text("FROM a:1\nCOPY app.py /app.py\n")
    assert main(["convert", "docker/Dockerfile"]) == 2
    assert "docker/Dockerfile:2: there is no app.py to copy" in capsys.readouterr().err
    assert main(["convert", "docker/Dockerfile", "--context", "."]) == 0
    assert "    app.py /app.py\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["missing"], 3, "there is no file missing"),
        (["Dockerfile", "--context", "none"], 2, "there is no folder none"),
        (["Dockerfile", "--build-arg", "x"], 2, "not NAME=VALUE"),
        (["Dockerfile", "--target", "none"], 2, "there is no stage 'none'"),
        (["Dockerfile", "--arch", "s390x"], 2, "arm64"),
    ],
)
def test_mistakes_of_the_command_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    (folder / "Dockerfile").write_text("FROM a:1\n")
    assert main(["convert", *arguments]) == code
    assert message in capsys.readouterr().err
