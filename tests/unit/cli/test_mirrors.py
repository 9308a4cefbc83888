from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from factory.cli import settings
from factory.cli.main import main
from factory.cli.settings import Settings, load
from factory.errors import UsageError
from factory.oci.names import RegistryAddress


class Places:
    def __init__(self, root: Path) -> None:
        self.site, self.user = root / "etc/config.toml", root / "home/.config/singfactory/config.toml"
        self.project = root / "project/factory.toml"
        self.home = root / "home"
        for path in (self.site, self.user, self.project):
            path.parent.mkdir(parents=True)

    def load(self, **env: str) -> Settings:
        return load({}, {"HOME": str(self.home)} | env, self.project.parent)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    found = Places(tmp_path)
    monkeypatch.setattr(settings, "SITE", found.site)
    return found


def addresses(found: Settings) -> Mapping[str, list[str]]:
    return {host: [str(one) for one in of.addresses] for host, of in found.mirrors().items()}


def test_each_host_comes_from_the_first_place_that_names_it(places: Places) -> None:
    places.site.write_text('[mirrors]\n"docker.io" = "http://site:5000/hub"\n"ghcr.io" = "site.example/ghcr"\n')
    places.user.write_text('[mirrors]\n"docker.io" = "user.example/hub"\n"quay.io" = ["a.example/q", "b.example"]\n')
    assert addresses(places.load()) == {
        "docker.io": ["user.example/hub"],
        "ghcr.io": ["site.example/ghcr"],
        "quay.io": ["a.example/q", "b.example"],
    }
    places.project.write_text('[mirrors]\n"docker.io" = "project.example/hub"\n')
    assert addresses(places.load())["docker.io"] == ["project.example/hub"]
    env = "docker.io=http://one:5000 docker.io=two.example/x"
    assert addresses(places.load(SINGFACTORY_MIRRORS=env))["docker.io"] == ["http://one:5000", "two.example/x"]


def test_only_a_mirror_that_the_user_or_the_site_named_counts_as_chosen(places: Places) -> None:
    places.site.write_text('[mirrors]\n"docker.io" = "site.example/hub"\n"ghcr.io" = "site.example/ghcr"\n')
    places.project.write_text('[mirrors]\n"docker.io" = "site.example/other"\n"quay.io" = "x.example"\n')
    found = places.load()
    every = found.mirrors()
    assert {host: of.chosen for host, of in every.items()} == {"docker.io": False, "ghcr.io": True, "quay.io": False}
    assert every["docker.io"].origin == str(places.project)
    assert every["docker.io"].addresses == (RegistryAddress("site.example", "other"),)


@pytest.mark.parametrize(
    ("line", "host", "address"),
    [
        ('docker.io = "http://mirror:5000/hub"', "docker.io", "http://mirror:5000/hub"),  # a table in a table, in TOML
        ('"index.docker.io" = "https://Mirror.example/hub/"', "docker.io", "mirror.example/hub"),
        ('"registry-1.docker.io" = "mirror.example"', "docker.io", "mirror.example"),
        ('"localhost:5000" = "mirror.example/local"', "localhost:5000", "mirror.example/local"),
        ('"GHCR.io" = "ghcr.io/org/cache"', "ghcr.io", "ghcr.io/org/cache"),
    ],
)
def test_hosts_and_addresses_are_normalized(places: Places, line: str, host: str, address: str) -> None:
    places.project.write_text(f"[mirrors]\n{line}\n")
    assert addresses(places.load()) == {host: [address]}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('mirrors = "x"\n', "mirrors is not a table"),
        ('[mirrors]\n\n"docker.io" = 3\n', ":3: the mirrors of docker.io have the wrong type"),
        ('[mirrors]\n"docker.io" = []\n', ":2: the mirrors of docker.io have the wrong type"),
        ('[mirrors]\n"docker.io" = ["a.example", 3]\n', ":2: the mirrors of docker.io have the wrong type"),
        ('[mirrors]\n"docker.io" = "a.example"\nregistry = "ghcr.io/x"\n', ":3: registry is a setting"),
        ('[mirrors]\ndocker = "a.example"\n', ":2: 'docker' is not a registry's host"),
        ('[mirrors]\n"docker.io/library" = "a.example"\n', ":2: 'docker.io/library' is not a registry's host"),
        ('[mirrors]\n"https://docker.io" = "a.example"\n', ":2: 'https://docker.io' is not a registry's host"),
        ('[mirrors]\n"docker.io" = "https://u:p@a.example"\n', "a login"),
        ('[mirrors]\n"docker.io" = "ftp://a.example"\n', ":2: the mirror of docker.io is not a registry address"),
        ('[mirrors]\n"docker.io" = "mirror"\n', ":2: the mirror of docker.io is not a registry address: 'mirror'"),
        ('[mirrors]\n"docker.io" = "oci:/x"\n', ":2: the mirror of docker.io is a folder"),
        ('[mirrors]\n"docker.io" = "index.docker.io"\n', ":2: docker.io is named as its own mirror"),
        ('[mirrors]\n"a.example" = "a.example"\n', ":2: a.example is named as its own mirror"),
        ('[mirrors]\n"docker.io" = "a.example"\n"index.docker.io" = "b.example"\n', ":3: docker.io is named twice"),
        (
            f'[mirrors]\n"docker.io" = {json.dumps([f"m{i}.example" for i in range(9)])}\n',
            ":2: docker.io has 9 mirrors",
        ),
    ],
)
def test_a_wrong_entry_is_named_with_its_file_and_line(places: Places, lines: str, message: str) -> None:
    places.project.write_text(lines)
    with pytest.raises(UsageError) as caught:
        places.load()
    told = "\n".join(caught.value.lines())
    assert str(places.project) in told
    assert message in told
    assert caught.value.fix
    assert "u:p" not in told


@pytest.mark.parametrize("text", ["docker.io", "docker.io=", "=a.example", "docker.io a.example"])
def test_a_wrong_variable_is_named(places: Places, text: str) -> None:
    with pytest.raises(UsageError, match="SINGFACTORY_MIRRORS"):
        places.load(SINGFACTORY_MIRRORS=text)


def test_config_and_doctor_show_each_host_with_its_origin(
    places: Places, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    places.project.write_text('[mirrors]\n"docker.io" = ["http://mirror:5000/hub", "b.example"]\n')
    monkeypatch.chdir(places.project.parent)
    monkeypatch.setenv("HOME", str(places.home))
    monkeypatch.delenv("SINGFACTORY_MIRRORS", raising=False)
    shown = f"http://mirror:5000/hub b.example  (from {places.project})"
    assert main(["config"]) == 0
    assert f"mirrors.docker.io = {shown}" in capsys.readouterr().out
    assert main(["config", "mirrors"]) == 0
    words = capsys.readouterr().out.strip()
    assert words == "docker.io=http://mirror:5000/hub docker.io=b.example"
    places.project.write_text("")
    assert addresses(places.load(SINGFACTORY_MIRRORS=words)) == {"docker.io": ["http://mirror:5000/hub", "b.example"]}
