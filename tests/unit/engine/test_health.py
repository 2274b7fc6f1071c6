from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

import pytest

from medfed.core.errors import UserError
from medfed.engine.flare.health import Pulse, coordinator_health, site_health


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "identity.json").write_text(json.dumps({"site": "north"}))
    return tmp_path


def test_a_site_is_healthy_while_its_service_beats(site: Path) -> None:
    assert not site_health(site).healthy
    Pulse(site).beat()
    assert site_health(site).healthy
    Pulse(site).stop()
    assert site_health(site).sentence == "the service of north does not run"


def test_a_service_that_hangs_is_not_healthy(site: Path) -> None:
    Pulse(site).beat()
    long_ago = time.time() - 100
    os.utime(Pulse(site).path, (long_ago, long_ago))
    health = site_health(site)
    assert not health.healthy
    assert "no sign of life for 100 s" in health.sentence


def test_a_coordinator_is_healthy_only_while_its_port_is_listened_on(tmp_path: Path) -> None:
    with socket.create_server(("localhost", 0)) as listening:
        port = listening.getsockname()[1]
        about = {"name": "one", "coordinator": {"host": "localhost", "port": port}, "sites": {"north": {}}}
        (tmp_path / "consortium.yaml").write_text(json.dumps(about))
        assert not coordinator_health(tmp_path).healthy, "another program has the port"
        Pulse(tmp_path).beat()
        assert coordinator_health(tmp_path).healthy
    assert coordinator_health(tmp_path).sentence.startswith(f"nothing listens on port {port}")


def test_a_folder_without_a_party_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no site in this folder"):
        site_health(tmp_path)
