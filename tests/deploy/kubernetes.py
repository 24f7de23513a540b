"""JSON schemas of Kubernetes and of the operators whose objects the chart writes, as an API server applies them.

The schemas are those of the projects' own sources. Like `kubectl apply --validate=strict`, they reject unknown fields.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import jsonschema_rs
import yaml

from tests.deploy.tools import CACHE, missing

Schema = dict[str, Any]
META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
NUMBERS: dict[str, Schema] = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": ["integer", "string"]},
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": ["number", "string"]},
}
"""Definitions whose types the OpenAPI document cannot express."""


def errors(manifest: dict[str, Any]) -> list[str]:
    """Return what the schema of the object's kind rejects."""
    kind = (manifest["apiVersion"], manifest["kind"])
    if kind not in validators():
        return [f"no schema of {kind}"]
    found = validators()[kind].iter_errors(manifest)
    return [f"{'.'.join(map(str, error.instance_path))}: {error.message}" for error in found]


@cache
def validators() -> dict[tuple[str, str], Validator]:
    """Return a validator for each API version and kind."""
    folders = sorted(CACHE.glob("schemas-*"))
    if not folders:
        missing("the schemas of Kubernetes")
    document = json.loads((folders[-1] / "swagger.json").read_text())
    definitions = {name: strict(definition) for name, definition in document["definitions"].items()} | NUMBERS
    schemas = {
        (version(known), known["kind"]): {"$ref": f"#/definitions/{name}"}
        for name, definition in definitions.items()
        for known in definition.get("x-kubernetes-group-version-kind", [])
    }
    for path in folders[-1].glob("*.yaml"):
        schemas |= custom(yaml.safe_load(path.read_text()))
    return {kind: Validator(schema | {"definitions": definitions}) for kind, schema in schemas.items()}


class Validator:
    """A validator that is compiled on first use; there are hundreds of kinds."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._validator: jsonschema_rs.Draft4Validator | None = None

    def iter_errors(self, manifest: dict[str, Any]) -> list[jsonschema_rs.ValidationError]:
        self._validator = self._validator or jsonschema_rs.Draft4Validator(self._schema)
        return list(self._validator.iter_errors(manifest))


def version(known: dict[str, str]) -> str:
    return f"{known['group']}/{known['version']}" if known["group"] else known["version"]


def custom(definition: dict[str, Any]) -> dict[tuple[str, str], Schema]:
    """Return the schemas of a CustomResourceDefinition's versions."""
    spec = definition["spec"]
    found = {}
    for served in spec["versions"]:
        schema = strict(served["schema"]["openAPIV3Schema"])
        schema["properties"]["metadata"] = {"$ref": f"#/definitions/{META}"}
        found[f"{spec['group']}/{served['name']}", spec["names"]["kind"]] = schema
    return found


def strict(schema: Schema) -> Schema:
    """Return the schema without room for unknown fields. `anyOf` and the like restrict the same object and stay."""
    result = dict(schema)
    if "properties" in result:
        result["properties"] = {name: strict(inner) for name, inner in result["properties"].items()}
        if not result.get("x-kubernetes-preserve-unknown-fields"):
            result.setdefault("additionalProperties", False)
    for key in ("items", "additionalProperties"):
        if isinstance(result.get(key), dict):
            result[key] = strict(result[key])
    return result
