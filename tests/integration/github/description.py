"""GitHub's OpenAPI description of its REST API (npm: @octokit/openapi), for validating requests and responses.

OpenAPI 3.0.3: its schemas are JSON Schema draft 4 with ``nullable`` and a few formats more.
"""

from __future__ import annotations

import copy
import functools
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from jsonschema import Draft4Validator, FormatChecker, ValidationError, validators
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

GITHUB, ENTERPRISE = "github", "enterprise"
# Documented for every endpoint on the pages "Troubleshooting the REST API" and "Rate limits for the REST API"; the
# description names them for some endpoints only.
GENERAL = frozenset({401, 403, 404, 429})
_URN = "urn:github"


@dataclass
class Count:
    """Number of validated requests and responses. general: responses outside the description (GENERAL)."""

    requests: int = 0
    answers: int = 0
    general: int = 0
    faults: int = 0  # responses injected by a test that no server documents, such as 502


@dataclass(frozen=True)
class Operation:
    """One method of one path. values: of the path's parameters."""

    method: str
    template: str
    content: Mapping[str, Any]
    values: Mapping[str, str] = field(default_factory=dict)


class Breach(AssertionError):
    """A message that the description does not contain or allow."""


class Description:
    """A loaded description."""

    def __init__(self, path: Path) -> None:
        self._document = json.loads(path.read_bytes())
        resource: Resource[Any] = Resource.from_contents(self._document, default_specification=DRAFT4)
        self._registry: Registry[Any] = Registry().with_resource(_URN, resource)
        self._paths = [
            (re.compile(_pattern(template, self._multi_segment(item))), template, item)
            for template, item in sorted(self._document["paths"].items(), key=lambda pair: _rank(pair[0]))
        ]
        self.version = str(self._document["info"]["version"])
        self.count = Count()

    def operation(self, method: str, path: str) -> Operation:
        """Return the operation of a request. Raises Breach."""
        for pattern, template, item in self._paths:
            match = pattern.fullmatch(path)
            if match and method.lower() in item:
                values = {name: unquote(value) for name, value in match.groupdict().items()}
                return Operation(method, template, item[method.lower()], values)
        raise Breach(f"{method} {path} is not described")

    def check_request(self, operation: Operation, query: str, content_type: str, body: bytes) -> None:
        """Raise Breach for a parameter or body that does not match the description, including unknown names."""
        self.count.requests += 1
        where = f"{operation.method} {operation.template}"
        declared = [self._resolved(parameter) for parameter in operation.content.get("parameters", [])]
        given = {
            "path": dict(operation.values),
            "query": dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))),
        }
        for place, values in given.items():
            known = {parameter["name"]: parameter for parameter in declared if parameter["in"] == place}
            for name, text in values.items():
                if _identifier(name) not in {_identifier(key) for key in known}:
                    raise Breach(f"{where}: {place} has {name!r}, which is not described")
                schema = next(known[key]["schema"] for key in known if _identifier(key) == _identifier(name))
                self._fits(self._typed(schema, text), schema, f"{where}: {place} {name}")
            missing = [key for key in known if known[key].get("required") and key not in values]
            if missing and place == "query":
                raise Breach(f"{where}: {missing} are missing")
        self._check_body(operation, content_type, body, where)

    def check_answer(self, operation: Operation, status: int, body: bytes, *, fault: bool = False) -> None:
        """Raise Breach for a status or body that does not match the description."""
        where = f"{operation.method} {operation.template}: {status}"
        described = operation.content["responses"].get(str(status))
        if described is None and fault and status not in GENERAL:
            self.count.faults += 1
            return
        if described is None and status in GENERAL:
            self.count.general += 1
            self._fits(json.loads(body), {"$ref": f"{_URN}#/components/schemas/basic-error"}, where)
            return
        if described is None:
            raise Breach(f"{where} is not described")
        self.count.answers += 1
        schema = self._resolved(described).get("content", {}).get("application/json", {}).get("schema")
        if schema is None:
            if body:
                raise Breach(f"{where} has no body, we sent {body[:80]!r}")
            return
        self._fits(json.loads(body), schema, where)

    def example(self, method: str, template: str, status: int) -> Any:
        """Return a copy of the description's example response."""
        answer = self._resolved(self._document["paths"][template][method.lower()]["responses"][str(status)])
        examples = answer["content"]["application/json"]["examples"]
        value = self._resolved(next(iter(examples.values())))["value"]
        return copy.deepcopy(value)

    def _check_body(self, operation: Operation, content_type: str, body: bytes, where: str) -> None:
        described = self._resolved(operation.content.get("requestBody", {}))
        if not described:
            if body:
                raise Breach(f"{where} takes no body")
            return
        if not body:
            if described.get("required"):
                raise Breach(f"{where} wants a body")
            return
        if content_type.partition(";")[0] != "application/json":
            raise Breach(f"{where}: the body's type is {content_type!r}")
        schema, value = described["content"]["application/json"]["schema"], json.loads(body)
        self._fits(value, schema, where)
        unknown = sorted(self._unknown(schema, value, ""))
        if unknown:
            raise Breach(f"{where}: {unknown} in the body are not described")

    def _fits(self, value: Any, schema: Mapping[str, Any], where: str) -> None:
        problems = sorted(self._validator(schema).iter_errors(value), key=lambda problem: list(map(str, problem.path)))
        if problems:
            raise Breach(f"{where}: {'/'.join(map(str, problems[0].absolute_path))}: {problems[0].message[:300]}")

    def _validator(self, schema: Mapping[str, Any]) -> Any:
        return _Validator(_absolute(schema), registry=self._registry, format_checker=_formats)

    def _unknown(self, schema: Mapping[str, Any], value: Any, place: str) -> Iterator[str]:
        """Yield names in a body that are not in its schema: JSON Schema would accept them."""
        schema = self._resolved(schema)
        branches = [self._resolved(item) for key in ("oneOf", "anyOf", "allOf") for item in schema.get(key, [])]
        if isinstance(value, dict) and not schema.get("additionalProperties"):
            known = dict(schema.get("properties", {}))
            for branch in branches:
                known |= branch.get("properties", {})
            if known:
                yield from (f"{place}/{name}" for name in value if name not in known)
            for name, item in value.items():
                if name in known:
                    yield from self._unknown(known[name], item, f"{place}/{name}")
        if isinstance(value, list) and "items" in schema:
            for item in value:
                yield from self._unknown(schema["items"], item, f"{place}[]")

    def _typed(self, schema: Mapping[str, Any], text: str) -> Any:
        """Convert a parameter's text to the type in its schema."""
        schema = self._resolved(schema)
        kinds = {schema.get("type")} | {self._resolved(item).get("type") for item in schema.get("oneOf", [])}
        if "integer" in kinds and re.fullmatch(r"-?[0-9]+", text):
            return int(text)
        return {"true": True, "false": False}.get(text, text) if "boolean" in kinds else text

    def _resolved(self, value: Any) -> Any:
        while isinstance(value, dict) and "$ref" in value:
            target: Any = self._document
            for part in value["$ref"].removeprefix(_URN).removeprefix("#/").split("/"):
                target = target[part.replace("~1", "/").replace("~0", "~")]
            value = target
        if isinstance(value, dict) and isinstance(value.get("value"), dict) and set(value["value"]) == {"$ref"}:
            return {**value, "value": self._resolved(self._resolved(value["value"])["value"])}
        return value

    def _multi_segment(self, item: Mapping[str, Any]) -> set[str]:
        """Parameters that may contain slashes, such as a branch."""
        parameters = [
            self._resolved(parameter)
            for operation in item.values()
            if isinstance(operation, dict)
            for parameter in operation.get("parameters", [])
        ]
        return {parameter["name"] for parameter in parameters if parameter.get("x-multi-segment")}


