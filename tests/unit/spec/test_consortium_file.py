from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfed.core.errors import TaskError
from medfed.spec.consortium import RESERVED, ConsortiumSpec, load_consortium

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "consortium-file.md"
EXAMPLE = """\
name: Heart consortium
coordinator:
  host: fl.example.org
  port: 9002
sites:
  northern: {contact: "Research IT, +49 30 1234-567"}
  rural:
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "consortium.yaml"
    path.write_text(text)
    return path


def refusal(folder: Path, text: str) -> TaskError:
    with pytest.raises(TaskError) as caught:
        load_consortium(written(folder, text))
    return caught.value


def test_a_consortium(tmp_path: Path) -> None:
    spec = load_consortium(written(tmp_path, EXAMPLE))
    at = spec.coordinator
    assert (spec.name, at.host, at.port, at.admin_port) == ("Heart consortium", "fl.example.org", 9002, 8003)
    contacts = {name: member.contact for name, member in spec.sites.items()}
    assert contacts == {"northern": "Research IT, +49 30 1234-567", "rural": None}


def test_the_example_of_the_docs_loads(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert list(load_consortium(written(tmp_path, example)).sites) == ["northern", "coastal", "rural"]


BAD = {
    "no name": ("name: Heart consortium", "", 1, "name"),
    "misspelt": ("  port:", "  prot:", 4, "prot"),
    "no host": ("  host: fl.example.org\n", "", 2, "coordinator.host"),
    "url": ("fl.example.org", "https://fl.example.org", 3, "host"),
    "host and port": ("fl.example.org", "fl.example.org:8002", 3, "host"),
    "half an address": ("fl.example.org", "192.0.2", 3, "host"),
    "address out of range": ("fl.example.org", "192.0.2.256", 3, "host"),
    "empty host": ("fl.example.org", "''", 3, "host"),
    "host with a path": ("fl.example.org", "fl.example.org/x", 3, "host"),
    "long host": ("fl.example.org", "a" * 64 + ".example", 3, "host"),
    "port 0": ("9002", "0", 4, "at least 1"),
    "port beyond": ("9002", "65536", 4, "at most 65535"),
    "port as text": ("9002", "'9002'", 4, "port"),
    "same ports": ("9002", "8003", 2, "8003"),
    "no sites": (EXAMPLE[EXAMPLE.index("sites:") :], "", 1, "no hospital"),
    "empty sites": (EXAMPLE[EXAMPLE.index("sites:") :], "sites: {}\n", 5, "no hospital"),
    "list of sites": (EXAMPLE[EXAMPLE.index("sites:") :], "sites: [north]\n", 5, "no hospital"),
    "a site's address": ("rural:", "rural: 192.0.2.1", 7, "rural"),
    "space in a name": ("rural:", "rural site:", 7, "rural site"),
    "dots in a name": ("rural:", "../rural:", 7, "../rural"),
    "umlaut": ("rural:", "ländlich:", 7, "ländlich"),
    "long name": ("rural:", "r" * 64 + ":", 7, "r" * 64),
    "alike": ("rural:", "Northern:", 5, "northern, Northern"),
    "the host": ("host: fl.example.org", "host: rural", 5, "rural, rural"),
    "empty contact": ('"Research IT, +49 30 1234-567"', "''", 6, "contact"),
    "contact in lines": ("Research IT, ", "Research IT\\n", 6, "contact"),
    "site's key": ("rural:", "rural: {role: host}", 7, "role"),
}


@pytest.mark.parametrize(("old", "new", "line", "cause"), BAD.values(), ids=BAD)
def test_a_bad_consortium_is_refused_at_its_line(tmp_path: Path, old: str, new: str, line: int, cause: str) -> None:
    assert old in EXAMPLE
    error = refusal(tmp_path, EXAMPLE.replace(old, new, 1))
    assert error.where == f"{tmp_path / 'consortium.yaml'}:{line}"
    assert cause in error.cause
    assert error.remedy


@pytest.mark.parametrize("name", [*sorted(RESERVED), "Server"])
def test_names_of_other_parties_are_taken(tmp_path: Path, name: str) -> None:
    assert "something else" in refusal(tmp_path, EXAMPLE.replace("rural", name)).cause


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    text = EXAMPLE.replace("fl.example.org", "a b").replace("9002", "0").replace("rural:", "a.b: {x: 1}")
    error = refusal(tmp_path, text)
    lines = [int(line) for line in re.findall(r"consortium\.yaml:(\d+):", error.cause)]
    assert error.cause.startswith("4 things are wrong")
    assert lines == [3, 4, 7, 7]


@given(st.text(max_size=70))
def test_names_of_sites_are_those_of_the_contract(name: str) -> None:
    legal = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", name) and name.lower() not in RESERVED | {"h"}
    content = {"name": "c", "coordinator": {"host": "h"}, "sites": {name: None}}
    if legal:
        assert list(ConsortiumSpec.model_validate(content).sites) == [name]
    else:
        with pytest.raises(ValueError, match="sites"):
            ConsortiumSpec.model_validate(content)


@pytest.mark.parametrize("host", ["localhost", "192.0.2.7", "a-b.c1.example", "x" * 63 + ".example", "3com.example"])
def test_hosts(tmp_path: Path, host: str) -> None:
    assert load_consortium(written(tmp_path, EXAMPLE.replace("fl.example.org", host))).coordinator.host == host
