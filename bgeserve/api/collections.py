"""Collections and their documents. Schema and mapping together."""

from __future__ import annotations

from math import isfinite
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BeforeValidator, FailFast, Field, PlainValidator, ValidationInfo, WithJsonSchema
from typing_extensions import TypedDict

from bgeserve.api.operation import Answer, Call, Operation
from bgeserve.api.schema import Body, JsonFilter, Nothing, Text, check_items, limits_of, parse, refuse
from bgeserve.errors import InvalidRequest
from bgeserve.filters import MAX_INTEGER
from bgeserve.quoting import brief
from bgeserve.strict import CollectionName
from bgeserve.types import CollectionInfo, Document, Leg, Metadata

MAX_ID_CHARACTERS = 512
DEFAULT_PAGE = 100


class CollectionPath(Body):
    collection: CollectionName


def collection_of(call: Call) -> str:
    """The name in the path, checked."""
    return parse(CollectionPath, call.path, call.limits).collection


# -- what a document is ----------------------------------------------------------------------------------------------------------------


def _check_id(sent: object, at: str = "") -> str:
    if not isinstance(sent, str):
        refuse(f"must be a string, not {brief(sent)}", at)
    if not 1 <= len(sent) <= MAX_ID_CHARACTERS:
        refuse(f"must have 1 to {MAX_ID_CHARACTERS} characters, not {len(sent)}", at)
    return sent


def _check_one_id(sent: object) -> str:
    return _check_id(sent)


def _check_ids(sent: object, info: ValidationInfo) -> list[str]:
    return [_check_id(item, f"[{i}]") for i, item in enumerate(check_items(sent, limits_of(info), "ids"))]


def _check_metadata(sent: object) -> Metadata:
    if not isinstance(sent, dict):
        refuse(f"must be an object, not {brief(sent)}")
    metadata = cast("dict[str, object]", sent)
    for name, value in metadata.items():
        values = cast("list[object]", value) if isinstance(value, list) else [value]
        if not name or not all(_is_metadata_value(item) for item in values):
            problem = f"must be a named string, boolean or finite number (integers to {MAX_INTEGER}), or a list of such, not {brief(value)}"
            refuse(problem, f".{name}")
    return cast("Metadata", metadata)


def _is_metadata_value(sent: object) -> bool:
    if isinstance(sent, (str, bool)):
        return True
    return isfinite(sent) if isinstance(sent, float) else isinstance(sent, int) and abs(sent) <= MAX_INTEGER


ID_SCHEMA: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": MAX_ID_CHARACTERS}
_VALUE_SCHEMA: dict[str, Any] = {"type": ["string", "number", "boolean"]}
METADATA_SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": {"anyOf": [_VALUE_SCHEMA, {"type": "array", "items": _VALUE_SCHEMA}]},
}

Id = Annotated[str, PlainValidator(_check_one_id), WithJsonSchema(ID_SCHEMA)]
Ids = Annotated[list[str], PlainValidator(_check_ids), WithJsonSchema({"type": "array", "items": ID_SCHEMA, "minItems": 1})]
CheckedMetadata = Annotated[Metadata, PlainValidator(_check_metadata), WithJsonSchema(METADATA_SCHEMA)]


class DocumentBody(Body):
    id: Id
    text: Text
    title: str = ""
    """Goes before the text, and before each of its chunks, for the models and for the words that full text finds."""
    metadata: CheckedMetadata = Field(default_factory=dict)
    """Values that filters can name."""


class DocumentResponse(TypedDict):
    id: str
    title: str
    text: str
    metadata: CheckedMetadata


def _document(document: Document) -> DocumentResponse:
    return {"id": document.id, "title": document.title, "text": document.text, "metadata": dict(document.metadata)}


# -- PUT -------------------------------------------------------------------------------------------------------------------------------


def _check_count(sent: object, info: ValidationInfo) -> object:
    return check_items(sent, limits_of(info), "documents")


def _check_unique(documents: list[DocumentBody]) -> list[DocumentBody]:
    seen: dict[str, int] = {}
    for i, document in enumerate(documents):
        if document.id in seen:
            refuse(f"must not repeat the id of documents[{seen[document.id]}], {brief(document.id)}", f"[{i}].id")
        seen[document.id] = i
    return documents


class PutBody(Body):
    documents: Annotated[list[DocumentBody], FailFast(), BeforeValidator(_check_count), AfterValidator(_check_unique)]
    truncate: bool = True
    """False: a text over the model's limit is refused instead of embedded in part."""


class WriteUsage(TypedDict):
    total_tokens: int


class PutResponse(TypedDict):
    upserted: int
    unchanged: int
    """Already stored with the same text, title and metadata: not embedded again."""
    truncated: list[str]
    """Ids of the documents that were cut at the model's limit before they were embedded; their stored text is whole."""
    usage: WriteUsage


