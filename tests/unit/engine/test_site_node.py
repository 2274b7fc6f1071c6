from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_parts import CALLS, DIGEST, RUN, Diary, Part, Ping, request

from medfed.core.codec import encode
from medfed.core.errors import DataError, RefusalReason
from medfed.core.protocols import SiteContext
from medfed.core.steps import Release, step
from medfed.core.wire import Failure, Reply, Request
from medfed.data.arrays import ArrayData, load_arrays
from medfed.engine.rows import SiteRows
from medfed.engine.site import SiteNode
from medfed.engine.store import RunStore
from medfed.govern.keys import SigningKey
from medfed.govern.ledger import LedgerFolder
from medfed.models.catalogue import NetworkCache
from medfed.spec.loading import task_of
from medfed.spec.policy import Limits, Policy, QuietHours

SECRET = "PATIENT-7421-SECRET"
TASK = task_of(
    {
        "task_type": "classification",
        "model": "logistic",
        "federation": {"strategy": "fedavg", "epochs": 2},
        "data": {"label": {"column": "y", "classes": [0, 1]}, "split": {"train": 0.5, "validation": 0, "test": 0.5}},
    }
).spec
TABLE = load_arrays(TASK.data, "classification", "north", ArrayData(np.eye(40, 3), np.arange(40) % 2), 0)
ROWS = SiteRows(TABLE)
PATIENTS = TABLE.patients(None)
ALLOWED = request(base=0, round_=1)
SIZE = len(encode(ALLOWED.message))
KEPT = 2.0**20


@step(releases=Release.SUM)
def quote_a_patient(site: SiteContext, message: Ping) -> Part:
    CALLS.append(site.site)
    raise ValueError(f"cannot convert {SECRET!r} to float, nor \ud800")


@step(releases=Release.SUM)
def explain_itself(site: SiteContext, message: Ping) -> Part:
    raise DataError("no row has a value", where=f"line of {SECRET}")


def tight_policy() -> Policy:
    """Exactly what :data:`ALLOWED` needs."""
    return Policy(
        tasks=(DIGEST,),
        task_types=("classification",),
        algorithms=("fedavg",),
        steps=("engine_parts.add_up",),
        releases=("sum",),
        minimum_patients=TABLE.patients(_train()),
        limits=Limits(rounds=1, requests=1, request_bytes=SIZE, released_bytes=_released_bytes()),
    )


def _train() -> Any:
    from medfed.core.examples import Split

    return Split.TRAIN


def _released_bytes() -> int:
    from engine_parts import part

    return len(encode(part(1.0, 2.0)))


class Site:
    """A node in a folder, and what can be seen of it from outside."""

    def __init__(self, folder: Path, policy: Policy) -> None:
        self.folder = folder
        self.policy = policy
        self.ledgers = LedgerFolder.open(folder / "ledger", SigningKey.generate(), durable=False)
        self.store = RunStore.open(folder / "memory")
        self.node = SiteNode(
            run=RUN,
            site="north",
            task=TASK,
            digest=DIGEST,
            steps=frozenset(
                {
                    "engine_parts.add_up",
                    "engine_parts.divide_by_zero",
                    "test_site_node.quote_a_patient",
                    "test_site_node.explain_itself",
                }
            ),
            rows=lambda: ROWS,
            policy=lambda: self.policy,
            ledger=self.ledgers.ledger("north"),
            memory=self.store.site("north"),
            networks=NetworkCache(TASK.model, TASK.seed),
            log=folder / "site.log",
        )

    def handle(self, asked: Request) -> Reply:
        return self.node.handle(asked)

    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "ledger" / "north.jsonl").read_text().splitlines()]

    def close(self) -> None:
        self.store.close()
        self.ledgers.close()

    @property
    def handled(self) -> int:
        """The requests of which anything stands in the memory on disk."""
        with RunStore.open(self.folder / "memory") as store:
            return store.site("north").requests

    @property
    def log(self) -> str:
        path = self.folder / "site.log"
        return path.read_text() if path.is_file() else ""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    CALLS.clear()
    built = Site(tmp_path, tight_policy())
    yield built
    built.close()


