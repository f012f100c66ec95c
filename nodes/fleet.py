"""Which nodes there are."""

from __future__ import annotations

from dataclasses import dataclass

from nodes.node import Node


@dataclass(frozen=True)
class Named:
    """A node with its name; empty for the only one."""

    name: str
    node: Node
