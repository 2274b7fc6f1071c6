"""UIDs, dates, ages, pseudonyms and the table of the profile, against the standards' own words."""

from __future__ import annotations

import datetime
import hashlib
import hmac
import re
import stat
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.datadict import tag_for_keyword
from tests.unit.data.planted import small_image

from medfed.core.errors import UserError
from medfed.data.deidentify.dates import EARLIEST, LATEST, Shift, capped_age, is_of_care, shift_of
from medfed.data.deidentify.kept import parse_kept
from medfed.data.deidentify.patient import patient_of, pseudonym
from medfed.data.deidentify.profile import Action, basic_profile
from medfed.data.deidentify.secret import Secret, load_or_create_secret
from medfed.data.deidentify.spellings import day_of, has_day, spellings
from medfed.data.deidentify.terms import is_term
from medfed.data.deidentify.uids import is_standard, new_uid

ONE, OTHER = Secret(b"1" * 32), Secret(b"2" * 32)


@given(st.text(max_size=64))
def test_a_new_uid_is_a_uuid_in_decimal_and_hides_the_old_one(uid: str) -> None:
    made = new_uid(ONE, uid)
    assert re.fullmatch(r"2\.25\.[1-9][0-9]{0,38}", made) and len(made) <= 64
    assert uuid.UUID(int=int(made[5:])).variant == uuid.RFC_4122
    assert (int(made[5:]) >> 76) & 0xF == 8
    assert made == new_uid(ONE, uid) != new_uid(OTHER, uid)


def test_a_new_uid_is_of_hmac_sha_256() -> None:
    mac = hmac.new(b"1" * 32, b"uid\x001.2.3", hashlib.sha256).digest()[:16]
    made = uuid.UUID(int=int(new_uid(ONE, "1.2.3")[5:])).bytes
    assert made[:6] == mac[:6] and made[7] == mac[7] and made[9:] == mac[9:]


def test_only_uids_of_the_standard_stay() -> None:
    assert is_standard("1.2.840.10008.5.1.4.1.1.2")
    assert not is_standard("1.2.840.10008.5.1.4.1.1.2.99999")
    assert not is_standard("1.2.3")


@given(st.dates(datetime.date(1920, 1, 1), datetime.date(2100, 1, 1)), st.dates(datetime.date(1920, 1, 1)), st.text())
def test_intervals_of_a_patient_stay(first: datetime.date, second: datetime.date, patient: str) -> None:
    shift = shift_of(ONE, patient)
    assert EARLIEST <= shift.days <= LATEST
    moved = [shift.value("DA", day.strftime("%Y%m%d")) for day in (first, second)]
    days = [datetime.datetime.strptime(day, "%Y%m%d").date() for day in moved if day]
    assert days[1] - days[0] == second - first
    assert days[0] < first


@pytest.mark.parametrize(
    ("vr", "given_", "wanted"),
    [
        ("DA", "20240301", "20240229"),
        ("DA", "2024.03.01", "20240229"),
        ("DA", "202403", None),
        ("DA", "20240230", None),
        ("DA", "Smith", None),
        ("DA", "00010101", None),
        ("DT", "20240301", "20240229"),
        ("DT", "20240301235960.123456-0500", "20240229235960.123456-0500"),
        ("DT", "2024", None),
        ("DT", "20240301 Smith", None),
        ("TM", "235959.5", "235959.5"),
        ("TM", "Smith", None),
        ("TM", "2400", None),
    ],
)
def test_a_shift_of_one_day(vr: str, given_: str, wanted: str | None) -> None:
    assert Shift(1).value(vr, given_) == wanted


@pytest.mark.parametrize(
    ("age", "wanted"),
    [("089Y", "089Y"), ("090Y", "090Y"), ("104Y", "090Y"), ("999M", "999M"), ("012W", "012W"), ("old", None)],
)
def test_ages_above_89_become_90(age: str, wanted: str | None) -> None:
    assert capped_age(age) == wanted


def test_dates_that_would_tell_the_shift_are_not_shifted() -> None:
    assert all(map(is_of_care, ["StudyDate", "AcquisitionDateTime", "ContrastBolusStartTime"]))
    known = [
        "PatientBirthDate",
        "ContextGroupVersion",
        "DateOfLastCalibration",
        "DateOfManufacture",
        "EffectiveDateTime",
    ]
    assert not any(map(is_of_care, known))


