from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import pytest

from factory import strict
from factory.errors import IntegrityFailure, UsageError
from factory.github.actions import Actions
from factory.io.below import Folder
from factory.io.http.failures import Answer, HttpFailure
from factory.io.locks import holder_in
from factory.oci.names import recipe_name
from factory.plan.waves import planned
from factory.records.record import Record
from factory.registry.credentials import Credential, Keychain
from factory.registry.tokens import read_token
from factory.report.summary import from_json
from factory.runners.slurm import _result as result_of_slurm
from factory.strict import Malformed

REFUSED = {
    "nothing": b"",
    "no JSON": b"{,}",
    "more after the end": b"{} {}",
    "a list": b"[]",
    "NaN": b'{"a": NaN}',
    "infinity": b'{"a": -Infinity}',
    "a float beyond all": b'{"a": 1e999}',
    "a float of many digits": b'{"a": 0.' + b"1" * 5000 + b"}",
    "4000 digits": b'{"a": ' + b"9" * 4000 + b"}",
    "5000 digits": b'{"a": ' + b"9" * 5000 + b"}",
    "half a character, escaped": rb'{"a": "\ud800"}',
    "half a character, in capitals": rb'{"a": "\uDFFF"}',
    "half a character in a key": rb'{"a": [{"\ud800": 1}]}',
    "half a character, raw": b'{"a": "\xed\xa0\x80"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"a": 1}',
    "a key twice": b'{"a": 1, "b": {"c": 1, "c": 2}}',
    "a depth of 100,000": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "nothing but lists": b'{"a":[' + b"[]," * 1_000_000 + b"[]]}",
    "too long": b'{"a": "' + b"a" * strict.DOCUMENT_LIMIT + b'"}',
}


