"""Runs over a folder: gone on with, kept apart, accepted; and the command."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from tests.unit.cli.cli_runs import Workplace
from tests.unit.data.planted import SECRET, small_image, written

from medfed.core.errors import UserError
from medfed.data.deidentify.attributes import Rules
from medfed.data.deidentify.copying import Copying, settings_of
from medfed.data.deidentify.folders import Folders, opened
from medfed.data.deidentify.journal import Action, Journal, Line
from medfed.data.deidentify.secret import Secret

RULES = Rules(SECRET)
NAME = "Featherstonehaugh"


def image(number: int, **attributes: str) -> bytes:
    made: Dataset = small_image()
    made.SOPInstanceUID, made.PatientName = f"1.2.3.4.{number}", f"{NAME}^Cholmondeley"
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return written(made, ExplicitVRLittleEndian)


def source(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder / "source"


def run(
    folder: Path, *accepted: str, rules: Rules = RULES, remove_gone: bool = False
) -> tuple[list[Line], Copying, Folders]:
    folders = opened(folder / "source", folder / "copy", None, settings_of(rules))
    copying = Copying(folders, rules, accepted, remove_gone=remove_gone)
    return list(copying), copying, folders


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.dcm")}


def test_a_second_run_does_nothing_again_and_new_files_are_added(tmp_path: Path) -> None:
    source(tmp_path, {"a.dcm": image(1), "b.dcm": image(2)})
    _, _, folders = run(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in folders.target.rglob("*.dcm")}
    source(tmp_path, {"c.dcm": image(3)})
    _, copying, _ = run(tmp_path)
    assert copying.summary.done_before == 2 and copying.summary.copied == 3
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert copying.summary.deeds["uids_replaced"] == 3 * 4  # counted over all runs: four UIDs in each of three


def test_a_run_that_was_killed_is_gone_on_with_to_the_same_bytes(tmp_path: Path) -> None:
    files = {f"{number}.dcm": image(number) for number in range(6)}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    source(whole, files)
    source(broken, files)
    run(whole)
    folders = opened(broken / "source", broken / "copy", None, settings_of(RULES))
    killed = iter(Copying(folders, RULES))
    for _ in range(3):
        next(killed)
    killed.close()
    assert json.loads(folders.report.read_text())["finished"] is False
    with folders.journal.open("ab") as journal:
        journal.write(b'{"source": "3.dcm", "dig')  # half a line, as a kill leaves it
    _, copying, _ = run(broken)
    assert copying.summary.done_before == 3 and copying.summary.finished
    assert snapshot(broken / "copy") == snapshot(whole / "copy")
    assert run(broken)[1].summary.done_before == 6


def test_a_changed_file_is_done_again_and_a_missing_copy_too(tmp_path: Path) -> None:
    source(tmp_path, {"a.dcm": image(1), "b.dcm": image(2)})
    _, _, folders = run(tmp_path)
    next(folders.target.rglob("*.dcm")).unlink()
    source(tmp_path, {"a.dcm": image(1, Modality="MR")})
    _, copying, _ = run(tmp_path)
    assert copying.summary.copied == 2
    assert sorted(dcmread(path).Modality for path in folders.target.rglob("*.dcm")) == ["CT", "MR"]


def test_one_name_for_two_unlike_files_is_refused_and_doubles_are_counted(tmp_path: Path) -> None:
    source(tmp_path, {"a.dcm": image(1), "b.dcm": image(1), "c.dcm": image(1, Modality="MR")})
    lines, copying, _ = run(tmp_path)
    assert [line.action for line in lines] == [Action.COPIED, Action.DOUBLE, Action.REFUSED]
    assert copying.summary.refused == {"same_name": 1}
    assert [line.action for line in run(tmp_path)[0]] == [Action.COPIED, Action.DOUBLE, Action.REFUSED]


def test_a_copy_whose_source_is_gone_is_told_and_removed_when_asked(tmp_path: Path) -> None:
    files = {"a.dcm": image(1), "b.dcm": image(2), "c.dcm": image(3, BurnedInAnnotation="YES"), "d.dcm": image(4)}
    folder = source(tmp_path, files)
    _, copying, folders = run(tmp_path)
    assert (copying.summary.gone, len(snapshot(folders.target)), len(snapshot(folders.quarantine))) == (0, 3, 1)
    mine = folders.target / "mine.dcm"
    mine.write_bytes(b"not of any run")
    (folder / "a.dcm").unlink()
    (folder / "c.dcm").unlink()
    source(tmp_path, {"d.dcm": image(5)})
    _, copying, _ = run(tmp_path)
    assert (copying.summary.gone, copying.summary.removed, copying.summary.copied) == (3, 0, 2)
    assert json.loads(folders.report.read_text())["gone"] == 3
    _, copying, _ = run(tmp_path, remove_gone=True)
    assert (copying.summary.gone, copying.summary.removed, copying.summary.copied) == (0, 3, 2)
    assert len(snapshot(folders.target)) == 3 and mine.exists() and not snapshot(folders.quarantine)
    assert (run(tmp_path)[1].summary.gone, run(tmp_path)[1].summary.done_before) == (0, 2)


def test_a_copy_of_a_run_that_was_killed_before_it_listed_it_is_gone_with_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    folder = source(tmp_path, {"a.dcm": image(1), "b.dcm": image(2, PatientID="other")})
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Journal, "append", kill)
        run(tmp_path)
    (written_before,) = (tmp_path / "copy").rglob("*.dcm")
    half = written_before.with_name(".1.2.3.dcm.partial")
    half.write_bytes(b"half")
    (folder / "a.dcm").unlink()
    assert run(tmp_path)[1].summary.gone == 2
    _, copying, _ = run(tmp_path, remove_gone=True)
    assert (copying.summary.removed, copying.summary.copied) == (2, 1)
    assert not written_before.exists() and not half.exists()


def test_a_copy_that_another_private_folder_lists_is_gone_with_its_source(tmp_path: Path) -> None:
    folder = source(tmp_path, {"a.dcm": image(1), "b.dcm": image(2)})
    run(tmp_path)
    (folder / "a.dcm").unlink()
    folders = opened(folder, tmp_path / "copy", tmp_path / "other", settings_of(RULES))
    copying = Copying(folders, RULES, remove_gone=True)
    list(copying)
    assert copying.summary.removed == 1 and len(snapshot(folders.target)) == 1


def test_an_empty_source_is_no_reason_to_remove_all_copies(tmp_path: Path) -> None:
    folder = source(tmp_path, {"a.dcm": image(1)})
    _, _, folders = run(tmp_path)
    before = snapshot(folders.target)
    (folder / "a.dcm").unlink()
    with pytest.raises(UserError, match="the source holds no file"):
        run(tmp_path, remove_gone=True)
    assert before and snapshot(folders.target) == before
    assert run(tmp_path)[1].summary.gone == 1


def test_a_double_keeps_the_copy_of_a_file_that_is_gone_and_a_renamed_file_is_the_same(tmp_path: Path) -> None:
    folder = source(tmp_path, {"a.dcm": image(1), "b.dcm": image(1), "c.dcm": image(2)})
    _, _, folders = run(tmp_path)
    before = snapshot(folders.target)
    (folder / "a.dcm").unlink()
    (folder / "c.dcm").rename(folder / "d.dcm")
    lines, copying, _ = run(tmp_path, remove_gone=True)
    assert [line.action for line in lines] == [Action.COPIED, Action.COPIED]
    assert copying.summary.removed == 0 and snapshot(folders.target) == before


def test_a_file_may_take_the_name_of_one_that_is_gone(tmp_path: Path) -> None:
    folder = source(tmp_path, {"a.dcm": image(1)})
    run(tmp_path)
    (folder / "a.dcm").unlink()
    source(tmp_path, {"b.dcm": image(1, Modality="MR")})
    lines, _, folders = run(tmp_path)
    assert [line.action for line in lines] == [Action.COPIED]
    assert [dcmread(path).Modality for path in folders.target.rglob("*.dcm")] == ["MR"]


def test_quarantined_files_are_copied_once_a_person_looked(tmp_path: Path) -> None:
    source(tmp_path, {"a.dcm": image(1, BurnedInAnnotation="YES"), "b.dcm": image(2, BurnedInAnnotation="YES")})
    lines, copying, folders = run(tmp_path)
    assert copying.summary.quarantined == {"says_so": 2} and not list(folders.target.rglob("*.dcm"))
    assert NAME.encode() not in b"".join(snapshot(folders.quarantine).values())
    with pytest.raises(UserError, match="no quarantined file has this name"):
        run(tmp_path, "P-NOBODY")
    instance = lines[0].copy.removesuffix(".dcm").split("/")[-1]
    _, copying, _ = run(tmp_path, instance)
    assert (copying.summary.copied, copying.summary.accepted) == (1, 1)
    assert len(snapshot(folders.quarantine)) == 1
    assert dcmread(next(folders.target.rglob("*.dcm"))).BurnedInAnnotation == "NO"
    _, copying, _ = run(tmp_path)
    assert copying.summary.copied == 1 and copying.summary.quarantined == {"says_so": 1}


def test_what_nobody_has_looked_at_is_accepted_by_no_word(tmp_path: Path) -> None:
    """A patient is accepted; another file of the patient's came since, and one was replaced after the look."""
    source(tmp_path, {name: image(number, BurnedInAnnotation="YES") for number, name in enumerate(("a.dcm", "b.dcm"))})
    lines, _, _ = run(tmp_path)
    patient = lines[0].copy.split("/")[0]
    source(
        tmp_path,
        {
            "b.dcm": image(1, BurnedInAnnotation="YES", Modality="MR"),
            "c.dcm": image(3, BurnedInAnnotation="YES"),
        },
    )
    found = {line.source: line for line in run(tmp_path, patient)[0]}
    assert [found[name].action for name in ("a.dcm", "b.dcm", "c.dcm")] == [
        Action.COPIED,
        Action.QUARANTINED,
        Action.QUARANTINED,
    ]
    assert not found["c.dcm"].looked_at


