"""From a model to a web server."""

import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import anyio
from omegaconf import DictConfig
from rich.console import Console

from petseg_lightning.config import plain
from petseg_lightning.data.drawing.picture import sample_picture
from petseg_lightning.devices import usable_device
from petseg_lightning.errors import InputError
from petseg_lightning.inference.predictor import Predictor
from petseg_lightning.inference.sources import find_pictures
from petseg_lightning.serving.service import KEPT, Service

if TYPE_CHECKING:
    from fastapi import FastAPI

PACKAGES = ("fastapi", "gradio", "python_multipart", "uvicorn")


def serve(cfg: DictConfig) -> None:
    """Serve the model of `cfg.ckpt` until the process is interrupted.

    Args:
        cfg: what conf/app.yaml composes to.

    Raises:
        InputError: packages that are missing, no model, an address that cannot be listened on.
    """
    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing:
        raise InputError(f"the app needs {', '.join(missing)}: pip install 'petseg-lightning[app]'")
    import uvicorn

    ckpt = plain(cfg)["ckpt"]
    with _listen(cfg.host, cfg.port) as listener:
        predictor = Predictor.load(
            *(ckpt if isinstance(ckpt, list) else [ckpt]),
            device=usable_device(cfg.device),
            tta=cfg.tta,
            tiling=cfg.tiling,
            backend=cfg.backend,
            trust_code=cfg.trust_code,
        )
        with TemporaryDirectory(prefix="petseg_app_") as folder, suppress(KeyboardInterrupt):
            app = make_app(cfg, predictor, Path(folder))
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # else the folder would stay
            host, port = listener.getsockname()[:2]
            address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
            Console().print(f"petseg app  {address}  (Ctrl-C ends it)", soft_wrap=True, highlight=False)
            server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2))
            server.run(sockets=[listener])


def make_app(cfg: DictConfig, predictor: Predictor, folder: Path) -> "FastAPI":
    """The endpoint and the page.

    Args:
        cfg: of `serve`.
        predictor: the model.
        folder: an empty one, for all that is written.
    """
    examples = _examples(cfg.examples, folder)
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(folder / "uploads")}
    from fastapi.staticfiles import StaticFiles

    from petseg_lightning.serving.endpoint import make_endpoint
    from petseg_lightning.serving.page import SWEEP, mount_page

    for name in ("results", "uploads"):
        (folder / name).mkdir()
    service = Service(predictor, folder, cfg.max_megabytes, cfg.max_megapixels, cfg.concurrency)
    app = make_endpoint(service)

    async def sweep() -> None:
        while True:
            await anyio.sleep(SWEEP)
            await anyio.to_thread.run_sync(service.remove_older, KEPT)

    @asynccontextmanager
    async def lifespan(_: "FastAPI") -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sweep)
            yield
            tasks.cancel_scope.cancel()

    app.router.lifespan_context = lifespan
    app.mount("/results", StaticFiles(directory=folder / "results"))
    mount_page(app, service, examples)
    return app


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise InputError(
            f"host={host} port={port} cannot be listened on ({error.strerror}); give another port=, or 0 for a free one"
        ) from error


def _examples(source: str | None, folder: Path) -> list[tuple[Path, str]]:
    """The files of the examples, with their names; a photograph and a drawing where there is no source."""
    if source is not None:
        return [(found.path, found.path.name) for found in find_pictures(source, folder)]
    drawn = folder / "drawn.png"
    sample_picture(seed=1).save(drawn)
    return [(Path(__file__).with_name("chelsea.jpg"), "Chelsea"), (drawn, "A drawn dog")]  # by Stéfan van der Walt, CC0