def test_a_policy_that_allows_exactly_one_request_admits_it(site: Site) -> None:
    reply = site.handle(ALLOWED)
    assert isinstance(reply.body, Part)
    assert (reply.run, reply.site, reply.round, reply.call, reply.version) == (RUN, "north", 1, 0, 1)
    assert CALLS == ["north"]
    (entry,) = site.entries()
    assert (entry["kind"], entry["step"], entry["release"]) == ("release", "engine_parts.add_up", "sum")
    assert entry["shapes"] == ["values float32[2]", "squares float64[2]", "rows int"]
    assert entry["bytes"] == _released_bytes()


def altered(policy: Policy, key: str, value: Any) -> Policy:
    section, _, name = key.rpartition(".")
    if section:
        return policy.model_copy(update={section: policy.limits.model_copy(update={name: value})})
    return policy.model_copy(update={key: value})


ALL_DAY = QuietHours.model_validate({"from": "00:00", "to": "24:00"})
ALTERED = [
    ("tasks", ("cd" * 32,)),
    ("tasks", ()),
    ("task_types", ("regression",)),
    ("algorithms", ("scaffold",)),
    ("steps", ("engine_parts.tell",)),
    ("releases", ("site", "levels")),
    ("quiet_hours", (ALL_DAY,)),
    ("minimum_patients", PATIENTS),
    ("limits.rounds", 0),
    ("limits.requests", 0),
    ("limits.request_bytes", SIZE - 1),
    ("limits.released_bytes", 0),
]


@pytest.mark.parametrize(("key", "value"), ALTERED, ids=[f"{key}={value}"[:40] for key, value in ALTERED])
def test_one_altered_field_of_the_policy_refuses_and_the_step_does_not_run(site: Site, key: str, value: Any) -> None:
    site.policy = altered(site.policy, key, value)
    reply = site.handle(ALLOWED)
    assert isinstance(reply.body, Failure)
    assert reply.body.code == "refused"
    assert reply.version == ALLOWED.base
    assert CALLS == []
    assert site.handled == 0
    (entry,) = site.entries()
    assert (entry["kind"], entry["code"]) == ("refusal", f"policy.{key}")


def test_every_key_of_the_policy_is_altered_above() -> None:
    rules = (*(f for f in Policy.model_fields if f != "limits"), *(f"limits.{f}" for f in Limits.model_fields))
    of_the_steps = {"minimum_count", "cpus", "memory", "epsilon", "delta", "explanations"}
    assert {key for key, _ in ALTERED} == set(rules) - of_the_steps
    assert {f"policy.{key}" for key, _ in ALTERED} == {
        r.value for r in RefusalReason if r.value.startswith("policy.")
    } - {"policy.epsilon", "policy.explanations"}


def test_a_reply_too_large_for_the_rest_of_the_limit_is_held_back_after_the_step(site: Site) -> None:
    site.policy = altered(site.policy, "limits.released_bytes", _released_bytes() - 1)
    reply = site.handle(ALLOWED)
    assert isinstance(reply.body, Failure)
    assert site.entries()[-1]["code"] == "policy.limits.released_bytes"
    assert site.handled == 0


def test_limits_count_over_requests(site: Site) -> None:
    assert isinstance(site.handle(ALLOWED).body, Part)
    refused = site.handle(request(base=1, call=1))
    assert isinstance(refused.body, Failure)
    assert site.entries()[-1]["code"] == "policy.limits.requests"
    assert CALLS == ["north"]


def test_failed_requests_count_against_the_limit_too(site: Site) -> None:
    site.policy = Policy.permissive().model_copy(update={"limits": Limits(requests=2)})
    for call in range(2):
        site.handle(request(call=call, step_name="test_site_node.quote_a_patient"))
    assert isinstance(site.handle(ALLOWED).body, Failure)
    assert site.entries()[-1]["code"] == "policy.limits.requests"
    assert CALLS == ["north", "north"]