def test_accepting_can_be_gone_on_with_by_the_same_command(tmp_path: Path) -> None:
    source(tmp_path, {"a.dcm": image(1, BurnedInAnnotation="YES")})
    lines, _, _ = run(tmp_path)
    patient = lines[0].copy.split("/")[0]
    for _ in range(2):
        assert run(tmp_path, patient)[1].summary.copied == 1


def test_what_a_person_looked_at_stays_accepted_while_its_source_cannot_be_read(tmp_path: Path) -> None:
    content = image(1, BurnedInAnnotation="YES")
    folder = source(tmp_path, {"a.dcm": content, "b.dcm": image(2)})
    run(tmp_path)
    _, _, folders = run(tmp_path, "all")
    before = snapshot(folders.target)
    assert len(before) == 2
    (folder / "a.dcm").unlink()
    os.mkfifo(folder / "a.dcm")
    _, copying, _ = run(tmp_path, remove_gone=True)
    assert copying.summary.refused == {"no_file": 1} and (copying.summary.gone, copying.summary.removed) == (0, 0)
    (folder / "a.dcm").unlink()
    source(tmp_path, {"a.dcm": content})
    _, copying, _ = run(tmp_path)
    assert copying.summary.done_before == 2 and snapshot(folders.target) == before


def test_what_a_person_looked_at_stays_accepted_when_its_source_comes_back(tmp_path: Path) -> None:
    content = image(1, BurnedInAnnotation="YES")
    folder = source(tmp_path, {"a.dcm": content, "b.dcm": image(2)})
    run(tmp_path)
    _, _, folders = run(tmp_path, "all")
    before = snapshot(folders.target)
    (folder / "a.dcm").unlink()
    assert run(tmp_path, remove_gone=True)[1].summary.removed == 1
    source(tmp_path, {"a.dcm": content})
    assert run(tmp_path)[1].summary.accepted == 1 and snapshot(folders.target) == before
    source(tmp_path, {"a.dcm": image(1, BurnedInAnnotation="YES", Modality="MR")})  # which nobody looked at
    assert run(tmp_path)[1].summary.quarantined == {"says_so": 1}


