"""What stands around a text before it is tokenised: instructions, in-context examples, a suffix.

Knows formats and strings. The formats are FlagEmbedding's (abc/inference/AbsEmbedder.py, inference/embedder/decoder_only/icl.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bgeserve.catalog import EmbedderRow
from bgeserve.errors import InvalidRequest
from bgeserve.types import EmbedderOptions, Example


@dataclass(frozen=True, slots=True)
class QueryPrompt:
    """Around a query: examples, then the instruction in its format, then the query, then the suffix."""

    instruction: str
    """Empty: the query stands bare, whatever the format."""
    query_format: str
    """Takes the instruction, then the query, which ends it."""
    example_format: str
    """Takes the instruction, the query and the response of an example; empty: the model takes no examples."""
    suffix: str
    examples: Sequence[Example] = ()

    @staticmethod
    def of(row: EmbedderRow | None, instruction: str | None, own_prompt: str | None, examples: Sequence[Example] = ()) -> QueryPrompt:
        """`instruction` of the settings, else of the row, else `own_prompt` of the checkpoint's files (for what has no row)."""
        if row is None:
            return QueryPrompt((own_prompt or "") if instruction is None else instruction, "{}{}", "", "", examples)
        chosen = row.query_instruction if instruction is None else instruction
        return QueryPrompt(chosen, row.query_format, row.example_format, row.query_suffix, examples)

    def with_options(self, options: EmbedderOptions, model: str) -> QueryPrompt:
        """As a request wants it. Raises InvalidRequest for examples that the model does not take."""
        if options.examples and not self.example_format:
            raise InvalidRequest(f"examples has {len(options.examples)}; {model} takes none, only an instruction", field="examples")
        return replace(
            self,
            instruction=self.instruction if options.instruction is None else options.instruction,
            examples=self.examples if options.examples is None else options.examples,
        )

    @property
    def surrounds(self) -> bool:
        """Whether something follows the query or other texts come before it: then only the query is cut, and all is tokenised together."""
        return bool(self.suffix or self.examples)

    @property
    def prefix(self) -> str:
        """What stands before the query, examples aside."""
        return self.query_format.format(self.instruction, "") if self.instruction else ""

    def shown_examples(self) -> str:
        shown = [
            self.example_format.format(self.instruction if one.instruction is None else one.instruction, one.query, one.response)
            for one in self.examples
        ]
        return "".join(f"{example}\n\n" for example in shown)
