from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import stat
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

pytest.importorskip("nvflare")

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from medfed.core.errors import MissingExtra, Refused, UserError
from medfed.engine.flare.admissions import admissions, admit, examine
from medfed.engine.flare.authority import ADMINISTRATOR, Kind, request_certificate
from medfed.engine.flare.certificates import heard, read_certificate, spoken
from medfed.engine.flare.extra import require_flare
from medfed.engine.flare.invitation import read_invitation
from medfed.engine.flare.joining import init_site, join_site, renew_site
from medfed.engine.flare.kits import admin_kit, client_command, harden_kit, server_command, server_workspace
from medfed.engine.flare.membership import members, restore_site, revoke_site
from medfed.engine.flare.provisioning import make_consortium, provision
from medfed.engine.flare.request import AdmissionRequest, write_request
from medfed.engine.flare.revocation import Revocations, create_revocations
from medfed.govern.chain import ledger_path
from medfed.govern.entries import OFFICE, PolicyEntry, decode_entry
from medfed.govern.keys import SigningKey, read_public_key

CONSORTIUM = """\
name: heart study
coordinator: {host: localhost, port: 8002, admin_port: 8003}
sites:
  north: {contact: it@north.example}
  south:
"""


class Parties:
    """A coordinator that was provisioned, and what its hospitals do."""

    def __init__(self, folder: Path) -> None:
        self.coordinator = folder / "coordinator"
        self.sites = folder / "sites"
        self.invitations = sorted((self.coordinator / "invitations").iterdir())

    @classmethod
    def provisioned(cls, folder: Path) -> Parties:
        folder.mkdir()
        (folder / "consortium.yaml").write_text(CONSORTIUM)
        provision(folder / "consortium.yaml", folder / "coordinator")
        return cls(folder)

    def copied(self, folder: Path) -> Parties:
        shutil.copytree(self.coordinator.parent, folder, dirs_exist_ok=True)
        return Parties(folder)

    def init(self, site: str = "north") -> tuple[AdmissionRequest, Path]:
        request, path, _ = init_site(self.coordinator / "invitations" / f"{site}.json", self.sites / site)
        return request, path

    def admit(self, path: Path, *, replace: bool = False) -> Path:
        found = examine(self.coordinator, path)
        return admit(self.coordinator, found, found.fingerprint, replace=replace)[1]

    def written(self) -> set[tuple[str, bytes]]:
        files = (path for path in self.coordinator.rglob("*") if path.is_file())
        return {(str(path), path.read_bytes()) for path in files}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Parties:
    return Parties.provisioned(tmp_path_factory.mktemp("first") / "consortium")


@pytest.fixture(scope="module")
def first_joined(first: Parties, tmp_path_factory: pytest.TempPathFactory) -> Parties:
    parties = first.copied(tmp_path_factory.mktemp("joined"))
    join_site(parties.sites / "north", parties.admit(parties.init()[1]))
    return parties


@pytest.fixture
def parties(first: Parties, tmp_path: Path) -> Parties:
    return first.copied(tmp_path)


@pytest.fixture
def joined(first_joined: Parties, tmp_path: Path) -> Parties:
    return first_joined.copied(tmp_path)


def modes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}


def contents(data: bytes) -> Iterator[bytes]:
    """The bytes, and those of every member of a zip, however deep."""
    yield data
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            for name in file.namelist():
                yield from contents(file.read(name))


def private_keys(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and any(b"PRIVATE KEY" in each for each in contents(path.read_bytes()))
    }


# what is where, and who may read it


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    before = os.umask(0)
    try:
        make_consortium(folder, ["north", "south"])
    finally:
        os.umask(before)
    return folder


