"""The HTTP endpoint for programs."""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import PurePath
from typing import Any, Literal, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect

from petseg_lightning import __version__
from petseg_lightning.data.picture_file import TooLargeError
from petseg_lightning.errors import InputError
from petseg_lightning.inference.predictor import Prediction
from petseg_lightning.predicting.results import describe
from petseg_lightning.serving.guard import WRAPPING, Guard, own_names
from petseg_lightning.serving.service import BusyError, Service, png

TEMPLATES = Environment(
    loader=PackageLoader("petseg_lightning.serving", "."), undefined=StrictUndefined, autoescape=True
)
RETRY_AFTER = 2  # seconds
_LONGEST_NAME = 100  # characters of a file's name that are kept
_MISSING = "picture: is missing; send it as multipart/form-data, as curl -F picture=@cat.jpg does"
ERRORS: dict[int | str, dict[str, Any]] = {
    408: {"description": "The request did not arrive in time"},
    413: {"description": "The picture is too large; detail says in a line what the limit is"},
    422: {"description": "No picture, or one that cannot be read; detail says in a line what is wrong"},
    503: {"description": "Too many pictures wait, or this one takes too long; Retry-After says when to try again"},
}
FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["picture"],
                    "properties": {"picture": {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}
T = TypeVar("T")


def make_endpoint(service: Service, host: str = "127.0.0.1", hosts: Iterable[str] = ()) -> FastAPI:
    """`POST /predict`, `GET /health`, and `GET /docs` about them.

    Args:
        service: what predicts.
        host: what is listened on.
        hosts: further names of it; see `own_names`.
    """
    app = FastAPI(title="petseg", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False)
    max_bytes = int(service.max_megabytes * 2**20) + WRAPPING
    app.add_middleware(Guard, names=own_names(host, hosts), max_bytes=max_bytes, timeout=service.timeout)

    @app.post(
        "/predict",
        response_class=Response,
        responses={
            200: {"description": "The result", "content": {"image/png": {}, "application/json": {}}},
            **ERRORS,
        },
        openapi_extra=FORM,
    )
    async def predict(request: Request, output: Literal["cutout", "mask", "overlay", "json"] = "cutout") -> Response:
        """Predict a picture.

        The output is a PNG: the cutout with a soft edge, the mask of class ids or the overlay of classes; or json:
        size, share of each class, box around what is not background, confidence.
        """

        def rendered(prediction: Prediction, _: str) -> Response:
            if output == "json":
                return JSONResponse(describe(prediction))
            return Response(png(prediction, output), media_type="image/png")

        return await predict_upload(service, request, rendered)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Whether the server is there, and the classes of its model."""
        return {"status": "ok", "classes": list(service.predictor.class_names)}

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        here = str(request.base_url).rstrip("/")
        return HTMLResponse(TEMPLATES.get_template("docs.html.j2").render(schema=app.openapi(), here=here))

    @app.exception_handler(InputError)
    async def refuse(_: Request, error: InputError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 413 if isinstance(error, TooLargeError) else 422)

    @app.exception_handler(BusyError)
    async def put_off(_: Request, error: BusyError) -> JSONResponse:
        detail = f"{error}; try again in {RETRY_AFTER} seconds"
        return JSONResponse({"detail": detail}, 503, {"Retry-After": str(RETRY_AFTER)})

    @app.exception_handler(ClientDisconnect)
    async def drop(_: Request, __: ClientDisconnect) -> Response:
        return Response(status_code=400)  # nobody sees it

    @app.exception_handler(RequestValidationError)
    async def explain(_: Request, error: RequestValidationError) -> JSONResponse:
        problems = (f"{problem['loc'][-1]}: {problem['msg']}" for problem in error.errors())
        return JSONResponse({"detail": "; ".join(problems)}, 422)

    return app


async def predict_upload(service: Service, request: Request, use: Callable[[Prediction, str], T]) -> T:
    """What `use` makes of the prediction and the name of the one picture in a form; the upload is gone afterwards.

    Raises:
        InputError: there is none, or it cannot be read.
        BusyError: it is not its turn in time.
        ClientDisconnect: nobody waits for the answer any more.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
        raise InputError(_MISSING)
    async with request.form(max_files=1, max_fields=8, max_part_size=1000) as form:
        picture = form.get("picture")
        if not isinstance(picture, UploadFile):
            raise InputError(_MISSING)
        name = _shown(picture.filename)
        predicting = asyncio.create_task(service.predict(name, picture.file, lambda one: use(one, name)))
        leaving = asyncio.create_task(_disconnected(request))
        try:
            await asyncio.wait((predicting, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not predicting.done():
                raise ClientDisconnect
            return predicting.result()
        finally:
            predicting.cancel()
            leaving.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _shown(filename: str | None) -> str:
    """The name of an uploaded file, as it may stand in a line."""
    name = PurePath((filename or "").replace("\\", "/")).name
    return "".join(filter(str.isprintable, name))[-_LONGEST_NAME:] or "picture"
