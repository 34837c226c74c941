"""The message and the JSON of a chain as texts with places for ids, which are filled for each request.

Filling a text takes a fraction of the time of setting the fields of each job, and of encoding them. The
chain of which the texts are made has special ids. They are found again in its message and in its JSON.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import permutations, product
from operator import itemgetter
from string import ascii_lowercase, ascii_uppercase, digits
from typing import Any

from spincycle_grpc.v1.job_pb2 import JobChain
from spincycle_grpc.wire import encode

LARGEST = 1000
"""The maximum number of jobs of a chain of which texts are made. There are 1,296 special ids."""

PREFIXES = ["".join(pair) for pair in permutations(ascii_uppercase, 2)]
"""The first two characters of special ids. Others are used if a chain has such text elsewhere."""

_ENDINGS = ["".join(pair) for pair in product(digits + ascii_lowercase, repeat=2)]
_ENDING = "([0-9a-z]{2})"
_MAPS = ("jobs", "adjacency_list", "path_labels")
"""The fields of a chain whose keys are ids."""

_MAP, _ENTRY = "\0", "\n"
"""What is around the maps of a chain, and between their entries, in its text. JSON has neither."""


def special_ids(prefix: str) -> list[str]:
    """Returns the ids for the jobs of a chain of which texts are made."""
    return [prefix + ending for ending in _ENDINGS[:LARGEST]]


class ChainTexts:
    """The texts of a chain.

    Args:
        chain: The chain, without a request id, windows and limits.
        prefix: The prefix of its ids, which are the first special ones.

    Raises:
        ValueError: The chain has text that looks like one of its ids.
    """

    def __init__(self, chain: JobChain, prefix: str) -> None:
        count = len(chain.jobs)
        numbers = {ending: number for number, ending in enumerate(_ENDINGS)}
        self._message = _Text(chain.SerializeToString(deterministic=True).decode("latin-1"), prefix, numbers)
        with_id = JobChain()
        with_id.CopyFrom(chain)
        with_id.request_id = prefix + _ENDINGS[count]
        self._json = _Text(_json_of(with_id), prefix, numbers)
        ids = _number_of_ids(chain)
        if (self._message.places, self._json.places) != (ids, ids + 1):
            raise ValueError(f"the chain has other texts that begin with {prefix}")
        self._positions = {numbers[job_id[len(prefix) :]]: at for at, job_id in enumerate(sorted(chain.jobs))}

    def message(self, request_id: str, ids: Sequence[str]) -> JobChain:
        """Returns the chain with other ids.

        Args:
            request_id: The id of the request.
            ids: The ids of the jobs, in the order of the special ones.
        """
        chain = JobChain.FromString(self._message.filled(ids).encode("latin-1"))
        chain.request_id = request_id
        return chain

    def json(self, chain: JobChain, ids: Sequence[str], filled: Sequence[int]) -> bytes:
        """Returns the JSON of a chain that `message` has returned, as `encode` writes it.

        Args:
            chain: The chain. Since then, only jobs have changed.
            ids: The ids of its jobs.
            filled: The numbers of the jobs that have changed.
        """
        if chain.traceparent:
            return encode(chain)
        parts = self._json.filled([*ids, chain.request_id]).split(_MAP)
        for at in range(1, len(parts), 2):
            entries = parts[at].split(_ENTRY)
            if at == 1:
                for number in filled:
                    job_id = ids[number]
                    entries[self._positions[number]] = f'"{job_id}":{encode(chain.jobs[job_id]).decode()}'
            parts[at] = ",".join(sorted(entries))  # The keys have the same length, so they decide.
        return "".join(parts).encode()


class _Text:
    """A text with places for ids.

    Args:
        text: The text with special ids.
        prefix: Their prefix.
        numbers: The number of each id, by its ending.

    Attributes:
        places: How many places it has.
    """

    def __init__(self, text: str, prefix: str, numbers: Mapping[str, int]) -> None:
        pieces = re.split(prefix + _ENDING, text)
        places = [numbers[ending] for ending in pieces[1::2]]
        self.places = len(places)
        self._text = "%s".join(piece.replace("%", "%%") for piece in pieces[::2])
        self._ids: Any = itemgetter(*places)

    def filled(self, ids: Sequence[str]) -> str:
        """Returns the text with other ids."""
        text: str = self._text % self._ids(ids)
        return text


def _json_of(chain: JobChain) -> str:
    """Returns the JSON of a chain, with marks around its maps and between their entries."""
    text = encode(chain).decode()
    for field in _MAPS:
        entries = getattr(chain, field)
        if entries:
            written = _ENTRY.join(_entry(field, key, entries[key]) for key in sorted(entries))
            text = text.replace(encode(chain, field).decode(), f"{{{_MAP}{written}{_MAP}}}", 1)
    return text


def _entry(field: str, key: str, value: Any) -> str:
    """Returns the JSON of one entry of a map."""
    alone = JobChain()
    entries = getattr(alone, field)
    if isinstance(value, str):
        entries[key] = value
    else:
        entries[key].CopyFrom(value)
    return encode(alone, field).decode()[1:-1]


def _number_of_ids(chain: JobChain) -> int:
    """Returns how often ids of jobs occur in a chain."""
    in_jobs = sum(2 + bool(job.sequence_id) + bool(job.parent_sequence_id) for job in chain.jobs.values())
    in_edges = sum(1 + len(after.ids) for after in chain.adjacency_list.values())
    return in_jobs + in_edges + len(chain.path_labels)
