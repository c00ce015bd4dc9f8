"""What every request passes first: its host and origin, its key, its size; and its log line when it is over."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .problems import Problem
from .record import Record, log, put_record
from .settings import Settings

__all__ = ["LOOPBACK_HOSTS", "Guard", "matching_key"]

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")
"""Answered by a server that listens on the loopback interface; other names are a page's that plays DNS tricks."""

_PUBLIC = {"/", "/health", "/health/live", "/metrics", "/docs", "/openapi.json", "/favicon.ico"}
_PUBLIC_FOLDERS = ("/page/",)
_LISTINGS = ("/v1/models", "/v1/audio/models", "/v1/audio/voices", "/v1/voices", "/audio/voices", "/voices")
_SUBPROTOCOL = "openai-insecure-api-key."
_MOST_ID = 128
_DROPPED = 8
"""So many times the largest body is read of one that is too large, before the connection is given up."""
_POLICY = (
    "default-src 'self'; img-src 'self' data:; media-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "frame-ancestors 'none'; form-action 'none'"
)


class Guard:
    """ASGI middleware for HTTP and WebSocket. Refuses with OpenAI's error object, or by closing before it accepts."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self._hosts = {host.lower() for host in settings.allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        record = Record(_id(headers))
        put_record(scope, record)
        status = 0

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_headers(MutableHeaders(raw=message["headers"]), record)
                message = {**message, "headers": message["headers"]}
            elif message["type"] == "websocket.accept":
                status = 101
            await send(message)

        try:
            self._check(scope, headers, record)
        except Problem as problem:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008, "reason": problem.message[:100]})
            else:
                if problem.status == 413:
                    await _drop(receive, self._settings.max_body)
                await problem.response()(scope, receive, sent)
        else:
            limited = receive if scope["type"] == "websocket" else _limited(receive, self._settings.max_body)
            await self._app(scope, limited, sent)
        finally:
            method = scope.get("method", "WS")
            if scope["path"] not in ("/health", "/health/live", "/metrics") or status >= 400:
                log.info("%s", record.line(f"{method} {_printable(scope['path'])}", status))

    def _check(self, scope: Scope, headers: Headers, record: Record) -> None:
        if self._hosts and _host(headers.get("host", "")) not in self._hosts:
            raise Problem(403, "host_not_allowed", "this server does not answer to that Host", may_retry=False)
        if self._is_foreign(scope, headers):
            message = "pages of that origin may not use this server"
            raise Problem(403, "origin_not_allowed", message, may_retry=False)
        if self._settings.api_keys:
            key = matching_key(self._settings.api_keys, _given_keys(scope, headers))
            if key is not None:
                record.key = f"key {key}"
            elif not _is_public(scope) and not _asks_itself(scope):
                headers_401 = {"WWW-Authenticate": "Bearer"}
                raise Problem(401, "invalid_api_key", "this server needs an API key", headers=headers_401)
        if scope["type"] == "http":
            length = headers.get("content-length", "")
            if length.isdigit() and int(length[:20]) > self._settings.max_body:
                raise _too_large(self._settings.max_body)

    def _is_foreign(self, scope: Scope, headers: Headers) -> bool:
        """Whether a page of another origin makes the browser send what changes or costs something."""
        origin = headers.get("origin")
        if origin is None or (scope["type"] == "http" and scope["method"] in ("GET", "HEAD", "OPTIONS")):
            return False
        allowed = self._settings.cors_origins
        return "*" not in allowed and origin not in allowed and urlsplit(origin).netloc != headers.get("host")


def matching_key(keys: Sequence[str], given: Iterable[str]) -> int | None:
    """The position of the key that was given, found in constant time."""
    found = None
    for candidate in given:
        for position, key in enumerate(keys):
            if hmac.compare_digest(candidate.encode("utf-8", "replace"), key.encode()):
                found = position
    return found


def _given_keys(scope: Scope, headers: Headers) -> Iterable[str]:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        yield token.strip()
    for name in ("x-api-key", "xi-api-key"):
        if (key := headers.get(name)) is not None:
            yield key
    if scope["type"] == "websocket":
        yield from parse_qs(scope.get("query_string", b"").decode("latin-1")).get("api_key", [])
        for protocol in scope.get("subprotocols", []):
            if protocol.startswith(_SUBPROTOCOL):
                yield protocol.removeprefix(_SUBPROTOCOL)


def _is_public(scope: Scope) -> bool:
    """The page, what is listed, health and numbers: clients ask for these without a key."""
    if scope["type"] != "http":
        return False
    method: str = scope["method"]
    path: str = scope["path"]
    is_listed = any(path == listing or path.startswith(f"{listing}/") for listing in _LISTINGS)
    is_public = path in _PUBLIC or path.startswith(_PUBLIC_FOLDERS) or is_listed
    return method == "OPTIONS" or (method in ("GET", "HEAD") and is_public)


def _asks_itself(scope: Scope) -> bool:
    """ElevenLabs' sockets may have their key in the first message."""
    path: str = scope["path"]
    return scope["type"] == "websocket" and path.startswith("/v1/text-to-speech/")


def _limited(receive: Receive, most: int) -> Receive:
    """Counts the bytes of a body, whatever its header says. Raises Problem."""
    n_bytes = 0

    async def counted() -> Message:
        nonlocal n_bytes
        message = await receive()
        n_bytes += len(message.get("body", b""))
        if n_bytes > most:
            if message.get("more_body"):
                await _drop(receive, most)
            raise _too_large(most)
        return message

    return counted


async def _drop(receive: Receive, most: int) -> None:
    """Read on and throw away: a client that is still sending would see its connection break, and not the answer."""
    n_left = _DROPPED * most
    while n_left > 0:
        message = await receive()
        if message["type"] != "http.request" or not message.get("more_body"):
            return
        n_left -= len(message["body"])


def _too_large(most: int) -> Problem:
    return Problem(413, "body_too_large", f"the body is larger than {most} bytes")


def _add_headers(headers: MutableHeaders, record: Record) -> None:
    headers["x-request-id"] = record.id
    headers.setdefault("cache-control", "no-store")
    headers["x-content-type-options"] = "nosniff"
    headers["referrer-policy"] = "no-referrer"
    headers.setdefault("content-security-policy", _POLICY)


def _id(headers: Headers) -> str:
    """The client's, where it is printable and short, else a new one."""
    given = headers.get("x-request-id") or headers.get("x-client-request-id") or ""
    is_plain = given.isascii() and given.isprintable() and " " not in given
    return given if given and is_plain and len(given) <= _MOST_ID else secrets.token_hex(8)


def _host(header: str) -> str:
    """Without the port."""
    header = header.strip().lower()
    if header.startswith("["):
        return header[1:].partition("]")[0]
    name, _, port = header.rpartition(":")
    host = name if name and port.isdigit() else header
    try:
        return str(ip_address(host))
    except ValueError:
        return host


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() and letter != " " else "?" for letter in text[:200])
