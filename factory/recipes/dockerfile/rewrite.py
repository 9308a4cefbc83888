"""Write a Dockerfile again for the program that builds it.

The builder gets only what our parser has understood, one instruction on each line: both read the same file, whatever
the original looks like. Images have new names, which exist only in the builder's own storage, so nothing is fetched.
Stages that the target does not need are left out, so that the numbers of steps in the builder's output are known.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from factory.recipes.definition.templates import shown
from factory.recipes.dockerfile.instructions import here_document
from factory.recipes.dockerfile.model import Instruction, Stage
from factory.recipes.dockerfile.steps import Target
from factory.recipes.model import Problem, ProblemError

BASE = "localhost/singfactory/base-"
DOCUMENTS = ".singfactory-here"  # in the build context, for builders that do not read here-documents
_SHELL = ("/bin/sh", "-c")
_BUILDER = "install buildah 1.33 or later"


@dataclass(frozen=True)
class Rewritten:
    """A Dockerfile for a builder.

    bases: the images, by the names that the text uses for them. lines: for each stage, the line in the original of each
    step, FROM included. documents: files to add to the context, by name, with whether they are executable.
    """

    text: str
    bases: Mapping[str, str]
    lines: tuple[tuple[int, ...], ...]
    documents: Mapping[str, tuple[str, bool]]

    def line_of(self, stage: int, step: int) -> int:
        """Return the line of a step; both numbers begin at 1, as in the builder's output. 0 if there is none."""
        steps = self.lines[stage - 1] if 0 < stage <= len(self.lines) else ()
        return steps[step - 1] if 0 < step <= len(steps) else 0


def rewritten(target: Target, added: Sequence[str], *, here_documents: bool) -> Rewritten:
    """Return the file for a builder. added: names of build arguments that each stage declares in addition.

    here_documents: the builder reads them. Raises ProblemError for what the builder cannot do.
    """
    return _Writer(target, added, here_documents=here_documents).everything()


