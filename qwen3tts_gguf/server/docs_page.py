"""`/docs`: the HTTP wires as a plain page made from `/openapi.json`. FastAPI's own page loads scripts from a CDN."""

from __future__ import annotations

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
        f"<p>{escape(schema['info'].get('description', ''))}</p>"
        '<p>For programs: <a href="/openapi.json">openapi.json</a>.</p>'
        f"{routes}</main></body></html>"
    )


def _route(method: str, path: str, route: dict[str, Any]) -> str:
    body = route.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    return f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(route.get('description', ''))}</p>" + (
        "" if body is None else _fields(body)
    )


def _fields(body: dict[str, Any]) -> str:
    required = body.get("required", ())
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code>{' (required)' if name in required else ''}</td>"
        f"<td>{escape(_type(field))}</td><td>{escape(str(field.get('default', '')))}</td>"
        f"<td>{escape(field.get('description', ''))}</td></tr>"
        for name, field in body["properties"].items()
    )
    return f"<table><tr><th>Field</th><th>Type</th><th>Default</th><th></th></tr>{rows}</table>"


def _type(field: dict[str, Any]) -> str:
    if "anyOf" in field:
        return ", ".join(kind for kind in map(_type, field["anyOf"]) if kind != "null")
    if "enum" in field:
        return ", ".join(map(str, field["enum"]))
    return str(field.get("type", "object"))
