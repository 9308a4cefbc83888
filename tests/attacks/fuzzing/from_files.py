"""Targets: recipes, settings, lock files, logins, and what lies in a store that others write."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from factory.cli import settings
from factory.errors import FactoryError
from factory.io.below import Folder
from factory.io.locks import lock
from factory.io.progress import Silent
from factory.oci.digest import Digest
from factory.oci.names import Reference
from factory.recipes import pins
from factory.recipes.definition.parser import bind, scan
from factory.recipes.lint.lint import lint
from factory.recipes.load import load_recipe, load_usable
from factory.recipes.model import BasePin
from factory.records import lockfile
from factory.records.lockfile import LockedImage
from factory.registry.credentials import Keychain, read_config
from factory.store import leases
from factory.store.record_files import read_refs, refs_file, write_refs
from factory.store.records import Records, absent
from factory.store.refs import StoredImage
from tests.attacks.fuzzing.target import MIB, Target
from tests.unit.parts import BASE_DIGEST, CREATED, write_recipe

_RECIPES = Path(__file__).resolve().parents[3] / "recipes"


def _recipes(_place: Path) -> Sequence[bytes]:
    return [path.read_bytes() for path in sorted(_RECIPES.glob("*/recipe.toml"))]


def _recipe(data: bytes, place: Path) -> None:
    folder = place / "tool"
    folder.mkdir()
    folder.joinpath("image.def").write_bytes(_definitions(place)[0])
    named = re.sub(rb'name = "(python|pytorch)[^"]*"', b'name = "tool"', data, count=1)
    folder.joinpath("recipe.toml").write_bytes(named)
    for problem in lint(folder, []):
        str(problem).encode()
        assert "\n" not in str(problem)
    load_usable(place)
    load_recipe(folder)


def _definitions(_place: Path) -> Sequence[bytes]:
    return [path.read_bytes() for path in sorted(_RECIPES.glob("*/image.def"))]


def _definition(data: bytes, place: Path) -> None:
    recipe = write_recipe(place, "tool", definition="Bootstrap: docker\nFrom: debian:12\n", build='args = { v = "1" }')
    recipe.definition_path.write_bytes(data)
    for problem in lint(recipe.folder, []):
        str(problem).encode()
        assert "\n" not in str(problem)
    definition, problems = scan(data.decode("utf-8", "replace"), recipe.definition_path)
    definition.variables()
    if not problems:
        values = {"base": "debian:12", "arch": "amd64", "version": "1.0", "v": "1", "name": "tool", "debian_mirror": ""}
        text = bind(definition, values).text()
        again, broken = scan(text, recipe.definition_path)
        assert not broken
        assert not again.variables()


def _pins(_place: Path) -> Sequence[bytes]:
    old = f'base = "docker://debian:12"\ndigest = "{BASE_DIGEST}"\nresolved = "{CREATED}"\n'
    platforms = {"amd64": BASE_DIGEST, "arm64": BASE_DIGEST}
    images = [BasePin(f"docker://{name}", BASE_DIGEST, CREATED, platforms) for name in ("debian:12", "golang:1.22")]
    return [old.encode(), pins.content(images).encode()]


def _pin(data: bytes, place: Path) -> None:
    recipe = write_recipe(place, "tool")
    (recipe.folder / pins.FILE).write_bytes(data)
    found = pins.read_pins(recipe).pins
    if found:
        pins.write_pins(recipe, found)
        assert pins.read_pins(recipe).pins == found


_SETTINGS = b"""\
registry = "ghcr.io/org/images"
store = "$HOME/store"
shared_stores = ["/a", "/b"]
trusted_owners = ["root"]
stage = "/tmp/x"
idle_timeout = 5.5
connections = 4
limit_rate = "20MB/s"
slurm_options = ["--mem=1G"]
[mirrors]
"docker.io" = ["http://mirror:5000/hub", "b.example"]
ghcr.io = "a.example/x"
"""


def _setting(data: bytes, place: Path) -> None:
    place.joinpath(settings.PROJECT_FILE).write_bytes(data)
    found = settings.load({}, {"HOME": "/root"}, place)
    found.seconds("idle_timeout", 1.0)
    found.connections(4)
    found.rate()
    found.paths("shared_stores")
    assert not any(one.chosen for one in found.mirrors().values())
    for value in found.values.values():
        f"{value.text} {value.origin}".encode()


def _locked(_place: Path) -> Sequence[bytes]:
    digest = Digest.of(b"x")
    images = [
        LockedImage(name, "ghcr.io/org/images", "1.0-1", digest, digest, 5, CREATED) for name in ("tool", "other")
    ]
    return [lockfile.render(images).encode()]


def _lock_file(data: bytes, _place: Path) -> None:
    found = lockfile.parse(data, "images.lock")
    assert lockfile.parse(lockfile.render(found).encode(), "again") == found


def _logins(_place: Path) -> Sequence[bytes]:
    value = {
        "auths": {
            "ghcr.io": {"auth": "dTpw"},
            "https://index.docker.io/v1/": {"username": "u", "password": "p"},
            "a.example/path": {"identitytoken": "t"},
        },
        "credsStore": "pass",
        "credHelpers": {"b.example": "x"},
    }
    return [json.dumps(value).encode()]


def _login(data: bytes, place: Path) -> None:
    file = place / "config.json"
    file.write_bytes(data)
    read_config(file)
    for host in ("ghcr.io", "docker.io", "a.example", "b.example"):
        for helper in (None, lambda _arguments, _asked: data):
            for found in Keychain([file], helper).candidates(host, "org/tool"):
                assert found.basic.isascii()


def _records(place: Path) -> Sequence[bytes]:
    digest = Digest.of(b"x")
    stored = StoredImage(
        "tool", "1.0-1", "ghcr.io/org/images", digest, digest, 5, CREATED, "nvidia", {"A": "b"}, ("/dataset",)
    )
    other = replace(stored, registry="other.example/images")
    known = Records().with_image(stored, ["1.0-1", "latest"], stored.registry, asked=True)
    _write(place, known.with_image(other, ["1.0-1"], stored.registry, asked=False))
    return [refs_file(place, "tool").read_bytes()]


def _write(place: Path, known: Records) -> None:
    (place / "refs").mkdir(exist_ok=True)
    with Folder.at(place) as store, store.below("refs") as refs:
        write_refs(refs, "tool", known, known.home)


def _record(data: bytes, place: Path) -> None:
    (place / "refs").mkdir()
    refs_file(place, "tool").write_bytes(data)
    known = read_refs(place, "tool")
    for image in known.images:
        assert image.recipe == "tool"
        f"{image.tag} {image.registry} {image.pulled} {image.env} {image.binds}".encode()
    str(absent(Reference("tool", "x"), known, "", place)).encode()
    _write(place, known)
    assert read_refs(place, "tool").by_registry == known.by_registry


def _leases(place: Path) -> Sequence[bytes]:
    leases.take(place, Digest.of(b"x"), leases.Job("7", "cluster"))
    return [path.read_bytes() for path in (place / "leases").iterdir()]


def _lease(data: bytes, place: Path) -> None:
    leases.take(place, Digest.of(b"x"))
    for path in list((place / "leases").iterdir()):
        path.write_bytes(data)
    for lease in leases.read(place):
        leases.is_alive(lease, now=0.0, patience=1.0, queue=leases.Queue("cluster", frozenset({"7"})))
        str(lease).encode()


def _holders(place: Path) -> Sequence[bytes]:
    with lock(place / "seed.lock", 1.0, Silent()):
        return [(place / "seed.lock").read_bytes()]


def _holder(data: bytes, place: Path) -> None:
    path = place / "a.lock"
    path.write_bytes(data)
    try:
        with lock(path, 0.0, Silent()):
            pass
    except FactoryError as error:
        "\n".join(error.lines()).encode()
        raise


_DEFINITION_WORDS = (
    b"%post",
    b"%files\n",
    b"%files from x\n",
    b"%arguments\n  v=1\n",
    b"%appinstall x\n",
    b"%environment",
    b"Bootstrap: docker\n",
    b"From: x\n",
    b"Stage: x\n",
    b"{{ v }}",
    b"{{v}}",
    b"{{ {{ v }} }}",
    b"{{ base }}",
    b"\\",
    b"#",
    b"%%",
    b"  %x",
    b"bootstrap:",
    b'"',
    b"'",
    b"{{\n",
    b"Bootstrap: busybox\nMirrorURL: http://x/y\n",
    b"    pip install x && apt-get update",
    b"v={{ v }}",
    b"<<EOF",
    b"$(",
    b"((((",
    b"> /tmp/x",
)

TARGETS = (
    Target("recipe.toml", _recipe, _recipes, "toml", inputs=200),
    Target("base.lock", _pin, _pins, "toml", inputs=200),
    Target("factory.toml", _setting, lambda _: [_SETTINGS], "toml"),
    Target("lock-file", _lock_file, _locked, "toml"),
    Target("definition", _definition, _definitions, "text", inputs=200, words=_DEFINITION_WORDS),
    Target("file-of-logins", _login, _logins, "json"),
    Target("record-in-a-store", _record, _records, "json"),
    Target("lease", _lease, _leases, "json"),
    Target("holder-of-a-lock", _holder, _holders, "json", memory=256 * MIB),
)
