"""What every settings object is: typed, immutable, and unknown keys refused by name."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


CollectionName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,127}$")]
"""Of a collection or an alias: `docs@2` is one, so that versions can stand beside each other."""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
