"""The page for people."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path, PurePath
from typing import Any

import gradio as gr
from fastapi import FastAPI
from PIL import Image

from petseg_lightning.data.picture_file import PICTURE_ENDINGS, read_image
from petseg_lightning.errors import InputError
from petseg_lightning.inference.predictor import Prediction
from petseg_lightning.pictures import class_colours
from petseg_lightning.predicting.results import describe
from petseg_lightning.serving.endpoint import TEMPLATES
from petseg_lightning.serving.service import KEPT, KINDS, Service

SWEEP = 60  # seconds between two looks for files that are too old
PASTE = """<script>
document.addEventListener("paste", (event) => {
  const input = document.querySelector("#pictures input[type=file]");
  if (!input || !event.clipboardData.files.length) return;
  input.files = event.clipboardData.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
});
</script>"""


def mount_page(app: FastAPI, service: Service, examples: Sequence[tuple[Path, str]]) -> None:
    """Add the page to the endpoint, at `/`.

    Args:
        app: of `make_endpoint`.
        service: what both share.
        examples: files of pictures, with their names.
    """
    gr.mount_gradio_app(
        app,
        _page(service, examples),
        path="/",
        max_file_size=int(service.max_megabytes * 2**20),
        css_paths=Path(__file__).with_name("page.css"),
        head=PASTE,
        theme=gr.themes.Default(font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace")),
        footer_links=[],
        show_error=False,
        ssr_mode=False,
    )


def _page(service: Service, examples: Sequence[tuple[Path, str]]) -> gr.Blocks:
    async def upload(paths: list[str] | None) -> AsyncIterator[tuple[None, str, str]]:
        pictures = [(Path(path), Path(path).name) for path in dict.fromkeys(paths or [])]
        try:
            async for status, results in _predict_all(service, pictures):
                yield None, status, results
        finally:
            for path, _ in pictures:
                path.unlink(missing_ok=True)

    async def try_example(event: gr.SelectData) -> AsyncIterator[tuple[str, str]]:
        async for status_and_results in _predict_all(service, [examples[event.index]]):
            yield status_and_results

    with gr.Blocks(title="petseg: cut out pets", analytics_enabled=False, delete_cache=(SWEEP, KEPT)) as page:
        limits = {"max_megabytes": service.max_megabytes, "max_megapixels": service.max_megapixels}
        gr.HTML(TEMPLATES.get_template("head.html.j2").render(limits), elem_classes="petseg")
        files = gr.File(
            label="Pictures: drop, paste or choose",
            file_count="multiple",
            file_types=list(PICTURE_ENDINGS),
            elem_id="pictures",
            height=160,
        )
        gallery = gr.Gallery(
            [(_thumbnail(path), name) for path, name in examples],
            label="Examples: choose one",
            columns=6,
            height=210,
            object_fit="contain",
            allow_preview=False,
            interactive=False,
            buttons=[],
            elem_id="examples",
        )
        status = gr.HTML(_status(), elem_classes="petseg", elem_id="status")
        results = gr.HTML(elem_classes="petseg", elem_id="results")
        options: dict[str, Any] = {"concurrency_limit": None, "api_visibility": "private", "show_progress": "hidden"}
        files.upload(upload, files, [files, status, results], **options)
        gallery.select(try_example, None, [status, results], **options)
    return page


async def _predict_all(service: Service, pictures: Sequence[tuple[Path, str]]) -> AsyncIterator[tuple[str, str]]:
    """The status and the results, both HTML, before the first picture and after each."""
    errors: list[str] = []
    results = ""
    for number, (path, name) in enumerate(pictures, 1):
        yield _status(f"Predicting picture {number} of {len(pictures)} …", errors), results
        try:
            results += await service.run(_result, service, path, name)
        except InputError as error:
            errors.append(str(error))
    done = len(pictures) - len(errors)
    yield _status(f"{done} {'picture' if done == 1 else 'pictures'} done", errors), results


def _result(service: Service, path: Path, name: str) -> str:
    def rendered(prediction: Prediction) -> str:
        return TEMPLATES.get_template("result.html.j2").render(
            name=name,
            stem=PurePath(name).stem,
            row=describe(prediction),
            token=service.store(prediction),
            kinds=KINDS,
            colours=class_colours(prediction.class_names),
        )

    try:
        with path.open("rb") as file:
            return service.predict(name, file, rendered)
    except FileNotFoundError as error:
        raise InputError(f"{name}: is no longer here; give it again") from error


def _status(text: str = "", errors: Sequence[str] = ()) -> str:
    return TEMPLATES.get_template("status.html.j2").render(text=text, errors=errors)


def _thumbnail(path: Path) -> Image.Image:
    image = read_image(path)
    image.thumbnail((320, 320))
    return image