def test_private_keys_are_with_their_owners_alone(whole: Path) -> None:
    assert private_keys(whole) == {
        "coordinator/authority/rootCA.key",
        "coordinator/keys/coordinator.key",
        "coordinator/flare/server/startup/server.key",
        "coordinator/flare/admin/startup/client.key",
        "sites/north/keys/site.key",
        "sites/north/flare/startup/client.key",
        "sites/south/keys/site.key",
        "sites/south/flare/startup/client.key",
    }


def test_private_keys_are_readable_by_their_owner_only_whatever_the_umask(whole: Path) -> None:
    for name in private_keys(whole):
        path = whole / name
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, name
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700, name


def test_nobody_else_may_write_anything_that_counts(whole: Path) -> None:
    """What others may write lies in a folder that they cannot enter."""
    for party in (whole / "coordinator", whole / "sites" / "north"):
        assert stat.S_IMODE(party.stat().st_mode) == 0o700


def test_the_coordinator_has_every_sites_public_key(whole: Path) -> None:
    for site in ("north", "south"):
        known = read_public_key(whole / "coordinator" / "keys" / "sites" / f"{site}.pub")
        assert known == read_public_key(whole / "sites" / site / "keys" / "site.pub")
        theirs = read_public_key(whole / "sites" / site / "keys" / "coordinator.pub")
        assert theirs == read_public_key(whole / "coordinator" / "keys" / "coordinator.pub")


def test_a_request_holds_no_private_key_while_its_key_waits_at_the_site(parties: Parties) -> None:
    _, path = parties.init()
    assert private_keys(parties.sites / "north") == {"keys/site.key", "request/north.key"}
    assert modes(parties.sites / "north")["request/north.key"] == 0o600
    assert not any(b"PRIVATE KEY" in each for each in contents(path.read_bytes()))


def test_every_certificate_is_valid_by_a_clock_that_is_a_day_behind(whole: Path) -> None:
    certificates = {
        "coordinator/authority/rootCA.pem",
        "coordinator/flare/server/startup/server.crt",
        "coordinator/flare/admin/startup/client.crt",
        "sites/north/flare/startup/rootCA.pem",
        "sites/north/flare/startup/client.crt",
    }
    for name in certificates:
        begins = x509.load_pem_x509_certificate((whole / name).read_bytes()).not_valid_before_utc
        assert timedelta(days=1) <= datetime.now(UTC) - begins < timedelta(days=1, minutes=10), name


def test_flare_keeps_nothing_in_the_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    make_consortium(tmp_path / "made", ["north"])
    assert list(home.iterdir()) == []
    assert os.environ["HOME"] == str(home)


def test_the_kits_allow_medfeds_own_classes_and_nothing_else(whole: Path) -> None:
    kits = {
        server_workspace(whole / "coordinator"): "medfed.engine.flare.controller.RunController",
        whole / "sites" / "north" / "flare": "medfed.engine.flare.executor.SiteExecutor",
    }
    for kit, allowed in kits.items():
        resources = json.loads((kit / "local" / "resources.json").read_text())
        assert resources["class_list_enforcement_mode"] == "enforce"
        assert resources["class_allow_list"] == [allowed]
        assert resources["allow_log_streaming"] is False
        assert not any("log" in part["id"] for part in resources["components"])
        assert "snapshot_persistor" not in resources
        rights = json.loads((kit / "local" / "authorization.json").read_text())["permissions"]
        assert set(rights) == {"project_admin", "org_admin", "lead", "member"}
        for role in rights.values():
            assert role["byoc"] == role["shell_commands"] == role["server-predeployed-flwr"] == "none"
    site = json.loads((whole / "sites/north/flare/local/authorization.json").read_text())["permissions"]
    assert site["lead"]["operate"] == site["lead"]["download_job"] == "none"


def test_a_loosened_kit_is_hardened_before_it_starts(whole: Path) -> None:
    kit = whole / "sites" / "north" / "flare"
    resources = kit / "local" / "resources.json"
    before = resources.read_text()
    resources.write_text("{}")
    client_command(whole / "sites" / "north")
    assert resources.read_text() == before