def test_pseudonyms_are_keyed() -> None:
    assert re.fullmatch(r"P-[A-Z2-7]{16}", pseudonym(ONE, "4711"))
    assert pseudonym(ONE, "4711") == pseudonym(ONE, "4711") != pseudonym(OTHER, "4711") != pseudonym(ONE, "4712")


def test_one_id_of_two_issuers_is_of_two_patients() -> None:
    image = small_image()
    mine = patient_of(image, ONE)
    found = []
    for issuer in ("North", "South", ""):
        image.IssuerOfPatientID = issuer
        found.append(patient_of(image, ONE))
    assert len({each.pseudonym for each in found}) == len({each.shift.days for each in found}) == 3
    assert found[2].pseudonym == mine.pseudonym == pseudonym(ONE, image.PatientID)


@pytest.mark.parametrize(
    ("keyword", "action"),
    [  # as table E.1-1 of PS3.15 prints them
        ("PatientName", Action.EMPTY),
        ("PatientBirthDate", Action.EMPTY),
        ("PatientAddress", Action.REMOVE),
        ("OtherPatientIDs", Action.REMOVE),
        ("StudyDescription", Action.REMOVE),
        ("InstitutionAddress", Action.REMOVE),
        ("PatientComments", Action.REMOVE),
        ("IconImageSequence", Action.REMOVE),
        ("ReferringPhysicianName", Action.EMPTY),
        ("AccessionNumber", Action.EMPTY),
        ("SOPInstanceUID", Action.UID),
        ("FrameOfReferenceUID", Action.UID),
        ("ReferencedImageSequence", Action.REFERENCES),
        ("Modality", None),
        ("Rows", None),
        ("PixelSpacing", None),
    ],
)
def test_the_table_is_that_of_the_standard(keyword: str, action: Action | None) -> None:
    tag = tag_for_keyword(keyword)
    assert tag is not None
    assert basic_profile().action(tag) is action


def test_curves_and_overlays_are_in_the_table_as_groups() -> None:
    assert basic_profile().action(0x50020010) is Action.REMOVE
    assert basic_profile().action(0x60FE3000) is Action.REMOVE


def test_words_of_the_standard_are_known_and_names_are_not() -> None:
    assert all(map(is_term, ["ORIGINAL", "YBR_FULL_422", "chest", "GE MEDICAL SYSTEMS", "", "HEAD NECK"]))
    assert not any(map(is_term, ["SMITH", "CHEST SMITH", "12345", "1965", "O'HARA", "chest of Ada"]))


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("20240305", "20240305"),
        ("2024.03.05", "20240305"),
        ("20240305101112.5+0100", "20240305"),
        ("202403", ""),
        ("20240230", ""),
        ("Smith", ""),
        ("19000101", ""),
    ],
)
def test_the_day_of_a_date(text: str, day: str) -> None:
    assert day_of(text) == day


@given(st.dates(datetime.date(1000, 1, 1)), st.sampled_from(["%Y-%m-%d", "%d.%m.%Y", "%m/%d/%y", "%y%m%d", "%d %m %Y"]))
def test_a_day_is_found_in_every_usual_order(day: datetime.date, written: str) -> None:
    assert has_day(f"CT {day.strftime(written)}, old", spellings(day.strftime("%Y%m%d")))
    assert not has_day(f"CT {day.year}, old", spellings(day.strftime("%Y%m%d")))


def test_the_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "deidentification.key"
    secret = load_or_create_secret(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_or_create_secret(path) == secret != load_or_create_secret(tmp_path / "other.key")
    assert repr(secret) == "Secret()" and secret.fingerprint not in secret.key.hex()
    path.chmod(0o640)
    with pytest.raises(UserError, match="others than its owner"):
        load_or_create_secret(path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"medfed de-identification key 1\nabc\n", b"x\n" + b"0" * 64])
def test_what_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(UserError, match="not a key"):
        load_or_create_secret(path)


_NAMING = (
    "PatientName PatientID StudyDate SOPInstanceUID PixelData Nonsense InstitutionName PatientBirthDate "
    "OperatorsName PatientComments 0010,SIEMENS GPSLatitude CurrentPatientLocation AssignedLocation"
)


@pytest.mark.parametrize("asked", _NAMING.split())
def test_what_names_a_patient_cannot_be_kept(asked: str) -> None:
    with pytest.raises(UserError, match="--keep"):
        parse_kept([asked])