@pytest.mark.parametrize("content", REFUSED.values(), ids=REFUSED)
def test_json_that_python_would_accept_is_refused_quickly_and_in_little_memory(content: bytes) -> None:
    started = monotonic()
    tracemalloc.start()
    with pytest.raises(Malformed) as caught:
        strict.json_object(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert monotonic() - started < 60
    assert peak < 4 * strict.DOCUMENT_LIMIT + 10 * len(content)
    assert isinstance(caught.value, IntegrityFailure)
    assert isinstance(caught.value, ValueError)
    assert len(caught.value.why) < 300
    assert all(" " <= letter <= "~" for letter in caught.value.why)


def test_json_of_ours_is_read_whole() -> None:
    value = {"text": "Zoë 🚀", "size": 2**63, "seconds": 1.5, "none": None, "yes": True, "list": [1, {"a": []}]}
    assert strict.json_object(json.dumps(value).encode()) == value  # the rocket as a pair of escapes
    assert strict.json_object(json.dumps(value, ensure_ascii=False).encode()) == value


@pytest.mark.parametrize(
    "value", [1, None, ["a"], "a\nb", "a\x1b[2J", "\x9b31m", "a\u202eb", "a\u2028b", "\ud800", "a" * 11]
)
def test_a_string_is_one_line_that_is_safe_on_a_terminal(value: object) -> None:
    with pytest.raises(Malformed) as caught:
        strict.text(value, 10)
    assert all(" " <= letter <= "~" for letter in str(caught.value))


def test_numbers_are_of_exactly_their_type_and_within_their_bounds() -> None:
    assert strict.integer(5, 0, 5) == 5
    assert strict.number(0.5, 0, 1) == 0.5
    assert strict.number(1, 0, 1) == 1.0
    for value in (True, 1.0, "1", None, -1, 6):
        with pytest.raises(Malformed):
            strict.integer(value, 0, 5)
    for value in (True, "1", float("nan"), float("inf"), 1.5, 10**400):
        with pytest.raises(Malformed):
            strict.number(value, 0, 1)


def test_objects_and_lists_are_counted() -> None:
    assert strict.texts({"a": "b"}, most=1) == {"a": "b"}
    assert strict.array([1], 1) == [1]
    not_texts: tuple[object, ...] = ({"a": "b", "c": "d"}, {"a": 1}, {"a\n": "b"}, [], None)
    for value in not_texts:
        with pytest.raises(Malformed):
            strict.texts(value, most=1)
    not_lists: tuple[object, ...] = ([1, 2], {}, "ab", None)
    for other in not_lists:
        with pytest.raises(Malformed):
            strict.array(other, 1)
    with pytest.raises(Malformed, match="b is missing"):
        strict.member({"a": 1}, "b")


def test_a_name_that_its_parser_refuses_is_malformed() -> None:
    assert strict.parsed(recipe_name, "tool") == "tool"
    with pytest.raises(Malformed, match="not a recipe name"):
        strict.parsed(recipe_name, "Tool")
    with pytest.raises(Malformed):
        strict.parsed(recipe_name, 1)


# Wherever else JSON of strangers is read, the same is refused, with the error of that place.
EVIL = {
    "a key twice": '"x": 1, "x": 2',
    "NaN": '"x": NaN',
    "a number beyond all": '"x": 1e999',
    "a number of 4000 digits": '"x": ' + "9" * 4000,
    "half a character": '"x": "\\udc00"',
    "a depth of 100,000": '"x": ' + "[" * 100_000,
    "nothing but lists": '"x": [' + "[]," * 20_000 + "[]]",
}


def written(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def helper(answer: str, place: Path) -> list[Credential]:
    config = written(place / "config.json", '{"credsStore": "x"}')
    return Keychain([config], lambda _arguments, _text: answer.encode()).candidates("ghcr.io", "x")


def holder(content: str, place: Path) -> str:
    written(place / "x.lock", content)
    with Folder.at(place) as folder:
        return str(holder_in(folder, "x.lock"))


Reader = Callable[[str, Path], object]
READERS: dict[str, tuple[str, Reader, object]] = {
    "token": (
        '"token": "T"',
        lambda text, _: read_token(Answer(200, {}, text.encode(), "https://h/"), "h").header,
        HttpFailure,
    ),
    "reason of a server": (
        '"errors": [{"code": "DENIED", "message": "no"}]',
        lambda text, _: Answer(403, {}, text.encode(), "https://h/").said(),
        "",
    ),
    "answer of a credential helper": ('"Username": "me", "Secret": "s"', helper, []),
    "logins": (
        '"auths": {"ghcr.io": {"username": "a", "password": "b"}}',
        lambda text, place: Keychain([written(place / "c", text)]).candidates("ghcr.io", "x"),
        UsageError,
    ),
    "holder of a lock": (
        '"host": "y", "pid": 1, "user": 1, "token": "t"',
        holder,
        "process 0 of user -1 on an unknown host",
    ),
    "event": (
        '"pull_request": {"number": 1}',
        lambda text, place: Actions(event_file=written(place / "e", text)).pull_request,
        UsageError,
    ),
    "plan": ('"include": [{"recipe": "a", "arch": "amd64"}]', lambda text, _: planned(text), UsageError),
    "rows of a report": ('"format": 1, "rows": []', lambda text, _: from_json(text.encode()), IntegrityFailure),
    "row of a build": (
        '"recipe": "tool", "sif_digest": "d"',
        lambda text, _: result_of_slurm(f"[\n{text}\n]\n", "tool"),
        None,
    ),
    "record": ('"a": 1', lambda text, place: Record.read(written(place / "r", text), 1_000_000), ValueError),
}


@pytest.mark.parametrize("evil", EVIL)
@pytest.mark.parametrize("reader", READERS)
def test_the_strict_parser_is_used_wherever_untrusted_json_is_read(tmp_path: Path, reader: str, evil: str) -> None:
    good, read, refused = READERS[reader]
    assert read("{" + good + "}", tmp_path) not in (refused, None)
    text = "{" + good + ", " + EVIL[evil] + "}"
    if isinstance(refused, type) and issubclass(refused, Exception):
        with pytest.raises(refused):
            read(text, tmp_path)
    else:
        assert read(text, tmp_path) == refused
