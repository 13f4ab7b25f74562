"""What a collection is called in Milvus, and what its description says of it. Knows no client.

Milvus takes letters, digits and underscores; ours may have dots and hyphens. The name that people use stands in the description, which is
what counts; a hash keeps two of them apart that would look alike.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from hashlib import blake2b

from bgeserve.errors import InvalidRequest, StoreError
from bgeserve.vector_store import CollectionSchema

FORMAT = 1
MAX_NAME = 255


def stored_name(prefix: str, name: str) -> str:
    readable = re.sub(r"[^A-Za-z0-9]", "_", name)[:64]
    return f"{prefix}{readable}_{blake2b(name.encode(), digest_size=8).hexdigest()}"


def stored_alias(prefix: str, alias: str) -> str:
    """An alias has no description, so its name itself must say everything: what Milvus does not take stands as `_` and two digits."""
    stored_as = prefix + re.sub(r"[^A-Za-z0-9]", lambda other: f"_{ord(other[0]):02x}", alias)
    if len(stored_as) > MAX_NAME:
        raise InvalidRequest(f"alias {alias!r} would be {len(stored_as)} characters in Milvus; the limit is {MAX_NAME}", field="alias")
    return stored_as


def alias_of(prefix: str, stored_as: str) -> str:
    return re.sub(r"_([0-9a-f]{2})", lambda code: chr(int(code[1], 16)), stored_as.removeprefix(prefix))


def description(name: str, schema: CollectionSchema) -> str:
    return json.dumps({"format": FORMAT, "name": name, "schema": asdict(schema)})


def described(stored_as: str, text: str) -> tuple[str, CollectionSchema]:
    """The name and schema behind a description. Raises StoreError when we did not write it."""
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            message = f"collection {stored_as!r} is of format {content['format']}; this version reads {FORMAT}"
            raise StoreError(message, field="collection_prefix")
        return content["name"], CollectionSchema(**content["schema"])
    except (ValueError, KeyError, TypeError) as error:
        message = f"collection {stored_as!r} has a description that bge-serve did not write: {error!r}"
        raise StoreError(message, field="collection_prefix") from error