@dataclass
class _Writer:
    target: Target
    added: Sequence[str]
    here_documents: bool
    bases: dict[str, str] = field(default_factory=dict)
    documents: dict[str, tuple[str, bool]] = field(default_factory=dict)
    shells: dict[int, tuple[str, ...]] = field(default_factory=dict)

    def everything(self) -> Rewritten:
        dockerfile = self.target.dockerfile
        text = [] if dockerfile.escape == "\\" else [f"# escape={dockerfile.escape}"]
        text += [f"ARG {found.text}" for found in dockerfile.arguments]
        lines = []
        for stage in self.target.stages:
            written = list(self._stage(stage))
            text += [one for one, _ in written]
            lines.append(tuple(line for _, line in written))
        names = {name: image for image, name in self.bases.items()}
        return Rewritten("".join(f"{one}\n" for one in text), names, tuple(lines), self.documents)

    def _stage(self, stage: Stage) -> Iterator[tuple[str, int]]:
        origin = self.target.graph.origin(stage)
        self.shells[stage.index] = self.shells[origin.stage.index] if origin.stage else _SHELL
        base = _name_of(origin.stage) if origin.stage else self._base(origin.image)
        yield f"FROM {base} AS {_name_of(stage)}", stage.line
        for name in self.added:
            yield f"ARG {name}", stage.line
        for found in stage.instructions:
            if found.name == "SHELL":
                self.shells[stage.index] = found.words
            elif found.name == "HEALTHCHECK" or (found.name == "ONBUILD" and stage is self.target.stages[-1]):
                continue  # nothing checks the health of an image on a cluster, or builds from it
            yield self._instruction(found, stage), found.line

    def _base(self, image: str) -> str:
        if not image:
            return "scratch"
        return self.bases.setdefault(image, f"{BASE}{len(self.bases)}")

    def _source(self, stage: Stage, name: str, line: int) -> str:
        source = self.target.graph.source(stage, name, line)
        return _name_of(source) if isinstance(source, Stage) else self._base(source)

    def _instruction(self, found: Instruction, stage: Stage) -> str:
        flags = "".join(f" {flag}" for flag in self._flags(found, stage))
        if found.here_documents and not found.trigger and not self.here_documents:
            return f"{found.name}{flags} {self._without_documents(found, stage)}"
        text = found.text
        escape = self.target.dockerfile.escape
        if text.rstrip().endswith(escape) and not found.here_documents:
            # Builders disagree about two of them at the end of a line: some take the next line for a continuation.
            if found.name != "RUN" or found.is_json:
                self._refuse(found.line, f"{found.name} ends with {escape}", "write another character after it")
            text = json.dumps([*self.shells[stage.index], text])
        first = f"{found.name}{flags} {text}".rstrip()
        return first + "".join(f"\n{document.body}{document.name}" for document in found.here_documents)

    def _flags(self, found: Instruction, stage: Stage) -> Iterator[str]:
        for flag in found.flags:
            if flag.name == "link" or (flag.value or "").lower() == "false":
                continue  # link: how the layers are made, not what is in them
            value = flag.value
            if value is not None and flag.name == "from":
                value = self._source(stage, value, found.line)
            elif value is not None and flag.name == "mount":
                value = self._mount(value, found, stage)
            yield f"--{flag.name}" if value is None else f"--{flag.name}={value}"

    def _mount(self, text: str, found: Instruction, stage: Stage) -> str:
        fields = next(csv.reader([text]), [])
        for index, one in enumerate(fields):
            key, _, value = one.partition("=")
            if key.lower() == "from":
                fields[index] = f"from={self._source(stage, value, found.line)}"
        written = io.StringIO()
        csv.writer(written, lineterminator="").writerow(fields)
        value = written.getvalue()
        if any(letter.isspace() or letter in "'\"" for letter in value):
            self._refuse(found.line, f"RUN --mount={shown(text)} has blanks or quotes", "use paths without")
        return value

    def _without_documents(self, found: Instruction, stage: Stage) -> str:
        """Return the arguments of an instruction for a builder that does not read here-documents."""
        if found.name != "RUN":
            return self._copied(found)
        first = found.here_documents[0]
        alone = len(found.here_documents) == 1 and here_document(found.text.strip()) is not None
        if alone and first.content.startswith("#!"):
            name = self._document(first.content, executable=True)
            target = f"/run/{name.rpartition('/')[2]}"
            return f"--mount=type=bind,source={name},target={target} {json.dumps([target])}"
        script = first.content if alone else self._script(found)
        return json.dumps([*self.shells[stage.index], script])

    @staticmethod
    def _script(found: Instruction) -> str:
        bodies = "".join(f"{document.body}{document.name}\n" for document in found.here_documents)
        return f"{found.text}\n{bodies}"

    def _copied(self, found: Instruction) -> str:
        words = []
        documents = iter(found.here_documents)
        for word in found.words:
            if here_document(word) is None:
                words.append(word)
                continue
            document = next(documents)
            if document.expands and "$" in document.content:
                what = f"{found.name} has a here-document with variables, which this builder does not read"
                self._refuse(found.line, what, f"{_BUILDER}, or quote the delimiter: <<'EOF'")
            words.append(self._document(document.content, executable=False, name=document.name))
        return json.dumps(words)

    def _document(self, content: str, *, executable: bool, name: str = "script") -> str:
        path = f"{DOCUMENTS}/{len(self.documents)}/{name}"
        if name != "script":
            self.documents[path] = (content, executable)
            return path
        path = f"{DOCUMENTS}/singfactory-{len(self.documents)}"
        self.documents[path] = (content, executable)
        return path

    def _refuse(self, line: int, message: str, remedy: str) -> None:
        raise ProblemError(Problem(self.target.dockerfile.at(line), message, remedy))


def _name_of(stage: Stage) -> str:
    return f"stage{stage.index}"
