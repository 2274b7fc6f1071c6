from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import medfed
from medfed.core.codec import decode, encode
from medfed.core.errors import CodecError, TaskError
from medfed.core.messages import Message, Vector, adds
from medfed.engine.compression.compressed import Compressed, Residual, compressed, expanded, longest
from medfed.engine.compression.packed import CHUNK, HalfPrecision, Int8, Sparse
from medfed.engine.compression.squeezed import Squeezed
from medfed.spec.loading import task_of
from medfed.spec.task import Compression

METHODS = [
    Compression(name="bfloat16"),
    Compression(name="int8"),
    Compression(name="topk", fraction=0.1),
    Compression(zstd=True),
    Compression(name="int8", zstd=True),
    Compression(name="topk", zstd=True),
]
UPDATES = arrays(
    np.float32, st.integers(1, 3 * CHUNK), elements=st.floats(-(2.0**20), 2.0**20, width=32), fill=st.nothing()
)


@dataclass(frozen=True, eq=False)
class Change(Message, wire="test.compression.change"):
    delta: Vector = adds(bound=2.0**30, resolution=2.0**-16, update=True)
    rows: int = adds(bound=1000)


@dataclass(frozen=True, eq=False)
class Counted(Message, wire="test.compression.counted"):
    rows: int = adds(bound=1000)


def change(size: int = 5000, seed: int = 0) -> Change:
    return Change(np.random.default_rng(seed).standard_t(3, size).astype(np.float32), 7)


def sent(body: Message, method: Compression, residual: Residual | None = None) -> tuple[Compressed, Residual | None]:
    """As it comes out of the codec at the other end."""
    message, kept = compressed(body, method, residual)
    return decode(encode(message), Compressed), kept


