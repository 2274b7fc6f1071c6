"""Evidence of builds: what is believed, and every way to cheat that the threat model names."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from medfed.core.errors import TaskError, Unattested, UserError
from medfed.core.protocols import Claim
from medfed.govern.attestation import ATTESTORS, check_evidence, evidence
from medfed.govern.attestors.software import measured
from medfed.govern.keys import SigningKey
from medfed.spec.attestation import Attestation
from medfed.spec.site import load_site
from medfed.version import __version__

KEY = SigningKey.generate()
CLAIM = Claim("north", "a1" * 32, "b2" * 32)
DEMANDED = Attestation(demand="software", measurements=(measured(),))


def check(token: bytes, *, kind: str = "software", demanded: Attestation = DEMANDED, **claim: str) -> str:
    return check_evidence(demanded, kind, token, dataclasses.replace(CLAIM, **claim), KEY.verify_key)


def test_what_an_honest_party_says_is_believed() -> None:
    assert check(evidence("software", CLAIM, KEY)) == measured()


def test_a_replayed_token_is_refused() -> None:
    token = evidence("software", CLAIM, KEY)
    check(token)
    with pytest.raises(Unattested, match="not fresh") as refused:
        check(token, nonce="c3" * 32)
    assert (refused.value.exit_status, refused.value.where) == (3, "north")


def test_a_token_that_another_party_was_made_to_give_is_refused() -> None:
    """The relay: the right nonce, an allowed build; but its own key and its own TLS key."""
    other = SigningKey.generate()
    with pytest.raises(Unattested, match="not signed by this party"):
        check(evidence("software", CLAIM, other))
    with pytest.raises(Unattested, match="of another party"):
        check(evidence("software", dataclasses.replace(CLAIM, party="south"), KEY))
    with pytest.raises(Unattested, match="another TLS key"):
        check(evidence("software", dataclasses.replace(CLAIM, tls_key="d4" * 32), KEY))


@pytest.mark.parametrize("field", ["measurement", "nonce", "party", "time", "tls_key", "kind"])
def test_no_word_of_it_can_be_changed(field: str) -> None:
    token = json.loads(evidence("software", dataclasses.replace(CLAIM, nonce="c3" * 32), KEY))
    statement = json.loads(token["statement"]) | {field: "b2" * 32}
    token["statement"] = json.dumps(statement, sort_keys=True)
    with pytest.raises(Unattested, match="not signed"):
        check(json.dumps(token).encode())


def test_a_build_that_is_not_allowed_is_refused_with_its_measurement() -> None:
    demanded = Attestation(demand="software", measurements=("0" * 64,))
    with pytest.raises(Unattested, match=measured()):
        check(evidence("software", CLAIM, KEY), demanded=demanded)


@pytest.mark.parametrize("kind", ["none", "sev-snp"])
def test_evidence_of_another_kind_or_none_is_refused(kind: str) -> None:
    with pytest.raises(Unattested, match=r"software is demanded, and (none|another kind) was given"):
        check(evidence("software", CLAIM, KEY), kind=kind)


def test_a_kind_that_is_not_installed_is_refused_by_name() -> None:
    demanded = Attestation(demand="sev-snp", measurements=(measured(),))
    with pytest.raises(Unattested, match="'sev-snp'"):
        check(b"", kind="sev-snp", demanded=demanded)
    with pytest.raises(Unattested, match="'sev-snp'"):
        evidence("sev-snp", CLAIM, KEY)


@pytest.mark.parametrize(
    "token",
    [
        *(b"", b"\xff", b"[]", b"{}", b'"x"', b"[" * 9_000, b"x" * 20_000, b'{"statement": 1, "signature": "00"}'),
        b'{"statement": "{}", "signature": "zz"}',
    ],
)
def test_garbage_is_no_evidence(token: bytes) -> None:
    with pytest.raises(Unattested, match="no evidence"):
        check(token)


def signed(statement: str) -> bytes:
    signature = KEY.sign(b"medfed attestation by software 1\0" + statement.encode())
    return json.dumps({"statement": statement, "signature": signature.hex()}).encode()


@pytest.mark.parametrize("statement", ["", "[]", "{}", '{"kind": 1}', "[" * 2_000])
def test_a_signed_statement_of_another_form_is_no_evidence(statement: str) -> None:
    with pytest.raises(Unattested, match="no evidence"):
        check(signed(statement))


def written(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


FILES = {"b.py": b"b = 1\n", "a/c.py": b"c = 2\n", "page.j2": b"\x00\xff"}


def test_one_byte_of_one_file_changes_the_measurement(tmp_path: Path) -> None:
    package = written(tmp_path, FILES)
    before = measured(package)
    (package / "a" / "c.py").write_bytes(b"c = 3\n")
    assert measured(package) != before
    (package / "a" / "c.py").write_bytes(b"c = 2\n")
    assert measured(package) == before
    (package / "a" / "new.py").write_bytes(b"")
    assert measured(package) != before


def test_content_cannot_move_between_files(tmp_path: Path) -> None:
    one = written(tmp_path / "one", {"a.py": b"12", "b.py": b"3"})
    other = written(tmp_path / "other", {"a.py": b"1", "b.py": b"23"})
    assert measured(one) != measured(other)


def test_compiled_caches_have_no_part_in_it(tmp_path: Path) -> None:
    package = written(tmp_path, FILES)
    before = measured(package)
    written(package, {"a/__pycache__/c.cpython-311.pyc": b"x"})
    assert measured(package) == before


def test_it_is_the_hash_that_the_documentation_describes(tmp_path: Path) -> None:
    def installed(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "none"

    content = b"medfed measurement 1\0"
    for name in ("a/c.py", "b.py", "page.j2"):
        for part in (name.encode(), FILES[name]):
            content += len(part).to_bytes(8, "big") + part
    packages = [f"{name} {installed(name)}" for name in ("cryptography", "numpy", "nvflare", "torch")]
    content += "\n".join([f"python {platform.python_version()}", f"medfed {__version__}", *packages]).encode()
    assert measured(written(tmp_path, FILES)) == hashlib.sha256(content).hexdigest()


PLUGIN = """
from medfed.core.errors import Unattested

