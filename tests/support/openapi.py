"""Whether an answer is what the contract says (derived by scripts/derive_openapi.py)."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema

OURS = {
    "DeploymentV1": ("status_reason",),
    "PrepareModelUploadResponseV1": ("endpoint_url",),
    "GetBlobCredentialsResponseV1": ("endpoint_url",),
}
"""What this platform adds to answers."""

_FILE = Path(__file__).parent / "openapi" / "management.json"


@cache
def document() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(_FILE.read_text())
    return loaded


def operations() -> list[tuple[str, str, bool]]:
    """All operations of the document: method, path template, whether this platform serves it."""
    return [
        (method, path, answer is not None)
        for path, answers in document()["paths"].items()
        for method, answer in answers.items()
    ]


def check(method: str, path: str, answer: Any) -> None:
    """Raises when `answer`, of a 200 to this request, does not conform. `path` may be concrete."""
    template = _template(method, path.partition("?")[0])
    reference = document()["paths"][template][method]
    assert reference is not None, f"{method} {template} is not derived as served"
    _validator(reference, strict=True).validate(answer)


def check_request(schema: str, body: Any) -> bool:
    """Whether `body` conforms to a request's schema, unknown fields aside."""
    return bool(_validator(f"#/components/schemas/{schema}").is_valid(body))


def _template(method: str, path: str) -> str:
    candidates = [
        template
        for template, answers in document()["paths"].items()
        if method in answers and re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", template), path)
    ]
    assert candidates, f"the document has no {method} {path}"
    return min(candidates, key=lambda template: template.count("{"))


@cache
def _validator(reference: str, *, strict: bool = False) -> jsonschema.Draft202012Validator:
    change = _closed if strict else _open
    schemas = {name: change(name, schema) for name, schema in document()["schemas"].items()}
    schema = {"$ref": reference, "components": {"schemas": schemas}}
    return jsonschema.Draft202012Validator(
        schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )


def _closed(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """An answer holds nothing that the document does not name, but for what is ours."""
    if "properties" not in schema:
        return schema
    ours = {field: {} for field in OURS.get(name, ())}
    return {
        **schema,
        "properties": {**schema["properties"], **ours},
        "additionalProperties": False,
    }


def _open(_name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """A request may hold what the document does not know: newer clients keep working."""
    return {word: value for word, value in schema.items() if word != "additionalProperties"}
