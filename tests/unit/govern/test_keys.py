from __future__ import annotations

import multiprocessing
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from medfed.core.errors import UserError
from medfed.govern.keys import SigningKey, VerifyKey, home, load_or_create_key, read_public_key


def test_signature_of_rfc_8032() -> None:
    """RFC 8032, section 7.1, test 2."""
    secret = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    key = SigningKey(Ed25519PrivateKey.from_private_bytes(secret))
    signature = key.sign(b"\x72")
    assert signature.hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    assert key.verify_key.raw.hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    assert key.verify_key.verifies(signature, b"\x72")
    assert not key.verify_key.verifies(signature, b"\x73")
    assert not key.verify_key.verifies(b"short", b"\x72")


def test_a_key_is_made_once_private_and_read_again(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "keys"
    key = load_or_create_key(folder, "north clinic")
    assert stat.S_IMODE((folder / "north clinic.key").stat().st_mode) == 0o600
    assert sorted(p.name for p in folder.iterdir()) == ["north clinic.key", "north clinic.pub"]
    again = load_or_create_key(folder, "north clinic")
    assert again.verify_key == key.verify_key == read_public_key(folder / "north clinic.pub")
    assert load_or_create_key(folder, "other").verify_key != key.verify_key


def test_a_lost_public_file_is_written_again(tmp_path: Path) -> None:
    key = load_or_create_key(tmp_path, "a")
    (tmp_path / "a.pub").unlink()
    load_or_create_key(tmp_path, "a")
    assert read_public_key(tmp_path / "a.pub") == key.verify_key


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_private_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    load_or_create_key(tmp_path, "a")
    (tmp_path / "a.key").chmod(mode)
    with pytest.raises(UserError) as caught:
        load_or_create_key(tmp_path, "a")
    assert caught.value.remedy == f"chmod 600 {tmp_path / 'a.key'}"


def test_a_replaced_private_key_is_noticed(tmp_path: Path) -> None:
    load_or_create_key(tmp_path, "a")
    (tmp_path / "a.key").unlink()
    with pytest.raises(UserError, match="does not belong"):
        load_or_create_key(tmp_path, "a")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    ],
)
def test_what_is_no_ed25519_private_key_is_explained(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(UserError, match="this is not"):
        load_or_create_key(tmp_path, "a")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        X25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    ],
)
def test_what_is_no_ed25519_public_key_is_explained(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.pub"
    path.write_bytes(content)
    with pytest.raises(UserError, match="this is not"):
        read_public_key(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_public_key(tmp_path / "absent.pub")


def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be"):
        load_or_create_key(tmp_path / "file" / "keys", "a")


def _public(folder: Path) -> VerifyKey:
    return load_or_create_key(folder, "a").verify_key


def test_processes_that_begin_together_share_one_key(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        keys = pool.map(_public, [tmp_path] * 6, chunksize=1)
    assert set(keys) == {read_public_key(tmp_path / "a.pub")}


def test_home_is_outside_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDFED_HOME", "/somewhere")
    assert home() == Path("/somewhere")
    monkeypatch.delenv("MEDFED_HOME")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/config")
    assert home() == Path("/config/medfed")
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert home() == Path.home() / ".config" / "medfed"
