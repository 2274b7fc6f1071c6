"""What privacy costs: secure aggregation beside the masks that it needs, encrypted sums, private training.

    python -m benchmarks.privacy --json privacy.json

- ``secagg/site``: the processor's seconds of one site for one sum, from its keys to its shares: of 10 sites, 11 million
  float32 parameters; beside the ten masks of that size by AES-256-CTR alone.
- ``secagg/coordinator``: those of the coordinator where 2 of the 10 drop out after they shared: adding, and taking the
  masks away; beside the masks that it has to make again.
- ``secagg/bytes``: the bytes that a site sends for each parameter, keys and shares included.
- ``secagg/SITES/PARAMETERS/…``: the same for other numbers of sites and parameters, a fifth of them dropping out or
  none; beside adding the same updates in the clear.

- ``he/SITES/PARAMETERS/DROPOUTS/…``: sums under homomorphic encryption (TenSEAL), beside the same ones under masks.
  Above 100,351 parameters a sum of so many is measured, and scaled; ``he/PARAMETERS/encryption`` is whole.
- ``dpsgd/cnn``, ``dpsgd/mlp``, ``dpsgd/resnet18``: an update under record-level differential privacy, beside one
  without. ResNet-18, with group normalisation, needs the extra ``imaging``.

Whole sums are formed in one process by the code that runs at sites and coordinator, and each total is compared with the
plain one. A figure is the median over repetitions. Masks alone and sums alternate.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from benchmarks.encrypted_sums import encryption_rows
from benchmarks.private_training import training_rows
from benchmarks.rows import Row, report
from medfed.algorithms.fedavg import WeightedDelta
from medfed.core.codec import encode
from medfed.core.messages import Message
from medfed.govern.keys import SigningKey
from medfed.privacy.masks import SEED_BYTES
from medfed.privacy.ring import Encoder, Layout
from medfed.privacy.secagg.coordinator import Unmasking
from medfed.privacy.secagg.messages import Confirmations, Opening, Survivors, session_of
from medfed.privacy.secagg.site import MaskingSession

PARAMETERS = (100_000, 1_000_000, 11_000_000)
SITES = (10, 50)
SITE_LIMIT, COORDINATOR_LIMIT, BYTES_LIMIT = 1.8, 1.6, 4.1

_BOUND = 4096.0
"""The bound on updates: the contributions below are within it, as those of a few hundred rows would be."""

_PIECE = 2**18


@dataclass(frozen=True)
class Cost:
    """Of one sum: the processor's seconds of the first site and of the coordinator; bytes that the site sent."""

    site: float
    coordinator: float
    sent: int


class Clock:
    """Adds up the processor's seconds of what it runs."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, body: Callable[[], object]) -> object:
        """What the body gives."""
        begun = time.process_time()
        found = body()
        self.seconds += time.process_time() - begun
        return found


def one_sum(parameters: int, sites: int, dropouts: int) -> Cost:
    """A whole sum, whose total is compared with the plain one. dropouts: sites that share and do not contribute."""
    names = [f"site-{number:03}" for number in range(sites)]
    keys = {name: SigningKey.generate() for name in names}
    parties = {name: key.verify_key for name, key in keys.items()}
    opening = Opening(bytes(32), bytes(32), sites)
    session = session_of("0" * 64, "run", opening)
    encoder = Encoder(WeightedDelta, sites, _BOUND)
    update = np.random.default_rng(0).standard_normal(parameters, np.float32)
    first, left = names[0], names[: sites - dropouts]
    site, coordinator, sent = Clock(), Clock(), 0

    def at(name: str, body: Callable[[], Message]) -> Message:
        nonlocal sent
        found = site(body) if name == first else body()
        if name == first:
            sent += len(encode(found))
        return found

    sessions = {name: MaskingSession(session, name, keys[name], parties, sites) for name in names}
    unmasking = Unmasking(session, opening.nonce, sites)
    advertised = {name: at(name, lambda each=sessions[name]: each.advertise(())) for name in names}
    key_list = coordinator(lambda: unmasking.key_list(advertised))
    for name in names:
        boxes = at(name, lambda each=sessions[name]: each.share(key_list))
        coordinator(lambda name=name, boxes=boxes: unmasking.take_boxes(name, boxes))
    senders = tuple(names)
    for number, name in enumerate(left):
        contribution = WeightedDelta(update * np.float32(1 + number % 3), 100)
        given = unmasking.boxes_for(name)

        def contribute(name: str = name, given: tuple[bytes, ...] = given, each: Message = contribution) -> Message:
            sessions[name].receive(senders, given)
            return sessions[name].masked(each, encoder)

        masked = at(name, contribute)
        coordinator(lambda name=name, masked=masked: unmasking.add(name, masked, encoder))
    survivors = coordinator(unmasking.survivors)
    confirmed = {
        name: at(name, lambda n=name: sessions[n].confirm(Survivors(opening.nonce, survivors))) for name in left
    }
    told = Confirmations(opening.nonce, tuple(left), tuple(confirmed[name].signature for name in left))
    revealed = {name: at(name, lambda n=name: sessions[n].reveal(told)) for name in left}
    total = coordinator(lambda: unmasking.total(revealed, encoder))
    exact = update.astype(np.float64) * sum(1 + number % 3 for number in range(len(left)))
    error = encoder.error(Layout.of(total))["delta"]
    assert total.rows == 100 * len(left)
    assert np.abs(total.delta - exact).max() <= error + 1e-5, "the total is not that of the contributions"
    return Cost(site.seconds, coordinator.seconds, sent)


def masks_alone(parameters: int, masks: int) -> float:
    """The processor's seconds of so many masks by AES-256-CTR, a piece at a time, into the same memory."""
    zeros, into = memoryview(bytes(_PIECE)), memoryview(bytearray(_PIECE))
    begun = time.process_time()
    for _ in range(masks):
        stream = Cipher(algorithms.AES(bytes(SEED_BYTES)), modes.CTR(bytes(16))).encryptor()
        for start in range(0, 4 * parameters, _PIECE):
            size = min(_PIECE, 4 * parameters - start)
            stream.update_into(zeros[:size], into[:size])
    return time.process_time() - begun


