"""The HTTP endpoint for programs."""

from typing import Any, Literal

from fastapi import FastAPI, HTTPException, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from petseg_lightning import __version__
from petseg_lightning.data.picture_file import TooLargeError
from petseg_lightning.errors import InputError
from petseg_lightning.inference.predictor import Prediction
from petseg_lightning.predicting.results import describe
from petseg_lightning.serving.service import Service, png

TEMPLATES = Environment(
    loader=PackageLoader("petseg_lightning.serving", "."), undefined=StrictUndefined, autoescape=True
)
WRAPPING = 100_000  # bytes of a request beside its file
ERRORS: dict[int | str, dict[str, Any]] = {
    413: {"description": "The picture is too large; detail says in a line what the limit is"},
    422: {"description": "No picture, or one that cannot be read; detail says in a line what is wrong"},
}


def make_endpoint(service: Service) -> FastAPI:
    """`POST /predict`, `GET /health`, and `GET /docs` about them."""
    app = FastAPI(title="petseg", version=__version__, docs_url=None, redoc_url=None)
    app.add_middleware(_BodyLimit, path="/predict", max_bytes=int(service.max_megabytes * 2**20) + WRAPPING)

    @app.post(
        "/predict",
        response_class=Response,
        responses={
            200: {"description": "The result", "content": {"image/png": {}, "application/json": {}}},
            **ERRORS,
        },
    )
    async def predict(picture: UploadFile, output: Literal["cutout", "mask", "overlay", "json"] = "cutout") -> Response:
        """Predict a picture.

        The output is a PNG: the cutout with a soft edge, the mask of class ids or the overlay of classes; or json:
        size, share of each class, box around what is not background, confidence.
        """
        return await service.run(_answer, service, picture, output)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Whether the server is there, and the classes of its model."""
        return {"status": "ok", "classes": list(service.predictor.class_names)}

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(TEMPLATES.get_template("docs.html.j2").render(schema=app.openapi()))

    @app.exception_handler(InputError)
    async def refuse(_: Request, error: InputError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 413 if isinstance(error, TooLargeError) else 422)

    @app.exception_handler(RequestValidationError)
    async def explain(_: Request, error: RequestValidationError) -> JSONResponse:
        problems = (f"{problem['loc'][-1]}: {problem['msg']}" for problem in error.errors())
        return JSONResponse({"detail": "; ".join(problems)}, 422)

    return app


def _answer(service: Service, picture: UploadFile, output: str) -> Response:
    def rendered(prediction: Prediction) -> Response:
        if output == "json":
            return JSONResponse(describe(prediction))
        return Response(png(prediction, output), media_type="image/png")

    return service.predict(picture.filename or "picture", picture.file, rendered)


class _BodyLimit:
    """Stops reading a request to `path` after so many bytes."""

    def __init__(self, app: ASGIApp, path: str, max_bytes: int) -> None:
        self.app, self.path, self.max_bytes = app, path, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != self.path:
            return await self.app(scope, receive, send)
        total = 0

        async def counted() -> Message:
            nonlocal total
            message = await receive()
            total += len(message.get("body", b""))
            if total > self.max_bytes:
                limit = (self.max_bytes - WRAPPING) / 2**20
                raise HTTPException(413, f"the picture has more than {limit:g} MB; save it smaller")
            return message

        await self.app(scope, counted, send)
        return None
