"""A connection that stands and carries nothing: FLARE's client would wait for ever; the site's service does not."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from consortium_in_memory import SITES, task_over
from flare_consortium import FlareConsortium, _kill
from relay import Relay

from medfed.engine.flare.health import site_health
from medfed.spec.loading import task_of

pytestmark = pytest.mark.slow

BEHIND = "ost"


@pytest.fixture
def line(tmp_path: Path) -> Iterator[tuple[FlareConsortium, Relay]]:
    """A consortium, one site of which reaches its coordinator through a relay."""
    consortium = FlareConsortium.provision(tmp_path)
    about = consortium.folder(BEHIND) / "flare" / "startup" / "fed_client.json"
    content = json.loads(about.read_text())
    service = content["servers"][0]["service"]
    with closing(Relay(int(service["target"].rpartition(":")[2]))) as found:
        service["target"] = f"localhost:{found.port}"
        about.write_text(json.dumps(content))
        try:
            consortium.start()
            yield consortium, found
        finally:
            consortium.stop()
            _kill(consortium.processes())


def wait_until_said(consortium: FlareConsortium, words: str, seconds: float) -> None:
    until = time.monotonic() + seconds
    while words not in (said := site_health(consortium.folder(BEHIND)).sentence):
        assert time.monotonic() < until, said
        consortium.look_after()
        time.sleep(0.2)


def test_a_client_that_is_not_heard_is_begun_anew(line: tuple[FlareConsortium, Relay]) -> None:
    consortium, found = line
    wait_until_said(consortium, "and the coordinator answers it", 240)
    log = consortium.services[BEHIND].log
    before = log.read_text().count('"event": "silent"')
    found.freeze()
    wait_until_said(consortium, "the coordinator has not answered it for", 60)
    assert log.read_text().count('"event": "silent"') == before, "the service has patience"

    task = task_over(dict.fromkeys(SITES, "rows"), rounds=2, quorum=1.0)
    submission = consortium.submit(task_of(task.document.data | {"name": "a silent line"}))
    events = consortium.follow(submission, 400)
    assert events[-1]["event"] == "finished"
    assert events[0]["event"] == "waiting" and BEHIND in events[0]["sites"]
    assert log.read_text().count('"event": "silent"') == before + 1
    wait_until_said(consortium, "and the coordinator answers it", 30)