class Chip:
    def generate(self, claim, sign):
        return f"chip:{claim.party}:{claim.tls_key}:{claim.nonce}".encode()

    def verify(self, token, claim, verifies):
        if token != self.generate(claim, None):
            raise Unattested("the chip says otherwise")
        return "ab" * 32
"""


def test_a_verifier_for_hardware_is_one_installed_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "chip_attestation.py").write_text(PLUGIN)
    info = tmp_path / "chip_attestation-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: chip-attestation\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[medfed.attestation]\nchip = chip_attestation:Chip\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    ATTESTORS.__dict__.pop("_entry_points", None)
    try:
        demanded = Attestation(demand="chip", measurements=("ab" * 32,))
        assert check(evidence("chip", CLAIM, KEY), kind="chip", demanded=demanded) == "ab" * 32
        with pytest.raises(Unattested, match="the chip says otherwise"):
            check(evidence("chip", CLAIM, KEY), kind="chip", demanded=demanded, nonce="00" * 32)
    finally:
        ATTESTORS.__dict__.pop("_entry_points", None)


def test_software_and_nothing_else_comes_with_the_package() -> None:
    assert ATTESTORS.names() == ["software"]
    with pytest.raises(UserError, match="no kind of evidence"):
        ATTESTORS.get("tdx")


def test_a_demand_that_allows_no_build_is_a_mistake_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text("contact: x\nattestation: {demand: software}\n")
    with pytest.raises(TaskError, match="demands evidence and allows no build") as refused:
        load_site(tmp_path / "site.yaml")
    assert "site.yaml:2" in str(refused.value) and "medfed doctor" in str(refused.value)
    (tmp_path / "site.yaml").write_text("contact: x\nattestation: {demand: software, measurements: [short]}\n")
    with pytest.raises(TaskError, match="measurement of 64 characters"):
        load_site(tmp_path / "site.yaml")
