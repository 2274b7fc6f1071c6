"""The reference of the files that people write says what the code says."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from medfed.spec.policy import Policy
from medfed.spec.task import FederationSpec, TaskSpec

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_reference_generate", REFERENCE / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look it up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["task-file.md", "site-policy.md", "site-file.md", "consortium-file.md"])
def test_the_committed_page_is_what_the_generator_writes(generate: ModuleType, name: str) -> None:
    committed = (REFERENCE / name).read_text()
    assert generate.filled(committed, *generate.PAGES[name]) == committed


def test_every_key_of_a_section_is_listed(generate: ModuleType) -> None:
    paths = {key.path for key in generate.keys_of(TaskSpec)}
    sections = {"strategy", "schedule", "compression", "pruning", "distillation", "fine_tune"}
    plain = set(FederationSpec.model_fields) - sections
    assert {f"federation.{name}" for name in plain} <= paths
    assert {"federation.strategy.name", "federation.schedule.gamma", "federation.pruning.share"} <= paths
    assert {"data.columns.*.levels", "sites.*.policy"} <= paths
    assert {key.path for key in generate.keys_of(Policy)} >= {"tasks", "minimum_count", "limits.rounds"}
    assert {key.path for key in generate.keys_of(Policy)} >= {"quiet_hours", "quiet_hours.*.from"}


def test_a_key_without_a_meaning_is_told(generate: ModuleType) -> None:
    page = (REFERENCE / "site-policy.md").read_text()
    meanings = {key: text for key, text in generate.POLICY_MEANINGS.items() if key != "limits.rounds"}
    with pytest.raises(ValueError, match=r"limits\.rounds"):
        generate.filled(page, Policy, meanings)


def test_a_changed_table_is_noticed(generate: ModuleType) -> None:
    page = (REFERENCE / "site-policy.md").read_text()
    stale = page.replace("| `10` |", "| `11` |")
    assert stale != page
    assert generate.filled(stale, *generate.PAGES["site-policy.md"]) == page
