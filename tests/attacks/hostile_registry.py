"""Registries of an attacker, in folders, and a victim with a store: what the attacks by names have in common."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from factory.io.progress import Silent
from factory.oci.digest import Descriptor, Digest
from factory.oci.names import BuildTag, RegistryAddress
from factory.records.release import Release, to_manifest
from factory.registry.layout import LayoutRegistry
from factory.registry.protocol import EMPTY_JSON, SIF_CONFIG, SIF_LAYER, Manifest
from tests import preloaded
from tests.unit.parts import SIF_START

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60.0  # a command that takes longer hangs
_ENGINE = """#!/bin/sh
case "$1" in --quiet|--silent) shift ;; esac
case "$1" in
--version) echo "apptainer version 1.3.4" ;;
exec) while [ "${1##*.}" != sif ]; do shift; done; tail -c +START "$1" ;;
esac
"""


def folder_registry(path: Path) -> LayoutRegistry:
    return LayoutRegistry(RegistryAddress("", str(path)))


def push(registry: LayoutRegistry, content: bytes, *, name: str = "nice", tag: str = "1.0-1", **said: str) -> Release:
    """Publish an image whose manifest says what an attacker wants: said are annotations of io.singfactory."""
    sif = Descriptor.of(SIF_LAYER, content)
    build = BuildTag.parse(tag) or BuildTag("1.0", 1)
    release = Release(name, build, Digest.of(b""), sif, "", "2024-05-01T10:00:00Z")
    honest = to_manifest(release, {})
    annotations = {**honest.annotations, **{f"io.singfactory.{key}": text for key, text in said.items()}}
    raw = Manifest(honest.config, honest.layers, annotations).raw()
    registry.push_blob(name, EMPTY_JSON, Descriptor.of(SIF_CONFIG, EMPTY_JSON), Silent())
    registry.push_blob(name, content, sif, Silent())
    for each in (tag, "latest"):
        registry.push_manifest(name, raw, each)
    return Release(name, build, raw.descriptor.digest, sif, "", release.created)


def lock_file(path: Path, registry: str, release: Release) -> Path:
    """A lock file of somebody whom nobody knows."""
    fields = {
        "name": release.recipe,
        "registry": registry,
        "tag": str(release.tag),
        "digest": str(release.digest),
        "sif_digest": str(release.sif.digest),
        "date": "2024-05-01T10:00:00Z",
    }
    lines = [f'{key} = "{text}"' for key, text in fields.items()]
    path.write_text("\n".join(["format = 1", "[[image]]", *lines, f"size = {release.sif.size}", ""]))
    return path


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Victim:
    """Somebody with a store, and an engine that prints what is in the image that it runs."""

    home: Path
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def store(self) -> Path:
        return self.home / "store"

    def run(self, *arguments: str, **more: str) -> Done:
        self.home.mkdir(exist_ok=True)
        engine = self.home / "apptainer"
        engine.write_text(_ENGINE.replace("START", str(SIF_START + 1)))
        engine.chmod(0o755)
        strip = ("SINGFACTORY", "XDG", "SLURM")
        kept = {name: text for name, text in os.environ.items() if not name.startswith(strip)}
        ours = {"HOME": str(self.home), "SINGFACTORY_STORE": str(self.store), "SINGFACTORY_ENGINE": str(engine)}
        process = preloaded.start(
            arguments,
            cwd=self.home,
            env={**kept, "PYTHONPATH": str(ROOT), **ours, **self.settings, **more},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            errors="replace",
        )
        out, err = process.communicate(timeout=SECONDS)
        assert "Traceback" not in err, err
        assert "a bug in singfactory" not in err, err
        return Done(process.returncode, out, err)

    def ok(self, *arguments: str, **more: str) -> Done:
        done = self.run(*arguments, **more)
        assert done.code == 0, done
        return done
