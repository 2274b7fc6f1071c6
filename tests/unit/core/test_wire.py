from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medfed.core import codec
from medfed.core.messages import Message
from medfed.core.protocols import ModelWeights
from medfed.core.wire import Request

REQUEST = Request("run", "ab" * 32, "north", 2, 1, 4, 3, "file.step", ModelWeights(np.zeros(5, np.float32)))


@pytest.mark.parametrize(
    "changed",
    [
        {"run": "other"},
        {"task": "cd" * 32},
        {"site": "south"},
        {"round": 3},
        {"call": 2},
        {"base": 5},
        {"step": "file.other"},
        {"message": ModelWeights(np.zeros(6, np.float32))},
        {"message": ModelWeights(np.array([0, 0, 0, 0, -0.0], np.float32))},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_request_that_asks_something_else_has_another_digest(changed):
    assert replace(REQUEST, **changed).digest() != REQUEST.digest()


def test_what_is_settled_and_which_object_carries_the_message_do_not_change_the_digest():
    same_weights = ModelWeights(np.zeros(5, np.float32))
    assert replace(REQUEST, settled=4, message=same_weights).digest() == REQUEST.digest()


def test_one_message_to_many_sites_is_read_once(monkeypatch):
    passes: list[Message] = []
    monkeypatch.setattr(codec, "parts", lambda message, parts=codec.parts: (passes.append(message), parts(message))[1])
    message = ModelWeights(np.ones(7, np.float32))
    digests = {replace(REQUEST, site=f"site {number}", message=message).digest() for number in range(100)}
    assert len(digests) == 100
    assert passes == [message]
