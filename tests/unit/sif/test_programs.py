from __future__ import annotations

from pathlib import Path

from factory.sif.programs import Programs, programs_of
from factory.sif.tree import open_tree
from tests.unit.sif.packing import image, write

ENVIRONMENT = ".singularity.d/env/90-environment.sh"


def found(root: Path, *wanted: str) -> Programs:
    packed = image(root)
    with open_tree(packed) as tree:
        return programs_of(tree, wanted)


def program(root: Path, path: str) -> None:
    write(root, path, "#!/bin/sh\n", mode=0o755)


def test_programs_that_the_image_adds_to_its_path_are_found_and_the_systems_are_not(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(root, ENVIRONMENT, "export PATH=/opt/x/bin:/usr/local/bin:/usr/bin:/bin\n")
    for path in ("opt/x/bin/python3.11", "usr/local/bin/solve", "usr/bin/env", "opt/y/bin/hidden"):
        program(root, path)
    write(root, "opt/x/bin/README", "text")
    program(root, "opt/x/bin/odd name")
    program(root, "opt/x/bin/below/deep")
    (root / "opt/x/bin/python").symlink_to("python3.11")
    (root / "opt/x/bin/broken").symlink_to("nowhere")
    (root / "opt/x/bin/circle").symlink_to("circle")
    (root / "opt/x/bin/text").symlink_to("README")
    (root / "opt/x/bin/tool").symlink_to("../../y/bin/hidden")
    assert found(root) == Programs(("python", "python3.11", "solve", "tool"), ("/opt/x/bin", "/usr/local/bin"))


def test_wanted_programs_are_found_anywhere_on_the_path_also_through_a_linked_folder(tmp_path: Path) -> None:
    root = tmp_path / "root"
    program(root, "usr/bin/env")
    (root / "bin").symlink_to("usr/bin")
    done = found(root, "env", "absent", "env")
    assert (done.found, done.missing) == (("env",), ("absent",))


def test_an_image_without_programs_of_its_own_has_none(tmp_path: Path) -> None:
    root = tmp_path / "root"
    program(root, "usr/bin/env")
    assert found(root).found == ()
