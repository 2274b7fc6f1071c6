"""CKKS by TenSEAL, as far as a sum needs it: a key, rows of ciphertexts of whole numbers, their addition.

Ring degree 4096, a ciphertext modulus of 60 bits; with the prime of 49 bits that TenSEAL asks for beside it, 109 bits:
the most at this degree for 128 bits of security (Homomorphic Encryption Standard 2018, table 1, ternary secrets), which
SEAL checks. A ciphertext holds 2048 words below 2^32, in 65,676 bytes.

With the scale 2^20 the sum of n words lies below n·2^52 < 2^59, half the modulus. Its error is normal, with a standard
deviation of 3.2·√4096·√n / 2^20 = .0002·√n by encryption, and below .001 by rounding to doubles: ``TOLERANCE`` is 50
standard deviations away at 127 sites, so that rounding gives the exact sum.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfed.core.errors import CodecError

WORDS = 2048
"""Words of a ciphertext."""

MOST_SITES = 127
"""Sites whose words a ciphertext can hold the sum of."""

TOLERANCE = 1 / 8
"""How far a decrypted sum may be from a whole number; one that is further is of no words."""

_DEGREE, _MODULI, _SCALE = 4096, (60, 49), 2.0**20
_LARGEST_KEY = 2**17
"""Bytes of a key that is read; one has about 62,000."""

Ciphertexts = NDArray[np.uint8]
"""Rows of ciphertexts as TenSEAL writes them, uint8 of shape (rows, Form.size)."""


@dataclass(frozen=True)
class Form:
    """What all ciphertexts of the parameters have alike: their size, what stands around their coefficients, and the
    modulus q below which these are.

    What TenSEAL and SEAL would read as sizes, scales and compression stands around them. So both are only ever given
    bytes that they could have written themselves.
    """

    size: int
    head: bytes
    tail: bytes
    modulus: int

    def check(self, rows: Ciphertexts, words: int) -> None:
        """Raise CodecError unless these are the ciphertexts of so many words."""
        wanted = (rows_for(words), self.size)
        if rows.shape != wanted:
            raise CodecError(f"ciphertexts of shape {wanted} were expected, not {rows.shape}")
        for row in rows:
            content = row.tobytes()
            if not (content.startswith(self.head) and content.endswith(self.tail)):
                raise CodecError("a ciphertext has another form or other parameters than this run's")
            numbers = np.frombuffer(content, "<u8", (self.size - len(self.head) - len(self.tail)) // 8, len(self.head))
            if numbers.max() >= self.modulus:
                raise CodecError("a ciphertext has a coefficient that is not below its modulus")


class Scheme:
    """The parameters without any key: what the coordinator has."""

    def __init__(self) -> None:
        import tenseal

        self._context = tenseal.context_from(_run_parameters(), n_threads=1)

    @property
    def form(self) -> Form:
        """The form of ciphertexts."""
        return _form()

    def add(self, rows: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """The sum of ciphertexts, one of each site, which :meth:`Form.check` let pass."""
        first, *others = (_vector(self._context, row) for row in rows)
        for other in others:
            first += other
        return np.frombuffer(first.serialize(), np.uint8)


class SecretKey:
    """A secret key of the sites', with all that encrypts and decrypts."""

    def __init__(self, context: Any) -> None:
        self._context = context

    @classmethod
    def generate(cls) -> SecretKey:
        """A new key, by SEAL's generator, which the system's seeds."""
        return cls(_new_context())

    @classmethod
    def of(cls, content: bytes) -> SecretKey:
        """The key that :meth:`content` wrote. Raises CodecError for anything else, and for other parameters."""
        import tenseal

        if len(content) > _LARGEST_KEY:
            raise CodecError("a key of encryption is too long")
        try:
            context = tenseal.context_from(content, n_threads=1)
            same = context.has_secret_key() and _parameters(context) == _run_parameters()
        except (RuntimeError, ValueError, TypeError, IndexError, MemoryError) as error:
            raise CodecError(f"a key of encryption is malformed ({type(error).__name__})") from None
        if not same:
            raise CodecError("a key of encryption has other parameters than this run's")
        return cls(context)

    def content(self) -> bytes:
        """The key as bytes. They are secret."""
        return bytes(
            self._context.serialize(
                save_public_key=False, save_secret_key=True, save_galois_keys=False, save_relin_keys=False
            )
        )

    def encrypt(self, words: NDArray[np.uint32]) -> Ciphertexts:
        """The ciphertexts of words, uint32 of shape (n,)."""
        import tenseal

        form = _form()
        rows = np.empty((rows_for(len(words)), form.size), np.uint8)
        for row, start in zip(rows, range(0, len(words), WORDS), strict=True):
            few = np.zeros(WORDS)
            few[: len(words) - start] = words[start : start + WORDS]
            row[:] = np.frombuffer(tenseal.ckks_vector(self._context, few.tolist()).serialize(), np.uint8)
        return rows

    def decrypt(self, rows: Ciphertexts, words: int) -> NDArray[np.uint64]:
        """The so many sums of words, uint64. Raises CodecError where they are none."""
        _form().check(rows, words)
        sums = np.empty((len(rows), WORDS), np.uint64)
        for into, row in zip(sums, rows, strict=True):
            found = np.array(_vector(self._context, row).decrypt())
            whole = np.rint(found)
            if not (np.abs(found - whole) <= TOLERANCE).all() or whole.min() < 0:
                raise CodecError("a ciphertext is not that of a sum of whole numbers")
            into[:] = whole
        return sums.reshape(-1)[:words]


def rows_for(words: int) -> int:
    """The ciphertexts that so many words fill."""
    return -(-words // WORDS)


def _new_context() -> Any:
    import tenseal

    context = tenseal.context(
        tenseal.SCHEME_TYPE.CKKS,
        _DEGREE,
        coeff_mod_bit_sizes=list(_MODULI),
        encryption_type=tenseal.ENCRYPTION_TYPE.SYMMETRIC,
        n_threads=1,
    )
    context.global_scale = _SCALE
    return context


def _parameters(context: Any) -> bytes:
    """A context without its keys, as bytes."""
    return bytes(
        context.serialize(save_public_key=False, save_secret_key=False, save_galois_keys=False, save_relin_keys=False)
    )


@functools.cache
def _run_parameters() -> bytes:
    return _parameters(_new_context())


def _vector(context: Any, row: NDArray[np.uint8]) -> Any:
    import tenseal

    try:
        return tenseal.ckks_vector_from(context, row.tobytes())
    except (RuntimeError, ValueError, TypeError, IndexError, MemoryError) as error:
        raise CodecError(f"a ciphertext is malformed ({type(error).__name__})") from None


@functools.cache
def _form() -> Form:
    """The form of ciphertexts, read off one of zeros: the coefficients of two polynomials begin behind their number."""
    import tenseal
    from tenseal import sealapi

    modulus = int(sealapi.CoeffModulus.Create(_DEGREE, list(_MODULI))[0].value())
    content = tenseal.ckks_vector(_new_context(), [0.0] * WORDS).serialize()
    count = (2 * _DEGREE).to_bytes(8, "little")
    begin = content.rindex(count, 0, 256) + len(count)
    end = begin + 8 * 2 * _DEGREE
    return Form(len(content), content[:begin], content[end:], modulus)
