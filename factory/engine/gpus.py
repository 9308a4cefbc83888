"""The GPUs of this machine that this process may use: model and driver, as the driver reports them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from factory.engine.driver import nvidia_driver
from factory.errors import FactoryError
from factory.io import process

_LIMIT = 4096  # bytes of a file of the kernel
_SECONDS = 60.0  # nvidia-smi may have to load the driver first
_LONGEST = 100  # characters of a model's name
_MODEL = re.compile(r"^Model:\s*(.+?)\s*$", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ()\[\]/.,+_-]*", re.ASCII)
_VERSION = re.compile(r"[0-9]+(?:\.[0-9]+)+", re.ASCII)
_CHOSEN = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL")

Ask = Callable[[list[str]], str]  # a command; returns its output, '' if it failed


@dataclass(frozen=True)
class Gpu:
    """kind: nvidia or rocm. model: of the GPUs, several joined by `` + ``. driver: its version. '' if unknown."""

    kind: str = ""
    model: str = ""
    driver: str = ""


def describe(kind: str, env: Mapping[str, str], *, proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> Gpu:
    """Return the GPUs of a kind that this process may use. kind: '' for none.

    In a job, nvidia-smi lists the job's GPUs only, while the kernel's files list all GPUs of the node.
    """

    def ask(arguments: list[str]) -> str:
        try:
            status, out, _ = process.output_of(arguments, env=env, timeout=_SECONDS)
        except FactoryError:
            return ""
        return out.decode(errors="replace") if status == 0 else ""

    if kind == "nvidia":
        return _nvidia(ask, env.get("CUDA_VISIBLE_DEVICES", ""), proc, sys)
    if kind == "rocm":
        return Gpu(kind, _joined("AMD", _products(sys)), _version(_text(sys / "module/amdgpu/version")))
    return Gpu()


def chosen(env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables by which SLURM tells programs which of the node's GPUs are theirs."""
    return {name: env[name] for name in _CHOSEN if name in env}


def _nvidia(ask: Ask, visible: str, proc: Path, sys: Path) -> Gpu:
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    chosen = [*query, f"--id={visible}"] if re.fullmatch(r"[A-Za-z0-9,-]+", visible, re.ASCII) else []
    rows = [line.rpartition(",") for line in ((chosen and ask(chosen)) or ask(query)).splitlines() if "," in line]
    models = [model for model, _, _ in rows]
    if not models:
        files = sorted(proc.glob("driver/nvidia/gpus/*/information"))
        models = [match[1] for match in map(_MODEL.search, map(_text, files)) if match]
    driver = nvidia_driver(proc, sys) or next((_version(version) for _, _, version in rows), "")
    return Gpu("nvidia", _joined("NVIDIA", models), driver)


def _products(sys: Path) -> list[str]:
    return [_text(path) for path in sorted(sys.glob("class/drm/card*/device/product_name"))]


def _joined(maker: str, models: list[str]) -> str:
    """Return each model once, with the maker's name, sorted; '' for none. Odd names are left out."""
    named = {model.strip()[:_LONGEST] for model in models if _NAME.fullmatch(model.strip()[:_LONGEST])}
    whole = {name if maker.lower() in name.lower() else f"{maker} {name}" for name in named}
    return " + ".join(sorted(whole))


def _version(text: str) -> str:
    return text.strip() if _VERSION.fullmatch(text.strip()) else ""


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_LIMIT).decode("ascii", "replace")
    except OSError:
        return ""
