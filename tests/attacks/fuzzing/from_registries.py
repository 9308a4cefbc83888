"""Targets: what a registry, or whoever stands before it, sends."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from factory.errors import FactoryError
from factory.io.http.failures import Answer, retry_after
from factory.io.http.settings import redacted
from factory.oci.digest import Descriptor, Digest
from factory.oci.names import BuildTag, Reference, RegistryAddress, docker_reference
from factory.plan.plan import Snapshot, plan
from factory.pull.resolve import resolve
from factory.recipes.lint.lint import lint
from factory.recipes.load import check_recipe
from factory.recipes.model import RunSpec
from factory.recipes.scaffold import scaffold
from factory.recipes.seen import read_config
from factory.records import sbom
from factory.records.catalog import Catalog, Entry
from factory.records.catalog import read as read_catalog
from factory.records.catalog import write as write_catalog
from factory.records.inputs import gather
from factory.records.release import (
    CHUNK_INDEX,
    Release,
    Repeat,
    Update,
    from_manifest,
    index_tag,
    to_index,
    to_manifest,
)
from factory.registry.challenge import parse_challenges
from factory.registry.documents import as_referrer, named, read_manifest, referrer_index, referrer_list, subject_of
from factory.registry.image_index import ImageIndex, Member, platforms
from factory.registry.images import look
from factory.registry.layout import LayoutRegistry
from factory.registry.layout_index import LayoutIndex
from factory.registry.paging import next_link
from factory.registry.protocol import INDEX, MANIFEST, SIF_LAYER, Manifest, artifact
from factory.sif.packages import Package, Packages, package_changes
from tests.attacks.fuzzing.target import Target
from tests.unit.images import CONFIG, Images
from tests.unit.parts import BASE_DIGEST, CREATED, ENGINE, NOW, QUIET, folder_registry, write_recipe


def release(tag: str = "1.0-2", arch: str = "amd64", *, repeated: bool = False) -> Release:
    """A release with everything that one can have."""
    build = BuildTag.parse(tag)
    assert build is not None
    return Release(
        recipe="tool",
        tag=build,
        digest=Digest.of(f"manifest {tag} {arch}".encode()),
        sif=Descriptor(SIF_LAYER, Digest.of(b"sif"), 123_456),
        arch=arch,
        created=CREATED,
        inputs="sha256:" + "a" * 64,
        parts={"definition": "sha256:" + "b" * 64, "engine": "apptainer 1.4.0"},
        engine="apptainer 1.4.0",
        tested="1 passed",
        run=RunSpec("nvidia", {"OMP_NUM_THREADS": "1"}, ("/dataset",)),
        fingerprint="1:" + "c" * 64,
        chunks=Descriptor(CHUNK_INDEX, Digest.of(b"chunks"), 5000),
        update=Update("1.0-1", 1000),
        repeat=Repeat("sha256:" + "d" * 64, {"base": "sha256:" + "e" * 64}, CREATED) if repeated else None,
    )


def _manifests(_place: Path) -> Sequence[bytes]:
    subject = Descriptor(MANIFEST, Digest.of(b"subject"), 700, {"a": "b"})
    attached, _ = artifact(sbom.MEDIA_TYPE, b"{}", subject, {"org.opencontainers.image.created": CREATED})
    about = {
        "description": "a tool",
        "licenses": "MIT",
        "url": "https://example.org",
        "source": "https://example.org/x",
    }
    return (
        to_manifest(release(), about).raw().content,
        to_manifest(release(arch="arm64"), {}, beside_others=True).raw().content,
        attached.raw().content,
    )


def _manifest(data: bytes, _place: Path) -> None:
    raw = read_manifest(data, MANIFEST)
    named(raw)
    subject_of(raw.json())
    as_referrer(raw).to_json()
    manifest = Manifest.read(raw)
    manifest.raw()
    found = from_manifest("tool", manifest, raw.descriptor.digest)
    content = Catalog().with_entry(Entry("tool").with_release(found)).content()
    if found.tag.build:
        Catalog.parse(content)


def _indexes(_place: Path) -> Sequence[bytes]:
    members = [
        Member(Descriptor(MANIFEST, Digest.of(arch.encode()), 700, {"x": "y"}), arch) for arch in ("amd64", "arm64")
    ]
    build = BuildTag("1.0", 2)
    attached = Descriptor(MANIFEST, Digest.of(b"sbom"), 900, {"created": CREATED}, sbom.MEDIA_TYPE)
    return to_index("tool", build, members).raw().content, referrer_index([attached]).content


def _index(data: bytes, _place: Path) -> None:
    raw = read_manifest(data, INDEX)
    named(raw)
    for _arch, entry in platforms(raw):
        Descriptor.from_json(entry)
    index = ImageIndex.read(raw)
    index_tag("tool", index.annotations)
    index.raw()


def _referrers(data: bytes, _place: Path) -> None:
    referrer_index(referrer_list(data))


def _catalogs(_place: Path) -> Sequence[bytes]:
    entry = Entry(
        "tool", "1.0", "a tool", "MIT", "https://example.org", "deprecated", "use other", (), {"latest": "1.0-2"}
    )
    for one in (release("1.0-1"), release(), release(arch="arm64", repeated=True)):
        entry = entry.with_release(one)
    return (Catalog().with_entry(entry).with_entry(Entry("other")).content(), Catalog().content())


def _catalog(data: bytes, place: Path) -> None:
    catalog = Catalog.parse(data)
    recipe = write_recipe(place, "tool", more='[rebuild]\nmax_age = "1d"\n')
    plan([recipe], Snapshot(catalog, {"tool": BASE_DIGEST}, ENGINE, NOW), gather)
    Catalog.parse(catalog.content())
    for entry in list(catalog.entries.values())[:100]:
        for one in (entry.release("latest", "amd64"), entry.newest("amd64")):
            if one is not None:
                _printed([entry.name, str(one.tag), one.arch, one.created, one.tested, entry.summary, entry.note])
                to_manifest(one, {}).raw()


def _printed(texts: Sequence[str]) -> None:
    """Standard output takes no half characters."""
    "\n".join(texts).encode()


def _layouts(place: Path) -> Sequence[bytes]:
    registry = folder_registry(place / "seed")
    return [_layout_with(registry).joinpath("catalog/index.json").read_bytes()]


def _layout_with(registry: LayoutRegistry) -> Path:
    write_catalog(registry, Catalog.parse(_catalogs(Path())[0]), QUIET)
    return Path(registry.describe().removeprefix("oci:"))


def _layout(data: bytes, place: Path) -> None:
    LayoutIndex.parse(data, "index.json").with_manifest(Descriptor(MANIFEST, Digest.of(b"x"), 1), "latest").content()
    folder = _layout_with(folder_registry(place))
    (folder / "catalog/index.json").write_bytes(data)
    registry = folder_registry(place)
    for tag in list(registry.tags("catalog"))[:20]:
        registry.head("catalog", tag)
    registry.referrers("catalog", Digest.of(b"x"))
    read_catalog(registry)


def _inlined(place: Path) -> Sequence[bytes]:
    registry = folder_registry(place / "seed")
    _layout_with(registry)
    return [registry.manifest("catalog", "latest").content]


def _inline(data: bytes, place: Path) -> None:
    """The manifest of the catalog, with the document in it, as a registry gives it."""
    folder = _layout_with(folder_registry(place))
    raw = read_manifest(data, MANIFEST)
    (folder / f"catalog/blobs/sha256/{raw.descriptor.digest.hex}").write_bytes(data)
    index = LayoutIndex().with_manifest(raw.descriptor, "latest")
    (folder / "catalog/index.json").write_bytes(index.content())
    registry = folder_registry(place)
    read_catalog(registry)
    resolve(Reference("tool"), registry, "amd64")


def _boms(_place: Path) -> Sequence[bytes]:
    packages = Packages((Package("dpkg", "libc6", "2.36-9+deb12u4"), Package("python", "numpy", "1.26")), ("rpm",))
    return [sbom.write(packages, name="tool", sif=Digest.of(b"sif"), created=CREATED)]


def _bom(data: bytes, _place: Path) -> None:
    found = sbom.read(data)
    known = sbom.read(_boms(Path())[0])
    changes = package_changes(known, found)
    _printed([f"{one.manager} {one.name} {one.version}" for one in (*changes.added, *changes.removed)])
    if all(package.manager in ("apk", "conda", "dpkg", "python", "r") for package in found.found):
        sbom.write(found, name="tool", sif=Digest.of(b"sif"), created=CREATED)


def _challenge(data: bytes, _place: Path) -> None:
    for challenge in parse_challenges(data.decode("latin-1")):
        redacted(challenge["realm"])


def _links(_place: Path) -> Sequence[bytes]:
    return [b'</v2/tool/tags/list?n=100&last=b>; rel="next"', b'<http://a/b>; rel="prev", <http://a/c>; rel=next']


def _headers(_place: Path) -> Sequence[bytes]:
    return [
        b"Retry-After: 120\nDate: Sat, 28 Nov 2026 04:00:00 GMT",
        b"Retry-After: Sat, 28 Nov 2026 04:10:00 GMT\nDate: Sat, 28 Nov 2026 04:00:00 GMT",
    ]


def _waits(data: bytes, _place: Path) -> None:
    lines = data.decode("latin-1").split("\n")
    retry_after({name: text for name, _, text in (line.partition(": ") for line in lines)})


def _refusal(data: bytes, _place: Path) -> None:
    Answer(404, {}, data, "http://localhost/v2/").said()


def _names(_place: Path) -> Sequence[bytes]:
    digest = b"sha256:" + b"0" * 64
    return [
        b"tool",
        b"tool:1.0-2",
        b"ghcr.io/org/images/tool:1.0@" + digest,
        b"http://localhost:5000/images",
        b"oci:/data/images",
        b"[2001:db8::1]:5000/a/tool",
        b"docker.io/library/debian:12@" + digest,
    ]


def _name(data: bytes, _place: Path) -> None:
    text = data.decode("utf-8", "surrogateescape")
    for parse in (Reference.parse, RegistryAddress.parse, docker_reference, Digest.parse, BuildTag.parse):
        try:
            shown = str(parse(text))
        except FactoryError as error:
            shown = "\n".join(error.lines())
        assert parse is RegistryAddress.parse or "\x1b" not in shown
        if parse is Reference.parse:
            assert "\n" not in shown.partition("\n")[0]


def _refusals(_place: Path) -> Sequence[bytes]:
    return [json.dumps({"errors": [{"code": "DENIED", "message": "no", "detail": {"x": [1]}}]}).encode()]


def _configurations(_place: Path) -> Sequence[bytes]:
    inner = {
        "Env": ["PATH=/opt/conda/bin:/bin", "PYTHON_VERSION=3.12.4", "CUDA_VERSION=12.4.1"],
        "Entrypoint": ["/entrypoint.sh", "it's"],
        "Cmd": ["python3"],
        "User": "jovyan",
        "WorkingDir": "/work",
        "Labels": {"org.opencontainers.image.licenses": "MIT", "org.opencontainers.image.url": "https://x.example"},
        "OnBuild": ["RUN x"],
    }
    return [json.dumps({"architecture": "amd64", "os": "linux", "config": inner}).encode()]


def _configuration(data: bytes, place: Path) -> None:
    """Whatever an image says about itself, the recipe from it loads, and lint finds no error."""
    images = Images()
    config = images.put_blob(CONFIG, data)
    images.put("1", {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []})
    looked = look(images.registry(), "org.example/tool:1", ("amd64", "arm64"))
    found = read_config("org/tool:1", looked.config, tuple(looked.platforms))
    folder = scaffold(place, "new", found.name, seen=found)
    recipe, problems = check_recipe(folder)
    assert recipe is not None, problems
    assert [problem.rule for problem in lint(folder, [])] == ["pins"]


_CHALLENGES = (
    b'Bearer realm="https://ghcr.io/token",service="ghcr.io",scope="repository:org/tool:pull"',
    b'Basic realm="a \\"quoted\\" one", Bearer realm=https://r.example/token , service=x',
    b"Negotiate TlRMTVNTUAAB==, Basic realm=x",
)
_WORDS = (b'realm="', b"Bearer ", b"Basic", b", ", b"=", b'"', b"\\", b" \t", b'rel="next"', b"<", b">", b";")

TARGETS = (
    Target("manifest", _manifest, _manifests, "json"),
    Target("image-index", _index, _indexes, "json"),
    Target("referrers", _referrers, _indexes, "json"),
    Target("catalog", _catalog, _catalogs, "json"),
    Target("catalog-in-its-manifest", _inline, _inlined, "json", inputs=120),
    Target("image-configuration", _configuration, _configurations, "json", inputs=120),
    Target("image-layout", _layout, _layouts, "json", inputs=120),
    Target("bill-of-materials", _bom, _boms, "json"),
    Target("www-authenticate", _challenge, lambda _: _CHALLENGES, "text", words=_WORDS),
    Target("link", lambda data, _: next_link(data.decode("latin-1")), _links, "text", words=_WORDS),
    Target("retry-after", _waits, _headers, "text", words=(b"GMT", b"Retry-After: ", b"9" * 20, b"-", b"+9999", b"(")),
    Target("refusal", _refusal, _refusals, "json"),
    Target(
        "names", _name, _names, "text", words=(b"sha256:", b"@", b":", b"/", b"..", b"-", b"oci:", b"http://", b"\n")
    ),
)
