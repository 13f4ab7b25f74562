"""How manifests are laid out as YAML."""

from __future__ import annotations

from typing import Any

import yaml


class Literal(str):
    """Text that is shown line by line."""


def to_yaml(what: object) -> str:
    return yaml.dump(what, Dumper=_Dumper, sort_keys=False, width=140)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        """Repeats what is the same: a patch by path changes one place alone."""
        return True


def _as_block(dumper: yaml.SafeDumper, text: Literal) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style="|")


_Dumper.add_representer(Literal, _as_block)
