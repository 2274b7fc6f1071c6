"""The search for many words in one text."""

from __future__ import annotations

from collections.abc import Collection, Iterator

_FEW = 256
"""Words that are quicker looked for one by one."""
_LONGEST = 64
"""Letters after which words count as the same: too much is found rather than too little."""


class Words:
    """Words to be looked for inside of texts: the time for one text hardly grows with their number."""

    def __init__(self, words: Collection[str]) -> None:
        """words: none of them empty."""
        self._words = frozenset(word[:_LONGEST] for word in words)
        self._shortest = min(map(len, self._words), default=0)
        self._lengths: dict[str, set[int]] = {}
        for word in self._words:
            self._lengths.setdefault(word[: self._shortest], set()).add(len(word))

    def stand_in(self, text: str) -> bool:
        """Whether one of the words stands anywhere in a text, also inside of other words."""
        if len(self._words) <= _FEW:
            return any(word in text for word in self._words)
        return any(text[at : at + length] in self._words for at, length in self._candidates(text))

    def _candidates(self, text: str) -> Iterator[tuple[int, int]]:
        """(where, letters) of what could be a word: it begins like one that is as long."""
        for at in range(len(text) - self._shortest + 1):
            for length in self._lengths.get(text[at : at + self._shortest], ()):
                yield at, length