def adding_alone(parameters: int, sites: int) -> float:
    """The processor's seconds of adding so many updates in the clear."""
    update, total = np.ones(parameters, np.float32), np.zeros(parameters, np.float32)
    begun = time.process_time()
    for _ in range(sites):
        np.add(total, update, out=total)
    return time.process_time() - begun


def main_rows(repetitions: int) -> list[Row]:
    """The rows with limits: 10 sites, 11 million parameters."""
    sites, parameters, dropouts = 10, PARAMETERS[-1], 2
    again = sites - dropouts + dropouts * (sites - dropouts)
    found = []
    for _ in range(repetitions):
        needed, remade = masks_alone(parameters, sites), masks_alone(parameters, again)
        whole, dropped = one_sum(parameters, sites, 0), one_sum(parameters, sites, dropouts)
        found.append((whole.site, needed, dropped.coordinator, remade, whole.sent / parameters))
    site, needed, coordinator, remade, sent = np.median(np.array(found), axis=0).tolist()
    ratios = np.array([(a / b, c / d) for a, b, c, d, _ in found])
    ratio, coordinator_ratio = np.median(ratios, axis=0).tolist()
    return [
        Row("secagg/site", site, "s", ratio, SITE_LIMIT, f"its {sites} masks by AES-256-CTR alone: {needed:.3f} s"),
        Row(
            "secagg/coordinator",
            coordinator,
            "s",
            coordinator_ratio,
            COORDINATOR_LIMIT,
            f"the {again} masks that it makes again, alone: {remade:.3f} s",
        ),
        Row("secagg/bytes", sent, "bytes", sent, BYTES_LIMIT, "one parameter (float32: 4 bytes in the clear)"),
    ]


def grid_rows(parameters: Sequence[int], sites: Sequence[int]) -> list[Row]:
    """The rows of other sizes, each from one sum."""
    rows = []
    for size in parameters:
        for count in sites:
            clear = adding_alone(size, count)
            for dropouts in (0, count // 5):
                cost = one_sum(size, count, dropouts)
                name, peer = f"secagg/{count}/{size}/{dropouts}", f"adding in the clear: {clear:.4f} s"
                rows.append(Row(f"{name}/site", cost.site, "s", None, None, ""))
                rows.append(Row(f"{name}/bytes", cost.sent / size, "bytes", None, None, "a parameter"))
                rows.append(Row(f"{name}/coordinator", cost.coordinator, "s", cost.coordinator / clear, None, peer))
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; 1 where a ratio is above its limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--limits", action="store_true", help="the rows that have limits alone")
    options = parser.parse_args(arguments)
    rows = [*main_rows(options.repetitions), *training_rows(options.repetitions)]
    if not options.limits:
        rows += grid_rows(PARAMETERS, SITES)
        rows += encryption_rows(PARAMETERS, SITES, {row.name: row.value for row in rows})
    return report(rows, options.json)


if __name__ == "__main__":
    sys.exit(main())
