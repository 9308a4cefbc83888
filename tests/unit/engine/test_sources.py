from __future__ import annotations

from pathlib import Path

import pytest

from factory.engine import authorities, sources
from factory.engine.environment import CERTIFICATES
from factory.engine.sources import debian_mirror, find, pip_configuration


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Debian machine without a pip configuration."""
    monkeypatch.setattr(sources, "_PIP_OF_ALL", tmp_path / "etc" / "pip.conf")
    monkeypatch.setattr(sources, "_distribution", lambda: "debian")
    monkeypatch.setattr(authorities, "_ANCHORS", (str(tmp_path / "anchors"),))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    (tmp_path / "mounts").mkdir()
    return tmp_path / "mounts"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_pip_s_files_are_read_in_pip_s_own_order(tmp_path: Path, home: Path) -> None:
    env = {"HOME": str(home)}
    assert pip_configuration(env) == {}
    write(tmp_path / "etc/pip.conf", "[global]\nindex-url = https://all/simple\nretries = 9\n")
    assert pip_configuration(env) == {"index-url": "https://all/simple", "retries": "9"}
    write(home / ".pip/pip.conf", "[global]\nindex-url = https://old/simple\n")
    assert pip_configuration(env)["index-url"] == "https://old/simple"
    write(home / ".config/pip/pip.conf", "[global]\nindex-url = https://new/simple\n")
    assert pip_configuration(env)["index-url"] == "https://new/simple"
    write(tmp_path / "xdg/pip/pip.conf", "[global]\nindex-url = https://xdg/simple\n")
    env["XDG_CONFIG_HOME"] = str(tmp_path / "xdg")
    assert pip_configuration(env)["index-url"] == "https://xdg/simple"
    env["PIP_CONFIG_FILE"] = str(write(tmp_path / "named.conf", "[install]\nindex-url = https://named/simple\n"))
    assert pip_configuration(env)["index-url"] == "https://named/simple"
    env["PIP_INDEX_URL"] = "https://env/simple"
    assert pip_configuration(env) == {"index-url": "https://env/simple", "retries": "9"}


def test_pip_configuration_in_dev_null_means_no_file(tmp_path: Path, home: Path) -> None:
    write(tmp_path / "etc/pip.conf", "[global]\nindex-url = https://all/simple\n")
    assert pip_configuration({"HOME": str(home), "PIP_CONFIG_FILE": "/dev/null"}) == {}


def test_options_are_read_in_both_spellings_and_others_are_left_alone(tmp_path: Path, home: Path) -> None:
    known = "[global]\nindex_url = https://a/simple\nExtra-Index-URL =\n  https://b\n  https://c\n"
    write(tmp_path / "etc/pip.conf", known + "cert = /x\n[freeze]\nretries = 1\n")
    assert pip_configuration({"HOME": str(home)}) == {
        "index-url": "https://a/simple",
        "extra-index-url": "\nhttps://b\nhttps://c",
    }


@pytest.mark.parametrize("broken", ["index-url = x", "[global\n", "\x00\xff", "[global]\nindex-url = a\n[global]\nb"])
def test_a_broken_pip_configuration_is_ignored(tmp_path: Path, home: Path, broken: str) -> None:
    path = write(tmp_path / "etc/pip.conf", "")
    path.write_bytes(broken.encode("latin-1"))
    pip_configuration({"HOME": str(home)})


def test_an_index_in_a_folder_is_bound_with_its_parent(tmp_path: Path, home: Path, mounts: Path) -> None:
    (tmp_path / "index/simple").mkdir(parents=True)
    found = find({"HOME": str(home), "PIP_INDEX_URL": f"file://{tmp_path}/index/simple"}, mounts)
    (bind,) = found.binds
    assert str(bind) == f"{tmp_path}/index:{mounts}/0-index:ro"
    assert dict(found.env)["PIP_INDEX_URL"] == f"file://{mounts}/0-index/simple"
    assert Path(bind.target).is_dir(), "the engine needs a mount point"


def test_a_folder_of_wheels_is_bound_itself_and_once(tmp_path: Path, home: Path, mounts: Path) -> None:
    (tmp_path / "wheels").mkdir()
    wheels = str(tmp_path / "wheels")
    found = find({"HOME": str(home), "PIP_FIND_LINKS": f"{wheels} {wheels} https://w/x ./here /not/there"}, mounts)
    assert [str(bind.source) for bind in found.binds] == [wheels]
    inside = f"{mounts}/0-wheels"
    assert dict(found.env)["PIP_FIND_LINKS"] == f"{inside} {inside} https://w/x ./here"


@pytest.mark.parametrize("place", ["home", "."])
def test_a_source_that_contains_the_home_is_left_out_and_named(
    tmp_path: Path, home: Path, mounts: Path, place: str
) -> None:
    (tmp_path / "wheels").mkdir()
    found = find({"HOME": str(home), "PIP_FIND_LINKS": f"{tmp_path}/wheels {tmp_path}/{place}"}, mounts)
    assert [bind.source for bind in found.binds] == [tmp_path / "wheels"]
    there = f"{mounts}/0-wheels"
    assert dict(found.env) == {"PIP_FIND_LINKS": there, "UV_FIND_LINKS": there}
    assert found.left_out == ("PIP_FIND_LINKS",)


def test_an_index_in_the_home_is_bound_without_the_home(home: Path, mounts: Path) -> None:
    (home / "simple").mkdir()
    found = find({"HOME": str(home), "PIP_INDEX_URL": f"file://{home}/simple"}, mounts)
    assert [bind.source for bind in found.binds] == [home / "simple"]


def test_a_certificate_file_with_a_private_key_is_left_out_and_named(home: Path, mounts: Path) -> None:
    path = write(home / "client.pem", "-----BEGIN CERTIFICATE-----\n-----BEGIN EC PRIVATE KEY-----\n")
    found = find({"HOME": str(home), "PIP_CERT": str(path)}, mounts)
    assert (found.env, found.binds, found.left_out) == ((), (), ("PIP_CERT",))


def test_a_missing_index_is_not_set(home: Path, mounts: Path) -> None:
    found = find({"HOME": str(home), "PIP_INDEX_URL": "file:///not/there/simple"}, mounts)
    assert (found.env, found.binds) == ((), ())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("https_proxy", "https://me:s3cret@proxy:3128"),
        ("all_proxy", "socks5://me:s3cret@proxy:1080"),
        ("HTTP_PROXY", "http://me:s3cret@proxy:port"),
        ("http_proxy", "http://proxy:3128/?token=s3cret"),
        ("PIP_INDEX_URL", "https://__token__:s3cret@pypi.example/simple"),
        ("PIP_INDEX_URL", "https://token@[broken/simple"),
        ("PIP_EXTRA_INDEX_URL", "https://open/simple https://me:s3cret@pypi.example/simple"),
        ("PIP_INDEX_URL", "https://pypi.example/simple/?token=s3cret"),
        ("PIP_INDEX_URL", "https://pypi.example/1nAvBc9fXk20/me/"),
        ("PIP_EXTRA_INDEX_URL", "https://dl.example/2f1b6c1e-8c1d-4f0a-9d8e-0a1b2c3d4e5f/org/repo/python/simple"),
    ],
)
def test_an_address_with_a_login_is_left_out_and_named(home: Path, mounts: Path, name: str, text: str) -> None:
    found = find({"HOME": str(home), name: text}, mounts)
    assert (found.env, found.left_out, found.relayed) == ((), (name,), ())
    assert f"builds do not get {name} (" in found.missing()
    assert "s3cret" not in f"{found} {found.missing()}"


@pytest.mark.parametrize(
    "address", ["http://me:s3cret@proxy:3128", "me:s3cret@proxy:3128", "http://me:s3/cret@proxy:3128"]
)
@pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY"])
def test_a_proxy_with_a_login_is_for_a_relay(home: Path, mounts: Path, name: str, address: str) -> None:
    found = find({"HOME": str(home), name: address}, mounts)
    assert (found.env, found.left_out, found.missing()) == ((), (), "")
    assert [(variable, proxy.place) for variable, proxy in found.relayed] == [
        ("https_proxy", "proxy:3128"),
        ("HTTPS_PROXY", "proxy:3128"),
    ]
    assert "s3" not in repr(found)


def test_a_proxy_reaches_builds_in_both_spellings_and_no_proxy_without_wildcards(home: Path, mounts: Path) -> None:
    env = {"HTTPS_PROXY": "http://proxy:3128", "no_proxy": "localhost *.example.org", "NO_PROXY": "ignored"}
    assert dict(find(env | {"HOME": str(home)}, mounts).env) == {
        "https_proxy": "http://proxy:3128",
        "HTTPS_PROXY": "http://proxy:3128",
        "no_proxy": "localhost,.example.org",
        "NO_PROXY": "localhost,.example.org",
    }


CERTIFICATE = "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize("place", ["the setting ca", "SSL_CERT_DIR", "the system's store"])
def test_an_authority_of_the_site_reaches_builds_next_to_the_public_ones(
    tmp_path: Path, home: Path, mounts: Path, place: str
) -> None:
    folder = {"the system's store": tmp_path / "anchors"}.get(place, tmp_path / "site")
    mine = write(folder / "site.crt", "Our own\n" + CERTIFICATE.format("TUlORQ=="))
    write(folder / "key.pem", CERTIFICATE.format("S0VZ") + "-----BEGIN PRIVATE KEY-----\n")
    write(tmp_path / "user.pem", CERTIFICATE.format("VVNFUg=="))
    env = {"HOME": str(home), "CURL_CA_BUNDLE": str(tmp_path / "user.pem")}
    if place == "SSL_CERT_DIR":
        env["SSL_CERT_DIR"] = f"/etc/ssl/certs:{folder}"
    found = find(env, mounts, seen_as=Path("/tmp/sources"), ca=mine if place == "the setting ca" else None)
    bundle = (mounts / "certificates.pem").read_text()
    assert bundle.startswith(CERTIFICATE.format("TUlORQ=="))
    assert CERTIFICATE.format("VVNFUg==") in bundle, "the user's own file counts too"
    assert bundle.count("BEGIN CERTIFICATE") > 50, "and so do the public ones"
    assert "PRIVATE KEY" not in bundle
    assert CERTIFICATE.format("S0VZ") not in bundle
    inside = "/tmp/sources/certificates.pem"
    assert (found.authorities, found.binds) == (inside, ())
    assert dict(found.env) == dict.fromkeys(CERTIFICATES, inside)


def test_without_an_authority_of_the_site_builds_get_no_bundle(home: Path, mounts: Path) -> None:
    found = find({"HOME": str(home), "SSL_CERT_DIR": "/etc/ssl/certs"}, mounts)
    assert (found.env, found.authorities, list(mounts.iterdir())) == ((), "", [])


def test_addresses_without_a_login_reach_builds(home: Path, mounts: Path) -> None:
    env = {
        "http_proxy": "http://proxy:3128",
        "HTTPS_PROXY": "proxy:3128",
        "no_proxy": "localhost,.example.org",
        "PIP_INDEX_URL": "https://pypi.example/simple/@scope",
        "PIP_EXTRA_INDEX_URL": "https://a.example/artifactory/api/pypi/pypi-local-2024/simple https://w.example/whl/cu121",
        "PIP_TRUSTED_HOST": "pypi.example:8080",
    }
    found = find(env | {"HOME": str(home), "SECRET": "x"}, mounts)
    assert dict(found.env) == env | {
        "HTTP_PROXY": env["http_proxy"],
        "https_proxy": env["HTTPS_PROXY"],
        "NO_PROXY": env["no_proxy"],
        "UV_DEFAULT_INDEX": env["PIP_INDEX_URL"],
        "UV_INDEX": env["PIP_EXTRA_INDEX_URL"],
        "UV_INDEX_STRATEGY": "unsafe-best-match",  # as pip does it
        "UV_INSECURE_HOST": env["PIP_TRUSTED_HOST"],
    }
    assert (found.binds, found.left_out) == ((), ())


def test_uv_gets_the_sources_of_pip_in_its_own_form(tmp_path: Path, home: Path, mounts: Path) -> None:
    for name in ("wheels", "more", "pypi/simple"):
        (tmp_path / name).mkdir(parents=True)
    env = {
        "HOME": str(home),
        "PIP_FIND_LINKS": f"{tmp_path}/wheels {tmp_path}/more",
        "PIP_EXTRA_INDEX_URL": f"file://{tmp_path}/pypi/simple {tmp_path}/pypi/simple",
    }
    found = dict(find(env, mounts).env)
    links = found["PIP_FIND_LINKS"].split()
    assert found["UV_FIND_LINKS"] == ",".join(links)
    index = next(part for part in found["PIP_EXTRA_INDEX_URL"].split() if part.startswith("/"))
    assert found["UV_INDEX"] == f"file://{index} file://{index}"


def test_uvs_own_settings_win_over_those_of_pip_and_logins_stay_here(tmp_path: Path, home: Path, mounts: Path) -> None:
    (tmp_path / "wheels").mkdir()
    env = {
        "HOME": str(home),
        "PIP_INDEX_URL": "https://pip.example/simple",
        "UV_DEFAULT_INDEX": "https://uv.example/simple",
        "UV_INDEX": "lab=https://lab.example/simple https://me:secret@x.example/simple",
        "UV_FIND_LINKS": f"{tmp_path}/wheels",
    }
    found = find(env, mounts)
    assert dict(found.env) == {
        "PIP_INDEX_URL": "https://pip.example/simple",
        "UV_DEFAULT_INDEX": "https://uv.example/simple",
        "UV_FIND_LINKS": f"{mounts}/0-wheels",
    }
    assert found.left_out == ("UV_INDEX",)


def test_a_site_certificate_is_bound_once_for_all_variables(tmp_path: Path, home: Path, mounts: Path) -> None:
    certificate = write(tmp_path / "ca.pem", "x")
    (tmp_path / "link.pem").symlink_to(certificate)
    env = {
        "HOME": str(home),
        "SSL_CERT_FILE": str(certificate),
        "PIP_CERT": str(tmp_path / "link.pem"),
        "CURL_CA_BUNDLE": "/not/there",
    }
    found = find(env, mounts)
    assert [str(bind) for bind in found.binds] == [f"{certificate}:{mounts}/0-ca.pem:ro"]
    assert dict(found.env) == {"SSL_CERT_FILE": f"{mounts}/0-ca.pem", "PIP_CERT": f"{mounts}/0-ca.pem"}


def test_the_configured_debian_mirror_goes_first(home: Path, mounts: Path) -> None:
    assert find({"HOME": str(home)}, mounts, "http://mine/debian").debian_mirror == "http://mine/debian"


@pytest.mark.parametrize(
    ("name", "text", "mirror"),
    [
        (
            "sources.list.d/debian.sources",
            "Types: deb\nURIs: http://mirror/debian/\nSuites: bookworm\n",
            "http://mirror/debian",
        ),
        (
            "sources.list.d/debian.sources",
            "Types: deb\nURIs: http://security/debian-security http://mirror/debian\n",
            "http://mirror/debian",
        ),
        (
            "sources.list.d/debian.sources",
            "Enabled: no\nURIs: http://off/debian\n\nTypes: deb\nuris: https://on/debian\n",
            "https://on/debian",
        ),
        ("sources.list.d/debian.sources", "# URIs: http://comment/debian\n", ""),
        ("sources.list.d/debian.list", "deb http://mirror/debian bookworm main\n", "http://mirror/debian"),
        (
            "sources.list",
            "# deb http://comment/debian x y\n\n  deb [arch=amd64 signed-by=/k] https://mirror/debian bookworm main\n",
            "https://mirror/debian",
        ),
        ("sources.list", "deb http://other/ubuntu jammy main\ndeb cdrom:[x]/debian bookworm main\n", ""),
        ("sources.list", "deb http://me:s3cret@mirror/debian bookworm main\n", ""),
        ("sources.list", "deb-src http://src/debian bookworm main\n", "http://src/debian"),
        ("sources.list", "\x00\xff", ""),
    ],
)
def test_the_debian_mirror_is_the_one_that_apt_uses(tmp_path: Path, name: str, text: str, mirror: str) -> None:
    write(tmp_path / "apt" / name, text)
    assert debian_mirror(tmp_path / "apt", tmp_path / "none") == mirror


def test_without_apt_sources_the_mirror_of_debootstrap_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = write(tmp_path / "debootstrap", '#!/bin/sh\nDEF_MIRROR="http://mirror.example.org/debian"\n')
    assert debian_mirror(tmp_path / "none", script) == "http://mirror.example.org/debian"
    assert debian_mirror(tmp_path / "none", tmp_path / "none") == ""
    write(tmp_path / "apt/sources.list", "deb http://mirror/debian bookworm main\n")
    monkeypatch.setattr(sources, "_distribution", lambda: "rocky")
    assert debian_mirror(tmp_path / "apt", script) == "http://mirror.example.org/debian"