def test_a_kit_that_moved_keeps_its_jobs_where_it_is_now(whole: Path, tmp_path: Path) -> None:
    kit = tmp_path / "flare" / "server"
    kit.parent.mkdir()
    subprocess.run(["cp", "-a", server_workspace(whole / "coordinator"), kit], check=True)
    harden_kit(kit, Kind.SERVER)
    assert str(whole) not in (kit / "local" / "resources.json").read_text()


def test_a_consortium_can_be_provisioned_again_to_invite_more(parties: Parties, tmp_path: Path) -> None:
    root = (parties.coordinator / "authority" / "rootCA.pem").read_bytes()
    (tmp_path / "consortium.yaml").write_text(CONSORTIUM + "  west:\n")
    invitations = provision(tmp_path / "consortium.yaml", parties.coordinator)
    assert [path.stem for path in invitations] == ["north", "south", "west"]
    assert (parties.coordinator / "authority" / "rootCA.pem").read_bytes() == root
    parties.admit(parties.init("west")[1])


def test_a_consortium_cannot_move_to_another_address(parties: Parties, tmp_path: Path) -> None:
    before = parties.written()
    (tmp_path / "consortium.yaml").write_text(CONSORTIUM.replace("8002", "9002"))
    with pytest.raises(UserError, match="another name or address"):
        provision(tmp_path / "consortium.yaml", parties.coordinator)
    assert parties.written() == before


def test_no_site_takes_the_servers_name(tmp_path: Path) -> None:
    (tmp_path / "consortium.yaml").write_text(CONSORTIUM.replace("north", "localhost"))
    with pytest.raises(UserError, match="localhost"):
        provision(tmp_path / "consortium.yaml", tmp_path / "coordinator")
    assert not (tmp_path / "coordinator").exists()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "consortium.yaml").write_text(CONSORTIUM)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be"):
        provision(tmp_path / "consortium.yaml", tmp_path / "file" / "coordinator")


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medfed.engine.flare.extra.find_spec", lambda name: None)
    with pytest.raises(MissingExtra) as caught:
        require_flare()
    assert caught.value.remedy == "pip install 'medfed[flare]'"


# invitations


def test_an_invitation_says_whom_it_invites_where_and_by_which_keys(parties: Parties) -> None:
    invitation = read_invitation(parties.invitations[0])
    assert (invitation.consortium, invitation.site, invitation.contact) == ("heart study", "north", "it@north.example")
    assert (invitation.host, invitation.port) == ("localhost", 8002)
    pem = (parties.coordinator / "authority" / "rootCA.pem").read_bytes()
    der = x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)
    assert invitation.root == hashlib.sha256(der).hexdigest()
    key = read_public_key(parties.coordinator / "keys" / "coordinator.pub")
    assert invitation.key() == key
    assert invitation.coordinator_fingerprint == hashlib.sha256(key.raw).hexdigest()


@pytest.mark.parametrize(
    "change",
    [
        {"site": "../north"},
        {"site": "no\nrth"},
        {"host": "example.org/x"},
        {"port": 0},
        {"port": True},
        {"port": "8002"},
        {"root": "00"},
        {"root": None},
        {"coordinator_key": "-----BEGIN PUBLIC KEY-----"},
        {"coordinator_key": SigningKey.generate().verify_key.pem().decode()},
        {"more": 1},
    ],
)
def test_a_spoiled_invitation_is_refused_before_anything_is_made(
    parties: Parties, tmp_path: Path, change: dict[str, object]
) -> None:
    content = json.loads(parties.invitations[0].read_text())
    spoiled = tmp_path / "spoiled.json"
    spoiled.write_text(json.dumps(content | change))
    with pytest.raises(UserError):
        init_site(spoiled, tmp_path / "site")
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b'"' + b"x" * (1 << 17) + b'"'])
def test_a_file_that_is_no_invitation_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "invitation.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match="not an invitation"):
        init_site(path, tmp_path / "site")


