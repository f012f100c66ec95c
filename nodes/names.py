"""Names of nodes and hosts: which can be used, patterns of them, and how messages list them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

# The word that selects every node.
ALL_NODES = "all"
# A name is that of a folder, too, and the bytes of those are limited.
MOST_NODE_LETTERS, MOST_NODE_BYTES = 100, 250
# How many names a line lists, and how much it shows of each.
SHOWN_NAMES, SHOWN_LETTERS = 3, 40


def host_of(instance: str) -> str:
    """The host of an exporter: what stands before the last colon.

    An instance without a port is its own host; an IPv6 address with a port is in brackets.
    """
    if instance.endswith("]") or _is_ipv6(instance):
        return instance
    host, colon, _ = instance.rpartition(":")
    return host if colon else instance


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def name_fault(name: str) -> str | None:
    """Why this cannot be the name of a node, which is also that of its folder; None if it can."""
    if not name or name.strip() != name or not name.isprintable():
        return "it is empty, or has a blank at an end or a letter that cannot be printed"
    if set(name) & set("/\\*?"):
        return "it has one of / \\ * ?"
    if name.startswith("."):
        return "it begins with a dot"
    if name == ALL_NODES:
        return f"--node {ALL_NODES} means every node"
    if len(name) > MOST_NODE_LETTERS or len(name.encode()) > MOST_NODE_BYTES:
        return f"it has more than {MOST_NODE_LETTERS} letters, or {MOST_NODE_BYTES} bytes"
    return None


class NodePatterns:
    """Names of nodes, and patterns with * (any letters) and ? (one letter); `all` is every node.

    patterns = NodePatterns(["lab", "edge-1?"])
    patterns.matches("edge-12")                       # True
    patterns.without_match(["edge-12", "edge-13"])    # ["lab"]
    """

    def __init__(self, words: Iterable[str]) -> None:
        self._words = list(dict.fromkeys(words))
        self._names = frozenset(word for word in self._words if not _is_pattern(word))
        self._patterns = {word: _compiled(word) for word in self._words if _is_pattern(word)}

    def matches(self, name: str) -> bool:
        """Whether this node is selected."""
        return name in self._names or any(one.fullmatch(name) for one in self._patterns.values())

    def without_match(self, names: Collection[str]) -> list[str]:
        """The names and patterns that select none of these nodes."""
        there = set(names)
        return [
            word
            for word in self._words
            if not (any(map(self._patterns[word].fullmatch, there)) if _is_pattern(word) else word in there)
        ]


def _is_pattern(word: str) -> bool:
    return word == ALL_NODES or "*" in word or "?" in word


def _compiled(word: str) -> re.Pattern[str]:
    if word == ALL_NODES:
        return re.compile(".*")
    letters = {"*": ".*", "?": "."}
    # Several stars say no more than one, and would take long to match.
    return re.compile(
        "".join(letters.get(letter) or re.escape(letter) for letter in re.sub(r"\*+", "*", word))
    )


# --- in messages ---------------------------------------------------------------------------------


def shown_name(name: str) -> str:
    """A name chosen by somebody else, printable and short enough for one line."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in name[: SHOWN_LETTERS + 1])
    return printable if len(printable) <= SHOWN_LETTERS else f"{printable[: SHOWN_LETTERS - 3]}..."


def listed_names(names: Sequence[str], most: int = SHOWN_NAMES) -> str:
    """The first of the names, and how many more there are: `edge-1, edge-2, edge-3 and 9 more`."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(shown_name(name) or "an unnamed one" for name in names[:most]) + more


def describe_several(instances: Mapping[Any, Iterable[str]], place: str) -> str | None:
    """One line for the user if exporters of several hosts write; None if each exporter has one host.

    instances: key of an exporter -> its instances. place: where they write.
    """
    hosts = [set(map(host_of, names)) for names in instances.values()]
    if all(len(of_one) < 2 for of_one in hosts):
        return None
    named = sorted(set().union(*hosts))
    return (
        f"{len(named):,} nodes write to {place} ({listed_names(named)}); choose with --node NAME, or --node"
        f" {ALL_NODES}"
    )
