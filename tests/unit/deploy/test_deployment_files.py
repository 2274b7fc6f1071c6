"""The shipped images, compose files and units hold what they promise, and the checks see it when they do not."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from compose_rules import compose_problems, environment
from dockerfile_rules import dockerfile_problems, stages, whole
from ruamel.yaml import YAML
from unit_rules import settings, unit_problems

from medfed.cli.main import app
from medfed.version import __version__

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
PARTIES = ("coordinator", "site")
PAGES = [ROOT / "docs" / "how-to" / f"deploy-a-{party}.md" for party in PARTIES]
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
analyzer = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not on this machine")


def compose(party: str) -> str:
    return (DEPLOY / f"compose.{party}.yaml").read_text(encoding="utf-8")


def values(party: str) -> dict[str, str]:
    return environment((DEPLOY / f"{party}.env.example").read_text(encoding="utf-8"))


def unit(party: str) -> str:
    return (DEPLOY / f"medfed-{party}.service").read_text(encoding="utf-8")


def changed(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new, 1)


# ------------------------------------------------------------------------------------------------------- compose


@pytest.mark.parametrize("party", PARTIES)
def test_compose_files_hold(party: str) -> None:
    assert compose_problems(compose(party), values(party)) == []


@pytest.mark.parametrize("party", PARTIES)
@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("    init: true\n", "    init: true\n    privileged: true\n", "privileged is set"),
        ("    init: true\n", "    init: true\n    cap_add: [SYS_ADMIN]\n", "cap_add is set"),
        ("    init: true\n", "    init: true\n    network_mode: host\n", "network_mode is set"),
        ('user: "10001:10001"', 'user: "0:0"', "user is not 10001:10001"),
        ("    read_only: true\n    cap_drop", "    cap_drop", "read_only is not True"),
        ("cap_drop: [ALL]", "cap_drop: [NET_RAW]", "cap_drop is not ['ALL']"),
        ("no-new-privileges:true", "no-new-privileges:false", "security_opt is not ['no-new-privileges:true']"),
        ("        read_only: true\n", "", "writable are "),
        ("create_host_path: false", "create_host_path: true", "is not a bind of a folder that exists"),
        ("    pids_limit: 1024\n", "", "pids_limit sets no limit"),
        ("    mem_limit: ${MEDFED_MEMORY}\n", "", "mem_limit sets no limit"),
        ("    memswap_limit: ${MEDFED_MEMORY}", "    memswap_limit: -1", "memory may be swapped"),
        ("      core: 0", "      core: -1", "core dumps may be written"),
        ("test: [CMD,", "test: [NONE,", "there is no health check"),
        ("    healthcheck:\n", "    x-healthcheck:\n", "there is no health check"),
        ("restart: unless-stopped", 'restart: "no"', "restart is not unless-stopped"),
        ("${MEDFED_VERSION}", "latest", "the image has no version"),
        ("noexec,", "", "is too free"),
        ("    read_only: true", "    readonly: true", "schema: $.services"),
        ("mem_limit: ${MEDFED_MEMORY}", "mem_limit: ${MEDFED_MEMROY}", "MEDFED_MEMROY is not in the .env example"),
    ],
)
def test_a_broken_compose_file_is_found(party: str, old: str, new: str, problem: str) -> None:
    found = compose_problems(changed(compose(party), old, new), values(party))
    assert any(problem in each for each in found), found


def test_a_site_opens_no_port_and_the_coordinator_one() -> None:
    site, coordinator = (YAML(typ="safe").load(compose(party))["services"][party] for party in ("site", "coordinator"))
    assert "ports" not in site
    assert "expose" not in site
    assert coordinator["ports"] == ["${MEDFED_LISTEN}:8002:8002"]


@pytest.mark.parametrize("party", PARTIES)
def test_every_variable_of_the_example_is_used(party: str) -> None:
    assert set(values(party)) == set(re.findall(r"\$\{(\w+)\}", compose(party)))


# ----------------------------------------------------------------------------------------------------- Dockerfile


def test_the_dockerfile_holds() -> None:
    assert dockerfile_problems(DOCKERFILE, PARTIES) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("USER 10001:10001", "USER root", "DL3002"),
        ("USER 10001:10001\n", "", "DL3002"),
        ("FROM python:3.12-slim-bookworm AS runtime", "FROM python:latest AS runtime", "DL3006"),
        ("FROM runtime AS site", "FROM build AS site", "the image has a build step in it"),
        ("COPY src src", "ADD src src", "DL3020"),
        ("WORKDIR /source", "WORKDIR source", "DL3000"),
        ("WORKDIR /source\n", "", "DL3045"),
        ('ENTRYPOINT ["medfed"]', "ENTRYPOINT medfed", "DL3025"),
        ('CMD ["medfed", "site", "status"]', "CMD medfed site status", "DL3025"),
        ("HEALTHCHECK --interval=30s", "LABEL interval=30s", "DL3012"),
        ("pip install --no-cache-dir", "pip install", "DL3042"),
        ('"$1[flare]"', "medfed[flare]", "DL3013"),
        ("--no-log-init ", "", "DL3046"),
        ("ARG TORCH_INDEX", "ARG INDEX_TOKEN", "would keep a secret"),
        ("COPY src src", "COPY src src\nRUN cd src", "DL3003"),
        ("RUN groupadd", "RUN echo x | groupadd", "DL4006"),
        ("STOPSIGNAL SIGTERM", "STOPSIGNAL SIGKILL", "not stopped by SIGTERM"),
    ],
)
def test_a_broken_dockerfile_is_found(old: str, new: str, problem: str) -> None:
    found = dockerfile_problems(changed(DOCKERFILE, old, new), PARTIES)
    assert any(problem in each for each in found), found


@pytest.mark.parametrize("party", PARTIES)
def test_compose_and_image_agree(party: str) -> None:
    among = stages(DOCKERFILE)
    body = {each.name: each.rest for each in whole(among[party], among)}
    service = YAML(typ="safe").load(compose(party))["services"][party]
    assert service["healthcheck"]["test"][1:] == json.loads(body["HEALTHCHECK"].partition("CMD ")[2])
    assert service["command"] == json.loads(body["CMD"])
    own = f"MEDFED_{party.upper()}=/{party}"
    assert own in [each.rest for each in among[party].body if each.name == "ENV"]


def test_the_build_sees_only_what_it_copies() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    copied = [each.rest.split()[:-1] for each in stages(DOCKERFILE)["build"].body if each.name == "COPY"]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == {name for names in copied for name in names}


def test_no_registry_of_packages_is_named() -> None:
    assert "://" not in DOCKERFILE


def test_versions_are_those_of_the_package() -> None:
    assert {values(party)["MEDFED_VERSION"] for party in PARTIES} == {__version__}
    assert set(re.findall(r"medfed-(?:coordinator|site):(\S+)", DOCKERFILE)) == {__version__}


# --------------------------------------------------------------------------------------------------------- units


@pytest.mark.parametrize("party", PARTIES)
def test_units_hold(party: str) -> None:
    assert unit_problems(unit(party), party) == []


@pytest.mark.parametrize("party", PARTIES)
@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("User=medfed", "User=root", "User"),
        ("NoNewPrivileges=yes", "NoNewPrivileges=no", "NoNewPrivileges"),
        ("ProtectSystem=strict", "ProtectSystem=full", "ProtectSystem"),
        ("ReadOnlyPaths=-/srv/medfed\n", "", "ReadOnlyPaths"),
        ("ReadWritePaths=", "ReadWritePaths=/srv/medfed ", "ReadWritePaths"),
        ("CapabilityBoundingSet=", "CapabilityBoundingSet=CAP_SYS_ADMIN", "CapabilityBoundingSet"),
        ("SystemCallFilter=~@privileged\n", "", "SystemCallFilter"),
        ("Restart=on-failure", "Restart=no", "Restart"),
        ("LimitCORE=0", "LimitCORE=infinity", "LimitCORE"),
        ("TasksMax=1024\n", "", "TasksMax"),
        ("KillSignal=SIGTERM", "KillSignal=SIGKILL", "KillSignal"),
    ],
)
def test_a_broken_unit_is_found(party: str, old: str, new: str, problem: str) -> None:
    found = unit_problems(changed(unit(party), old, new), party)
    assert any(problem in each for each in found), found


def test_both_units_are_hardened_alike() -> None:
    own = {"Description", "MemoryMax"}
    coordinator, site = (
        {key: value for key, value in settings(unit(party).replace(party, "PARTY")).items() if key not in own}
        for party in PARTIES
    )
    assert coordinator == site


def verified(text: str, party: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What systemd says of the unit, whose program stands in for the one that is not installed here."""
    file = folder / f"medfed-{party}.service"
    file.write_text(text.replace("/opt/medfed/bin/medfed", sys.executable))
    return subprocess.run(["systemd-analyze", "verify", file], capture_output=True, text=True, check=False)