def test_a_site_is_not_made_twice_in_one_folder(parties: Parties) -> None:
    parties.init()
    with pytest.raises(UserError, match="a site in this folder already"):
        parties.init()


# admission


def test_the_fingerprint_is_that_of_both_keys(parties: Parties) -> None:
    request, _ = parties.init()
    private = serialization.load_pem_private_key(
        (parties.sites / "north" / "request" / "north.key").read_bytes(), password=None
    )
    der = private.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    raw = read_public_key(parties.sites / "north" / "keys" / "site.pub").raw
    assert request.fingerprint == hashlib.sha256(der + raw).hexdigest()


def test_a_fingerprint_is_heard_as_it_is_spoken() -> None:
    fingerprint = hashlib.sha256(b"").hexdigest()
    assert spoken(fingerprint).split() == [fingerprint[k : k + 4] for k in range(0, 64, 4)]
    assert heard(f"  {spoken(fingerprint).upper()}\n") == fingerprint


def test_a_wrong_fingerprint_admits_nobody(parties: Parties) -> None:
    request, path = parties.init()
    before = parties.written()
    found = examine(parties.coordinator, path)
    for wrong in ("", "0" * 64, request.fingerprint[:-1], request.fingerprint[:63] + "g"):
        with pytest.raises(UserError, match="fingerprint"):
            admit(parties.coordinator, found, wrong)
    assert parties.written() == before


def test_an_admission_is_recorded(parties: Parties) -> None:
    request, path = parties.init()
    answer = parties.admit(path)
    with zipfile.ZipFile(answer) as file:
        certificate = x509.load_pem_x509_certificate(file.read("north.crt"))
    recorded = admissions(parties.coordinator)["north"]
    assert recorded.certificate == certificate.fingerprint(hashes.SHA256()).hex()
    assert int(recorded.serial, 16) == certificate.serial_number
    assert recorded.ends == certificate.not_valid_after_utc.isoformat()
    assert recorded.request == request.fingerprint
    assert recorded.days_left() in (1094, 1095)


def test_a_site_of_another_consortium_is_refused(parties: Parties, tmp_path: Path) -> None:
    _, path = Parties.provisioned(tmp_path / "other").init()
    with pytest.raises(UserError, match="not signed by the key that it brings, for this consortium"):
        examine(parties.coordinator, path)


def _asking(folder: Path, name: str, kind: Kind = Kind.CLIENT) -> bytes:
    return request_certificate(folder, name, kind).read_bytes()


def _request(parties: Parties, path: Path, certificate_request: bytes) -> Path:
    root = read_invitation(parties.invitations[0]).root
    write_request(path, certificate_request, root, SigningKey.generate())
    return path


@pytest.mark.parametrize("name", ["west", "localhost", "coordinator", "server", "North"])
def test_a_name_that_is_not_in_the_consortiums_file_is_refused(parties: Parties, tmp_path: Path, name: str) -> None:
    path = _request(parties, tmp_path / "request.zip", _asking(tmp_path / "asked", name))
    with pytest.raises(UserError, match="no site of this consortium"):
        examine(parties.coordinator, path)


@pytest.mark.parametrize(("name", "kind"), [(ADMINISTRATOR, Kind.ADMIN), ("localhost", Kind.SERVER)])
def test_a_certificate_of_another_kind_cannot_be_asked_for(
    parties: Parties, tmp_path: Path, name: str, kind: Kind
) -> None:
    asked = _asking(tmp_path / "asked", name, kind)
    with pytest.raises(UserError, match="another certificate than a site's"):
        _request(parties, tmp_path / "request.zip", asked)


def _repacked(asked: bytes, change: Callable[[dict[str, bytes]], None]) -> bytes:
    with zipfile.ZipFile(io.BytesIO(asked)) as file:
        members = {name: file.read(name) for name in file.namelist()}
    change(members)
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return whole.getvalue()


