"""/v1/models: which models there are, and what they are worth."""

from __future__ import annotations

import time
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from medtune.errors import show_value
from medtune.inference.serving.engine import Engine, ServedModel
from medtune.inference.serving.requests import RequestError
from medtune.inference.serving.responses import as_json

_WHAT = {"tuned": "the base with the trained adapter", "base": "the base model, its adapter switched off"}


def models_endpoints(engine: Engine) -> list[Route]:
    """The list, and each by its name."""
    created = int(time.time())

    def described(name: ServedModel) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": created,
            "owned_by": "medtune",
            "description": _WHAT[name],
            "notice": "; ".join(engine.chat.notices),
            "max_prompt_tokens": engine.limits.prompt_tokens,
            "max_new_tokens": engine.max_new_tokens,
            "default_new_tokens": min(engine.chat.max_new_tokens, engine.max_new_tokens),
        }

    async def all_models(request: Request) -> Response:
        content = {"object": "list", "data": [described(name) for name in engine.models]}
        return Response(as_json(content), media_type="application/json")

    async def one_model(request: Request) -> Response:
        name = request.path_params["name"]
        for known in engine.models:
            if known == name:
                return Response(as_json(described(known)), media_type="application/json")
        error = RequestError(404, f"there is no model {show_value(name)}", "model", code="model_not_found")
        return Response(as_json(error.body), error.status, media_type="application/json")

    return [Route("/v1/models", all_models), Route("/v1/models/{name}", one_model)]