def test_a_copy_that_a_crash_emptied_is_written_again(tmp_path: Path) -> None:
    source(tmp_path, {"a.dcm": image(1), "b.dcm": image(2, BurnedInAnnotation="YES")})
    _, _, folders = run(tmp_path)
    before = [snapshot(folder) for folder in (folders.target, folders.quarantine)]
    for folder in (folders.target, folders.quarantine):
        next(folder.rglob("*.dcm")).write_bytes(b"")
    assert run(tmp_path)[1].summary.done_before == 0
    assert [snapshot(folder) for folder in (folders.target, folders.quarantine)] == before


def test_a_name_is_free_once_its_source_file_makes_another_copy(tmp_path: Path) -> None:
    source(tmp_path, {"a.dcm": image(1), "b.dcm": image(1, Modality="MR")})
    assert run(tmp_path)[1].summary.refused == {"same_name": 1}
    source(tmp_path, {"a.dcm": image(5)})
    assert run(tmp_path)[1].summary.copied == 2


def test_a_folder_that_cannot_be_looked_into_is_no_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source(tmp_path, {"a.dcm": image(1), "closed/b.dcm": image(2)})
    scan = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match="cannot be looked into"):
        run(tmp_path)


def test_folders_are_kept_apart(tmp_path: Path) -> None:
    inside = source(tmp_path, {"a.dcm": image(1)})
    (tmp_path / "link").symlink_to(inside)
    for bad, private in (
        (inside / "copy", None),
        (inside, None),
        (tmp_path / "link" / "copy", None),
        (tmp_path, None),
        (tmp_path / "copy", inside / "private"),
        (tmp_path / "copy", tmp_path / "copy" / "private"),
    ):
        with pytest.raises(UserError, match="must not lie in one another"):
            opened(inside, bad, private, settings_of(RULES))
    assert sorted(path.name for path in inside.iterdir()) == ["a.dcm"]