def _weak(members: dict[str, bytes]) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    members["north.csr"] = _csr(key, "north")


def _of_another_name(members: dict[str, bytes]) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    members["north.csr"] = _csr(key, "south")


def _of_two_names(members: dict[str, bytes]) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    members["north.csr"] = _csr(key, "north", "south")


def _csr(key: rsa.RSAPrivateKey, *names: str) -> bytes:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name) for name in names])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _bomb(members: dict[str, bytes]) -> None:
    members["north.csr"] += b"\n" * (8 << 20)


def _extra(members: dict[str, bytes]) -> None:
    members["../../escape"] = b"x"


def _garbage(members: dict[str, bytes]) -> None:
    members["north.csr"] = b"-----BEGIN CERTIFICATE REQUEST-----"


def _unreadable(members: dict[str, bytes]) -> None:
    members["request.json"] = b"[1]"


@pytest.mark.parametrize(
    "change", [_weak, _of_another_name, _of_two_names, _bomb, _extra, _garbage, _unreadable], ids=lambda f: f.__name__
)
def test_a_spoiled_certificate_request_is_refused(
    parties: Parties, tmp_path: Path, change: Callable[[dict[str, bytes]], None]
) -> None:
    _, path = parties.init()
    before = parties.written()
    asked = _repacked(examine(parties.coordinator, path).certificate_request, change)
    key = SigningKey.generate()
    root = read_invitation(parties.invitations[0]).root
    signature = key.sign(b"medfed request for admission 1\n" + bytes.fromhex(root) + hashlib.sha256(asked).digest())
    spoiled = tmp_path / "spoiled.zip"
    with zipfile.ZipFile(spoiled, "w") as file:
        file.writestr("certificate.request.zip", asked)
        file.writestr("site.key.raw", key.verify_key.raw)
        file.writestr("signature", signature)
    with pytest.raises(UserError):
        examine(parties.coordinator, spoiled)
    assert parties.written() == before


def test_a_key_that_the_sender_does_not_hold_is_refused(parties: Parties, tmp_path: Path) -> None:
    _, path = parties.init()
    forged = _repacked(path.read_bytes(), lambda parts: parts.update({"site.key.raw": b"\x05" * 32}))
    (tmp_path / "forged.zip").write_bytes(forged)
    with pytest.raises(UserError, match="not signed"):
        examine(parties.coordinator, tmp_path / "forged.zip")


def _link(path: Path) -> None:
    info = zipfile.ZipInfo("signature")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("certificate.request.zip", b"")
        file.writestr("site.key.raw", b"")
        file.writestr(info, b"/etc/passwd")


