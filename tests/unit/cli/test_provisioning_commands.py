from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
from cli_runs import Ended

pytest.importorskip("nvflare")

from medfed.cli import main as medfed
from medfed.spec.site import load_site

CONSORTIUM = """\
name: heart
coordinator: {host: localhost}
sites:
  north: {contact: it@north.example}
  south:
"""


@dataclass
class Desk:
    """A place where medfed's commands are typed, with a coordinator's folder and a site's."""

    folder: Path
    capsys: pytest.CaptureFixture[str]

    @property
    def coordinator(self) -> Path:
        return self.folder / "coordinator"

    @property
    def north(self) -> Path:
        return self.folder / "north"

    @property
    def request(self) -> Path:
        return self.north / "north.request.zip"

    @property
    def answer(self) -> Path:
        return self.coordinator / "admitted" / "north.signed.zip"

    def type(self, *arguments: str | Path) -> Ended:
        before = signal.getsignal(signal.SIGTERM)
        try:
            with pytest.raises(SystemExit) as leaving:
                medfed.main([str(argument) for argument in arguments])
        finally:
            signal.signal(signal.SIGTERM, before)
        shown = self.capsys.readouterr()
        assert "Traceback" not in shown.out + shown.err
        return Ended(int(leaving.value.code or 0), shown.out, shown.err)

    def provision(self) -> Ended:
        (self.folder / "consortium.yaml").write_text(CONSORTIUM)
        return self.type("provision", self.folder / "consortium.yaml", "--output", self.coordinator)

    def init(self) -> Ended:
        return self.type("site", "init", self.coordinator / "invitations" / "north.json", "--output", self.north)

    def admit(self, *more: str) -> Ended:
        return self.type("coordinator", "admit", self.request, "--folder", self.coordinator, *more)

    def join(self) -> Ended:
        return self.type("site", "join", self.answer, "--folder", self.north)

    def status(self, site: str) -> dict[str, object]:
        lines = self.type("coordinator", "sites", "--folder", self.coordinator, "--json").out.splitlines()
        return next(found for found in map(json.loads, lines) if found["site"] == site)


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, capsys)


def spoken_in(shown: str) -> list[str]:
    """Every fingerprint that was shown: sixteen groups of four."""
    rows = [line.split() for line in shown.splitlines()]
    return [" ".join(row) for row in rows if len(row) == 16 and all(len(group) == 4 for group in row)]


def test_from_an_invitation_to_a_site_that_can_connect(desk: Desk) -> None:
    provisioned = desk.provision()
    assert provisioned.status == 0
    assert str(desk.coordinator / "invitations" / "north.json") in provisioned.out
    [coordinators] = spoken_in(provisioned.out)
    begun = desk.init()
    assert begun.status == 0
    asked, told = spoken_in(begun.out)
    assert told == coordinators
    assert load_site(desk.north / "site.yaml").contact == "it@north.example"
    assert desk.status("north")["status"] == "invited"
    admitted = desk.admit("--fingerprint", asked.upper())
    assert admitted.status == 0
    assert str(desk.answer) in admitted.out
    assert desk.status("north")["status"] == "admitted"
    joined = desk.join()
    assert (joined.status, joined.out) == (0, "north can connect to localhost:8002: medfed site start\n")
    assert (desk.north / "flare" / "startup" / "client.key").is_file()


def test_the_fingerprint_is_asked_for(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.provision()
    [asked, _] = spoken_in(desk.init().out)
    monkeypatch.setattr("typer.prompt", lambda *_: asked.replace(" ", ""))
    admitted = desk.admit()
    assert admitted.status == 0
    assert "site: north" in admitted.out
    assert spoken_in(admitted.out) == [asked]


def test_a_wrong_fingerprint_is_refused(desk: Desk) -> None:
    desk.provision()
    desk.init()
    refused = desk.admit("--fingerprint", "0000 0000")
    assert refused.status == 2
    assert "do not admit it" in refused.err
    assert not desk.answer.exists()
    assert desk.status("north")["status"] == "invited"


def test_a_revoked_site_is_listed_with_the_reason_until_it_is_restored(desk: Desk) -> None:
    desk.provision()
    assert desk.type("coordinator", "revoke", "north", "--reason", "left", "--folder", desk.coordinator).status == 0
    assert desk.status("north")["status"] == "revoked"
    assert desk.status("north")["revoked"] == "left"
    assert "north: revoked; left" in desk.type("coordinator", "sites", "--folder", desk.coordinator).out
    assert desk.type("coordinator", "restore", "north", "--folder", desk.coordinator).status == 0
    assert desk.status("north")["status"] == "invited"
    again = desk.type("coordinator", "restore", "north", "--folder", desk.coordinator)
    assert again.status == 2
    assert "is not revoked" in again.err


def test_a_certificate_that_ends_soon_is_warned_of_and_renewed(desk: Desk) -> None:
    desk.provision()
    [asked, _] = spoken_in(desk.init().out)
    desk.admit("--fingerprint", asked)
    desk.join()
    recorded = desk.coordinator / "admissions.json"
    content = json.loads(recorded.read_text())
    recorded.write_text(json.dumps({"north": content["north"] | {"ends": "2021-03-04T00:00:00+00:00"}}))
    listed = desk.type("coordinator", "sites", "--folder", desk.coordinator).out
    assert "certificate until 2021-03-04; WARNING" in listed
    assert "medfed site renew" in listed
    [renewed] = spoken_in(desk.type("site", "renew", "--folder", desk.north).out)
    assert renewed != asked
    refused = desk.admit("--fingerprint", renewed)
    assert refused.status == 2
    assert "--replace" in refused.err
    assert desk.admit("--fingerprint", renewed, "--replace").status == 0
    assert desk.join().status == 0
    assert "WARNING" not in desk.type("coordinator", "sites", "--folder", desk.coordinator).out


def test_programs_read_json(desk: Desk) -> None:
    desk.provision()
    invitation = desk.coordinator / "invitations" / "north.json"
    begun = json.loads(desk.type("site", "init", invitation, "--output", desk.north, "--json").out)
    assert begun["request"] == str(desk.request)
    admitted = json.loads(desk.admit("--fingerprint", begun["fingerprint"], "--json").out)
    assert admitted["answer"] == str(desk.answer)
    assert desk.status("north")["certificate"] == admitted["certificate"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("provision", "missing.yaml", "--output", "made"),
        ("provision", "wrong.yaml", "--output", "made"),
        ("site", "init", "missing.json", "--output", "made"),
        ("site", "init", "wrong.yaml", "--output", "made"),
        ("site", "join", "missing.zip", "--folder", "missing"),
        ("site", "renew", "--folder", "missing"),
        ("coordinator", "admit", "missing.zip", "--folder", "missing"),
        ("coordinator", "revoke", "north", "--folder", "missing"),
        ("coordinator", "restore", "north", "--folder", "missing"),
        ("coordinator", "sites", "--folder", "missing"),
    ],
)
def test_a_persons_mistake_is_explained(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(desk.folder)
    Path("wrong.yaml").write_text("name: [\n")
    ended = desk.type(*arguments)
    assert ended.status == 2
    assert ended.err.startswith("error: ")
    assert not Path("made").exists()
