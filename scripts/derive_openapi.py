"""Derives the schema for tests of answers: the contract's OpenAPI document without its prose.

    python scripts/derive_openapi.py path/to/management.json

Writes tests/support/openapi/management.json: every path with its methods, the answer of those
operations that the platform serves, and the schemas that these need. Nothing that a person wrote
to be read (descriptions, titles, examples, code samples) is kept.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from kingpost.api.rest.routes import SERVED

TARGET = Path(__file__).resolve().parents[1] / "tests/support/openapi/management.json"
PROSE = {"description", "title", "example", "examples", "summary", "externalDocs", "default"}
METHODS = ("get", "put", "post", "patch", "delete")
ALIASES = ("production", "development")
REF = "#/components/schemas/"


def derive(document: dict[str, Any]) -> dict[str, Any]:
    """Paths as `{path: {METHOD: schema of the 200 answer, or null when it is not served}}`."""
    served = {(door.method, door.path) for door in SERVED}
    paths: dict[str, dict[str, Any]] = {}
    for path, operations in document["paths"].items():
        paths[path] = {
            method.upper(): _answer(operations[method])
            if (method.upper(), _general(path)) in served
            else None
            for method in METHODS
            if method in operations
        }
    answers = [answer for operations in paths.values() for answer in operations.values() if answer]
    requests = {
        "PrepareModelUploadRequestV1",
        "CreateModelRequestV1",
        "CreateModelDeploymentRequestV1",
        "CreateEnvironmentRequestV1",
        "UpdateEnvironmentRequestV1",
        "UpdateAutoscalingSettingsV1",
        "UpdateRequestBackpressureSettingsV1",
        "PromoteRequestV1",
        "PromoteToEnvironmentRequestV1",
        "GetDeploymentLogsRequestV1",
        "UpsertSecretRequestV1",
        "CreateAPIKeyRequestV1",
        "UpdateDeploymentRequestV1",
    }
    wanted = {answer.removeprefix(REF) for answer in answers} | requests
    return {"paths": paths, "schemas": _closure(document["components"]["schemas"], wanted)}


def _answer(operation: dict[str, Any]) -> str:
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    return str(schema["$ref"])


def _general(path: str) -> str:
    for alias in ALIASES:
        path = path.replace(f"/deployments/{alias}", "/deployments/{deployment_id}")
    return path


def _closure(schemas: dict[str, Any], names: set[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    waiting = sorted(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = _without_prose(schemas[name])
            waiting.extend(_references(found[name]))
    return dict(sorted(found.items()))


def _without_prose(node: Any, *, names: bool = False) -> Any:
    """`names` is true where the keys are names of properties and not words of JSON schema."""
    if isinstance(node, dict):
        return {
            key: _without_prose(value, names=not names and key == "properties")
            for key, value in node.items()
            if names or (key not in PROSE and not key.startswith("x-"))
        }
    return [_without_prose(item) for item in node] if isinstance(node, list) else node


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"].removeprefix(REF)] if isinstance(node.get("$ref"), str) else []
        return own + [name for value in node.values() for name in _references(value)]
    return [name for item in node for name in _references(item)] if isinstance(node, list) else []


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("document", type=Path)
    derived = derive(json.loads(parser.parse_args().document.read_text()))
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(json.dumps(derived, indent=1, sort_keys=True) + "\n")
    print(f"{TARGET.name}: {len(derived['paths'])} paths, {len(derived['schemas'])} schemas")
