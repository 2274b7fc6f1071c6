"""A federation in memory for the tests of this folder: every message goes through the codec."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from medfed.core.codec import decode, encode
from medfed.core.messages import add, out_of_bounds
from medfed.data.encoding import Encoding
from medfed.data.encoding import encode as encode_rows_of
from medfed.data.prepare import agreed_columns, fit_encoding
from medfed.data.table import SiteTable
from medfed.spec.policy import Policy
from medfed.spec.task import DataSpec, TaskSpec


class MemorySite:
    round = 0

    def __init__(self, table: SiteTable, policy: Policy) -> None:
        self.site = table.site
        task = SimpleNamespace(monitored_split="test", model=SimpleNamespace(input_size=None))
        self.resources: dict[type, Any] = {SiteTable: table, Policy: policy, TaskSpec: task}
        self.memory: dict[type, Any] = {}

    def resource(self, kind):
        return self.resources[kind]

    def examples(self, split):
        return encode_rows_of(self.resources[SiteTable], self.memory[Encoding], split)

    def keep(self, memory):
        self.memory[type(memory)] = memory

    def recall(self, kind):
        return self.memory.get(kind)


class MemoryFederation:
    round = 0

    def __init__(self, *tables: SiteTable, refusing: tuple[str, ...] = (), minimum: int = 5) -> None:
        policy = Policy.permissive().model_copy(update={"minimum_count": minimum})
        self.nodes = {table.site: MemorySite(table, policy) for table in tables}
        self.refusing = refusing
        self.called: list[str] = []

    @property
    def sites(self):
        return tuple(sorted(self.nodes))

    def ask(self, step, message, *, sites=None):
        self.called.append(step.name)
        sent = decode(encode(message), step.message)
        replies = {name: step.run(self.nodes[name], sent) for name in self.sites if name not in self.refusing}
        return {name: decode(encode(reply), step.reply) for name, reply in replies.items()}

    def stream(self, step, message, *, sites=None):
        return iter(self.ask(step, message, sites=sites).items())

    def sum(self, step, message, *, sites=None):
        refusing, self.refusing = self.refusing, ()
        total = None
        for reply in self.ask(step, message).values():
            assert out_of_bounds(reply) is None
            total = add(total, reply)
        self.refusing = refusing
        return total


def prepare(fed: Any, data: DataSpec, task_type: str) -> Encoding:
    """The encoding that all sites agree on and fit together."""
    return fit_encoding(fed, agreed_columns(fed, data, task_type), data)
