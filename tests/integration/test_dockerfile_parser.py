"""Our parser of Dockerfiles reads what npm's dockerfile-ast reads: the forty cases, and files made up by hypothesis."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from factory.recipes.dockerfile.model import Dockerfile, Instruction
from factory.recipes.dockerfile.parser import scan
from tests.servers import tool

CASES = Path(__file__).parents[1] / "dockerfiles"
BATCH = 25  # files for one process


def judged(files: list[Path]) -> list[dict[str, Any]]:
    """What dockerfile-ast reads."""
    names = "".join(f"{file}\n" for file in files)
    done = subprocess.run([tool("dockerfile-ast")], input=names, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def described(dockerfile: Dockerfile) -> dict[str, Any]:
    """What we read, in the judge's form."""
    instructions = list(dockerfile.arguments)
    found = [_instruction(item) for item in instructions]
    for stage in dockerfile.stages:
        found.append({"keyword": "FROM", "line": stage.line, "image": stage.base, "stage": stage.name})
        found += [_instruction(item) for item in stage.instructions]
    directives = [[item.name, item.value] for item in dockerfile.directives]
    return {"escape": dockerfile.escape, "directives": directives, "instructions": found}


def _instruction(item: Instruction) -> dict[str, Any]:
    documents = item.trigger.here_documents if item.trigger else item.here_documents
    return {
        "keyword": item.name,
        "line": item.line,
        "flags": [[flag.name, flag.value] for flag in item.flags],
        "documents": [document.name for document in documents],
        "json": list(item.words[item.name == "HEALTHCHECK" :]) if item.is_json else None,
        "pairs": [[pair.name, pair.value] for pair in item.pairs],
    }


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """What the two read differently, without what the judge is known not to read."""
    keys = ("escape", "directives")
    found = [f"{key}: {ours[key]} | {theirs[key]}" for key in keys if ours[key] != theirs[key]]
    mine, other = ours["instructions"], theirs["instructions"]
    names = [item["keyword"].upper() for item in other]
    if [item["keyword"] for item in mine] != names or [item["line"] for item in mine] != [
        item["line"] for item in other
    ]:
        return [*found, f"instructions: {[(item['keyword'], item['line']) for item in mine]} | {names}"]
    for one, two in zip(mine, other, strict=True):
        found += [
            f"line {one['line']} {one['keyword']} {key}: {one[key]!r} | {two.get(key)!r}"
            for key in one.keys() - {"keyword", "line"}
            if not _same(key, one, two)
        ]
    return found


def _same(key: str, one: dict[str, Any], two: dict[str, Any]) -> bool:
    mine, other = one[key], two.get(key)
    name = one["keyword"]
    if key == "stage":
        other = (other or "").lower()
    elif key == "json" and mine and other:  # the judge loses blanks in strings
        mine, other = ["".join(text.split()) for text in mine], ["".join(text.split()) for text in other]
    elif key == "pairs":  # it removes the quotes of names only
        mine = [[text.strip("'\""), value] for text, value in mine]
    # The judge has no properties for some instructions and one for each ARG, does not look into ONBUILD, and has no
    # array for HEALTHCHECK.
    unknown = (key == "pairs" and (other is None or name == "ARG")) or name in ("ONBUILD", "HEALTHCHECK")
    return bool(unknown or mine == other)


def test_the_cases_are_read_as_dockerfile_ast_reads_them() -> None:
    files = sorted(CASES.glob("*/Dockerfile"))
    assert len(files) >= 40
    for file, theirs in zip(files, judged(files), strict=True):
        ours, problems = scan(file.read_bytes().decode(), file)
        assert problems == ()
        assert differences(described(ours), theirs) == [], file


NAME = st.text(st.sampled_from("abcXYZ_09"), min_size=1, max_size=6).filter(lambda text: text[0] not in "09")
WORD = st.text(st.sampled_from("abc/.:-_$09"), min_size=1, max_size=8).filter(
    lambda text: not text.startswith(("-", "$"))
)
BLANK = st.sampled_from([" ", "  ", "\t", " \\\n", " \\\n  ", " \\ \n\t", " \\\n# note\n ", " \\\n\n "])
FLAG = st.builds("--{}={}".format, st.sampled_from(["chown", "chmod"]), st.sampled_from(["1", "a:b", "755"]))
JSON = st.lists(WORD, min_size=1, max_size=3).map(json.dumps)
PAIR = st.builds("{}={}".format, NAME, st.one_of(WORD, WORD.map('"{} x"'.format), WORD.map("'{} y'".format)))


@st.composite
def instruction_texts(draw: st.DrawFn) -> str:  # noqa: PLR0911 - one for each kind of instruction
    """One instruction."""
    blank = draw(BLANK)
    kind = draw(st.sampled_from(["run", "copy", "env", "arg", "json", "heredoc", "from", "words", "comment"]))
    if kind == "comment":
        return draw(st.sampled_from(["# a comment\n", "\n", "   \n", "  # x \\\n"]))
    if kind == "run":
        return "RUN" + blank + blank.join(draw(st.lists(WORD, min_size=1, max_size=4))) + "\n"
    if kind == "copy":
        words = [*draw(st.lists(FLAG, max_size=1)), *draw(st.lists(WORD, min_size=2, max_size=3))]
        return draw(st.sampled_from(["COPY", "copy", "ADD"])) + blank + blank.join(words) + "\n"
    if kind == "env":
        return (
            draw(st.sampled_from(["ENV", "LABEL"]))
            + " "
            + blank.join(draw(st.lists(PAIR, min_size=1, max_size=3)))
            + "\n"
        )
    if kind == "arg":
        return f"ARG {draw(st.one_of(NAME, PAIR))}\n"
    if kind == "json":
        return f"{draw(st.sampled_from(['RUN', 'CMD', 'ENTRYPOINT', 'SHELL']))}{blank}{draw(JSON)}\n"
    if kind == "heredoc":
        name, body = (
            draw(NAME),
            draw(st.lists(st.sampled_from(["a b\n", "\n", "# c\n", "RUN x\n", "\t<<EOF\n"]), max_size=3)),
        )
        mark = draw(st.sampled_from(["<<{}", "<<-{}", "<<'{}'", '<<"{}"'])).format(name)
        head = draw(st.sampled_from([f"RUN {mark}", f"RUN cat {mark} > x", f"COPY {mark} /x"]))
        return f"{head}\n{''.join(body)}{name}\n"
    if kind == "from":
        return f"FROM{blank}{draw(WORD)}{draw(st.sampled_from(['', ' AS x', ' as Y1']))}\n"
    return f"{draw(st.sampled_from(['WORKDIR', 'USER', 'EXPOSE', 'STOPSIGNAL']))} {draw(WORD)}\n"


@settings(max_examples=1, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_made_up_files_are_read_as_dockerfile_ast_reads_them(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("made")
    texts = ["FROM base\n" + "".join(data.draw(st.lists(instruction_texts(), max_size=6))) for _ in range(BATCH)]
    files = [folder / f"{number}" for number in range(len(texts))]
    for file, text in zip(files, texts, strict=True):
        file.write_text(text)
    compared = 0
    for file, text, theirs in zip(files, texts, judged(files), strict=True):
        ours, problems = scan(text, file)
        if not problems:
            compared += 1
            assert differences(described(ours), theirs) == [], text
    assert compared > BATCH // 2
