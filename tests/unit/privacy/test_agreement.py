"""X25519, HKDF and AES-GCM as they are used here, against the vectors of their RFCs."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from medfed.privacy.agreement import agreed_secret, derived, framed, opened, sealed

RFC_7748_5_2 = [
    (
        "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
        "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
        "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
    ),
    (
        "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
        "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
        "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
    ),
]
"""RFC 7748, section 5.2: scalar, u-coordinate, result."""

RFC_7748_6_1 = {
    "alice": "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
    "alice public": "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
    "bob": "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
    "bob public": "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
    "shared": "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742",
}
"""RFC 7748, section 6.1."""

LOW_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]
"""The points of small order of Curve25519 (https://cr.yp.to/ecdh.html, "Validate public keys")."""


def private(text: str) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(bytes.fromhex(text))


def hkdf_of_rfc_5869(secret: bytes, info: bytes) -> bytes:
    """Sections 2.2 and 2.3, written out: no salt is a salt of 32 zero bytes, and 32 bytes are one block."""
    extracted = hmac.digest(bytes(32), secret, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


@pytest.mark.parametrize(("scalar", "u", "result"), RFC_7748_5_2)
def test_the_single_vectors_of_rfc_7748(scalar: str, u: str, result: str) -> None:
    assert agreed_secret(private(scalar), bytes.fromhex(u)).hex() == result


def test_the_iterated_vector_of_rfc_7748() -> None:
    k = u = bytes.fromhex("09" + 31 * "00")
    for times in range(1000):
        k, u = agreed_secret(X25519PrivateKey.from_private_bytes(k), u), k
        if times == 0:
            assert k.hex() == "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
    assert k.hex() == "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"


def test_the_agreement_of_rfc_7748() -> None:
    alice, bob = private(RFC_7748_6_1["alice"]), private(RFC_7748_6_1["bob"])
    assert alice.public_key().public_bytes_raw().hex() == RFC_7748_6_1["alice public"]
    assert bob.public_key().public_bytes_raw().hex() == RFC_7748_6_1["bob public"]
    assert agreed_secret(alice, bob.public_key().public_bytes_raw()).hex() == RFC_7748_6_1["shared"]
    assert agreed_secret(bob, alice.public_key().public_bytes_raw()).hex() == RFC_7748_6_1["shared"]


@pytest.mark.parametrize("point", LOW_ORDER)
def test_a_public_key_of_low_order_is_no_key(point: str) -> None:
    with pytest.raises(ValueError, match="shared key"):
        agreed_secret(X25519PrivateKey.generate(), bytes.fromhex(point))


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_public_key_of_another_size_is_no_key(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        agreed_secret(X25519PrivateKey.generate(), bytes(size))


def test_the_vector_of_rfc_5869_without_salt_and_info() -> None:
    """Appendix A.3, of which OKM has 42 bytes: the first 32 are those of L = 32. (A.1 and A.2 have a salt.)"""
    okm = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    assert derived(bytes.fromhex(22 * "0b"), b"").hex() == okm[:64]
    assert hkdf_of_rfc_5869(bytes.fromhex(22 * "0b"), b"").hex() == okm[:64]


@given(st.binary(min_size=1, max_size=80), st.binary(max_size=80))
def test_a_derived_key_is_that_of_rfc_5869_written_out(secret: bytes, info: bytes) -> None:
    assert derived(secret, info) == hkdf_of_rfc_5869(secret, info)


@given(st.tuples(st.text(max_size=5), st.lists(st.binary(max_size=5))), st.data())
def test_no_two_lists_of_parts_are_framed_alike(one: tuple[str, list[bytes]], data: st.DataObject) -> None:
    other = data.draw(st.one_of(st.just(one), st.tuples(st.text(max_size=5), st.lists(st.binary(max_size=5)))))
    assert (framed(one[0], *one[1]) == framed(other[0], *other[1])) == (one == other)


def test_parts_that_run_together_are_framed_unlike() -> None:
    pairs = [(b"ab", b"c"), (b"a", b"bc"), (b"abc",), (b"abc", b""), (b"", b"abc")]
    assert len({framed("use", *pair) for pair in pairs}) == len(pairs)
    assert framed("use", b"x") != framed("us", b"ex")


@given(st.binary(max_size=140), st.binary(max_size=40))
def test_a_box_gives_its_content_back_and_is_never_made_alike(content: bytes, about: bytes) -> None:
    key = hashlib.sha256(content).digest()
    box, again = sealed(key, content, about), sealed(key, content, about)
    assert opened(key, box, about) == opened(key, again, about) == content
    assert box[:12] != again[:12]
    assert len(content) < 8 or content not in box


def test_a_box_with_any_bit_changed_is_not_opened() -> None:
    key, about = bytes(range(32)), b"about"
    box = sealed(key, b"two shares", about)
    for bit in range(8 * len(box)):
        changed = bytearray(box)
        changed[bit // 8] ^= 1 << bit % 8
        assert opened(key, bytes(changed), about) is None


def test_a_box_is_not_opened_with_any_bit_of_its_key_or_subject_changed() -> None:
    key, about = bytes(range(32)), b"from a to b"
    box = sealed(key, b"two shares", about)
    for bit in range(256):
        changed = bytearray(key)
        changed[bit // 8] ^= 1 << bit % 8
        assert opened(bytes(changed), box, about) is None
    for other in (b"", b"from b to a", b"from a to b ", b"from a to "):
        assert opened(key, box, other) is None


def test_a_box_that_is_cut_or_longer_is_not_opened() -> None:
    key = bytes(range(32))
    box = sealed(key, b"two shares", b"")
    for size in range(len(box)):
        assert opened(key, box[:size], b"") is None
    assert opened(key, box + b"\0", b"") is None
    assert opened(key, b"", b"") is None
