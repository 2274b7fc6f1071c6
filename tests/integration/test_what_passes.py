"""What passes between hospitals and their coordinator, and what is kept of it: no pickle, no patient's value."""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from consortium_in_memory import SITES, Consortium, MemoryCarrier, task_over

from medfed.core.codec import decode, encode
from medfed.engine.deployed.messages import FromSite, ToSite
from medfed.spec.loading import TaskFile, task_of

PATIENT = "ZQXPATIENT"
"""How the id of every patient begins."""

RARE = "Zqxrare-syndrome"
"""A level that one patient has."""

REMARK = "Zqxremark lives near the lake"
NUMBERS = {"age": 98765.4375, "dose": 87654.3125, "ignored": 76543.21}
"""A value of one patient in each column; exact in float32 but for the last."""


@dataclass(frozen=True)
class Planted:
    """A run over tables with values that are met nowhere else. There, back: the messages; folder: of the run."""

    consortium: Consortium
    messages: tuple[tuple[str, str, bytes], ...]
    run: Path


def plant(consortium: Consortium) -> None:
    """Tables of five more columns; the first patient of each site is unmistakable."""
    random = np.random.default_rng(9)
    for site, rows in SITES.items():
        lines = ["id,age,sex,dose,ill,diagnosis,remark,ignored"]
        for k in range(rows):
            first = k == 0
            age, dose, ignored = NUMBERS.values() if first else (40 + k / 10, 1 + k / 8, 5.5)
            diagnosis, remark = (RARE, REMARK) if first else (("common", "usual")[k % 2], "none")
            ill, sex = int(random.random() < 0.5), k % 2
            lines.append(f"{PATIENT}-{site}-{k:04},{age},{sex},{dose},{ill},{diagnosis},{remark},{ignored}")
        consortium.tables[site].write_text("\n".join(lines) + "\n")


def planted_task(standardize: str, **federation: object) -> TaskFile:
    document = task_over(dict.fromkeys(SITES, "rows"), **federation).spec.model_dump(mode="json", by_alias=True)
    document["data"]["columns"] |= {
        "diagnosis": {"type": "categorical"},
        "remark": {"type": "ignore"},
        "ignored": {"type": "ignore"},
    }
    document["data"]["standardize"] = standardize
    return task_of({key: value for key, value in document.items() if value is not None})


@pytest.fixture(scope="module", params=["site", "federated"])
def planted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Planted:
    consortium = Consortium.make(tmp_path_factory.mktemp("planted"))
    plant(consortium)
    for folder in consortium.sites.values():
        folder.settings.write_text(folder.settings.read_text() + "  minimum_count: 5\n")
    submission = consortium.submit(planted_task(request.param))
    consortium.approve(submission.proposal())
    carrier = MemoryCarrier(consortium.open_sites())
    consortium.conductor(submission, carrier).conduct()
    for site in carrier.sites.values():
        site.close()
    return Planted(consortium, tuple(carrier.spied), submission.folder)


def test_all_that_passes_is_of_the_codec(planted: Planted) -> None:
    assert len(planted.messages) > 100
    for _site, way, content in planted.messages:
        assert encode(decode(content, ToSite if way == "there" else FromSite)) == content


def is_pickle(content: bytes) -> bool:
    """Whether the bytes from here on are a pickle of any protocol that a program could load."""
    try:
        for _opcode, _argument, _position in pickletools.genops(content):
            pass
    except Exception:
        return False
    return True


def pickles_in(content: bytes) -> Iterator[int]:
    """Where a pickle of protocol 2 to 5 begins; older ones have no mark, and are looked for at the beginning."""
    if is_pickle(content):
        yield 0
    for protocol in (2, 3, 4, 5):
        mark, place = bytes((0x80, protocol)), -1
        while (place := content.find(mark, place + 1)) >= 0:
            if is_pickle(content[place:]):
                yield place


def test_a_pickle_would_be_found() -> None:
    import pickle

    for protocol in range(6):
        assert list(pickles_in(pickle.dumps({"a": np.arange(3)}, protocol)))
    assert list(pickles_in(b"MEDFED1\0" + pickle.dumps([1, 2, 3])))


def test_nothing_that_passes_holds_a_pickle(planted: Planted) -> None:
    for site, way, content in planted.messages:
        assert not list(pickles_in(content)), (site, way)


def spellings(number: float) -> Iterator[bytes]:
    """A number as text, and as the bytes of every type of array that it could be sent in."""
    for digits in (2, 4, 6, 8):
        text = f"{number:.{digits}f}"
        yield text.encode()
    yield repr(number).encode()
    for order in "<>":
        yield struct.pack(f"{order}f", number)
        yield struct.pack(f"{order}d", number)
        yield struct.pack(f"{order}d", float(np.float32(number)))
        yield struct.pack(f"{order}q", round(number))
        yield struct.pack(f"{order}i", round(number))


