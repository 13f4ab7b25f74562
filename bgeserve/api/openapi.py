"""`/openapi.json`, made from the operations' own schemas, so that it cannot say anything else than what is checked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from bgeserve.api.operation import Answer, Call, Operation
from bgeserve.api.parsing import MAX_TIMEOUT_MS
from bgeserve.api.schema import Body, Nothing
from bgeserve.types import LANES

LARGE = 1_000_000
"""Of the document, so that it is made in a thread: pydantic takes 50 ms for it."""
_TEMPLATE = "#/components/schemas/{model}"

_HEADERS: list[dict[str, Any]] = [
    {
        "name": "x-timeout-ms",
        "in": "header",
        "description": "Answer within this time, or with 504.",
        "schema": {"type": "integer", "minimum": 1, "maximum": MAX_TIMEOUT_MS},
    },
    {
        "name": "x-lane",
        "in": "header",
        "description": "Who waits: a person or a job. Unless stated, it is as the API key says, else bulk for writes and interactive for "
        "everything else. A request of more than about two batches is bulk in any case.",
        "schema": {"type": "string", "enum": list(LANES)},
    },
]


def openapi_operation(operations: Sequence[Operation[Any]], *, key_needed: bool) -> Operation[Nothing]:
    @cache
    def document() -> dict[str, Any]:
        return _document(operations, key_needed=key_needed)

    async def openapi(call: Call, query: Nothing) -> Answer:
        return Answer(document, size=LARGE)

    return Operation("GET", "/openapi.json", "This description", Nothing, dict[str, Any], openapi, right="key")


def _document(operations: Sequence[Operation[Any]], *, key_needed: bool) -> dict[str, Any]:
    schemas: dict[str, Any] = {}
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, schemas, key_needed=key_needed)
    components: dict[str, Any] = {"schemas": schemas}
    if key_needed:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    info = {"title": "bge-serve", "version": version("bge-serve"), "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}}
    return {"openapi": "3.1.0", "info": info, "paths": paths, "components": components}


def _operation(operation: Operation[Any], schemas: dict[str, Any], *, key_needed: bool) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.handler.__name__,
        "summary": operation.summary,
        "parameters": [*_path_parameters(operation.path), *_HEADERS],
        "responses": {
            "200": {"description": "Done", "content": _json_content(_reference(operation.response, "serialization", schemas))},
            "default": {
                "description": "Refused or failed",
                "content": _json_content(_reference(operation.errors.schema, "serialization", schemas)),
            },
        },
    }
    if operation.method == "GET":
        described["parameters"] += _query_parameters(operation.request)
    elif operation.request is not Nothing:
        body = _json_content(_reference(operation.request, "validation", schemas))
        described["requestBody"] = {"required": True, "content": body}
    if key_needed and operation.right != "open":
        described["security"] = [{"key": []}]
    return described


def _path_parameters(path: str) -> list[dict[str, Any]]:
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in re.findall(r"{(\w+)}", path)]


def _query_parameters(request: type[Body]) -> list[dict[str, Any]]:
    properties = request.model_json_schema(ref_template=_TEMPLATE).get("properties", {})
    return [{"name": name, "in": "query", "required": False, "schema": schema} for name, schema in properties.items()]


def _reference(kind: Any, mode: JsonSchemaMode, schemas: dict[str, Any]) -> dict[str, str]:
    """The schema goes among the document's shared ones, under its class's name."""
    schema = TypeAdapter(kind).json_schema(mode=mode, ref_template=_TEMPLATE)
    schemas.update(schema.pop("$defs", {}))
    schemas[kind.__name__] = schema
    return {"$ref": _TEMPLATE.format(model=kind.__name__)}


def _json_content(schema: dict[str, str]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
