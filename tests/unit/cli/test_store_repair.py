"""`store verify --repair`, and stores that others share, as people type them, with a registry in a folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from factory.oci.digest import Digest
from tests.unit.cli.cluster import FIRST, SECOND, SIF, Cluster

pytestmark = pytest.mark.slow  # each test starts several processes


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    made.release(FIRST)
    made.ok("pull", "tool")
    yield made
    assert made.run("store", "verify").code == 0


def rot(cluster: Cluster, content: bytes = FIRST) -> Path:
    blob = cluster.store.blob(Digest.of(content))
    blob.chmod(0o644)
    blob.write_bytes(content[::-1])
    blob.chmod(0o444)
    return blob


def test_a_damaged_image_is_repaired_to_the_same_digest_although_the_tag_has_moved(cluster: Cluster) -> None:
    blob = rot(cluster)
    cluster.release(SECOND)
    done = cluster.ok("store", "verify", "--repair")
    assert blob.read_bytes() == FIRST
    assert done.out.splitlines()[0].startswith("wrong  ")
    assert done.out.splitlines()[1] == f"back   tool:1.0-1 {Digest.of(FIRST)}: {len(FIRST)} B fetched"
    assert done.out.splitlines()[2] == "1 images checked, 1 wrong"
    assert len(list((cluster.store.root / "quarantine").iterdir())) == 1
    assert cluster.ok("path", "tool").out.strip() == str(blob)


def test_without_repair_the_command_is_shown(cluster: Cluster) -> None:
    rot(cluster)
    done = cluster.run("store", "verify")
    assert done.code == 5
    assert done.out.endswith("1 wrong and moved away; to download them again: singfactory store verify --repair\n")
    value = cluster.ok("store", "verify", "--repair", "--json").json()
    assert value["wrong"] == []
    assert [(row["name"], row["transferred"], row["error"]) for row in value["repaired"]] == [
        ("tool", len(FIRST), None)
    ]


def test_a_deleted_image_is_repaired(cluster: Cluster) -> None:
    blob = cluster.store.blob(Digest.of(FIRST))
    blob.unlink()
    assert "back   tool:1.0-1" in cluster.ok("store", "verify", "--repair").out
    assert blob.read_bytes() == FIRST


def test_an_image_that_cannot_be_repaired_is_reported_and_does_not_stop_the_others(cluster: Cluster) -> None:
    (cluster.folder / "mine.sif").write_bytes(SIF)
    cluster.ok("store", "adopt", "mine.sif", "--as", "a-first-one:1")
    for blob in (cluster.store.blob(Digest.of(SIF)), cluster.store.blob(Digest.of(FIRST))):
        blob.unlink()
    done = cluster.run("store", "verify", "--repair")
    assert done.code == 3
    assert "gone   a-first-one:1: a-first-one:1 cannot be fetched again" in done.out
    assert "singfactory store adopt FILE --as a-first-one:1" in done.out
    assert "back   tool:1.0-1" in done.out


def test_a_site_store_serves_every_user_and_nothing_is_copied(cluster: Cluster) -> None:
    site = {"SINGFACTORY_STORE": str(cluster.folder / "own"), "SINGFACTORY_SHARED_STORES": str(cluster.store.root)}
    blob = cluster.store.blob(Digest.of(FIRST))
    assert cluster.ok("path", "tool", **site).out.strip() == str(blob)
    assert cluster.ok("pull", "tool", "--json", **site).json()["transferred"] == 0
    assert cluster.ok("exec", "tool", "--", "true", **site).out == "exec first\n"
    (row,) = (row for row in cluster.ok("store", "list", "--json", **site).json() if row["as"] == "latest")
    assert row["path"] == str(blob)
    assert list((cluster.folder / "own").glob("blobs/**/*.sif")) == []
    assert (cluster.folder / "own/images/tool/latest").read_bytes() == FIRST


def test_shared_stores_in_a_file_are_relative_to_it_and_an_unknown_owner_is_reported(cluster: Cluster) -> None:
    (cluster.folder / "factory.toml").write_text('shared_stores = ["store", "$HOME/none"]\n')
    own = {"SINGFACTORY_STORE": str(cluster.folder / "own")}
    assert cluster.ok("path", "tool", **own).out.strip() == str(cluster.store.blob(Digest.of(FIRST)))
    told = cluster.ok("path", "tool", **own, SINGFACTORY_TRUSTED_OWNERS="root nobody-has-this-name").err
    assert "this machine has no user 'nobody-has-this-name'" in told
    places = cluster.ok("doctor", **own).out
    assert f"{cluster.store.root} (readable, owned by user id {os.getuid()})" in places
    assert f"{cluster.folder / 'none'} (does not exist)" in places


def test_a_config_of_another_user_is_not_read(cluster: Cluster) -> None:
    config = cluster.folder / ".config/singfactory/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('engine = "/tmp/evil"\n')
    cluster.ok("path", "tool")
    if os.geteuid() == 0:
        os.chown(config, 41_234, -1)
        refused = cluster.run("path", "tool")
        assert refused.code == 2
        assert refused.err.startswith(f"singfactory: {config} belongs to another user\n")
        config.unlink()


def test_staged_copies_are_each_users_own(cluster: Cluster) -> None:
    staged = cluster.ok("stage", "tool", "--to", str(cluster.folder / "local")).out.strip()
    mine = cluster.folder / "local" / f"user-{os.getuid()}"
    assert staged.startswith(f"{mine}/")
    assert stat.S_IMODE(mine.stat().st_mode) == 0o700
    mine.chmod(0o777)
    refused = cluster.run("stage", "tool", "--to", str(cluster.folder / "local"))
    assert refused.code == 8
    assert f"{mine} is not safe to use" in refused.err
    done = cluster.ok("exec", "tool", "--", "true", SINGFACTORY_STAGE=str(cluster.folder / "local"))
    assert done.out == "exec first\n"
    assert "not staged" in done.err
