from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

import pytest

from medfed.core.errors import UserError
from medfed.engine.flare.health import answered, coordinator_health, pulse, site_health


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "identity.json").write_text(json.dumps({"site": "north"}))
    return tmp_path


def test_a_site_is_healthy_while_its_service_beats(site: Path) -> None:
    assert not site_health(site).healthy
    pulse(site).give()
    assert site_health(site).healthy
    pulse(site).end()
    assert site_health(site).sentence == "the service of north does not run"


def test_a_service_that_hangs_is_not_healthy(site: Path) -> None:
    pulse(site).give()
    long_ago = time.time() - 100
    os.utime(pulse(site).path, (long_ago, long_ago))
    health = site_health(site)
    assert not health.healthy
    assert "no sign of life for 100 s" in health.sentence


def test_a_site_says_since_when_the_coordinator_has_not_answered(site: Path) -> None:
    pulse(site).give()
    assert site_health(site).sentence == "the service of north runs; the coordinator has not answered it yet"
    answered(site).give()
    assert site_health(site).sentence == "the service of north runs, and the coordinator answers it"
    long_ago = time.time() - 100
    os.utime(answered(site).path, (long_ago, long_ago))
    health = site_health(site)
    assert health.healthy, "it is the coordinator that is away"
    assert health.sentence == "the service of north runs; the coordinator has not answered it for 100 s"


def test_a_coordinator_is_healthy_only_while_its_port_is_listened_on(tmp_path: Path) -> None:
    with socket.create_server(("localhost", 0)) as listening:
        port = listening.getsockname()[1]
        about = {"name": "one", "coordinator": {"host": "localhost", "port": port}, "sites": {"north": {}}}
        (tmp_path / "consortium.yaml").write_text(json.dumps(about))
        assert not coordinator_health(tmp_path).healthy, "another program has the port"
        pulse(tmp_path).give()
        assert coordinator_health(tmp_path).healthy
    assert coordinator_health(tmp_path).sentence.startswith(f"nothing listens on port {port}")


def test_a_folder_without_a_party_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no site in this folder"):
        site_health(tmp_path)
