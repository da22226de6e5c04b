"""From a model to a web server."""

import logging
import signal
import socket
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig
from rich.console import Console

from petseg_lightning.config import plain
from petseg_lightning.devices import usable_device
from petseg_lightning.errors import InputError
from petseg_lightning.inference.predictor import Predictor
from petseg_lightning.inference.sources import find_pictures
from petseg_lightning.serving.service import Service

if TYPE_CHECKING:
    from fastapi import FastAPI

PACKAGES = ("fastapi", "python_multipart", "uvicorn")
_HERE = Path(__file__).parent


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

    from petseg_lightning.serving.connection import Connection

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
        with suppress(KeyboardInterrupt):
            app = make_app(cfg, predictor)
            logging.getLogger("python_multipart").setLevel(logging.ERROR)  # who sent a bad request was told
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends it as Ctrl-C does
            host, port = listener.getsockname()[:2]
            address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
            Console().print(f"petseg app  {address}  (Ctrl-C ends it)", soft_wrap=True, highlight=False)
            options: dict[str, Any] = {
                "http": partial(Connection, timeout=cfg.timeout),
                "ws": "none",
                "log_level": "error",
            }
            server = uvicorn.Server(
                uvicorn.Config(app, **options, proxy_headers=False, server_header=False, timeout_graceful_shutdown=2)
            )
            server.run(sockets=[listener])


def make_app(cfg: DictConfig, predictor: Predictor) -> "FastAPI":
    """The endpoint and the page.

    Args:
        cfg: of `serve`.
        predictor: the model.
    """
    from petseg_lightning.serving.endpoint import make_endpoint
    from petseg_lightning.serving.page import add_page

    service = Service(predictor, cfg.max_megabytes, cfg.max_megapixels, cfg.concurrency, cfg.timeout)
    app = make_endpoint(service, cfg.host, cfg.hosts)
    add_page(app, service, _examples(cfg.examples))
    return app


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise InputError(
            f"host={host} port={port} cannot be listened on ({error.strerror}); give another port=, or 0 for a free one"
        ) from error


def _examples(source: str | None) -> list[tuple[Path, str]]:
    """The files of the examples, with their names; a photograph and a drawing where there is no source."""
    if source is not None:
        return [(found.path, found.path.name) for found in find_pictures(source, _HERE / "no results")]
    return [(_HERE / "chelsea.jpg", "Chelsea"), (_HERE / "drawn_dog.jpg", "A drawn dog")]  # by Stéfan van der Walt, CC0