def test_the_policy_is_read_at_every_request(site: Site) -> None:
    site.policy = altered(Policy.permissive(), "steps", "*")
    assert isinstance(site.handle(ALLOWED).body, Part)
    site.policy = Policy()
    assert isinstance(site.handle(request(base=1, call=1)).body, Failure)
    site.policy = Policy.permissive()
    assert isinstance(site.handle(request(base=1, call=1)).body, Part)


@pytest.mark.parametrize(
    ("asked", "kind", "code"),
    [
        (request(site="south"), "refusal", "refused"),
        (replace(ALLOWED, run="run-2"), "refusal", "refused"),
        (request(message=Diary(1)), "refusal", "refused"),
        (request(round_=-1), "refusal", "refused"),
        (request(call=-1), "refusal", "refused"),
        (request(task="cd" * 32), "refusal", "policy.tasks"),
        (request(step_name="engine_parts.install_a_backdoor"), "failure", "codec"),
        (request(step_name="os.system"), "failure", "codec"),
        (request(step_name="engine_parts.tell"), "refusal", "policy.steps"),
        (request(base=5), "failure", "memory"),
    ],
    ids=[
        "another site",
        "another run",
        "another message",
        "round below 0",
        "call below 0",
        "another task",
        "unknown step",
        "a function",
        "undeclared step",
        "unknown base",
    ],
)
def test_what_a_permissive_site_does_not_do_either(site: Site, asked: Request, kind: str, code: str) -> None:
    site.policy = Policy.permissive()
    reply = site.handle(asked)
    assert isinstance(reply.body, Failure)
    assert reply.body.step == asked.step
    assert CALLS == []
    assert site.handled == 0
    (entry,) = site.entries()
    assert (entry["kind"], entry["code"]) == (kind, code)


def test_a_trace_that_quotes_a_patient_stays_in_the_sites_log(site: Site) -> None:
    site.policy = Policy.permissive()
    reply = site.handle(request(step_name="test_site_node.quote_a_patient"))
    assert isinstance(reply.body, Failure)
    assert CALLS == ["north"]
    assert SECRET.encode() not in encode(reply)
    assert SECRET not in (site.folder / "ledger" / "north.jsonl").read_text()
    assert SECRET in site.log
    assert "ValueError" in site.log
    assert "site's own log" in reply.body.sentence
    assert site.entries()[-1]["kind"] == "failure"


def test_an_explained_error_crosses_without_its_place(site: Site) -> None:
    site.policy = Policy.permissive()
    reply = site.handle(request(step_name="test_site_node.explain_itself"))
    assert isinstance(reply.body, Failure)
    assert (reply.body.code, reply.body.sentence) == ("data", "no row has a value")
    assert SECRET.encode() not in encode(reply)


def test_a_log_that_cannot_be_written_keeps_no_reply_from_leaving(site: Site) -> None:
    site.policy = Policy.permissive()
    (site.folder / "site.log").mkdir()
    reply = site.handle(request(step_name="test_site_node.quote_a_patient"))
    assert isinstance(reply.body, Failure)
    assert site.entries()[-1]["kind"] == "failure"


def close_the_ledger(site: Site) -> None:
    site.ledgers.close()


def fill_the_disk(site: Site) -> None:
    """Put a device that is always full behind the ledger's descriptor."""
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, site.ledgers._files.descriptor("north.jsonl", new=False))
    os.close(full)


