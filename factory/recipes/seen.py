"""What a Docker image says about itself, and what a recipe that starts from it makes of that.

Format: OCI image-spec, config.md. The text is a stranger's: values with control characters, or longer than a line of a
recipe should be, are left out.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from factory.recipes.languages import LANGUAGES, PYTHON, Language, of_image

_LONGEST = 400  # characters of a value
_MOST = 200  # values of a list
_NUMBER = re.compile(r"[0-9][0-9A-Za-z.+]{0,40}", re.ASCII)
_LICENSE = re.compile(r"[A-Za-z0-9.+-]{1,60}(?: (?:AND|OR|WITH) [A-Za-z0-9.+-]{1,60}){0,9}", re.ASCII)
_HOMEPAGE = re.compile(r"https?://[^\s<>\"\\]{1,200}", re.ASCII)
_NVIDIA = ("CUDA_VERSION", "NVIDIA_REQUIRE_CUDA", "NVIDIA_VISIBLE_DEVICES", "NV_CUDA_CUDART_VERSION")
_ROCM = ("ROCM_VERSION", "ROCM_PATH", "HIP_VERSION")
_WITHOUT_SHELL = re.compile(r"distroless|(?:^|/)chainguard/|(?:^|/)static(?:[:@-]|$)")
_PRINTS = (  # variable with a version, what it is of, a command, and the text that the command prints
    ("PYTHON_VERSION", "python", "python --version", "Python {}"),
    ("PYTORCH_VERSION", "torch", "python -c 'import torch; print(torch.__version__)'", "{}"),
    ("R_VERSION", "r", "R --version", "R version {}"),
    ("R_BASE_VERSION", "r", "R --version", "R version {}"),
    ("JULIA_VERSION", "julia", "julia --version", "julia version {}"),
    ("NODE_VERSION", "node", "node --version", "v{}"),
    ("GOLANG_VERSION", "go", "go version", "go{}"),
    ("RUST_VERSION", "rust", "rustc --version", "rustc {}"),
    ("RUBY_VERSION", "ruby", "ruby --version", "ruby {}"),
)


@dataclass(frozen=True)
class FirstTest:
    """A test of a new recipe. stdout: '' if nothing is expected."""

    name: str
    run: str
    stdout: str = ""
    gpu: bool = False

    def toml(self) -> str:
        """Return the test as a table of `recipe.toml`."""
        lines = ["[[test]]", f"name = {json.dumps(self.name)}", f"run = {json.dumps(self.run)}"]
        lines += [f"stdout = {json.dumps(self.stdout)}"] if self.stdout else []
        lines += ["gpu = true"] if self.gpu else []
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Seen:
    """An image's configuration, as far as it is readable. name: as for docker pull. arch: ours that it exists for."""

    name: str
    arch: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    user: str = ""
    workdir: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    triggers: int = 0

    @property
    def gpu(self) -> str:
        """The kind of GPU that the image is for: nvidia, rocm or none."""
        if any(name in self.env for name in _NVIDIA):
            return "nvidia"
        return "rocm" if any(name in self.env for name in _ROCM) else "none"

    @property
    def license(self) -> str:
        """The license in its labels, '' if there is none that looks like one."""
        text = self.labels.get("org.opencontainers.image.licenses", "")
        return text if _LICENSE.fullmatch(text) else ""

    @property
    def homepage(self) -> str:
        """The home page in its labels, or ''."""
        found = (self.labels.get(f"org.opencontainers.image.{key}", "") for key in ("url", "source"))
        return next((text for text in found if _HOMEPAGE.fullmatch(text)), "")

    @property
    def seems_without_shell(self) -> bool:
        """Whether the image has no /bin/sh, by its name."""
        return bool(_WITHOUT_SHELL.search(self.name)) and not re.search(r"debug|-dev(?:$|[:@])|:dev", self.name)

    def version(self, of_tag: str) -> str:
        """Return the version of the software. of_tag: the version in the image's tag, '' for none."""
        known = [text for key, *_ in _PRINTS if (text := self._number(key))]
        known += [text for key in ("CUDA_VERSION",) if (text := self._number(key))]
        if of_tag:
            return next((text for text in known if text.startswith(f"{of_tag}.")), of_tag)
        label = self.labels.get("org.opencontainers.image.version", "").removeprefix("v")
        found = next(iter(known), label)
        return re.sub(r"[^A-Za-z0-9_.]", "_", found) if _NUMBER.fullmatch(found) else ""

    def languages(self) -> tuple[Language, ...]:
        """Return the languages that the image has, by its name and its variables."""
        signs = {"Python": ("PYTHON_VERSION", "CONDA_DIR", "PYTORCH_VERSION"), "R": ("R_VERSION", "R_BASE_VERSION")}
        signs |= {"Julia": ("JULIA_VERSION", "JULIA_PATH")}
        named = of_image(self.name)
        has_conda = "conda" in self.env.get("PATH", "")
        return tuple(
            language
            for language in LANGUAGES
            if language in named
            or any(key in self.env for key in signs.get(language.name, ()))
            or (language is PYTHON and has_conda)
        )

    def tests(self) -> tuple[FirstTest, ...]:
        """Return tests of what the image says that it has."""
        found: dict[str, FirstTest] = {}
        for key, name, command, prints in _PRINTS:
            if text := self._number(key):
                found.setdefault(name, FirstTest(name, command, prints.format(text)))
        path = self.env.get("PATH", "")
        if "conda/bin" in path and "python" not in found:
            found["python"] = FirstTest("python", "python --version", "Python 3")
        cuda = self._number("CUDA_VERSION")
        if cuda and "devel" in self.name:
            found["nvcc"] = FirstTest("nvcc", "nvcc --version", f"release {'.'.join(cuda.split('.')[:2])}")
        gpu = {
            "nvidia": FirstTest("sees the GPU", "nvidia-smi --list-gpus", "GPU 0", gpu=True),
            "rocm": FirstTest("sees the GPU", "test -c /dev/kfd", gpu=True),
        }
        first = tuple(found.values()) or (FirstTest("starts", "echo ok", "ok"),)
        return (*first, *(gpu[self.gpu],)) if self.gpu in gpu else first

    def remarks(self) -> Iterator[str]:
        """Yield what the image says and what becomes of it, a line each, for a comment."""
        if self.entrypoint:
            yield f"ENTRYPOINT {json.dumps(self.entrypoint)}"
            if any(mark in self.entrypoint[0] for mark in (".sh", "entrypoint")):
                yield "  is a script: on a cluster it runs as an ordinary user, in a read-only image"
        if self.cmd:
            yield f"CMD {json.dumps(self.cmd)}"
        if self.user and self.user.partition(":")[0] not in ("root", "0"):
            yield f"USER {self.user}: on a cluster everybody runs as themselves. If a program needs files that only"
            yield "  that user can read, open them in %post: chmod -R a+rX FOLDER"
        if self.workdir not in ("", "/"):
            yield f"WORKDIR {self.workdir}: on a cluster, programs start in the user's current folder"
        if self.triggers:
            yield f"ONBUILD: its {self.triggers} instructions do not run; write what they do into %post"
        if self.seems_without_shell:
            yield "It probably has no /bin/sh. %post and tests need one: use a variant with a shell, such as TAG-debug"
        if "conda/bin" in self.env.get("PATH", ""):
            yield "It has conda: in %post, conda install -y NAME=VERSION && conda clean -afy"

    def run_lines(self) -> tuple[str, ...]:
        """Return the lines of `%runscript` that do what docker run does."""
        lines = []
        if self.cmd:
            lines.append(f'if [ "$#" -eq 0 ]; then set -- {_quoted(self.cmd)}; fi')
        words = f"{_quoted(self.entrypoint)} " if self.entrypoint else ""
        return (*lines, f'exec {words}"$@"')

    def _number(self, key: str) -> str:
        text = self.env.get(key, "")
        return text if _NUMBER.fullmatch(text) else ""


