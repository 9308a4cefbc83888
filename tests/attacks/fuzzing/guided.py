"""Fuzzing on demand: libFuzzer looks for inputs that reach code which none has reached, and changes those further.

`make fuzz TARGET=catalog MINUTES=30`. What is found is kept, told at the end, and does not stop the search; an input
without end does.
"""

from __future__ import annotations

import argparse
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

import atheris

_FOUND = "found.txt"


def main() -> int:
    """Fuzz one target, or all of them one after the other. 1 when something was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", help="its name, or all")
    parser.add_argument("--minutes", type=float, default=10.0, help="for each target")
    parser.add_argument(
        "--keep", type=Path, default=Path(".singfactory/fuzz"), help="inputs: those that reach more, and finds"
    )
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        _here(options.target, options.keep, options.minutes)
        return 0
    from tests.attacks.fuzzing.table import BY_NAME  # noqa: PLC0415 - the process that fuzzes loads it in another way

    names = list(BY_NAME) if options.target == "all" else [options.target]
    if names[0] not in BY_NAME:
        parser.error(f"no target {names[0]}; there are: {' '.join(BY_NAME)}")
    return max(_one(name, options) for name in names)


def _one(name: str, options: argparse.Namespace) -> int:
    """One target in a process of its own: libFuzzer ends the process that it runs in."""
    folder = options.keep.resolve() / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _FOUND).unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.attacks.fuzzing.guided", name, "--here"]
    command += ["--keep", str(folder), "--minutes", str(options.minutes)]
    started = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    (folder / "log").write_bytes(done.stdout)
    tries = [line.split()[1] for line in done.stdout.decode(errors="replace").splitlines() if line.startswith("Done ")]
    found = (folder / _FOUND).read_text(encoding="utf-8").splitlines() if (folder / _FOUND).exists() else []
    if not tries:
        ends = sorted(folder.glob("end-*"), key=lambda path: path.stat().st_mtime)
        found.append(f"it ended with status {done.returncode}, see {ends[-1] if ends else folder / 'log'}")
    print(
        f"{name}: {tries[0] if tries else 'unknown'} inputs, {time.monotonic() - started:.0f} s, {len(found)} found",
        flush=True,
    )
    for line in found:
        print(f"    {line}", flush=True)
    return 1 if found else 0


def _here(name: str, folder: Path, minutes: float) -> None:
    """Fuzz in this process, which does not come back."""
    with atheris.instrument_imports(include=["factory"]):
        from tests.attacks.fuzzing.table import BY_NAME  # noqa: PLC0415 - what is loaded here is watched
    from tests.attacks.fuzzing.child import Bounds, save, seeds_of, where  # noqa: PLC0415
    from tests.attacks.fuzzing.mutation import changed  # noqa: PLC0415

    target = BY_NAME[name]
    corpus = folder / "inputs"
    corpus.mkdir(exist_ok=True)
    for number, seed in enumerate(seeds_of(target, folder)):
        (corpus / f"seed-{number}").write_bytes(seed)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    bounds = Bounds(target, folder, watched=False)
    found: set[str] = set()

    def attempt(data: bytes) -> None:
        error = bounds.attempt(data)
        if error is not None and (what := where(error)) not in found:
            found.add(what)
            with (folder / _FOUND).open("a", encoding="utf-8") as file:
                file.write(f"{what}: {save(folder, what, data)}: {str(error)[:200]!a}\n")

    def change(data: bytes, most: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if chance.random() < 0.3:
            return bytes(atheris.Mutate(data, most))
        return changed(target, chance, data)[:most]

    arguments = [sys.argv[0], str(corpus), f"-max_total_time={max(1, round(60 * minutes))}", "-max_len=1000000"]
    arguments += [f"-timeout={max(1, round(target.seconds))}", "-rss_limit_mb=0", f"-artifact_prefix={folder}/end-"]
    atheris.Setup(arguments, attempt, custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
