"""What a leg asks of Vespa: its query operator, and the inputs of its rank profile. Knows no collection.

Operators: docs.vespa.ai/en/reference/querying/yql.html; inputs are tensors in literal form, which stands in a JSON request as a string:
docs.vespa.ai/en/reference/ranking/tensor.html#tensor-literal-form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bgeserve.stores.vespa_documents import cells, whole_weights
from bgeserve.types import FindingLeg, Float32Array, Query


def operator(leg: FindingLeg, words: Sequence[str], count: int, exact: bool) -> str:
    """What finds the `count` best, of each content node. `words`: of a query for full_text, at least one."""
    target = f"targetHits:{count}"
    if leg == "dense":
        return f"({{{target},approximate:{'false' if exact else 'true'}}}nearestNeighbor(dense, dense))"
    if leg == "sparse":
        return "dotProduct(weights, @weights)" if exact else f"({{{target}}}wand(weights, @weights))"
    having = [f'words contains "{word}"' for word in words]
    return f"({' or '.join(having)})" if exact else f"({{{target}}}weakAnd({', '.join(having)}))"


def query_parameters(leg: FindingLeg, query: Query) -> dict[str, str]:
    if leg == "dense" and query.dense is not None:
        return {"input.query(dense)": literal_vector(query.dense)}
    if leg == "sparse" and query.sparse is not None:
        return {"input.query(sparse)": _literal(cells(query.sparse)), "weights": _literal(whole_weights(query.sparse))}
    return {}


def literal_vector(vector: Float32Array) -> str:
    return str(vector.tolist())


def literal_tokens(vectors: Float32Array) -> str:
    return _literal({str(token): literal_vector(vector) for token, vector in enumerate(vectors)})


def _literal(cells: Mapping[str, object]) -> str:
    return "{" + ",".join(f"{label}:{value}" for label, value in cells.items()) + "}"
