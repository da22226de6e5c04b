"""Pet segmentation, from a paper to a model that people use."""

import os
import sys

__version__ = "0.1.0"

# Libraries that ask the network or report on their use without being asked; what the user has set stays.
for _name, _value in {
    "NO_ALBUMENTATIONS_UPDATE": "1",  # its import asks for its newest version
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",  # weights that a user asks for still come
    "RAY_USAGE_STATS_ENABLED": "0",
}.items():
    os.environ.setdefault(_name, _value)
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # OpenVINO and NNCF go without where it is missing
