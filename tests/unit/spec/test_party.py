import json

import pytest
from pydantic import ValidationError

from medfed.core.errors import TaskError
from medfed.spec.party import Party, PartyConfig, RemoteParty, load_party_config

EXAMPLE = """{
  "local": {"role": "guest", "party_id": 9999},
  "remote": {
    "role": "host",
    "party_id": 10000,
    "address": "host:9000"
  }
}
"""


def written(tmp_path, text):
    path = tmp_path / "party_config.json"
    path.write_text(text)
    return path


def test_one_remote_party(tmp_path):
    config = load_party_config(written(tmp_path, EXAMPLE))
    assert config.local == Party(role="guest", party_id=9999)
    (remote,) = config.remote
    assert (remote.role, remote.party_id, remote.host, remote.port) == ("host", 10000, "host", 9000)


def test_several_remote_parties_and_ipv6(tmp_path):
    content = json.loads(EXAMPLE)
    content["remote"] = [
        content["remote"],
        {"role": "arbiter", "party_id": 3, "address": "[2001:db8::1]:65535"},
    ]
    config = load_party_config(written(tmp_path, json.dumps(content)))
    assert [(p.host, p.port) for p in config.remote] == [("host", 9000), ("2001:db8::1", 65535)]


def test_a_config_made_in_python_is_checked_too():
    local, remote = Party(role="guest", party_id=1), RemoteParty(role="host", party_id=1, address="h:1")
    with pytest.raises(ValidationError, match="party_id"):
        PartyConfig(local=local, remote=remote)


BAD = {
    "role": ('"role": "host"', '"role": "server"', 4, "`guest`, `host`, `arbiter`"),
    "no role": ('"role": "host",', "", 3, "remote[0].role"),
    "zero": ("10000", "0", 5, "party_id"),
    "text": ("10000", '"10000"', 5, "party_id"),
    "same id": ("10000", "9999", 3, "another party"),
    "no port": ("host:9000", "host", 6, "address"),
    "port 0": ("host:9000", "host:0", 6, "address"),
    "port 65536": ("host:9000", "host:65536", 6, "address"),
    "bare ipv6": ("host:9000", "::1:9000", 6, "address"),
    "bad ipv6": ("host:9000", "[::zz]:9000", 6, "address"),
    "url": ("host:9000", "http://host:9000", 6, "address"),
    "path": ("host:9000", "../host:9000", 6, "address"),
    "newline": ("host:9000", "host:9000\\n", 6, "address"),
    "unknown key": ('"address"', '"adress"', 3, "address"),
    "no local": ('"local"', '"locale"', 1, "local"),
    "no remote parties": (EXAMPLE[EXAMPLE.index("{\n    ") :], "[]\n}", 3, "remote"),
    "syntax": ('"role": "host",', '"role": "host"', 5, "malformed"),
    "key twice": ('"party_id": 10000', '"role": "host"', 5, "twice"),
}


@pytest.mark.parametrize(("old", "new", "line", "cause"), BAD.values(), ids=BAD)
def test_a_bad_config_is_refused_at_its_line(tmp_path, old, new, line, cause):
    assert old in EXAMPLE
    path = written(tmp_path, EXAMPLE.replace(old, new))
    with pytest.raises(TaskError) as caught:
        load_party_config(path)
    assert caught.value.where == f"{path}:{line}"
    assert cause in caught.value.cause
    assert caught.value.remedy