def read_config(name: str, config: Mapping[str, Any], arch: Sequence[str]) -> Seen:
    """Return what an image's configuration says. config: a JSON object from a registry; what is odd is left out."""
    inner = config.get("config")
    found: Mapping[str, Any] = inner if isinstance(inner, dict) else {}
    pairs = (text.partition("=") for text in _texts(found.get("Env")))
    labels = found.get("Labels")
    triggers = found.get("OnBuild")
    return Seen(
        name=name,
        arch=tuple(arch),
        entrypoint=_words(found.get("Entrypoint")),
        cmd=_words(found.get("Cmd")),
        user=_text(found.get("User")),
        workdir=_text(found.get("WorkingDir")),
        env={key: value for key, equals, value in pairs if equals},
        labels={key: _text(value) for key, value in labels.items() if _text(value)} if isinstance(labels, dict) else {},
        triggers=len(triggers) if isinstance(triggers, list) else 0,
    )


def _text(value: object) -> str:
    """Return a value that fits on a line of a definition file and is not a template; '' for any other."""
    fits = isinstance(value, str) and len(value) <= _LONGEST and value.isprintable() and "{{" not in value
    return str(value) if fits else ""


def _texts(value: object) -> list[str]:
    """Return the usable texts of a list. PATH and NVIDIA's requirements are longer than a line, and not printed."""
    values = value[:_MOST] if isinstance(value, list) else []
    return [text for text in values if isinstance(text, str) and len(text) <= 10 * _LONGEST and text.isprintable()]


def _words(value: object) -> tuple[str, ...]:
    """Return a command, () if one of its words cannot be written: half a command would be another one."""
    words = value if isinstance(value, list) else []
    if len(words) > _MOST or not all(isinstance(word, str) and (word == "" or _text(word)) for word in words):
        return ()
    return tuple(words) if sum(map(len, words)) <= _LONGEST else ()


def _quoted(words: Sequence[str]) -> str:
    return " ".join(map(shlex.quote, words))
