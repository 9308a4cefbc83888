"""A store, a registry in a folder, and the command as people type it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from factory.publish.publish import Origin, publish
from factory.registry.layout import LayoutRegistry
from factory.store.store import Store
from tests import preloaded
from tests.factory_project import Done
from tests.unit.parts import QUIET, SIF_START, candidate, folder_registry, report_of, sif_of, write_recipe

ROOT = Path(__file__).resolve().parents[3]
SIF, FIRST, SECOND = sif_of(b"image"), sif_of(b"first"), sif_of(b"second")
_ENGINE = """\
#!/bin/sh
if [ "$1" = --version ]; then echo "apptainer version 1.4.0"; exit 0; fi
for argument; do case "$argument" in *.sif) image="$argument";; esac; done
case "$1" in -*) shift;; esac
echo "$1 $(tail -c +START "$image")"
[ -z "$WAIT" ] || read line
"""


class Cluster:
    """A store, a registry in a folder and an engine that shows what it was given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(folder / "store")
        self.registry: LayoutRegistry = folder_registry(folder / "images")
        engine = folder / "apptainer"
        engine.write_text(_ENGINE.replace("START", str(SIF_START + 1)))
        engine.chmod(0o755)
        kept = {name: text for name, text in os.environ.items() if not name.startswith(("SINGFACTORY", "XDG", "SLURM"))}
        self.env = {
            **kept,
            "HOME": str(folder),
            "PYTHONPATH": str(ROOT),
            "SINGFACTORY_STORE": str(self.store.root),
            "SINGFACTORY_REGISTRY": self.registry.describe(),
            "SINGFACTORY_ENGINE": str(engine),
        }

    def release(self, content: bytes, more: str = "", name: str = "tool") -> None:
        recipe = write_recipe(self.folder / "recipes", name, more=more)
        made = candidate(self.folder / "candidates", recipe, content)
        publish(recipe, made, report_of(made), registry=self.registry, origin=Origin(), progress=QUIET)

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        return preloaded.start(
            arguments,
            cwd=self.folder,
            env={**self.env, **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *arguments: str, **env: str) -> Done:
        process = self.start(*arguments, **env)
        out, err = process.communicate(timeout=60)
        assert "Traceback" not in err, err
        return Done(process.returncode, out, err)

    def ok(self, *arguments: str, **env: str) -> Done:
        done = self.run(*arguments, **env)
        assert done.code == 0, done
        return done
