"""Conda projects: what is read, and what is refused. No channel can be reached here: nothing is installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from factory.errors import FactoryError
from factory.recipes.projects import conda, conda_install

ENVIRONMENT = """\
name: glaciers
channels:
  - conda-forge
  - https://conda.example.org/lab
dependencies:
  - python=3.11
  - numpy==2.2.6
  - conda-forge::gdal >=3.8,<4
  - pip
  - pip:
      - xarray==2024.9.0
prefix: /home/ada/env
"""
LOCK = """\
version: 1
package:
- name: python
  version: 3.11.9
  manager: conda
  platform: linux-64
  url: https://conda.anaconda.org/conda-forge/linux-64/python-3.11.9-h955ad1f_0.conda
  hash:
    md5: 5a2ea7a4a4b4b4a2fbd7b0a4e4b4a4b4
    sha256: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
  category: main
- name: python
  version: 3.11.9
  manager: conda
  platform: osx-arm64
  url: https://conda.anaconda.org/conda-forge/osx-arm64/python-3.11.9-h0_0.conda
  hash: {md5: 5a2ea7a4a4b4b4a2fbd7b0a4e4b4a4b4}
  category: main
- name: xarray
  version: 2024.9.0
  manager: pip
  platform: linux-64
  url: https://files.packages.example/packages/x/xarray-2024.9.0-py3-none-any.whl
  hash: {sha256: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb}
  category: main
"""
PIXI = """\
version: 6
environments:
  default:
    channels:
    - url: https://conda.anaconda.org/conda-forge/
    packages:
      linux-64:
      - conda: https://conda.anaconda.org/conda-forge/linux-64/python-3.11.9-h955ad1f_0.conda
      - pypi: https://files.packages.example/packages/x/xarray-2024.9.0-py3-none-any.whl
      - pypi: ./
packages:
- conda: https://conda.anaconda.org/conda-forge/linux-64/python-3.11.9-h955ad1f_0.conda
  sha256: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
  md5: 5a2ea7a4a4b4b4a2fbd7b0a4e4b4a4b4
  size: 30000000
- pypi: https://files.packages.example/packages/x/xarray-2024.9.0-py3-none-any.whl
  name: xarray
  version: 2024.9.0
  sha256: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
- pypi: ./
  name: own
  version: 0.1.0