async def put_documents(call: Call, body: PutBody) -> Answer:
    written = await call.backend.put_documents(
        collection_of(call),
        [Document(document.id, document.text, document.metadata, document.title) for document in body.documents],
        truncate=body.truncate,
        caller=call.caller("bulk"),
    )
    response: PutResponse = {
        "upserted": written.upserted,
        "unchanged": written.unchanged,
        "truncated": list(written.truncated),
        "usage": {"total_tokens": int(written.tokens)},
    }
    return Answer(lambda: response, tokens=int(written.tokens))


# -- GET -------------------------------------------------------------------------------------------------------------------------------


def _one_as_list(sent: object) -> object:
    return [sent] if isinstance(sent, str) else sent


def _check_page(sent: int, info: ValidationInfo) -> int:
    most = limits_of(info).max_texts
    if sent > most:
        refuse(f"must be at most {most} (max_texts), not {sent}")
    return sent


class GetQuery(Body):
    id: Annotated[Ids, BeforeValidator(_one_as_list)] | None = None
    """Repeat it for several. Documents that are not there are left out. Without it: a page of all."""
    limit: Annotated[int, Field(ge=1), AfterValidator(_check_page)] | None = None
    after: str | None = None
    """The `next` of the page before."""


class GetResponse(TypedDict):
    documents: list[DocumentResponse]
    next: str | None
    """What to send as `after` for the next page; null after the last."""


async def get_documents(call: Call, query: GetQuery) -> Answer:
    following: str | None = None
    if query.id is None:
        limit = query.limit or DEFAULT_PAGE
        documents, following = await call.backend.scroll_documents(collection_of(call), limit=limit, after=query.after)
    elif query.limit is not None or query.after is not None:
        raise InvalidRequest("limit and after page through all documents: they cannot be combined with id", field="id")
    else:
        documents = await call.backend.get_documents(collection_of(call), query.id)

    def render() -> GetResponse:
        return {"documents": [_document(document) for document in documents], "next": following}

    return Answer(render, sum(len(document.text) + 200 for document in documents))


# -- DELETE, and the collection itself -------------------------------------------------------------------------------------------------


class DeleteBody(Body):
    """Either of the two."""

    ids: Ids | None = None
    filter: JsonFilter | None = None


class DeleteResponse(TypedDict):
    deleted: int
    """How many documents there were."""


async def delete_documents(call: Call, body: DeleteBody) -> Answer:
    if (body.ids is None) == (body.filter is None):
        sent = "neither" if body.ids is None else "both"
        raise InvalidRequest(f"the body must have either ids or filter, to say what is deleted; it has {sent}", field="ids")
    deleted = await call.backend.delete_documents(collection_of(call), body.ids, body.filter)
    response: DeleteResponse = {"deleted": deleted}
    return Answer(lambda: response)


class CollectionResponse(TypedDict):
    name: str
    count: int
    fingerprint: str | None
    """Which model's vectors it holds; null until the first write decides."""
    state: Literal["ready", "indexing"]
    legs: list[Leg]
    aliases: list[str]
    """The other names that it is searched and written by."""
    warning: str | None
    """What should be done about it, if anything."""


def collection_response(info: CollectionInfo) -> CollectionResponse:
    return {
        "name": info.name,
        "count": info.count,
        "fingerprint": info.fingerprint,
        "state": info.state,
        "legs": list(info.legs),
        "aliases": list(info.aliases),
        "warning": info.warning,
    }


async def get_collection(call: Call, query: Nothing) -> Answer:
    info = await call.backend.describe_collection(collection_of(call))
    return Answer(lambda: collection_response(info))


async def delete_collection(call: Call, query: Nothing) -> Answer:
    deleted = await call.backend.delete_collection(collection_of(call))
    response: DeleteResponse = {"deleted": deleted}
    return Answer(lambda: response)


COLLECTION = "/v1/collections/{collection}"
_DOCUMENTS = f"{COLLECTION}/documents"
OPERATIONS = (
    Operation(
        "PUT",
        _DOCUMENTS,
        "Store documents by id, durably; only what changed is embedded",
        PutBody,
        PutResponse,
        put_documents,
        right="write",
    ),
    Operation("GET", _DOCUMENTS, "Documents by id, or page by page", GetQuery, GetResponse, get_documents, right="read"),
    Operation("DELETE", _DOCUMENTS, "Delete documents by id or by filter", DeleteBody, DeleteResponse, delete_documents, right="write"),
    Operation("GET", COLLECTION, "How many documents, and of which model", Nothing, CollectionResponse, get_collection, right="read"),
    Operation(
        "DELETE", COLLECTION, "Delete a collection with all its documents", Nothing, DeleteResponse, delete_collection, right="admin"
    ),
)
