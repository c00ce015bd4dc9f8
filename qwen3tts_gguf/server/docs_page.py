"""`/docs`: the HTTP wires as a plain page made from `/openapi.json`. FastAPI's own page loads scripts from a CDN."""

from __future__ import annotations

import re
from html import escape
from typing import Any

__all__ = ["docs_page"]


def docs_page(schema: dict[str, Any]) -> str:
    """HTML without scripts; its only style sheet is ours."""
    routes = "".join(
        _route(method, path, route) for path, methods in schema["paths"].items() for method, route in methods.items()
    )
    title = escape(schema["info"]["title"])
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="stylesheet" href="/page/docs.css"></head><body><main><h1>{title}</h1>'
        f"<p>{_text(schema['info'].get('description', ''))}</p>"
        '<p>For programs: <a href="/openapi.json">openapi.json</a>.</p>'
        f"{routes}</main></body></html>"
    )


def _route(method: str, path: str, route: dict[str, Any]) -> str:
    body = route.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    paragraphs = "".join(f"<p>{_text(part)}</p>" for part in route.get("description", "").split("\n\n"))
    fields = "" if body is None else _fields(body)
    return f"<h2><code>{method.upper()} {escape(path)}</code></h2>{paragraphs}{fields}"


def _fields(body: dict[str, Any]) -> str:
    required = body.get("required", ())
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code>{' (required)' if name in required else ''}</td>"
        f'<td data-name="Type:">{escape(_type(field))}</td>{_default(field)}'
        f"<td>{_text(field.get('description', ''))}</td></tr>"
        for name, field in body["properties"].items()
    )
    return f"<table><tr><th>Field</th><th>Type</th><th>Default</th><th>Meaning</th></tr>{rows}</table>"


def _default(field: dict[str, Any]) -> str:
    value = field.get("default")
    return "<td></td>" if value is None else f'<td data-name="Default:">{escape(str(value).lower())}</td>'


def _type(field: dict[str, Any]) -> str:
    if "anyOf" in field:
        return ", ".join(kind for kind in map(_type, field["anyOf"]) if kind != "null")
    if "enum" in field:
        return ", ".join(map(str, field["enum"]))
    return f"{field.get('type', 'object')}{_range(field)}"


def _range(field: dict[str, Any]) -> str:
    least, above = field.get("minimum"), field.get("exclusiveMinimum")
    most = field.get("maximum", field.get("exclusiveMaximum"))
    low = f" from {least}" if least is not None else f" above {above}" if above is not None else ""
    return low + ("" if most is None else f" to {most}")


def _text(text: str) -> str:
    """Escaped, with words between backticks as code."""
    return re.sub("`([^`]*)`", r"<code>\1</code>", escape(text))