@given(arrays(np.float32, st.integers(0, 50), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_bfloat16_is_torchs(update: Vector) -> None:
    expected = torch.from_numpy(update).to(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(HalfPrecision.pack(update).unpacked(), expected)


@settings(max_examples=30)
@given(UPDATES)
def test_int8_is_the_nearest_of_255_steps_in_each_chunk(update: Vector) -> None:
    found = Int8.pack(update).unpacked()
    for start in range(0, len(update), CHUNK):
        part = slice(start, start + CHUNK)
        step = np.abs(update[part]).max() / 127
        assert np.abs(found[part] - update[part]).max() <= step * 0.5001 + 1e-38


@settings(max_examples=30)
@given(UPDATES, st.floats(0.0001, 1))
def test_sparse_keeps_the_largest_as_they_are(update: Vector, fraction: float) -> None:
    packed = Sparse.pack(update, fraction)
    found, count = packed.unpacked(), max(1, int(np.ceil(fraction * len(update))))
    assert len(packed.values) == count
    np.testing.assert_array_equal(np.sort(np.abs(packed.values)), np.sort(np.abs(update))[len(update) - count :])
    np.testing.assert_array_equal(found[packed.places], update[packed.places])
    assert np.count_nonzero(found) <= count


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_what_is_not_sent_is_sent_later(method: Compression) -> None:
    """Σ of what is sent + what is kept = Σ of the updates, as error feedback promises; nothing is kept without it."""
    whole, arrived, residual = np.zeros(5000), np.zeros(5000), None
    for number in range(6):
        body = change(seed=number)
        message, residual = sent(body, method, residual)
        back = expanded(message, Change, 5000)
        assert back.rows == 7
        whole, arrived = whole + body.delta, arrived + back.delta
    if method.name in ("int8", "topk"):
        assert residual is not None
        np.testing.assert_allclose(arrived + residual.errors[0], whole, atol=1e-3)
    else:
        assert residual is None
        np.testing.assert_allclose(arrived, whole, rtol=0.02, atol=0.5 if method.name == "bfloat16" else 0)


def test_bytes_a_parameter() -> None:
    body = change(200_000)
    whole = len(encode(body))
    shares = {method: len(encode(sent(body, method)[0])) / whole for method in METHODS}
    assert shares[Compression(name="bfloat16")] < 0.51
    assert shares[Compression(name="int8")] < 0.26
    assert len(encode(sent(body, Compression(name="topk", fraction=0.01))[0])) / whole < 0.03
    assert shares[Compression(name="int8", zstd=True)] < shares[Compression(name="int8")]
    assert shares[Compression(zstd=True)] < 1


def test_a_message_without_updates_is_sent_as_it_is() -> None:
    body = Counted(3)
    assert compressed(body, METHODS[1], None) == (body, None)


def test_what_was_kept_of_another_model_is_dropped() -> None:
    _, residual = compressed(change(40), Compression(name="int8"), None)
    fresh, _ = sent(change(50), Compression(name="int8"))
    message, _ = sent(change(50), Compression(name="int8"), residual)
    assert encode(message) == encode(fresh)


def squeezed(content: bytes, length: int | None = None) -> Squeezed:
    return Squeezed(length or len(content), np.frombuffer(zstandard.ZstdCompressor().compress(content), np.uint8))


ONES = np.ones(3, np.float32)
SMALL = Sparse(3, np.array([1], np.uint32), ONES[:1])
MALFORMED: dict[str, Message] = {
    "more elements than weights": Sparse(11, np.array([1], np.uint32), ONES[:1]),
    "a length beyond 32 bits": Sparse(2**40, np.array([1], np.uint32), ONES[:1]),
    "a negative length": Sparse(-1, np.array([], np.uint32), ONES[:0]),
    "a place beyond the end": Sparse(3, np.array([3], np.uint32), ONES[:1]),
    "places twice": Sparse(3, np.array([1, 1], np.uint32), ONES[:2]),
    "fewer values than places": Sparse(3, np.array([0, 1], np.uint32), ONES[:1]),
    "no flat vector": HalfPrecision(np.zeros((3, 1), np.uint16)),
    "a scale too few": Int8(np.empty(0, np.float32), np.ones(3, np.int8)),
    "a scale that is no number": Int8(np.array([np.nan], np.float32), np.ones(3, np.int8)),
    "beyond the bound": Int8(np.array([2.0**30], np.float32), np.full(3, 127, np.int8)),
    "no update": Counted(1),
    "squeezed: no update": squeezed(encode(Counted(1))),
    "squeezed: garbage": squeezed(b"garbage"),
    "squeezed twice": squeezed(encode(Squeezed.pack(SMALL))),
    "squeezed: shorter than it says": squeezed(encode(SMALL), length=4000),
    "squeezed: longer than it says": squeezed(encode(SMALL), length=100),
    "squeezed: a length without reason": squeezed(b"x", length=2**40),
    "squeezed: a bomb": squeezed(bytes(2**28), length=4000),
    "squeezed: not squeezed": Squeezed(10, np.zeros(10, np.uint8)),
}


@pytest.mark.parametrize("update", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_no_site_sends_is_refused_before_it_takes_memory(update: Message) -> None:
    message = Compressed(Change(np.empty(0, np.float32), 1), (update,))
    with pytest.raises(CodecError):
        expanded(message, Change, 10)


def test_another_message_and_other_updates_are_refused() -> None:
    empty = Change(np.empty(0, np.float32), 1)
    for message in (
        Compressed(Counted(1), ()),
        Compressed(empty, ()),
        Compressed(empty, (SMALL, SMALL)),
        Compressed(replace(empty, delta=ONES), (SMALL,)),
        Compressed(replace(empty, rows=1001), (SMALL,)),
    ):
        with pytest.raises(CodecError):
            expanded(message, Change, 10)
    assert longest(empty) == 0
    assert longest(change(12)) == 12


# ------------------------------------------------------------------------------------------------------- whole runs


def hospitals(rows: int = 120) -> dict[str, Any]:
    sites = {}
    for number, name in enumerate(("north", "south", "west")):
        rng = np.random.default_rng(number)
        x = rng.normal(size=(rows, 20)).astype(np.float32)
        sites[name] = x, (x[:, 0] - x[:, 1] + rng.normal(0, 0.5, rows) > 0).astype(np.int64)
    return sites


def run(folder: Path, compression: Any = None, strategy: str = "fedavg", **more: Any) -> Any:
    federation = {"strategy": strategy, "rounds": 8, "lr": 0.1, "compression": compression or "none"}
    task = {
        "task_type": "classification",
        "model": {"name": "mlp", "hidden": [64]},
        "federation": federation,
        "data": {"label": {"column": "y", "classes": [0, 1]}, "standardize": "none"},
        **more,
    }
    return medfed.run(task, hospitals(), output=folder)


def model(folder: Path) -> np.ndarray[Any, Any]:
    content = (folder / "model.safetensors").read_bytes()
    return np.frombuffer(content[8 + int.from_bytes(content[:8], "little") :], np.float32)


def training_bytes(folder: Path) -> int:
    lines = (folder / "ledger" / "north.jsonl").read_text().splitlines()
    entries = [entry.get("entry", entry) for entry in map(json.loads, lines)]
    return sum(e["bytes"] for e in entries if "train" in str(e.get("step")) and "bytes" in e)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain") / "run"
    run(folder)
    return folder


@pytest.mark.parametrize("method", ["bfloat16", "int8", {"name": "topk", "fraction": 0.1, "zstd": True}], ids=str)
def test_a_compressed_run_learns_as_the_plain_one_and_sends_less(method: Any, plain: Path, tmp_path: Path) -> None:
    run(tmp_path / "run", method)
    assert 0 < training_bytes(tmp_path / "run") < 0.7 * training_bytes(plain)
    difference = np.linalg.norm(model(tmp_path / "run") - model(plain)) / np.linalg.norm(model(plain))
    assert 0 < difference < (0.15 if isinstance(method, dict) else 0.01)


@pytest.mark.parametrize("strategy", ["fedavg", "scaffold"])
def test_any_number_of_workers_gives_the_same_bits(strategy: str, tmp_path: Path) -> None:
    models = []
    for workers in (1, 2):
        run(tmp_path / str(workers), "int8", strategy, engine={"workers": workers})
        models.append(model(tmp_path / str(workers)).tobytes())
    assert models[0] == models[1]


def test_baselines_send_their_updates_as_they_are(tmp_path: Path) -> None:
    run(tmp_path / "plain", "none", "pooled")
    run(tmp_path / "asked", "int8", "pooled")
    np.testing.assert_array_equal(model(tmp_path / "plain"), model(tmp_path / "asked"))


def test_compression_under_secure_aggregation_is_refused() -> None:
    federation = {"strategy": "fedavg", "epochs": 2, "compression": "int8"}
    with pytest.raises(TaskError, match="do not add up under masks"):
        task_of(
            {
                "task_type": "classification",
                "model": "logistic",
                "federation": federation,
                "privacy": {"aggregation": "secure"},
            }
        )