"""
EXPLICIT = (
    "@EXPLICIT\nhttps://conda.anaconda.org/conda-forge/linux-64/python-3.11.9-h955ad1f_0.conda"
    "#5a2ea7a4a4b4b4a2fbd7b0a4e4b4a4b4\n"
)


def path_of(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_an_environment_is_read_without_its_name_and_prefix(tmp_path: Path) -> None:
    found = conda.environment(path_of(tmp_path, "environment.yml", ENVIRONMENT))
    assert found.packages == (("python", ""), ("numpy", "2.2.6"), ("gdal", ""), ("pip", ""))
    assert found.pip == ("xarray==2024.9.0",)
    assert "/home/ada" not in found.files["environment.yml"]
    assert '  - "conda-forge::gdal >=3.8,<4"' in found.files["environment.yml"]
    assert "is no lock" in found.notes[0]
    text = conda_install.definition(found, conda_install.BASE)
    assert "micromamba create --yes --prefix /opt/env --file environment.yml" in text
    assert "uv pip install --requirement requirements.txt" in text


def test_packages_of_pip_bring_pip(tmp_path: Path) -> None:
    text = ENVIRONMENT.replace("  - pip\n", "")
    assert '  - "pip"\n' in conda.environment(path_of(tmp_path, "environment.yml", text)).files["environment.yml"]


def test_conda_lock_and_pixi_give_exact_archives_with_sums_and_hashed_wheels(tmp_path: Path) -> None:
    for found in (
        conda.conda_lock(path_of(tmp_path, "conda-lock.yml", LOCK), "amd64"),
        conda.pixi_lock(path_of(tmp_path, "pixi.lock", PIXI), "amd64", ""),
    ):
        assert found.files["explicit.txt"] == EXPLICIT
        assert found.files["sha256.txt"] == f"{'a' * 64}  python-3.11.9-h955ad1f_0.conda\n"
        assert found.pip == (f"xarray==2024.9.0 \\\n    --hash=sha256:{'b' * 64}",)
        assert found.packages == (("python", "3.11.9"),)
        assert "--require-hashes" in conda_install.definition(found, conda_install.BASE)


def refused(folder: Path, name: str, text: str) -> list[str]:
    path = path_of(folder, name, text)
    read: dict[str, Callable[[], conda.CondaNeeds]] = {
        "environment.yml": lambda: conda.environment(path),
        "pixi.lock": lambda: conda.pixi_lock(path, "amd64", ""),
        "conda-lock.yml": lambda: conda.conda_lock(path, "amd64"),
    }
    with pytest.raises(FactoryError) as caught:
        read[name]()
    return [line.replace(f"{folder}/", "") for line in caught.value.lines()]


@pytest.mark.parametrize(
    ("name", "before", "after", "first"),
    [
        ("environment.yml", "  - conda-forge\n", "  - [\n", "environment.yml:4: not YAML"),
        ("environment.yml", "dependencies:", "dependences:", "environment.yml:5: 'dependences' is no key"),
        (
            "environment.yml",
            "  - pip:\n      - xarray==2024.9.0\n",
            "  - pip: [-r requirements.txt]\n",
            "environment.yml:10: '-r requirements.txt' under pip is not supported",
        ),
        (
            "environment.yml",
            "https://conda.",
            "https://me:secret@conda.",
            "environment.yml:4: the channel https://…conda.example.org/lab holds a login",
        ),
        (
            "environment.yml",
            "https://conda.example.org/lab",
            "https://conda.example.org/t/secret/lab",
            "environment.yml:4: the channel",
        ),
        (
            "environment.yml",
            "https://conda.example.org/lab",
            "file:///opt/channel",
            "environment.yml:4: the channel file:///opt/channel is no channel",
        ),
        ("environment.yml", "numpy==2.2.6", "numpy; rm -rf /", "environment.yml:7: 'numpy; rm -rf /' is no package"),
        ("environment.yml", "prefix:", "variables: {A: b}\nprefix:", "environment.yml:12: variables are not supported"),
        ("conda-lock.yml", "version: 1", "version: 9", "conda-lock.yml:1: this is no conda-lock.yml of version 1"),
        ("conda-lock.yml", "linux-64", "osx-64", "conda-lock.yml: the lock is for osx-64, osx-arm64, not for linux-64"),
        (
            "conda-lock.yml",
            "https://conda.anaconda.org/conda-forge/linux-64",
            "https://x.org/t/secret/linux-64",
            "conda-lock.yml:7: the channel's address holds a login",
        ),
        (
            "environment.yml",
            "xarray==2024.9.0",
            "\"xarray ; python_version > '3'\\n--index-url https://x.org\"",
            "environment.yml: \"xarray ; python_version > '3'",
        ),
        ("conda-lock.yml", "name: python\n  version: 3.11.9", "name: a b\n  version: 3", "conda-lock.yml:7: 'a b' has"),
        ("conda-lock.yml", "name: python", "name: [x, x]", "conda-lock.yml:7: '' has no name or version"),
        (
            "pixi.lock",
            "      linux-64:\n",
            "      - linux-64\n      - x:\n",
            "pixi.lock:3: the lock is for no platform",
        ),
        ("pixi.lock", "version: 6", "version: 1", "pixi.lock:1: this is no pixi.lock of version 6"),
        ("pixi.lock", "linux-64:", "osx-64:", "pixi.lock:3: the lock is for osx-64, not for linux-64"),
    ],
)
def test_what_a_conda_file_cannot_give_is_refused(
    tmp_path: Path, name: str, before: str, after: str, first: str
) -> None:
    text = {"environment.yml": ENVIRONMENT, "conda-lock.yml": LOCK, "pixi.lock": PIXI}[name]
    assert before in text
    lines = refused(tmp_path, name, text.replace(before, after))
    assert lines[0].startswith(first)
    assert 2 <= len(lines) <= 3
    assert "secret" not in "".join(lines)


def test_versions_are_text_as_they_stand_and_an_address_with_a_bracket_has_no_host(tmp_path: Path) -> None:
    text = LOCK.replace("version: 3.11.9", "version: 3.10")
    assert ("python", "3.10") in conda.conda_lock(path_of(tmp_path, "conda-lock.yml", text), "amd64").packages
    odd = ENVIRONMENT.replace("https://conda.example.org/lab", "https://[x/lab")
    assert conda.environment(path_of(tmp_path, "environment.yml", odd)).hosts == ("conda.anaconda.org",)


def test_a_file_that_repeats_its_parts_is_not_written_out(tmp_path: Path) -> None:
    lists = "a0: &a0 [x, x, x, x]\n" + "".join(
        f"a{number}: &a{number} [{', '.join([f'*a{number - 1}'] * 4)}]\n" for number in range(1, 30)
    )
    text = f"{lists}version: 1\npackage:\n- {{name: *a29, version: *a29, url: *a29, platform: linux-64}}\n"
    assert refused(tmp_path, "conda-lock.yml", text)[0].startswith("conda-lock.yml")
