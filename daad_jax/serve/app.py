"""The HTTP interface: routes, their description, and the checks before a body is read."""

import base64
import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable, MutableMapping
from importlib import resources
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel

import daad_jax
from daad_jax.errors import printable
from daad_jax.serve.bodies import FIELD, Bodies, Busy
from daad_jax.serve.service import Row, Service

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]

_OPEN = ("/", "/docs", "/openapi.json", "/healthz", "/readyz")  # without a token
_PATHS = (*_OPEN, "/v1/predict", "/v1/model", "/metrics")
_WithMap = Annotated[bool, Query(description="Whether the rows have the anomaly maps too.")]
_INNER = ("program", "reference")  # parts of the metadata that only the loading needs
# The pages may run their own script and talk to this service, and load nothing.
_POLICY = (
    "default-src 'none'; script-src 'sha256-{}'; style-src 'unsafe-inline'; img-src data: blob:; "
    "media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {
                        FIELD: {"type": "array", "items": {"type": "string", "format": "binary"}}
                    },
                }
            },
            "image/*": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


class Problem(BaseModel):
    """Why a request has no answer, in one line."""

    detail: str


def _problems(**described: str) -> dict[int | str, dict[str, Any]]:
    return {
        int(status.removeprefix("s")): {"model": Problem, "description": text}
        for status, text in described.items()
    }


_PREDICT_PROBLEMS = _problems(
    s400="The body is not what it says it is.",
    s401="The token is missing or wrong.",
    s408="The body came too slowly.",
    s413="The body, the number of pictures or a picture is too large.",
    s415="The body has another type.",
    s422="No picture can be used.",
    s503="The service is full or stops: try again after Retry-After seconds.",
)


def build_app(service: Service, token: str | None) -> Callable[..., Awaitable[None]]:
    """The service as an ASGI application.

    With a `token`, all but the pages and the health checks needs ``Authorization: Bearer TOKEN``.
    """
    app = FastAPI(
        title="daad_jax",
        version=daad_jax.__version__,
        description="Scores pictures with an exported model.",
        docs_url=None,
        redoc_url=None,
    )
    app.add_exception_handler(RequestValidationError, _invalid)
    _add_predict(app, service)
    _add_others(app, service)
    return Guard(app, service, token)


def _add_predict(app: FastAPI, service: Service) -> None:
    bodies = Bodies(service.limits)

    @app.post(
        "/v1/predict",
        response_model=list[Row],
        responses=_PREDICT_PROBLEMS,
        openapi_extra=_BODY,
        summary="Score pictures",
        response_description="A row for each picture, in their order.",
    )
    async def predict(request: Request, map: _WithMap = False) -> Response:
        """Scores one picture, the body itself, or several, each a field `image` of a form.

        A picture that cannot be used is a row with its `error`, unless there is no other.
        """
        with bodies.room() as taken:
            sent = await bodies.read(request, taken)
            answer = await service.predict(sent, with_map=map)
        if answer.status != 200:
            reasons = "; ".join(f"{row.path}: {row.error}" for row in answer.rows)
            raise HTTPException(answer.status, reasons)
        unused = None if map else {"map", "map_maximum"}
        rows = [row.model_dump(exclude=unused) for row in answer.rows]
        return JSONResponse(rows, headers={"X-Model": answer.model.hash})


def _add_others(app: FastAPI, service: Service) -> None:
    main, docs = _page("page.html"), _page("docs.html")
    app.add_api_route("/", lambda: main, include_in_schema=False)
    app.add_api_route("/docs", lambda: docs, include_in_schema=False)

    @app.get(
        "/v1/model", summary="The model", responses=_problems(s401="The token is missing or wrong.")
    )
    async def model() -> dict[str, Any]:
        """Describes the model that answers: the file's metadata, and how it was checked here."""
        used = service.model
        kept = {name: one for name, one in used.metadata.items() if name not in _INNER}
        return {"file": used.path.name, "difference": used.difference, **kept}

    @app.get("/healthz", summary="Alive", response_class=PlainTextResponse)
    async def healthz() -> str:
        """Answers as long as the process works."""
        return "ok\n"

    @app.get(
        "/readyz",
        summary="Ready",
        response_class=PlainTextResponse,
        responses=_problems(s503="It is about to stop."),
    )
    async def readyz() -> str:
        """Answers 200 from the first request on, and 503 once the service is asked to stop."""
        if service.draining:
            raise Busy("the service stops")
        return "ready\n"

    @app.get("/metrics", summary="Metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Requests, pictures, batches, times and memory in Prometheus' text format."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _page(name: str) -> HTMLResponse:
    text = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    script = text.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    headers = {"Content-Security-Policy": _POLICY.format(digest), "Cache-Control": "no-cache"}
    return HTMLResponse(text, headers=headers)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    """Describes a query parameter that cannot be used in one line."""
    found = error.errors() if isinstance(error, RequestValidationError) else []
    lines = [f"{one['loc'][-1]}: {one['msg']}" for one in found]
    return JSONResponse({"detail": printable("; ".join(lines))}, 422)


class Guard:
    """Checks the token and the number of requests before a body is read, and counts answers."""

    def __init__(self, app: FastAPI, service: Service, token: str | None) -> None:
        """Takes the application that requests are passed on to."""
        self._app, self._service, self._open = app, service, 0
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, metrics = time.perf_counter(), self._service.metrics
        path = scope["path"] if scope["path"] in _PATHS else "other"

        async def counted(message: _Message) -> None:
            if message["type"] == "http.response.start":
                metrics.requests.labels(path, message["status"]).inc()
                headers = [*message.get("headers", ()), (b"x-content-type-options", b"nosniff")]
                if self._service.draining:
                    headers.append((b"connection", b"close"))
                message = {**message, "headers": headers}
            await send(message)

        self._open += 1
        try:
            refusal = self._refuse(scope, path)
            await (refusal or self._app)(scope, receive, counted)
        finally:
            self._open -= 1
            metrics.request_seconds.labels(path).observe(time.perf_counter() - start)

    def _refuse(self, scope: _Message, path: str) -> Response | None:
        """The answer to a request that is not passed on."""
        if self._open > self._service.limits.requests and path not in _OPEN:
            full = Busy("too many requests at once; send it again later")
            return JSONResponse({"detail": full.detail}, 503, full.headers)
        if self._token is None or path in _OPEN:
            return None
        given = dict(scope["headers"]).get(b"authorization", b"")
        scheme, _, sent = given.partition(b" ")
        if scheme.lower() == b"bearer" and hmac.compare_digest(sent.strip(), self._token):
            return None
        detail = "send the token of this service as Authorization: Bearer TOKEN"
        return JSONResponse({"detail": detail}, 401, {"WWW-Authenticate": "Bearer"})