@functools.cache
def load(name: str) -> Description:
    """Load GITHUB or ENTERPRISE, as downloaded by scripts/install-test-tools."""
    home = os.environ.get("SINGFACTORY_TEST_TOOLS")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = (Path(home) if home else cache / "singfactory-test-tools") / "github-openapi" / f"{name}.json"
    if not path.exists():
        pytest.fail("GitHub's OpenAPI description is missing: run scripts/install-test-tools", pytrace=False)
    return Description(path)


def _rank(template: str) -> tuple[int, int]:
    """Sort key: paths with fewer parameters first, then those with more literal text."""
    return template.count("{"), -len(re.sub(r"\{.*?\}", "", template))


def _pattern(template: str, multi_segment: set[str]) -> str:
    parts = re.split(r"\{(\w[\w-]*)\}", template)
    names = [
        f"(?P<{_identifier(part)}>{'.+' if part in multi_segment else '[^/]+'})" if number % 2 else re.escape(part)
        for number, part in enumerate(parts)
    ]
    return "".join(names)


def _identifier(name: str) -> str:
    return name.replace("-", "_")


def _absolute(schema: Any) -> Any:
    """Return a standalone schema whose references point into the whole document."""
    if isinstance(schema, dict):
        return {
            key: f"{_URN}{value}" if key == "$ref" and str(value).startswith("#") else _absolute(value)
            for key, value in schema.items()
        }
    return [_absolute(item) for item in schema] if isinstance(schema, list) else schema


_Check = Callable[[Any, Any, Any, Any], Iterator[ValidationError] | None]


def _nullable(keyword: str) -> _Check:
    """OpenAPI 3.0.3, "Schema Object": ``nullable: true`` next to a type allows null."""
    check: _Check = Draft4Validator.VALIDATORS[keyword]

    def checked(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        if not (instance is None and schema.get("nullable") is True):
            yield from check(validator, value, instance, schema) or ()

    return checked


_extend: Callable[..., Any] = validators.extend
_Validator = _extend(Draft4Validator, {name: _nullable(name) for name in ("type", "enum")})
_formats = FormatChecker(formats=())


@_formats.checks("date-time", raises=ValueError)
def _is_time(value: object) -> bool:
    if isinstance(value, str):
        shaped = re.fullmatch(r"[0-9-]{10}T[0-9:]{8}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})", value)
        return bool(shaped) and datetime.fromisoformat(value.replace("Z", "+00:00")) is not None
    return True


@_formats.checks("uri", raises=ValueError)
def _is_address(value: object) -> bool:
    return not isinstance(value, str) or bool(urlsplit(value).scheme)