@pytest.mark.parametrize("break_ledger", [close_the_ledger, fill_the_disk])
def test_without_a_ledger_nothing_leaves_and_nothing_is_kept(site: Site, break_ledger: Any) -> None:
    site.policy = Policy.permissive()
    assert isinstance(site.handle(ALLOWED).body, Part)
    written = site.entries()
    break_ledger(site)
    asked = request(base=1, call=1)
    reply = site.handle(asked)
    assert isinstance(reply.body, Failure)
    assert reply.body.code == "refused"
    assert "ledger could not be written" in reply.body.sentence
    assert reply.version == 1
    assert site.handled == 1
    assert site.node.memory.stored_reply(asked) is None
    assert site.entries() == written
    assert "its ledger could not be written" in site.log


def test_a_repeat_does_not_leave_without_a_ledger_either(site: Site) -> None:
    site.policy = Policy.permissive()
    site.handle(ALLOWED)
    site.ledgers.close()
    assert isinstance(site.handle(ALLOWED).body, Failure)


def test_a_repeated_request_is_answered_from_memory_and_said_so(site: Site) -> None:
    first = site.handle(ALLOWED)
    second = site.handle(ALLOWED)
    assert encode(first) == encode(second)
    assert CALLS == ["north"]
    release, repeat = site.entries()
    assert (release["kind"], repeat["kind"]) == ("release", "repeat")
    assert release["digest"] == repeat["digest"]
    assert (site.node.memory.requests, site.node.memory.released_bytes) == (1, _released_bytes())


def test_a_repeated_request_is_refused_under_a_policy_that_no_longer_allows_it(site: Site) -> None:
    site.handle(ALLOWED)
    site.policy = Policy()
    assert isinstance(site.handle(ALLOWED).body, Failure)
    assert site.entries()[-1]["kind"] == "refusal"


def test_a_repeat_after_a_restart_still_computes_nothing(site: Site) -> None:
    first = site.handle(ALLOWED)
    site.store.close()
    site.store = RunStore.open(site.folder / "memory")
    restarted = replace(site.node, memory=site.store.site("north"))
    assert encode(restarted.handle(ALLOWED)) == encode(first)
    assert CALLS == ["north"]


def test_nan_in_a_summed_reply_does_not_leave(site: Site) -> None:
    site.policy = Policy.permissive()
    reply = site.handle(request(step_name="engine_parts.divide_by_zero"))
    assert isinstance(reply.body, Failure)
    assert CALLS == ["north"]
    assert (site.entries()[-1]["kind"], site.entries()[-1]["code"]) == ("failure", "data")
    assert site.handled == 0


def test_what_a_failed_step_kept_is_not_remembered(site: Site) -> None:
    site.policy = Policy.permissive()
    site.handle(ALLOWED)
    site.handle(request(base=1, call=1, step_name="test_site_node.quote_a_patient"))
    assert site.node.memory.newest(Diary).entry == 1
    third = site.handle(request(base=1, call=2, message=Ping(4)))
    assert third.version == 2
    assert site.node.memory.newest(Diary).entry == 5


def test_a_base_older_than_what_the_coordinator_settled_is_refused(site: Site) -> None:
    site.policy = Policy.permissive()
    for number in range(3):
        site.handle(request(base=number, call=number))
    reply = site.handle(request(base=1, settled=2, call=9))
    assert isinstance(reply.body, Failure)
    assert reply.body.code == "memory"
    assert len(CALLS) == 3


def test_a_memory_that_cannot_be_written_gives_a_failure_in_place_of_the_reply(site: Site) -> None:
    site.policy = Policy.permissive()
    site.handle(ALLOWED)
    other = sqlite3.connect(site.folder / "memory")
    other.execute("CREATE TRIGGER full BEFORE INSERT ON version BEGIN SELECT RAISE(FAIL, 'full'); END")
    other.commit()
    asked = request(base=1, call=1)
    reply = site.handle(asked)
    assert isinstance(reply.body, Failure)
    assert reply.body.code == "run_folder"
    other.execute("DROP TRIGGER full")
    other.commit()
    other.close()
    assert isinstance(site.handle(asked).body, Part)
    assert site.node.memory.newest(Diary).entry == 2
