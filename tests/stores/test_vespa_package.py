"""The Vespa application package, compared with what Vespa documents; no Vespa has read it here.

docs.vespa.ai/en/reference/: schemas/schemas.html (field, match, rank, index, document-summary, rank-profile, inputs),
applications/services/services.html, querying/query-profiles.html (maxHits: api/query.html#hits).
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bgeserve.errors import SettingsError
from graphs import vespa_package as command

if find_spec("vespa") is None:
    pytest.skip("needs bge-serve[vespa]", allow_module_level=True)

from bgeserve.stores.vespa_package import Shape, application_package

CONFIGS = Path(__file__).parents[2] / "configs"
KEYWORD = "{ indexing: attribute | summary attribute { fast-search } match { word } rank: filter }"
NUMBER = "{ indexing: attribute | summary attribute { fast-search } rank: filter }"
ALL_VECTORS = f"""
schema bge_chunk_dense4_sparse_tokens2 {{
    document bge_chunk_dense4_sparse_tokens2 {{
        field collection type string {KEYWORD}
        field key type string {KEYWORD}
        field document_key type string {KEYWORD}
        field place type long {NUMBER}
        field n type long {NUMBER}
        field terms type array<string> {KEYWORD}
        field record type string {{ indexing: summary }}
        field words type array<string> {{ indexing: index index: enable-bm25 match {{ word }} }}
        field dense type tensor<float>(x[4]) {{
            indexing: attribute | index | summary
            attribute {{ distance-metric: prenormalized-angular }}
            index {{ hnsw {{ max-links-per-node: 16 neighbors-to-explore-at-insert: 200 }} }}
        }}
        field weights type weightedset<string> {{ indexing: attribute attribute {{ fast-search }} match {{ word }} }}
        field sparse type tensor<float>(t{{}}) {{ indexing: attribute | summary }}
        field multi_vector type tensor<float>(token{{}}, x[2]) {{ indexing: attribute | summary attribute {{ paged }} }}
    }}
    rank-profile full_text {{ first-phase {{ expression {{ bm25(words) }} }} }}
    rank-profile dense {{
        inputs {{ query(dense) tensor<float>(x[4]) }}
        first-phase {{ expression {{ sum(query(dense) * attribute(dense)) }} }}
    }}
    rank-profile sparse {{
        inputs {{ query(sparse) tensor<float>(t{{}}) }}
        first-phase {{ expression {{ sum(query(sparse) * attribute(sparse)) }} }}
    }}
    rank-profile multi_vector {{
        inputs {{ query(multi_vector) tensor<float>(q{{}}, x[2]) }}
        first-phase {{ expression {{ sum(reduce(sum(query(multi_vector) * attribute(multi_vector), x), max, token), q) }} }}
    }}
    document-summary keys {{ summary key {{}} summary document_key {{}} }}
    document-summary chunks {{ summary key {{}} summary record {{}} from-disk }}
    document-summary vectors {{
        summary key {{}} summary record {{}} summary dense {{}} summary sparse {{}} summary multi_vector {{}} from-disk
    }}
}}
"""
CATALOGUE = f"""
schema bge_catalogue {{
    document bge_catalogue {{
        field service type string {KEYWORD}
        field record type string {{ indexing: summary }}
    }}
    document-summary records {{ summary record {{}} from-disk }}
}}
"""


def packed(text: str) -> list[str]:
    """Without its layout, which means nothing in a schema."""
    return re.findall(r"[{}]|[^\s{}]+", text)


def test_the_schemas_of_a_package() -> None:
    schemas = {schema.name: schema.schema_to_text for schema in application_package([Shape(4, True, 2)] * 2).schemas}
    assert {name: packed(text) for name, text in schemas.items()} == {
        "bge_catalogue": packed(CATALOGUE),
        "bge_chunk_dense4_sparse_tokens2": packed(ALL_VECTORS),
    }


@pytest.mark.parametrize(
    ("shape", "name", "profiles"),
    [
        (Shape(None, False, None), "bge_chunk", ["full_text"]),
        (Shape(384, False, None), "bge_chunk_dense384", ["full_text", "dense"]),
        (Shape(None, True, None), "bge_chunk_sparse", ["full_text", "sparse"]),
        (Shape(384, False, 384), "bge_chunk_dense384_tokens384", ["full_text", "dense", "multi_vector"]),
    ],
)
def test_a_document_type_has_what_its_shape_has_and_nothing_else(shape: Shape, name: str, profiles: list[str]) -> None:
    schema = application_package([shape]).get_schema(name)
    assert shape.document_type == name
    assert list(schema.rank_profiles) == profiles
    assert {"dense", "sparse", "multi_vector"} & {field.name for field in schema.document.fields} == set(profiles) - {"full_text"}


def test_services_serve_documents_and_searches_of_every_type() -> None:
    services = ElementTree.fromstring(application_package([Shape(4, False, None), Shape(8, True, 8)]).services_to_text)
    assert [child.tag for child in services.find("container") or ()] == ["search", "document-api", "document-processing"]
    content = services.find("content")
    assert content is not None
    assert content.get("id") == "bgeserve_content"
    types = [(one.get("type"), one.get("mode")) for one in content.iter("document")]
    names = ["bge_catalogue", "bge_chunk_dense4", "bge_chunk_dense8_sparse_tokens8"]
    assert types == [(name, "index") for name in names]


def test_a_query_may_have_more_hits_than_vespa_allows_by_itself() -> None:
    profile = ElementTree.fromstring(application_package([]).query_profile_to_text)
    assert [(field.get("name"), field.text) for field in profile.iter("field")] == [("maxHits", "10000")]


def test_the_command_writes_what_the_configs_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configs = [str(CONFIGS / name) for name in ("m3-cluster.yaml", "quickstart.yaml")]
    assert command.main([*configs, "--to", str(tmp_path)]) == 0
    assert capsys.readouterr().out.split() == ["bge_catalogue", "bge_chunk_dense1024_sparse", "bge_chunk_dense384"]
    assert {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()} == {
        "schemas/bge_catalogue.sd",
        "schemas/bge_chunk_dense1024_sparse.sd",
        "schemas/bge_chunk_dense384.sd",
        "services.xml",
        "search/query-profiles/default.xml",
        "search/query-profiles/types/root.xml",
    }


def test_a_config_without_an_index_needs_no_package(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="only that keeps an index"):
        command.write([CONFIGS / "embed-only.yaml"], tmp_path)