def needles() -> dict[str, bytes]:
    """What must not be met: the name of each, and its bytes."""
    texts = {"a patient's id": PATIENT, "a rare level": RARE, "a text in an ignored column": REMARK}
    found = {f"{name} ({how})": text.encode(how) for name, text in texts.items() for how in ("utf-8", "utf-16-le")}
    found |= {f"{name} in lower case": text.lower().encode() for name, text in texts.items()}
    for column, number in NUMBERS.items():
        found |= {f"{column} as {spelt!r}": spelt for spelt in spellings(number)}
    return found


def met(content: bytes) -> list[str]:
    return [name for name, needle in needles().items() if needle in content]


def test_a_planted_value_would_be_found(planted: Planted) -> None:
    table = planted.consortium.tables["nord"].read_bytes()
    assert {name.split(" as ")[0] for name in met(table)} >= {
        "a patient's id (utf-8)",
        "a rare level (utf-8)",
        *NUMBERS,
    }
    for dtype in (np.float32, np.float64, np.int64):
        assert met(np.array([1, NUMBERS["age"], 2], dtype).tobytes())


def test_nothing_that_passes_holds_a_patients_value(planted: Planted) -> None:
    for site, way, content in planted.messages:
        assert met(content) == [], (site, way)


def test_nothing_that_the_coordinator_keeps_holds_a_patients_value(planted: Planted) -> None:
    files = [path for path in planted.consortium.coordinator.path.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"model.safetensors", "results.json", "metrics.jsonl", "coordinator.jsonl"}
    for path in files:
        assert met(path.read_bytes()) == [], path


def test_no_ledger_of_a_site_holds_a_patients_value(planted: Planted) -> None:
    files = [path for folder in planted.consortium.sites.values() for path in folder.path.glob("ledger/**/*.jsonl")]
    assert len(files) >= 4 * len(SITES)
    for path in files:
        assert met(path.read_bytes()) == [], path


def test_what_is_meant_to_pass_does(planted: Planted) -> None:
    """The levels that enough patients share; so that the search above is one of the messages that matter."""
    assert any(b"common" in content and b"usual" in content for _, way, content in planted.messages if way == "back")


def test_what_flare_is_given_is_the_message_and_nothing_else(planted: Planted) -> None:
    """As FLARE writes it for the network: a letter's few words around the bytes, and no encoding of FLARE's own."""
    from nvflare.fuel.f3.cellnet.utils import encode_payload
    from nvflare.fuel.f3.message import Message as Cargo

    from medfed.engine.flare.letters import Letter

    for _, way, content in planted.messages:
        assert decode(content, ToSite if way == "there" else FromSite)
        cargo = Cargo(payload=encode(Letter("0123456789abcdef", content)))
        encode_payload(cargo)
        sent = bytes(cargo.payload)
        around = sent.replace(content, b"")
        assert len(around) == len(sent) - len(content) < 500
        assert not list(pickles_in(around)) and met(around) == []


def test_the_only_value_in_a_column_does_not_leave(tmp_path: Path) -> None:
    """A sum over one patient is that patient's value, however many patients the site has."""
    consortium = Consortium.make(tmp_path)
    table, value = consortium.tables["nord"], NUMBERS["dose"]
    header, *lines = table.read_text().splitlines()
    cells = [line.split(",") for line in lines]
    for row in cells:
        row[3] = ""
    settings = consortium.sites["nord"].settings
    settings.write_text(settings.read_text().replace("minimum_patients: 1", "minimum_patients: 10\n  minimum_count: 5"))
    for k in (0, 5, 10, 15):  # one of them is a training row, whatever the split
        cells[k][3] = str(value)
        table.write_text("\n".join([header, *(",".join(row) for row in cells)]) + "\n")
        document = task_over(dict.fromkeys(SITES, "rows")).spec.model_dump(mode="json", by_alias=True)
        document["data"]["missing"] = {"strategy": "impute"}
        document["name"] = f"the only value in row {k}"
        submission = consortium.submit(task_of({key: value for key, value in document.items() if value is not None}))
        consortium.approve(submission.proposal())
        carrier = MemoryCarrier(consortium.open_sites())
        consortium.conductor(submission, carrier).conduct()
        for site in carrier.sites.values():
            site.close()
        cells[k][3] = ""
        assert [site for site, _, content in carrier.spied if struct.pack("<d", value) in content] == []
