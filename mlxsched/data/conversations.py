"""Which records belong to the same conversation, and how a file is split without separating them.

Chat data often contains a conversation once per answer, or several branches of it. If one of these rows is trained on and
another one is held out, the loss on the latter measures what was memorized.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlxsched.data.formats import format_of
from mlxsched.data.messages import from_alpaca
from mlxsched.data.options import DataOptions, Features
from mlxsched.data.problems import RowProblem

Hashes = NDArray[np.uint64]
# If more rows begin in the same way than fit into a held-out split, and the number of different continuations exceeds this
# share of all rows, the beginning is an example or a greeting that precedes many conversations. Such rows are compared by
# what follows it. Whether a row ends there does not matter: one row must not decide about hundreds of others.
MOST_SHARED = 0.05
_FEW_ROWS = 8  # continuations that any beginning may have: 5% of a small file can be less than a conversation
_MASK = 2**64 - 1
_ANSWERS = ("assistant", "gpt", "chatgpt", "model", "bot", "bing", "bard")


def beginnings(record: Mapping[str, Any], features: Features) -> list[int]:
    """A hash of the messages up to each answer, and of all of them; empty if the record is no chat.

    The hashes are comparable within a process. The speaker, the content and the tool calls of a message are compared;
    its other keys, such as weights, names and times, are not.

    >>> first = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}
    >>> one = beginnings({"messages": [*first]}, Features())
    >>> two = beginnings({"messages": [*first, {"role": "user", "content": "bye"}]}, Features())
    >>> one == two[:1], len(one), len(two), beginnings({"text": "hi"}, Features())
    (True, 1, 2, [])
    """
    try:
        messages = _messages(record, features)
    except (RowProblem, TypeError):  # reported when the row is read
        return []
    found, value = [], 0
    for number, message in enumerate(messages, 1):
        speaker = message.get("role", message.get("from")) if isinstance(message, dict) else None
        if not isinstance(speaker, str):
            return []
        value = hash((value, speaker, _content(message)))
        if speaker in _ANSWERS or number == len(messages):
            found.append(value & _MASK)
    return found


def _messages(record: Mapping[str, Any], features: Features) -> list[Any]:
    name = format_of(record, features)
    if name == "Alpaca":
        return from_alpaca(record)
    if name == "completion":
        prompt, completion = record[features.prompt], record[features.completion]
        if isinstance(prompt, str) and isinstance(completion, str):  # one question and answer
            return []
        return _side(prompt, "user") + _side(completion, "assistant")
    messages = record.get({"chat": features.chat, "ShareGPT": "conversations"}.get(name, ""))
    return messages if isinstance(messages, list) else []


def _side(value: Any, role: str) -> list[Any]:
    """One side of a pair: a string, or a list of messages."""
    return value if isinstance(value, list) else [{"role": role, "content": value}]


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content", message.get("value"))
    calls = message.get("tool_calls") or message.get("function_call")
    return content if isinstance(content, str) and not calls else json.dumps([content, calls], sort_keys=True)


class HeldOut(NamedTuple):
    """The hashes of the records of test and valid.

    Also how many distinct records were kept together with others of their conversation, and how many have a beginning
    that too many others share for it to identify a conversation.
    """

    test: frozenset[int]
    valid: frozenset[int]
    together: int
    apart: int


class Splitter:
    """Collects the records of a file, and decides which of them are held out.

    Distinct records are sorted by hash; the first go to test, the next to valid, the rest to train. Records of one
    conversation go to the same split, at the position of the first of them; if they don't fit, they go to train.
    """

    def __init__(self, options: DataOptions) -> None:
        self._options = options
        self._hashes = array("Q")
        self._beginnings = array("Q")
        self._ends = array("Q")  # of each record in _beginnings

    def add(self, content: int, record: Mapping[str, Any]) -> None:
        """Add a record whose content has the hash ``content``."""
        self._hashes.append(content)
        self._beginnings.extend(beginnings(record, self._options.features) or [content])
        self._ends.append(len(self._beginnings))

    def held_out(self) -> HeldOut:
        """What is held out of the records so far."""
        contents, places = np.unique(np.asarray(self._hashes, np.uint64), return_index=True)
        options, count = self._options, len(contents)
        wanted = [_wanted(count, share, options) for share in (options.test_fraction, options.valid_fraction)]
        if sum(wanted) >= count:  # too few rows to hold any out: train on all of them
            return HeldOut(frozenset(), frozenset(), 0, 0)
        conversations, apart = self._conversations(max(wanted))
        _, firsts, group, sizes = np.unique(
            conversations[places], return_index=True, return_inverse=True, return_counts=True
        )
        chosen = _choose(sizes[np.argsort(firsts)].tolist(), wanted, count)
        # For each record: the position of its conversation in the order of their first hashes.
        rank = np.argsort(np.argsort(firsts))[group]
        test, valid = (frozenset(contents[np.isin(rank, groups)].tolist()) for groups in chosen)
        return HeldOut(test, valid, int(sizes[sizes > 1].sum()), int(apart[places].sum()))

    def _conversations(self, room: int) -> tuple[Hashes, NDArray[np.bool_]]:
        """For each record: a hash, equal within a conversation, and whether it has a beginning that does not count.

        ``room`` is how many records fit into a held-out split.
        """
        found = np.asarray(self._beginnings, np.uint64)
        ends = np.asarray(self._ends, np.int64)
        starts = np.concatenate([[0], ends[:-1]])
        examples = np.isin(found, _examples(found, ends, room))
        # What comes before an example is part of it. The end of a record always counts.
        after = np.maximum.reduceat(np.where(examples, np.arange(1, len(found) + 1), 0), starts)
        return found[np.clip(after, starts, ends - 1)], after > 0


def _examples(found: Hashes, ends: NDArray[np.int64], room: int) -> Hashes:
    """The beginnings in ``found`` that are examples; ``ends`` is where those of each record end."""
    values, counts = np.unique(found, return_counts=True)
    goes_on = np.isin(found, values[counts > max(room, _FEW_ROWS)])
    goes_on[ends - 1] = False
    places = np.flatnonzero(goes_on)
    # A hash covers all messages before it, so each continuation belongs to one beginning.
    _, distinct = np.unique(found[places + 1], return_index=True)
    values, counts = np.unique(found[places[distinct]], return_counts=True)
    return values[counts > max(MOST_SHARED * len(ends), _FEW_ROWS)]


def _wanted(count: int, share: float, options: DataOptions) -> int:
    return min(options.max_held_out, max(1, round(count * share))) if share > 0 else 0


def _choose(sizes: list[int], wanted: list[int], count: int) -> list[list[int]]:
    """The conversations of test and of valid, as indices into ``sizes``, the number of records of each conversation."""
    chosen: list[list[int]] = [[], []]
    room = list(wanted)
    for place, size in enumerate(sizes):
        for split in range(len(room)):
            if size <= room[split]:
                chosen[split].append(place)
                room[split] -= size
                break
        if not any(room):
            break
    left = count - sum(wanted) + sum(room)
    # A few long conversations: hold out the shortest, first for valid, as long as half of the rows are left.
    for split in (1, 0):
        if not wanted[split] or chosen[split]:
            continue
        taken = {*chosen[0], *chosen[1]}
        shortest = min((at for at in range(len(sizes)) if at not in taken), key=sizes.__getitem__)
        if left - sizes[shortest] >= count / 2:
            chosen[split].append(shortest)
            left -= sizes[shortest]
    return chosen
