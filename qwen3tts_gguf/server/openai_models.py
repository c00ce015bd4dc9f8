"""The models as clients list them: the loaded one, and the names that clients have built in, which mean it too."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter

from .openai_speech import ALIASES, ERRORS
from .problems import Problem
from .services import Services

__all__ = ["router"]


def router(services: Services) -> APIRouter:
    """`/v1/models`, `/v1/models/{id}`, `/v1/audio/models`."""
    routes = APIRouter(tags=["models"], responses=ERRORS)
    created = int(time.time())

    def models() -> list[dict[str, Any]]:
        names = dict.fromkeys((services.model_name, *ALIASES))
        return [{"id": name, "object": "model", "created": created, "owned_by": "qwen"} for name in names]

    @routes.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        """The loaded model first, then its aliases."""
        return {"object": "list", "data": models()}

    @routes.get("/v1/models/{id:path}")
    async def one_model(id: str) -> dict[str, Any]:
        """One of them."""
        for model in models():
            if model["id"] == id:
                return model
        raise Problem(404, "model_not_found", f"there is no model {id!r:.80}", param="model")

    @routes.get("/v1/audio/models")
    async def list_audio_models() -> dict[str, Any]:
        """The same as Open WebUI reads it."""
        return {
            "object": "list",
            "models": [{"id": model["id"], "name": model["id"]} for model in models()],
            "data": models(),
        }

    return routes
