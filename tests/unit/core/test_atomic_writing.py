from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from medfed.core.errors import RunFolderError
from medfed.core.files import write_atomically

IN_A_FULL_DISK = """
import resource, sys
from pathlib import Path
from medfed.core.errors import RunFolderError
from medfed.core.files import write_atomically
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
path = Path(sys.argv[1])
write_atomically(path, b"old" * 100, durable=True)
try:
    write_atomically(path, b"new" * 100_000, durable=sys.argv[2] == "durable")
except RunFolderError as error:
    print(error)
    sys.exit(2)
"""


@pytest.mark.parametrize("durable", [False, True])
def test_what_is_written_is_read_and_nothing_else_is_left(tmp_path, durable):
    path = tmp_path / "state.json"
    for content in (b"\0\xffbytes", "Käse 病院\r\n", b"", b"x" * 2_000_000):
        write_atomically(path, content, durable=durable)
        assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
        assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("durable", ["durable", "quick"])
def test_a_full_disk_is_explained_and_the_old_file_is_whole(tmp_path, durable):
    path = tmp_path / "checkpoint"
    ended = subprocess.run(
        [sys.executable, "-c", IN_A_FULL_DISK, path, durable], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2, ended.stderr
    assert str(path) in ended.stdout
    assert "File too large" in ended.stdout
    assert "remedy: free disk space" in ended.stdout
    assert path.read_bytes() == b"old" * 100
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_does_not_exist_is_explained(tmp_path):
    with pytest.raises(RunFolderError, match="cannot write") as caught:
        write_atomically(tmp_path / "absent" / "file", b"x")
    assert caught.value.exit_status == 2
    assert caught.value.where == str(tmp_path / "absent" / "file")


def test_a_folder_in_the_files_place_is_explained_and_kept(tmp_path):
    path = tmp_path / "file"
    path.mkdir()
    (path / "inside").write_text("kept")
    with pytest.raises(RunFolderError):
        write_atomically(path, b"x")
    assert (path / "inside").read_text() == "kept"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_explained(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(RunFolderError, match="Permission denied"):
            write_atomically(tmp_path / "file", b"x")
    finally:
        tmp_path.chmod(0o700)


def test_the_mode_holds_from_the_first_byte(tmp_path, monkeypatch):
    path = tmp_path / "key"
    modes: list[int] = []
    replace = Path.replace

    def watched(source: Path, target: Path) -> Path:
        modes.append(stat.S_IMODE(source.stat().st_mode))
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", watched)
    write_atomically(path, b"secret", mode=0o600)
    assert modes == [0o600]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