@analyzer
@pytest.mark.parametrize("party", PARTIES)
def test_systemd_accepts_the_units(party: str, tmp_path: Path) -> None:
    found = verified(unit(party), party, tmp_path)
    assert f"medfed-{party}.service" not in found.stderr, found.stderr
    assert found.returncode == 0


@analyzer
def test_systemd_finds_an_unknown_key(tmp_path: Path) -> None:
    found = verified(changed(unit("site"), "PrivateTmp=", "PrivateTemp="), "site", tmp_path)
    assert "PrivateTemp" in found.stderr


@analyzer
@pytest.mark.parametrize("party", PARTIES)
def test_systemd_finds_the_exposure_small(party: str) -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", DEPLOY / f"medfed-{party}.service"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


# ---------------------------------------------------------------------------------------------------- the how-tos


def commands_of(text: str) -> list[list[str]]:
    """The medfed commands in a page's code, as words, whoever is asked to run them."""
    joined = re.sub(r"\\\n\s*", " ", text)
    fenced = "\n".join(re.findall(r"^```\w*\n(.*?)^```", joined, re.MULTILINE | re.DOTALL))
    indented = "\n".join(re.findall(r"^    (.*)$", re.sub(r"^```.*?^```", "", joined, flags=re.M | re.S), re.MULTILINE))
    inline = "\n".join(re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", joined, flags=re.M | re.S)))
    calls = re.compile(r"(?:^|/bin/|\b(?:run|exec)(?: [^ \n]+)*? (?:site|coordinator) )medfed ([a-z][^|;#\n]*)", re.M)
    entered = re.compile(r"\brun (?:[^ \n]+ )*?(?:site|coordinator) ((?:site|coordinator|provision|submit) [^|;#\n]*)")
    code = f"{fenced}\n{indented}\n{inline}"
    return [found.split() for found in [*calls.findall(code), *entered.findall(code)]]


def unknown(words: list[str]) -> str | None:
    """What of a command line the program does not know."""
    command = typer.main.get_command(app)
    words = list(words)
    while words and words[0] in (known := getattr(command, "commands", {})):
        command = known[words.pop(0)]
    if getattr(command, "commands", None):
        return f"{command.name} has no command {words[:1]}"
    options = {name for parameter in command.params for name in parameter.opts}
    strange = [word for word in words if word.startswith("--") and word.partition("=")[0] not in {*options, "--help"}]
    return f"{command.name} has no option {strange}" if strange else None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_the_pages_exists(page: Path) -> None:
    found = commands_of(page.read_text(encoding="utf-8"))
    assert len(found) > 10
    assert [problem for words in found if (problem := unknown(words))] == []


def test_commands_are_found_and_judged() -> None:
    text = "Use `medfed ledger verify` or\n\n    sudo -u medfed /opt/medfed/bin/medfed check --nope x\n\n"
    text += "```\ndocker compose exec site medfed frobnicate now\ndocker compose run --rm -v a:b site site check\n```\n"
    found = commands_of(text)
    assert sorted(found) == [["check", "--nope", "x"], ["frobnicate", "now"], ["ledger", "verify"], ["site", "check"]]
    assert unknown(["ledger", "verify"]) is None
    assert unknown(["check", "--nope", "x"]) == "check has no option ['--nope']"
    assert "has no command" in str(unknown(["frobnicate", "now"]))
