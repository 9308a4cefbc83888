from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.errors import FactoryError
from factory.records.record import Record

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@given(JSON)
def test_every_value_has_its_type_or_is_an_error_of_ours(value: Any) -> None:
    record = Record({"x": value})
    for read in (
        lambda: record.text("x", 10),
        lambda: record.output("x", 10),
        lambda: record.size("x"),
        lambda: record.seconds("x"),
        lambda: record.time("x"),
        lambda: record.digest("x"),
        lambda: record.texts("x", 3, 10),
        lambda: record.records("x"),
        lambda: record.text("y", 10),
    ):
        try:
            found = read()
        except (ValueError, FactoryError):
            continue
        if isinstance(found, str):
            found.encode()
            assert len(found) <= 20


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_record_or_an_error_of_ours(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "record.json"
    path.write_bytes(content)
    with contextlib.suppress(ValueError, FactoryError):
        assert isinstance(Record.read(path, 1000), Record)


@pytest.mark.parametrize(
    "content", [b'{"a": NaN}', b'{"a": Infinity}', b'{"a": 1, "a": 2}', b"[" * 500, b'{"a":' * 100_000, b"\xff", b"7"]
)
def test_what_is_no_strict_json_is_no_record(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "record.json").write_bytes(content)
    with pytest.raises(ValueError, match=r".+"):
        Record.read(tmp_path / "record.json", 1_000_000)