def _traversal(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("../certificate.request.zip", b"")
        file.writestr("site.key.raw", b"")
        file.writestr("signature", b"")


def _large(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("certificate.request.zip", bytes(64 << 20))
        file.writestr("site.key.raw", b"")
        file.writestr("signature", b"")


def _twice(path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "w") as file:
        for name in ("certificate.request.zip", "site.key.raw", "signature", "signature"):
            file.writestr(name, b"")


def _no_zip(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04 but no more")


def _endless(path: Path) -> None:
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.mkdir()


HOSTILE: Sequence[Callable[[Path], None]] = [_link, _traversal, _large, _twice, _no_zip, _endless, _folder]


@pytest.mark.parametrize("make", HOSTILE, ids=lambda f: f.__name__)
def test_a_hostile_zip_is_refused_by_both_sides(parties: Parties, tmp_path: Path, make: Callable[[Path], None]) -> None:
    parties.init()
    path = tmp_path / "hostile.zip"
    make(path)
    before = parties.written()
    with pytest.raises(UserError):
        examine(parties.coordinator, path)
    with pytest.raises(UserError):
        join_site(parties.sites / "north", path)
    assert parties.written() == before
    assert not (parties.sites / "north" / "flare").exists()


def test_a_link_to_a_request_is_refused(parties: Parties, tmp_path: Path) -> None:
    _, path = parties.init()
    (tmp_path / "link.zip").symlink_to(path)
    with pytest.raises(UserError, match="is a link"):
        examine(parties.coordinator, tmp_path / "link.zip")


def test_a_site_is_not_admitted_twice_under_other_keys(joined: Parties, tmp_path: Path) -> None:
    path = _request(joined, tmp_path / "request.zip", _asking(tmp_path / "asked", "north"))
    before = joined.written()
    with pytest.raises(UserError, match="admitted before, under other keys"):
        joined.admit(path)
    assert joined.written() == before


def test_the_same_request_gives_the_same_answer_again(parties: Parties) -> None:
    _, path = parties.init()
    first = parties.admit(path).read_bytes()
    before = parties.written()
    assert parties.admit(path).read_bytes() == first
    assert parties.written() == before


# joining


def test_a_site_joins_with_the_certificate_of_its_own_key(joined: Parties) -> None:
    startup = joined.sites / "north" / "flare" / "startup"
    certificate = read_certificate((startup / "client.crt").read_bytes())
    key = serialization.load_pem_private_key((startup / "client.key").read_bytes(), password=None)
    assert certificate.name == "north"
    assert certificate.public_key == key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert certificate.fingerprint == admissions(joined.coordinator)["north"].certificate
    server = json.loads((startup / "fed_client.json").read_text())["servers"][0]
    assert server["service"] == {"target": "localhost:8002", "scheme": "tcp"}
    assert not (joined.sites / "north" / "request").exists()


def test_another_sites_answer_is_refused(parties: Parties) -> None:
    parties.init()
    answer = parties.admit(parties.init("south")[1])
    with pytest.raises(UserError):
        join_site(parties.sites / "north", answer)
    assert not (parties.sites / "north" / "flare").exists()


def test_an_answer_to_an_earlier_request_is_refused(parties: Parties) -> None:
    answer = parties.admit(parties.init()[1])
    renew_site(parties.sites / "north")
    with pytest.raises(UserError):
        join_site(parties.sites / "north", answer)
    assert not (parties.sites / "north" / "flare").exists()


def test_an_answer_of_another_consortium_is_refused(parties: Parties, tmp_path: Path) -> None:
    other = Parties.provisioned(tmp_path / "other")
    answer = other.admit(other.init()[1])
    parties.init()
    with pytest.raises(UserError, match="not of the consortium that invited"):
        join_site(parties.sites / "north", answer)


def test_an_answer_that_sends_the_site_elsewhere_is_refused(parties: Parties, tmp_path: Path) -> None:
    answer = parties.admit(parties.init()[1])

    def elsewhere(members: dict[str, bytes]) -> None:
        members["signed.json"] = members["signed.json"].replace(b'"localhost"', b'"evil.example"')

    altered = tmp_path / "north.signed.zip"
    altered.write_bytes(_repacked(answer.read_bytes(), elsewhere))
    with pytest.raises(UserError):
        join_site(parties.sites / "north", altered)
    assert not (parties.sites / "north" / "flare").exists()


def test_the_roots_fingerprint_may_be_compared_besides(parties: Parties) -> None:
    answer = parties.admit(parties.init()[1])
    with pytest.raises(UserError, match="root certificate"):
        join_site(parties.sites / "north", answer, "00" * 32)
    join_site(parties.sites / "north", answer, spoken(read_invitation(parties.invitations[0]).root))


def test_a_site_without_a_request_cannot_join(joined: Parties) -> None:
    answer = joined.coordinator / "admitted" / "north.signed.zip"
    with pytest.raises(UserError, match="no open request"):
        join_site(joined.sites / "north", answer)


def test_a_renewed_site_has_a_new_key_and_its_old_certificate_is_revoked(joined: Parties) -> None:
    site = joined.sites / "north"
    old = admissions(joined.coordinator)["north"].certificate
    key = (site / "flare" / "startup" / "client.key").read_bytes()
    _, path = renew_site(site)
    assert (site / "flare" / "startup" / "client.key").read_bytes() == key
    join_site(site, joined.admit(path, replace=True))
    assert (site / "flare" / "startup" / "client.key").read_bytes() != key
    new = admissions(joined.coordinator)["north"].certificate
    revocations = Revocations(joined.coordinator / "revoked.json")
    revocations.check("north")
    revocations.check_certificate(new)
    with pytest.raises(Refused, match="replaced"):
        revocations.check_certificate(old)


def test_no_revocation_is_lost_that_several_make_at_once(tmp_path: Path) -> None:
    create_revocations(tmp_path / "revoked.json")
    sites = [f"site-{number}" for number in range(12)]
    with ThreadPoolExecutor(len(sites)) as people:
        for each in [
            people.submit(Revocations(tmp_path / "revoked.json").revoke, site, "", "left", "IT") for site in sites
        ]:
            each.result()
    assert set(Revocations(tmp_path / "revoked.json").current().sites) == set(sites)


def test_a_sites_earlier_public_key_is_kept_for_its_ledgers(joined: Parties, tmp_path: Path) -> None:
    before = (joined.coordinator / "keys" / "sites" / "north.pub").read_bytes()
    joined.admit(_request(joined, tmp_path / "request.zip", _asking(tmp_path / "asked", "north")), replace=True)
    assert (joined.coordinator / "keys" / "sites" / "north.pub").read_bytes() != before
    kept = list((joined.coordinator / "keys" / "sites" / "replaced").iterdir())
    assert [path.read_bytes() for path in kept] == [before]


# revocation


def test_a_revoked_site_is_refused_at_once_and_restored(joined: Parties) -> None:
    running = Revocations(joined.coordinator / "revoked.json")
    certificate = admissions(joined.coordinator)["north"].certificate
    for _ in range(3):
        running.check("north")
        revoke_site(joined.coordinator, "north", "a laptop was stolen", "a.stern")
        with pytest.raises(Refused, match="a laptop was stolen"):
            running.check("north")
        with pytest.raises(Refused):
            running.check_certificate(certificate)
        running.check("south")
        restore_site(joined.coordinator, "north")
    running.check("north")


def test_revocations_are_in_the_coordinators_ledger(joined: Parties) -> None:
    revoke_site(joined.coordinator, "north", "a laptop was stolen", "a.stern")
    lines = ledger_path(joined.coordinator / "ledger" / OFFICE, "coordinator").read_bytes().splitlines()
    recorded = decode_entry(lines[-1]).entry
    assert isinstance(recorded, PolicyEntry)
    assert json.loads(recorded.policy)["revoked"] == {"north": ["a laptop was stolen", "a.stern"]}


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"sites": [{}], "certificates": []}', b"\xff", b"[]", b"null"])
def test_nobody_takes_part_where_the_list_is_lost_or_damaged(joined: Parties, content: bytes | None) -> None:
    path = joined.coordinator / "revoked.json"
    running = Revocations(path)
    running.check("north")
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Refused, match="cannot be read"):
        running.check("north")
    with pytest.raises(UserError):
        revoke_site(joined.coordinator, "north", "", "")


def test_a_lost_list_is_not_begun_anew(parties: Parties, tmp_path: Path) -> None:
    (parties.coordinator / "revoked.json").unlink()
    provision(tmp_path / "consortium.yaml", parties.coordinator)
    with pytest.raises(Refused):
        Revocations(parties.coordinator / "revoked.json").check("north")


def test_only_sites_can_be_revoked_and_only_revoked_ones_restored(parties: Parties) -> None:
    with pytest.raises(UserError, match="no site of this consortium"):
        revoke_site(parties.coordinator, "west", "", "")
    with pytest.raises(UserError, match="not revoked"):
        restore_site(parties.coordinator, "north")


def test_a_site_may_be_revoked_before_it_was_admitted(parties: Parties) -> None:
    revoke_site(parties.coordinator, "south", "left", "a.stern")
    with pytest.raises(Refused):
        Revocations(parties.coordinator / "revoked.json").check("south")


def test_members_say_how_they_stand(joined: Parties) -> None:
    revoke_site(joined.coordinator, "south", "left", "a.stern")
    north, south = members(joined.coordinator)
    assert (north.site, north.contact, north.ends_soon) == ("north", "it@north.example", False)
    assert north.revocation is None
    assert south.admission is None
    assert south.revocation is not None
    assert north.admission is not None
    ending = replace(north, admission=replace(north.admission, ends="2020-01-01T00:00:00+00:00"))
    assert ending.ends_soon


# with FLARE's own processes


class Processes:
    """FLARE's processes of a consortium, whose output is in files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.coordinator = folder / "coordinator"
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, command: list[str], workspace: Path) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command, cwd=workspace, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        self._running.append(process)
        return process

    def server(self) -> None:
        self.start("server", server_command(self.coordinator), server_workspace(self.coordinator))

    def client(self, site: str) -> subprocess.Popen[bytes]:
        folder = self.folder / "sites" / site
        return self.start(site, client_command(folder), folder / "flare")

    def told(self, name: str, text: str, seconds: float = 30.0) -> None:
        log, end = self.folder / f"{name}.log", time.monotonic() + seconds
        while text not in log.read_text():
            assert time.monotonic() < end, log.read_text()[-4000:]
            time.sleep(0.1)

    def stop(self) -> None:
        for process in self._running:
            process.kill()
        for process in self._running:
            process.wait()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    found = Processes(tmp_path)
    yield found
    found.stop()


def free_ports() -> tuple[int, int]:
    import socket

    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_sites_register_until_they_are_revoked(tmp_path: Path, processes: Processes, host: str) -> None:
    port, admin_port = free_ports()
    make_consortium(tmp_path, ["north", "south"], host=host, port=port, admin_port=admin_port)
    subprocess.run(["cp", "-a", tmp_path / "sites" / "north", tmp_path / "sites" / "stolen"], check=True)
    processes.server()
    processes.told("server", "Server started")
    north = processes.client("north")
    processes.client("south")
    processes.told("north", "Successfully registered client:north")
    processes.told("south", "Successfully registered client:south")
    assert _shell_is_refused(processes.coordinator, "north")

    north.terminate()
    north.wait()
    site = tmp_path / "sites" / "north"
    found = examine(processes.coordinator, renew_site(site)[1])
    join_site(site, admit(processes.coordinator, found, found.fingerprint, replace=True)[1])
    (tmp_path / "north.log").write_text("")
    thief = processes.client("stolen")
    processes.told("server", "turned away: north: the certificate was revoked")
    thief.kill()
    north = processes.client("north")
    processes.told("north", "Successfully registered client:north", 60)

    north.terminate()
    north.wait()
    (tmp_path / "north.log").write_text("")
    revoke_site(processes.coordinator, "north", "left", "test")
    north = processes.client("north")
    time.sleep(8)
    assert "Successfully registered" not in (tmp_path / "north.log").read_text()
    assert "Successfully registered" not in (tmp_path / "stolen.log").read_text()


def _shell_is_refused(coordinator: Path, site: str) -> bool:
    from nvflare.fuel.flare_api.flare_api import new_secure_session

    session = new_secure_session(ADMINISTRATOR, str(admin_kit(coordinator)), timeout=10)
    try:
        shown = str(session.do_command(f"cat {site} log.txt"))
        return "not authorized" in shown.lower() and "FederatedClient" not in shown
    finally:
        session.close()
