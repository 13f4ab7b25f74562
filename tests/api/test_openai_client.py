"""OpenAI's own Python client against the service. It asks for base64 unless told otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import openai
import pytest

from bgeserve.errors import Overloaded
from tests.api.backend import Stage, dense_of


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=1) as client:
        yield client


def test_embeddings(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="hashing", input=["read files", "parse"])
    assert [item.index for item in answer.data] == [0, 1]
    np.testing.assert_array_equal(np.float32(answer.data[0].embedding), dense_of("read files"))
    assert answer.usage.total_tokens == 3


@pytest.mark.parametrize("encoding_format", ["float", "base64"])
def test_a_chosen_encoding(client: openai.OpenAI, encoding_format: Literal["float", "base64"]) -> None:
    extra = {"input_type": "query"}
    answer = client.embeddings.create(model="hashing", input="read files", encoding_format=encoding_format, extra_body=extra)
    sent = answer.data[0].embedding
    if encoding_format == "base64":
        assert isinstance(sent, str)
    else:
        np.testing.assert_array_equal(np.float32(sent), dense_of("read files"))


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["hashing", "overlap"]
    assert client.models.retrieve("overlap").id == "overlap"
    with pytest.raises(openai.NotFoundError, match="'bge' is not served here"):
        client.models.retrieve("bge")


def test_errors_arrive_as_the_clients_own(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="'bge' is not served here"):
        client.embeddings.create(model="bge", input="a")
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model="hashing", input=[[1, 2]])
    assert caught.value.param == "input"


def test_it_comes_back_after_retry_after(client: openai.OpenAI, stage: Stage) -> None:
    stage.embedding.failures = [Overloaded("busy", retry_after_s=0.1)]
    assert client.embeddings.create(model="hashing", input="a").data
    assert stage.embedding.started == 2