def test_a_target_of_another_kind_key_or_setting_is_refused(tmp_path: Path) -> None:
    source(tmp_path, {"a.dcm": image(1)})
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "thesis.txt").write_text("not mine")
    with pytest.raises(UserError, match="holds something"):
        run(tmp_path)
    (tmp_path / "copy" / "thesis.txt").unlink()
    run(tmp_path)
    with pytest.raises(UserError, match="another key"):
        run(tmp_path, rules=Rules(Secret(b"other" * 7)))


def test_odd_files_are_refused_and_stop_nothing(tmp_path: Path) -> None:
    folder = source(tmp_path, {"a.dcm": image(1), "empty": b"", os.fsdecode(b"\xff\xfename.dcm"): image(2)})
    os.mkfifo(folder / "pipe")
    (folder / "broken link").symlink_to(folder / "nowhere")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.dcm").write_bytes(image(3))
    (folder / "link to a folder").symlink_to(tmp_path / "elsewhere")
    _, copying, folders = run(tmp_path)
    assert copying.summary.copied == 2
    assert copying.summary.refused == {"not_dicom": 1, "no_file": 3}
    assert stat.S_IMODE(folders.private.stat().st_mode) == 0o700
    assert stat.S_IMODE(folders.journal.stat().st_mode) == 0o600


