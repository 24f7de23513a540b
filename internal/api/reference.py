"""The reference of the API as a page, rendered from the OpenAPI schema on this machine and without a script."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

METHODS = ("get", "head", "post", "put", "patch", "delete")


def render_reference(spec: dict[str, Any]) -> str:
    """Return the HTML of the reference, one section per tag."""
    groups: dict[str, list[str]] = {}
    for path, item in spec["paths"].items():
        for method in METHODS:
            if method in item:
                operation = item[method]
                tag = operation.get("tags", ["service"])[0]
                groups.setdefault(tag, []).append("".join(_operation(method, path, operation)))
    sections = "".join(f"<h2>{escape(tag)}</h2>{''.join(parts)}" for tag, parts in groups.items())
    schemas = "".join("".join(_schema(*each)) for each in sorted(spec["components"]["schemas"].items()))
    info = spec["info"]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(info["title"])} API</title><link rel="stylesheet" href="/page/docs.css"></head><body><main>'
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{escape(info.get('summary', ''))} "
        'For programs: <a href="/openapi.json">/openapi.json</a>. '
        "With keys configured, send yours as <code>X-API-Key</code> or <code>Authorization: Bearer</code>.</p>"
        f"{sections}<h2>Bodies</h2>{schemas}</main></body></html>"
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    anchor = escape(operation["operationId"], quote=True)
    yield f'<details id="{anchor}"><summary><b>{method.upper()}</b> <code>{escape(path)}</code></summary>'
    yield f"<p>{escape(operation.get('description') or operation.get('summary', ''))}</p>"
    parameters = operation.get("parameters", [])
    if parameters:
        rows = (_row(each["name"], each["in"], each.get("required"), each["schema"], each) for each in parameters)
        yield f"<table><tr><th>parameter<th>in<th>type<th></tr>{''.join(rows)}</table>"
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<p>Body <code>{escape(kind)}</code>: {_type(content.get('schema', {}))}</p>"
        yield from _properties(content.get("schema", {}))
    yield "<table><tr><th>status<th>body<th></tr>"
    for status, response in operation["responses"].items():
        bodies = response.get("content", {}).items()
        kinds = ", ".join(f"{escape(kind)} {_type(content.get('schema', {}))}" for kind, content in bodies)
        yield f"<tr><td>{escape(status)}<td>{kinds}<td>{escape(response.get('description', ''))}</tr>"
    yield "</table></details>"


def _schema(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield f'<details id="schema-{escape(name, quote=True)}"><summary><code>{escape(name)}</code></summary>'
    yield f"<p>{escape(schema.get('description', ''))}</p>"
    yield from _properties(schema)
    yield "</details>"


def _properties(schema: dict[str, Any]) -> Iterator[str]:
    required = schema.get("required", ())
    rows = [_row(name, "", name in required, each, each) for name, each in schema.get("properties", {}).items()]
    if rows:
        yield f"<table><tr><th>field<th><th>type<th></tr>{''.join(rows)}</table>"


def _row(name: str, place: str, required: object, schema: dict[str, Any], described: dict[str, Any]) -> str:
    star = " *" if required else ""
    text = escape(str(described.get("description", "")))
    return f"<tr><td><code>{escape(name)}</code>{star}<td>{escape(place)}<td>{_type(schema)}<td>{text}</tr>"


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].rsplit("/", 1)[-1], quote=True)
        return f'<a href="#schema-{name}">{name}</a>'
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return " or ".join(_type(each) for each in schema[key])
    if "enum" in schema:
        return ", ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"array of {_type(schema.get('items', {}))}"
    return escape(str(schema.get("type", "")))
