"""What a collection is called in Milvus, and what its description says of it. Knows no client.

Milvus takes letters, digits and underscores; ours may have dots and hyphens. The name that people use stands in the description, which is
what counts; a hash keeps two of them apart that would look alike.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from hashlib import blake2b

from bgeserve.errors import StoreError
from bgeserve.vector_store import CollectionSchema

FORMAT = 1


def stored_name(prefix: str, name: str) -> str:
    readable = re.sub(r"[^A-Za-z0-9]", "_", name)[:64]
    return f"{prefix}{readable}_{blake2b(name.encode(), digest_size=8).hexdigest()}"


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
