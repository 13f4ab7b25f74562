"""FlagEmbedding behind FastAPI as people write it: one model, one lock, a request's texts are one `encode`.

python -m benchmarks.serving.flagembedding_server PORT FOLDER MAX_TOKENS
"""

import sys
from threading import Lock
from typing import Any

import uvicorn
from fastapi import FastAPI
from FlagEmbedding import FlagModel
from pydantic import BaseModel


class Body(BaseModel):
    model: str
    input: list[str]


def create_app(folder: str, max_tokens: int) -> FastAPI:
    model: Any = FlagModel(
        folder, pooling_method="mean", use_fp16=False, devices="cpu", query_max_length=max_tokens, passage_max_length=max_tokens
    )
    lock, app = Lock(), FastAPI()

    @app.post("/v1/embeddings")
    def embeddings(body: Body) -> dict[str, Any]:
        with lock:  # the model is not made for several threads
            vectors = model.encode(body.input)
        data = [{"object": "embedding", "index": i, "embedding": vector.tolist()} for i, vector in enumerate(vectors)]
        return {"object": "list", "data": data, "model": body.model}

    return app


if __name__ == "__main__":
    uvicorn.run(create_app(sys.argv[2], int(sys.argv[3])), host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_level="warning")
