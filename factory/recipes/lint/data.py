"""Warnings about data that `%post` downloads: it makes the image large, and belongs into a folder that is bound."""

from __future__ import annotations

import re
from collections.abc import Iterator

from factory.recipes.lint.shell import Command, commands_of
from factory.recipes.lint.subject import Subject
from factory.recipes.model import Problem

_URL = re.compile(r"[\"']?(?:https?|ftp|s3|gs)://[^\s\"'?#]*", re.ASCII)
_DATA = re.compile(
    r"\.(?:h5|hdf5|npz|npy|parquet|arrow|csv|tsv|jsonl|tfrecords?|lmdb|fasta|fastq|fa|fna|bam|cram|vcf|nii|nc|grib2?|zarr"
    r"|safetensors|gguf|ckpt|pth|pt|onnx|msgpack)(?:\.(?:gz|bz2|xz|zst|zip))?$",
    re.IGNORECASE,
)
_NAMED = re.compile(r"/(?:datasets?|weights|checkpoints)/", re.IGNORECASE)
_FETCHERS = ("curl", "wget", "aria2c", "axel")
# Programs that download data or models, and the words one of which makes them do so.
_PROGRAMS = {
    "huggingface-cli": ("download",),
    "hf": ("download",),
    "kaggle": ("download",),
    "gdown": (),
    "aws": ("cp", "sync"),
    "gsutil": ("cp", "rsync"),
    "prefetch": (),
    "fasterq-dump": (),
}
_CALLS = re.compile(r"load_dataset\(|snapshot_download\(|nltk\.download\(|download=True|from_pretrained\(")
_REMEDY = "keep it outside of the image and bind it: binds in [run], and singfactory exec --bind"


def _downloads(subject: Subject) -> Iterator[Problem]:
    for stage in subject.definition.stages:
        for command in commands_of(stage):
            if what := _downloaded(command):
                yield subject.warning(
                    command.line, f"{what} is data or a model, which makes every update large", _REMEDY
                )


def _downloaded(command: Command) -> str:
    """Return what a command downloads if it seems to be data, else ''."""
    program = command.words[0].rpartition("/")[2]
    wanted = _PROGRAMS.get(program)
    if wanted is not None and (not wanted or any(word in command.words for word in wanted)):
        return f"what {program} downloads"
    if command.calls(*_FETCHERS):
        for word in command.words:
            match = _URL.match(word)
            if match and (_DATA.search(match[0]) or _NAMED.search(match[0])):
                return match[0].lstrip("\"'").rpartition("/")[2] or match[0]
    return "what this downloads" if any(map(_CALLS.search, command.words)) else ""


CHECKS = (_downloads,)
