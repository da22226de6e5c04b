"""The page for people: it sends each picture to the server on its own, and shows what comes back."""

import base64
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path, PurePath

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, HTMLResponse
from fastapi.staticfiles import StaticFiles

from petseg_lightning.data.picture_file import read_image
from petseg_lightning.inference.predictor import Prediction
from petseg_lightning.pictures import class_colours
from petseg_lightning.predicting.results import describe
from petseg_lightning.serving.endpoint import TEMPLATES, predict_upload
from petseg_lightning.serving.service import Service, preview

KINDS = ("cutout", "overlay", "mask")  # pictures of a prediction
_THUMBNAIL = 320  # longer side, in pixels


def add_page(app: FastAPI, service: Service, examples: Sequence[tuple[Path, str]]) -> None:
    """Add the page to the endpoint, at `/`. Nothing that it shows stays on the server.

    Args:
        app: of `make_endpoint`.
        service: what both share.
        examples: files of pictures, with their names.
    """
    page = TEMPLATES.get_template("page.html.j2").render(
        examples=[(_thumbnail(path), name) for path, name in examples],
        max_megabytes=service.max_megabytes,
        max_megapixels=service.max_megapixels,
    )

    @app.get("/", include_in_schema=False)
    async def show() -> HTMLResponse:
        return HTMLResponse(page)

    @app.get("/examples/{number}", include_in_schema=False)
    async def example(number: int) -> FileResponse:
        if not (0 <= number < len(examples) and examples[number][0].is_file()):
            raise HTTPException(404, "no such example")
        return FileResponse(examples[number][0], media_type="application/octet-stream")

    @app.post("/result", include_in_schema=False)
    async def result(request: Request) -> HTMLResponse:
        return HTMLResponse(await predict_upload(service, request, _result))

    app.mount("/static", StaticFiles(directory=Path(__file__).with_name("static")))


def _result(prediction: Prediction, name: str) -> str:
    pictures = {"picture": prediction.image} | {kind: getattr(prediction, kind) for kind in KINDS}
    return TEMPLATES.get_template("result.html.j2").render(
        name=name,
        stem=PurePath(name).stem,
        row=describe(prediction),
        previews={kind: _embedded(preview(picture, prediction)) for kind, picture in pictures.items()},
        kinds=KINDS,
        colours=class_colours(prediction.class_names),
    )


def _thumbnail(path: Path) -> str:
    image = read_image(path)
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = BytesIO()
    image.save(buffer, "WEBP", quality=85)
    return _embedded(buffer.getvalue())


def _embedded(webp: bytes) -> str:
    return "data:image/webp;base64," + base64.b64encode(webp).decode()
