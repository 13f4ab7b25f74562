"""Which collections there are, and by which names: collections made beforehand, and aliases. Schema and mapping together."""

from __future__ import annotations

from typing_extensions import TypedDict

from bgeserve.api.collections import COLLECTION, CollectionResponse, collection_of, collection_response
from bgeserve.api.operation import Answer, Call, Operation
from bgeserve.api.schema import Body, Nothing, parse
from bgeserve.strict import CollectionName

# -- collections -----------------------------------------------------------------------------------------------------------------------


class CreateBody(Body):
    embedder: str | None = None
    """Which of the service's embedders makes its vectors. None: `search.embedder` of the settings."""


async def create_collection(call: Call, body: CreateBody) -> Answer:
    info = await call.backend.create_collection(collection_of(call), body.embedder)
    return Answer(lambda: collection_response(info))


class CollectionsResponse(TypedDict):
    collections: list[CollectionResponse]


async def get_collections(call: Call, query: Nothing) -> Answer:
    found = await call.backend.collections()
    response: CollectionsResponse = {"collections": [collection_response(info) for info in found]}
    return Answer(lambda: response)


# -- aliases ---------------------------------------------------------------------------------------------------------------------------


class AliasPath(Body):
    alias: CollectionName


def _alias(call: Call) -> str:
    return parse(AliasPath, call.path, call.limits).alias


class AliasBody(Body):
    collection: CollectionName


class AliasResponse(TypedDict):
    alias: str
    collection: str | None
    """What it names now."""
    before: str | None
    """What it named until now."""


async def put_alias(call: Call, body: AliasBody) -> Answer:
    alias = _alias(call)
    before = await call.backend.set_alias(alias, body.collection)
    response: AliasResponse = {"alias": alias, "collection": body.collection, "before": before}
    return Answer(lambda: response)


async def delete_alias(call: Call, query: Nothing) -> Answer:
    alias = _alias(call)
    before = await call.backend.remove_alias(alias)
    response: AliasResponse = {"alias": alias, "collection": None, "before": before}
    return Answer(lambda: response)


class AliasesResponse(TypedDict):
    aliases: dict[str, str]
    """Which collection each names."""


async def get_aliases(call: Call, query: Nothing) -> Answer:
    response: AliasesResponse = {"aliases": dict(await call.backend.aliases())}
    return Answer(lambda: response)


_ALIAS = "/v1/aliases/{alias}"
OPERATIONS = (
    Operation(
        "PUT",
        COLLECTION,
        "Make an empty collection for one of the embedders",
        CreateBody,
        CollectionResponse,
        create_collection,
        right="admin",
    ),
    Operation("GET", "/v1/collections", "All collections, with their aliases", Nothing, CollectionsResponse, get_collections, right="key"),
    Operation(
        "PUT", _ALIAS, "Make an alias, or point it at another collection in one step", AliasBody, AliasResponse, put_alias, right="admin"
    ),
    Operation("DELETE", _ALIAS, "Remove an alias; its collection stays", Nothing, AliasResponse, delete_alias, right="admin"),
    Operation("GET", "/v1/aliases", "Which collection each alias names", Nothing, AliasesResponse, get_aliases, right="key"),
)
