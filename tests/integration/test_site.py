"""What a site has configured on its machines reaches builds: proxies with a login, and its own authority."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from factory.io.http.client import HttpSettings
from factory.io.progress import Silent
from factory.oci.digest import Descriptor
from factory.oci.names import RegistryAddress
from factory.registry.open import open_registry
from factory.registry.protocol import Manifest
from tests.factory_project import DEFINITION, Project, push_base
from tests.integration.workflows.tls import certificate
from tests.login_proxy import ANSWER, PASSWORD, LoginProxy, login_proxy
from tests.servers import Server, docker_registry

FETCH = DEFINITION + "    /bin/busybox wget -q -O /fetched http://files.invalid/data\n    env > /variables\n"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "GIT_SSL_CAINFO")


@pytest.fixture(autouse=True)
def plain_machine(project: Project) -> None:
    """Remove the proxies and certificates of the machine that runs the tests."""
    for name in (*PROXIES, *(name.upper() for name in PROXIES), *CERTIFICATES):
        project.env.pop(name, None)  # type: ignore[attr-defined]


@pytest.fixture
def proxy() -> Iterator[LoginProxy]:
    with login_proxy() as running:
        yield running


def files_with(text: str, folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY"])
def test_a_proxy_with_a_login_is_used_by_a_build_that_never_sees_the_login(
    project: Project, proxy: LoginProxy, name: str
) -> None:
    project.recipe("tool", definition=FETCH)
    done = project.ok("make", "-v", **{name: proxy.address})
    assert proxy.asked == ["GET http://files.invalid/data"]
    assert project.ok("exec", "tool", "--", "cat", "/fetched").out.encode() == ANSWER
    inside = project.ok("exec", "tool", "--", "cat", "/variables").out
    assert "http_proxy=http://build:" in inside
    assert PASSWORD not in f"{inside} {done.out} {done.err}"
    assert "do not get" not in done.err
    assert files_with(PASSWORD, project.folder) == []


def test_a_proxy_that_cannot_be_relayed_is_named_before_the_build_and_with_its_failure(
    project: Project, proxy: LoginProxy
) -> None:
    project.recipe("tool", definition=FETCH)
    socks = proxy.address.replace("http://", "socks5://")
    done = project.run("build", "tool", HTTP_PROXY=socks)
    lines = [line for line in done.err.splitlines() if "builds do not get HTTP_PROXY (" in line]
    assert (done.code, len(lines)) == (6, 2), done.err
    assert PASSWORD not in done.err
    assert files_with(PASSWORD, project.folder) == []


def test_programs_that_give_up_root_in_a_post_can_write_temporary_files(project: Project) -> None:
    project.recipe("tool", definition=DEFINITION + "    ls -ld /tmp /var/tmp > /modes\n")
    project.ok("make")
    modes = project.ok("exec", "tool", "--", "cat", "/modes").out.split("\n")
    assert [line[:10] for line in modes if line] == ["drwxrwxrwt"] * 2, modes  # apt-get update fails without


def test_a_post_may_empty_its_temporary_folders_and_still_reaches_the_site_s_packages(
    project: Project, tmp_path: Path
) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels/tool.whl").write_text("a wheel")
    project.recipe(
        "tool", definition=DEFINITION + '    rm -rf /tmp/* /var/tmp/*\n    cat "$PIP_FIND_LINKS/tool.whl" >/seen\n'
    )
    project.ok("make", "tool", PIP_FIND_LINKS=str(tmp_path / "wheels"))
    assert project.ok("exec", "tool", "--", "cat", "/seen").out == "a wheel"


@pytest.fixture
def own_registry(tmp_path: Path) -> Iterator[tuple[Server, Path]]:
    """A registry with TLS, and the authority that it belongs to."""
    (tmp_path / "tls").mkdir()
    authority, _ = certificate(tmp_path / "tls")
    with docker_registry(tmp_path / "own", tls=tmp_path / "tls") as server:
        yield server, authority


def test_the_setting_ca_reaches_the_base_image_the_engine_and_post(
    project: Project, own_registry: tuple[Server, Path]
) -> None:
    server, authority = own_registry
    there = open_registry(RegistryAddress(server.host, "base"), client_settings=HttpSettings(ca_bundle=str(authority)))
    base = push_base(server.host, registry=there)
    check = DEFINITION + '    head -n 2 "$SSL_CERT_FILE" > /authority\n    echo "$CURL_CA_BUNDLE" > /variable\n'
    project.recipe("tool", definition=check, base=base)
    assert "is not trusted" in project.run("build", "tool").err
    project.ok("make", "tool", SINGFACTORY_CA=str(authority))
    lines = authority.read_text().splitlines()
    start = lines.index("-----BEGIN CERTIFICATE-----")
    inside = project.ok("exec", "tool", "--", "cat", "/authority").out
    assert inside.splitlines() == lines[start : start + 2]
    assert project.ok("exec", "tool", "--", "cat", "/variable").out == "/dev/singfactory-sources/certificates.pem\n"
    image = project.folder / ".singfactory/candidates/tool-amd64/image.sif"
    sif = push_sif(image, there)
    upon = f"Bootstrap: oras\nFrom: {server.host}/base/{sif}\n%post\n    echo made > /made\n"
    folder = project.recipe("upon", definition=upon)
    toml = folder / "recipe.toml"
    toml.write_text(toml.read_text().replace(f'base = "{project.base}"\n', ""))
    done = project.run("build", "upon")
    assert (done.code, "certificate" in done.err) == (6, True), "the engine makes this connection itself"
    assert done.err.count("without your logins and plain_http; if it needs them, build from a docker://") == 2
    project.ok("build", "upon", SINGFACTORY_CA=str(authority))


def push_sif(image: Path, registry: object) -> str:
    """Push a SIF as `apptainer push` does; returns its name and tag."""
    content = image.read_bytes()
    layer = Descriptor(
        "application/vnd.sylabs.sif.layer.v1.sif",
        Descriptor.of("", content).digest,
        len(content),
        {"org.opencontainers.image.title": "tool.sif"},
    )
    config = Descriptor.of("application/vnd.sylabs.sif.config.v1+json", b"{}")
    registry.push_blob("tool", image, layer, Silent())  # type: ignore[attr-defined]
    registry.push_blob("tool", b"{}", config, Silent())  # type: ignore[attr-defined]
    registry.push_manifest("tool", Manifest(config, (layer,)).raw(), "1")  # type: ignore[attr-defined]
    return "tool:1"
