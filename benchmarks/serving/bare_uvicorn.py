"""Our API around our engine in one process under uvicorn: all of the service but Ray.

python -m benchmarks.serving.bare_uvicorn PORT SETTINGS_AS_JSON
"""

from __future__ import annotations

import json
import sys

import uvicorn

from benchmarks.serving.systems import MODEL_NAME, TIMEOUT_S
from bgeserve.api.app import create_app
from bgeserve.engine import EmbedderEngine
from bgeserve.protocols import Readiness
from bgeserve.service import Service
from bgeserve.settings import EmbedderSettings, IngressSettings


def main() -> None:
    engine = EmbedderEngine(MODEL_NAME, EmbedderSettings.model_validate(json.loads(sys.argv[2])))
    app = create_app(Service({MODEL_NAME: engine}, {}, None, _ready), IngressSettings(timeout_s=TIMEOUT_S))
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), loop="uvloop", http="httptools", access_log=False, log_level="warning")


async def _ready() -> Readiness:
    return Readiness(ready=True)


if __name__ == "__main__":
    main()
