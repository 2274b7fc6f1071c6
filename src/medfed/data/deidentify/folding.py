"""One form for the many ways a name is written: case, accents, widths of letters, and the two Japanese syllabaries."""

from __future__ import annotations

import re
import unicodedata

_WITHOUT_MARKS = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i"})
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "ø": "oe"})
_HIRAGANA = {code: code + 0x60 for code in range(0x3041, 0x3097)}
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003fffd]+")
NO_WORD = re.compile(r"[\s^=,;:\\/|()\[\]\"'.\u3000\u30fb\uff3e\uff1d_-]+")
"""What stands between words."""


def foldings(text: str) -> frozenset[str]:
    """The forms of a text that is searched, or of a word that is searched for: Müller is muller, and mueller too."""
    lower = unicodedata.normalize("NFKC", text).casefold()
    return frozenset({_plain(lower), _plain(lower.translate(_UMLAUTS))})


def is_unspaced(word: str) -> bool:
    """Whether a word is of a script that leaves no spaces between words: Chinese, Japanese, or Korean with them."""
    return _UNSPACED.fullmatch(word) is not None


def _plain(text: str) -> str:
    letters = unicodedata.normalize("NFKD", text.translate(_HIRAGANA)).translate(_WITHOUT_MARKS)
    seen = (each for each in letters if not unicodedata.combining(each) and unicodedata.category(each) != "Cf")
    return unicodedata.normalize("NFC", "".join(seen))  # without what is not seen: soft hyphens, joiners, directions