def test_a_file_that_the_memory_cannot_hold_several_times_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = image(1)
    source(tmp_path, {"a.dcm": content})
    pages = {"SC_PAGE_SIZE": 6, "SC_PHYS_PAGES": len(content) - 1}
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    assert run(tmp_path)[1].summary.refused == {"too_large": 1}
    pages["SC_PHYS_PAGES"] += 1
    assert run(tmp_path)[1].summary.copied == 1


@pytest.fixture
def work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Workplace:
    return Workplace(tmp_path, capsys)


def test_the_command_writes_a_copy_and_reports_without_a_name(work: Workplace) -> None:
    folder = source(work.folder, {f"{NAME}/a.dcm": image(1), f"{NAME}/b.dcm": image(2, BurnedInAnnotation="YES")})
    arguments = ("site", "deidentify", folder, work.folder / "copy", "--key", work.folder / "key")
    ended = work.medfed(*arguments)
    assert ended.status == 0 and NAME not in ended.told
    assert "1 file of 1 patient in the copy" in ended.out and "quarantined 1" in ended.out
    page = (work.folder / "copy" / "report.html").read_text()
    assert NAME not in page and "1 file of 1 patient" in page and "What it does not cover" in page
    assert not any(NAME in str(path) for path in (work.folder / "copy").rglob("*"))
    assert NAME in (work.folder / "copy.private" / "files.jsonl").read_text()  # which stays at the site
    told = json.loads(work.medfed(*arguments, "--accept", "all", "--json").out)
    assert (told["copied"], told["accepted"], told["quarantined"]) == (2, 1, {})
    assert stat.S_IMODE((work.folder / "key").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        (("--keep", "PatientName"), "--keep PatientName"),
        (("--accept", "P-NOBODY"), "no quarantined file"),
        (("--private", "source/private"), "must not lie in one another"),
    ],
)
def test_a_mistake_of_the_user_is_explained(
    work: Workplace, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], cause: str
) -> None:
    monkeypatch.chdir(work.folder)
    source(work.folder, {"a.dcm": image(1)})
    ended = work.medfed("site", "deidentify", "source", "copy", "--key", "key", *options)
    assert ended.status == 2 and cause in ended.err and "Traceback" not in ended.told


def test_a_source_without_a_dicom_file_is_an_error_that_says_what_to_do(
    work: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work.folder)
    told = {"nowhere": "does not exist", "a.txt": "is no folder", "empty": "no DICOM file", "texts": "no DICOM file"}
    (work.folder / "empty").mkdir()
    source(work.folder, {"a.dcm": b"no image"}).rename("texts")
    (work.folder / "a.txt").write_text("no folder")
    for name, cause in told.items():
        ended = work.medfed("site", "deidentify", name, f"copy-{name}", "--key", "key")
        assert ended.status == 2 and cause in ended.err and "the folder that holds" in ended.err
    source(work.folder, {"a.dcm": image(1)})
    arguments = ("site", "deidentify", "source", "copy", "--key", "key")
    assert work.medfed(*arguments).status == 0
    (work.folder / "source" / "a.dcm").unlink()
    assert work.medfed(*arguments).status == 2
    assert work.medfed(*arguments, "--remove-gone").status == 2  # the source may not be mounted
    (work.folder / "source" / "a.txt").write_text("no image")
    assert work.medfed(*arguments, "--remove-gone").status == 0


def test_without_a_site_the_key_must_be_named(work: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work.folder)
    source(work.folder, {"a.dcm": image(1)})
    ended = work.medfed("site", "deidentify", "source", "copy")
    assert ended.status == 2 and "no site in this folder" in ended.err
    assert work.medfed("site", "deidentify", "nowhere", "copy", "--key", "key").status == 2
    (work.folder / "identity.json").write_text(json.dumps({"site": "north"}))
    assert work.medfed("site", "deidentify", "source", "copy").status == 0
    assert (work.folder / "keys" / "deidentification.key").is_file()
