"""The sites' half of a secure sum: what it gives away (nothing but what it must), and the attacks that it refuses.

An attacker here is the coordinator, with some sites that tell it all they know. It has every message by construction:
the tests play it.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray
from scipy import stats

from medfed.core.errors import DataError, RefusalReason, Refused
from medfed.core.messages import Counts, Message, Moments, Vector, adds
from medfed.core.steps import Release, Step
from medfed.engine.hiding import Openings
from medfed.engine.masking import Masking
from medfed.govern.keys import SigningKey, VerifyKey
from medfed.privacy.agreement import agreed_secret, derived, opened, sealed
from medfed.privacy.masks import Mask, apply_masks
from medfed.privacy.ring import Encoder
from medfed.privacy.secagg.coordinator import Unmasking
from medfed.privacy.secagg.messages import (
    Advertised,
    Boxes,
    Confirmations,
    Confirmed,
    Contribution,
    KeyList,
    Masked,
    Opening,
    Revealed,
    Survivors,
    box_info,
    pair_info,
    question_of,
    session_of,
    survivors_signed,
)
from medfed.privacy.secagg.site import SHARE_BYTES, MaskingSession
from medfed.privacy.shamir import reconstruct

SESSION = bytes(range(32))
BOUND = 4.0


@dataclass(frozen=True, eq=False)
class Part(Message, wire="test.masking_session.part"):
    """A field in each ring: of 32, 64 and 256 bits."""

    counts: Counts = adds(bound=2.0**20)
    delta: Vector = adds(bound=BOUND, resolution=2.0**-40)
    squares: Moments = adds(bound=2.0**80, resolution=2.0**-20)
    rows: int = adds(bound=2.0**20)


def part(value: float = 1.0, rows: int = 1, size: int = 3) -> Part:
    return Part(np.full(2, rows, np.int64), np.full(size, value, np.float32), np.array([value * 2.0**70, value]), rows)


@dataclass
class Group:
    """The sites and the coordinator of one sum, and all that was said so far."""

    identities: dict[str, SigningKey]
    parties: dict[str, VerifyKey]
    sites: dict[str, MaskingSession]
    coordinator: Unmasking
    encoder: Encoder
    session: bytes = SESSION
    keys: KeyList = field(init=False)
    senders: tuple[str, ...] = ()
    masked: dict[str, Masked] = field(default_factory=dict)
    survivors: tuple[str, ...] = ()
    confirmed: dict[str, Confirmed] = field(default_factory=dict)
    revealed: dict[str, Revealed] = field(default_factory=dict)

    @property
    def nonce(self) -> bytes:
        return self.coordinator.nonce

    def another(self, site: str, session: bytes | None = None) -> MaskingSession:
        """Keys that the same site made once more."""
        told = self.session if session is None else session
        return MaskingSession(told, site, self.identities[site], self.parties, len(self.sites))

    def confirmations(self, sites: Iterable[str] | None = None) -> Confirmations:
        by = tuple(sorted(self.confirmed if sites is None else sites))
        return Confirmations(self.nonce, by, tuple(self.confirmed[site].signature for site in by))


def named(number: int) -> list[str]:
    return [f"site {place:02}" for place in range(number)]


def group(number: int, session: bytes = SESSION, known: Mapping[str, SigningKey] | None = None) -> Group:
    identities = dict(known or {site: SigningKey.generate() for site in named(number)})
    parties = {site: key.verify_key for site, key in identities.items()}
    sites = {site: MaskingSession(session, site, key, parties, number) for site, key in identities.items()}
    return Group(identities, parties, sites, Unmasking(session, bytes(32), number), Encoder(Part, number), session)


def open_sum(told: Group, sites: Iterable[str] | None = None) -> Group:
    """Round 0."""
    told.keys = told.coordinator.key_list(
        {site: told.sites[site].advertise(()) for site in (told.sites if sites is None else sites)}
    )
    return told


def share_secrets(told: Group, sites: Iterable[str] | None = None) -> Group:
    """Round 1."""
    for site in told.keys.sites if sites is None else sites:
        told.coordinator.take_boxes(site, told.sites[site].share(told.keys))
    told.senders = told.coordinator.senders
    return told


def contribute(told: Group, parts: Mapping[str, Message]) -> Group:
    """Round 2."""
    for site, contribution in parts.items():
        told.sites[site].receive(told.senders, told.coordinator.boxes_for(site))
        told.masked[site] = told.sites[site].masked(contribution, told.encoder)
        told.coordinator.add(site, told.masked[site], told.encoder)
    told.survivors = told.coordinator.survivors()
    return told


def confirm(told: Group, sites: Iterable[str] | None = None) -> Group:
    """Round 3."""
    for site in told.survivors if sites is None else sites:
        told.confirmed[site] = told.sites[site].confirm(Survivors(told.nonce, told.survivors))
    return told


def reveal(told: Group, sites: Iterable[str] | None = None) -> Group:
    """Round 4; a site that refuses has not answered."""
    for site in told.confirmed if sites is None else sites:
        try:
            told.revealed[site] = told.sites[site].reveal(told.confirmations())
        except Refused:
            continue
    return told


def shared(number: int) -> Group:
    return share_secrets(open_sum(group(number)))


def contributed(number: int, away: Iterable[str] = ()) -> Group:
    told = shared(number)
    return contribute(told, {site: part() for site in told.sites if site not in away})


def refused(match: str = "") -> Any:
    return pytest.raises(Refused, match=match)


def all_fields(masked: Masked) -> bytes:
    return masked.narrow.tobytes() + masked.middle.tobytes() + masked.wide.tobytes()


# ------------------------------------------------------------------------------------- what a transcript gives away


def without(masked: Masked, masks: list[Mask]) -> dict[int, NDArray[Any]]:
    rings = {bits: ring.copy() for bits, ring in masked.rings.items()}
    apply_masks(rings.values(), masks)
    return rings


def recovered_seed(told: Group, owner: str) -> bytes:
    """What the coordinator computes from the shares that were revealed, by the textbook's formula."""
    place = told.senders.index(owner)
    shares = {told.keys.sites.index(by) + 1: given.shares[place] for by, given in told.revealed.items()}
    return reconstruct({x: int.from_bytes(each, "big") for x, each in shares.items()}).to_bytes(32, "big")


def pair_mask(told: Group, site: str, colluder: str, sign: int) -> Mask:
    """The mask of a pair, as the colluder knows it: by its own private key."""
    theirs = told.keys.keys[told.keys.sites.index(site)].mask_key
    secret = agreed_secret(told.sites[colluder]._mask_key, theirs)
    return Mask(derived(secret, pair_info(told.session, site, colluder)), sign)


def stripped(told: Group, site: str, known: Iterable[str]) -> dict[int, NDArray[Any]]:
    """A masked contribution without what the attacker can take away once the sum is over: the mask of its own seed,
    and those of the pairs with sites in ``known``."""
    seed = derived(recovered_seed(told, site), pair_info(told.session, site, site))
    pairs = [pair_mask(told, site, other, -1 if other > site else 1) for other in known]
    return without(told.masked[site], [Mask(seed, -1), *pairs])


IDENTITIES = {site: SigningKey.generate() for site in named(4)}
HONEST, COLLUDING = named(4)[1:3], [named(4)[0], named(4)[3]]
"""Two of four, of which the threshold is three: the colluders are one fewer."""


def whole_sum(value: float) -> Group:
    """A sum in which one honest site says ``value`` everywhere, and all others zero."""
    told = share_secrets(open_sum(group(4, secrets.token_bytes(32), IDENTITIES)))
    contribute(told, {site: part(value if site == HONEST[0] else 0.0, 0, 24) for site in told.sites})
    return reveal(confirm(told))


@pytest.fixture(scope="module")
def many_sums() -> dict[float, list[Group]]:
    return {value: [whole_sum(value) for _ in range(60)] for value in (0.0, BOUND)}


def uniform(content: bytes) -> float:
    return float(stats.chisquare(np.bincount(np.frombuffer(content, np.uint8), minlength=256)).pvalue)


def alike(one: bytes, other: bytes) -> float:
    counts = [np.bincount(np.frombuffer(each, np.uint8), minlength=256) for each in (one, other)]
    return float(stats.chi2_contingency(np.array(counts)).pvalue)


def in_rings(rings: dict[int, NDArray[Any]]) -> bytes:
    return b"".join(ring.tobytes() for ring in rings.values())


def test_the_attacker_of_these_tests_reads_a_contribution_when_nobody_else_is_honest(
    many_sums: dict[float, list[Group]],
) -> None:
    """So that the tests below can fail: with all others' keys the very same computation gives the contribution."""
    for value, sums in many_sums.items():
        told = sums[0]
        plain = told.encoder.encode(part(value, 0, 24))
        found = stripped(told, HONEST[0], [site for site in told.sites if site != HONEST[0]])
        assert all(np.array_equal(found[bits], ring) for bits, ring in plain.items())
    assert uniform(in_rings(found)) < 1e-6


@pytest.mark.parametrize("value", [0.0, BOUND])
def test_a_masked_contribution_is_noise_to_who_has_the_transcript(
    many_sums: dict[float, list[Group]], value: float
) -> None:
    masked = [told.masked[HONEST[0]] for told in many_sums[value]]
    for ring in ("narrow", "middle", "wide"):
        assert uniform(b"".join(getattr(each, ring).tobytes() for each in masked)) > 1e-6
    assert len({all_fields(each) for each in masked}) == len(masked)


@pytest.mark.parametrize("value", [0.0, BOUND])
def test_without_the_masks_of_colluders_and_seeds_it_still_is_noise(
    many_sums: dict[float, list[Group]], value: float
) -> None:
    left = [stripped(told, HONEST[0], COLLUDING) for told in many_sums[value]]
    for bits in (32, 64, 256):
        assert uniform(b"".join(each[bits].tobytes() for each in left)) > 1e-6


def test_two_contributions_as_unlike_as_can_be_look_the_same(many_sums: dict[float, list[Group]]) -> None:
    masked = {v: b"".join(all_fields(told.masked[HONEST[0]]) for told in sums) for v, sums in many_sums.items()}
    assert alike(masked[0.0], masked[BOUND]) > 1e-6
    left = {v: [stripped(told, HONEST[0], COLLUDING) for told in sums] for v, sums in many_sums.items()}
    assert alike(*(b"".join(map(in_rings, each)) for each in left.values())) > 1e-6
    middle = [np.concatenate([each[64] for each in sums]).astype(np.float64) for sums in left.values()]
    assert stats.ks_2samp(*middle).pvalue > 1e-6


def test_all_that_the_attacker_reads_is_the_sum_of_the_honest(many_sums: dict[float, list[Group]]) -> None:
    for told in many_sums[BOUND][:20]:
        one, other = (stripped(told, site, COLLUDING) for site in HONEST)
        plain = told.encoder.encode(part(BOUND, 0, 24))
        assert np.array_equal(one[64] + other[64], plain[64])
        assert not np.array_equal(one[64], plain[64])


def held(told: Group, owner: str, by: Iterable[str], kind: str) -> dict[int, int]:
    """The shares of an owner's seed or key that some sites hold, by their points."""
    attribute = {"seed": "_seed_shares", "key": "_key_shares"}[kind]
    points = {site: place + 1 for place, site in enumerate(told.keys.sites)}
    return {points[site]: int.from_bytes(getattr(told.sites[site], attribute)[owner], "big") for site in by}


@pytest.mark.parametrize("number", [4, 5, 7])
@pytest.mark.parametrize("kind", ["seed", "key"])
def test_colluders_one_below_the_threshold_do_not_hold_a_secret(number: int, kind: str) -> None:
    told = contributed(number)
    owner, *others = named(number)
    keys = told.keys.keys[0]
    threshold = 2 * number // 3 + 1
    enough, few = others[:threshold], others[: threshold - 1]

    def is_it(element: int) -> bool:
        if element >= 2**256:
            return False
        secret = element.to_bytes(32, "big")
        if kind == "seed":
            return hashlib.sha256(secret).digest() == keys.seed_hash
        return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw() == keys.mask_key

    if len(enough) == threshold:
        assert is_it(reconstruct(held(told, owner, enough, kind)))
    assert not is_it(reconstruct(held(told, owner, few, kind)))
    for one in few:
        assert not is_it(reconstruct(held(told, owner, [site for site in few if site != one], kind)))
    own = {1: int.from_bytes(told.sites[owner]._seed_shares[owner], "big")}
    if kind == "seed":
        assert is_it(reconstruct({**held(told, owner, few, kind), **own}))


def test_a_box_tells_nobody_but_its_receiver_what_is_in_it() -> None:
    told = shared(4)
    a, b, c, _ = named(4)
    box = told.coordinator._boxes[a][b]
    about = box_info(SESSION, a, b)
    for reader in (a, c):
        secret = agreed_secret(told.sites[reader]._box_key, key_of(told, a).box_key)
        assert opened(derived(secret, about), box, about) is None
    secret = agreed_secret(told.sites[b]._box_key, key_of(told, a).box_key)
    assert opened(derived(secret, about), box, about) is not None
    assert {len(each) for each in told.coordinator._boxes[a].values()} == {12 + 2 * SHARE_BYTES + 16}


# ----------------------------------------------------------------------------------------------------- the keys


def with_key(told: Group, site: str, key: Advertised) -> KeyList:
    place = told.keys.sites.index(site)
    return replace(told.keys, keys=(*told.keys.keys[:place], key, *told.keys.keys[place + 1 :]))


def key_of(told: Group, site: str) -> Advertised:
    return told.keys.keys[told.keys.sites.index(site)]


@pytest.mark.parametrize("changed", ["box_key", "mask_key", "seed_hash", "signature"])
def test_keys_that_the_coordinator_put_in_the_place_of_a_sites_are_refused(changed: str) -> None:
    told = open_sum(group(3))
    mine = X25519PrivateKey.generate().public_key().public_bytes_raw()
    value = mine if changed != "signature" else SigningKey.generate().sign(b"keys")
    forged = with_key(told, "site 01", replace(key_of(told, "site 01"), **{changed: value}))
    with refused("'site 01' were not signed by it") as error:
        told.sites["site 00"].share(forged)
    assert error.value.reason is RefusalReason.SECURE_SUM


@pytest.mark.parametrize("session", [bytes(32), b"", SESSION + b"\0", SESSION[:-1]])
def test_keys_of_another_session_are_refused(session: bytes) -> None:
    told = open_sum(group(3))
    replayed = with_key(told, "site 01", told.another("site 01", session).advertise(()))
    with refused("'site 01' were not signed by it for this sum"):
        told.sites["site 00"].share(replayed)


def test_one_sites_signed_keys_are_refused_under_anothers_name() -> None:
    told = open_sum(group(3))
    with refused("'site 01' were not signed by it"):
        told.sites["site 00"].share(with_key(told, "site 01", key_of(told, "site 02")))


def test_other_keys_of_a_sites_own_are_refused_though_it_signed_them() -> None:
    told = open_sum(group(3))
    with refused("other keys than this site's own"):
        told.sites["site 00"].share(with_key(told, "site 00", told.another("site 00").advertise(())))


@pytest.mark.parametrize("reflected", ["box_key", "mask_key"])
@pytest.mark.parametrize("reader", ["site 00", "site 01"])
def test_the_same_key_for_two_sites_is_refused_and_both_are_named(reflected: str, reader: str) -> None:
    """A colluding site signs another's key as its own, so that two masks are alike and cancel, say."""
    told = open_sum(group(3))
    copy = replace(key_of(told, "site 02"), **{reflected: getattr(key_of(told, "site 01"), reflected)})
    signed = replace(copy, signature=told.identities["site 02"].sign(copy.signed(SESSION, "site 02")))
    with refused("same key is shown for 'site 01', 'site 02'"):
        told.sites[reader].share(with_key(told, "site 02", signed))


@pytest.mark.parametrize("kind", ["box_key", "mask_key"])
@pytest.mark.parametrize("key", [bytes(32), b"\1" + bytes(31), bytes(31), b""], ids=["zero", "one", "short", "empty"])
def test_a_key_that_is_none_is_refused_by_the_name_of_the_site_that_signed_it(kind: str, key: bytes) -> None:
    """Of low order, or of another size: no secret can be agreed with it."""
    told = open_sum(group(3))
    bad = replace(key_of(told, "site 02"), **{kind: key})
    signed = replace(bad, signature=told.identities["site 02"].sign(bad.signed(SESSION, "site 02")))
    with refused("'site 02'"):
        told.sites["site 00"].share(with_key(told, "site 02", signed))


def test_a_site_that_is_no_party_to_the_task_is_refused() -> None:
    told = open_sum(group(3))
    stranger = SigningKey.generate()
    parties = {**told.parties, "stranger": stranger.verify_key}
    keys = MaskingSession(SESSION, "stranger", stranger, parties, 3).advertise(())
    more = KeyList(told.nonce, (*told.keys.sites, "stranger"), (*told.keys.keys, keys))
    with refused("'stranger' is no party"):
        told.sites["site 00"].share(more)


@pytest.mark.parametrize(
    ("sites", "cause"),
    [
        ((0, 1), "a sum of 2 sites"),
        ((1, 2), "own keys are not among"),
        ((0, 1, 1), "not one of each"),
        ((0, 2, 1), "not one of each"),
        ((), "own keys are not among"),
    ],
)
def test_a_key_list_of_other_sites_is_refused(sites: tuple[int, ...], cause: str) -> None:
    told = open_sum(group(3))
    listed = KeyList(
        told.nonce, tuple(told.keys.sites[place] for place in sites), tuple(told.keys.keys[place] for place in sites)
    )
    with refused(cause):
        told.sites["site 00"].share(listed)


def test_a_key_list_with_a_key_too_few_is_refused() -> None:
    told = open_sum(group(3))
    with refused("not one of each site"):
        told.sites["site 00"].share(replace(told.keys, keys=told.keys.keys[:2]))


@pytest.mark.parametrize(("number", "few"), [(4, 2), (6, 4), (7, 4), (9, 6)])
def test_a_key_list_of_two_thirds_of_the_sites_is_refused(number: int, few: int) -> None:
    told = open_sum(group(number))
    listed = KeyList(told.nonce, told.keys.sites[:few], told.keys.keys[:few])
    with refused(f"a sum of {few} sites"):
        told.sites["site 00"].share(listed)


# ---------------------------------------------------------------------------------------------------- the boxes


def test_boxes_of_another_session_of_the_same_keys_are_refused() -> None:
    """The same boxes' keys (which honest sites never use twice) would not do either: the session is in the key."""
    told = shared(3)
    a, b, _ = named(3)
    secret = agreed_secret(told.sites[a]._box_key, key_of(told, b).box_key)
    other = box_info(bytes(32), a, b)
    box = sealed(derived(secret, other), bytes(2 * SHARE_BYTES), other)
    with refused(f"box of '{a}'"):
        told.sites[b].receive(told.senders, (box, told.coordinator.boxes_for(b)[1]))


def change(boxes: tuple[bytes, ...], told: Group) -> dict[str, tuple[bytes, ...]]:
    """What a coordinator may give site 01 in the place of its boxes, which are of site 00 and 02."""
    first, second = boxes
    mine = told.coordinator._boxes["site 01"]
    flipped = bytes([first[0] ^ 1]) + first[1:]
    return {
        "swapped": (second, first),
        "twice the same": (first, first),
        "of another session": shared(3).coordinator.boxes_for("site 01"),
        "its own, reflected": (mine["site 00"], mine["site 02"]),
        "for another receiver": (told.coordinator._boxes["site 00"]["site 02"], second),
        "with a bit changed": (flipped, second),
        "empty": (b"", b""),
        "cut": (first[:-1], second),
    }


@pytest.mark.parametrize("how", list(change((b"xx", b"yy"), shared(3))))
def test_a_box_that_was_not_made_for_this_site_in_this_sum_is_refused(how: str) -> None:
    told = shared(3)
    boxes = change(told.coordinator.boxes_for("site 01"), told)[how]
    with refused("box of 'site 0[02]' is not from it") as error:
        told.sites["site 01"].receive(told.senders, boxes)
    if how in ("for another receiver", "with a bit changed", "cut"):
        assert "site 00" in error.value.cause
    assert not told.sites["site 01"]._senders


@pytest.mark.parametrize("size", [0, SHARE_BYTES, 2 * SHARE_BYTES - 1, 2 * SHARE_BYTES + 1])
def test_a_box_of_a_colluder_with_more_or_less_in_it_than_two_shares_is_refused(size: int) -> None:
    told = shared(3)
    about = box_info(SESSION, "site 00", "site 01")
    secret = agreed_secret(told.sites["site 00"]._box_key, key_of(told, "site 01").box_key)
    box = sealed(derived(secret, about), bytes(size), about)
    with refused("box of 'site 00'"):
        told.sites["site 01"].receive(told.senders, (box, told.coordinator.boxes_for("site 01")[1]))


@pytest.mark.parametrize(
    ("senders", "cause"),
    [
        (("site 00", "site 01", "site 02"), "3 sites shared"),
        (("site 01", "site 02", "site 03", "site 04"), "not among those"),
        (("site 00", "site 01", "site 02", "stranger"), "not among those"),
        (("site 00", "site 00", "site 01", "site 02", "site 03"), "not among those"),
        (("site 01", "site 00", "site 02", "site 03"), "not among those"),
        (("site 00", "site 01", "site 02", "site 03", "site 04"), "not as many boxes"),
        ((), "not among those"),
    ],
)
def test_senders_that_cannot_be_are_refused(senders: tuple[str, ...], cause: str) -> None:
    told = shared(5)
    with refused(cause):
        told.sites["site 00"].receive(senders, told.coordinator.boxes_for("site 00")[:3])


# ------------------------------------------------------------------------------------------------ the survivors


@pytest.mark.parametrize(
    ("survivors", "cause"),
    [
        (("site 00", "site 01", "site 02"), "3 sites would make the total"),
        (("site 00",), "1 sites would make"),
        (("site 01", "site 02", "site 03", "site 04"), "not among the sites that shared"),
        (("site 00", "site 01", "site 02", "site 05"), "not among the sites that shared"),
        (("site 00", "site 01", "site 02", "stranger"), "not among the sites that shared"),
        (("site 01", "site 00", "site 02", "site 03"), "not among the sites that shared"),
        (("site 00", "site 00", "site 01", "site 02"), "not among the sites that shared"),
        ((), "not among the sites that shared"),
    ],
)
def test_survivors_that_cannot_be_are_refused(survivors: tuple[str, ...], cause: str) -> None:
    told = contributed(5)
    with refused(cause):
        told.sites["site 00"].confirm(Survivors(told.nonce, survivors))


def test_a_site_that_made_keys_and_did_not_share_is_no_survivor() -> None:
    told = open_sum(group(5))
    share_secrets(told, named(4))
    contribute(told, {site: part() for site in named(4)})
    with refused("not among the sites that shared"):
        told.sites["site 00"].confirm(Survivors(told.nonce, tuple(named(5))))


def test_sites_that_were_shown_other_survivors_are_found_out_and_named() -> None:
    """An equivocating coordinator would get the key of site 06 from some and its seed from others."""
    told = contributed(7)
    all_of_them, all_but_one = told.survivors, told.survivors[:-1]
    for site in named(7):
        shown = all_but_one if site in ("site 00", "site 01") else all_of_them
        told.confirmed[site] = told.sites[site].confirm(Survivors(told.nonce, shown))
    for site in ("site 02", "site 06"):
        with refused("'site 00' confirmed other survivors"):
            told.sites[site].reveal(told.confirmations())
    with refused("'site 02' confirmed other survivors"):
        told.sites["site 00"].reveal(told.confirmations(named(6)))


def test_who_was_shown_other_keys_confirms_other_survivors() -> None:
    """The same names with another key for one of them: a confirmation is of the keys too."""
    told = open_sum(group(4))
    twin = with_key(told, "site 03", told.another("site 03").advertise(()))
    for site in named(4):
        told.coordinator.take_boxes(site, told.sites[site].share(twin if site == "site 00" else told.keys))
    told.senders = told.coordinator.senders
    for site in ("site 01", "site 02"):
        told.sites[site].receive(told.senders, told.coordinator.boxes_for(site))
        told.sites[site].masked(part(), told.encoder)
        told.confirmed[site] = told.sites[site].confirm(Survivors(told.nonce, told.senders))
    roster_of_00 = told.sites["site 00"]._roster
    assert roster_of_00 != told.sites["site 01"]._roster
    told.confirmed["site 00"] = Confirmed(told.identities["site 00"].sign(survivors_signed(roster_of_00, told.senders)))
    with refused("'site 00' confirmed other survivors"):
        told.sites["site 01"].reveal(told.confirmations())


@pytest.mark.parametrize("forged", ["another's", "of another key", "empty", "changed", "of another session"])
def test_a_forged_confirmation_is_refused_and_named(forged: str) -> None:
    told = confirm(contributed(4))
    true = told.confirmed["site 02"].signature
    other = confirm(
        contribute(share_secrets(open_sum(group(4, bytes(32), told.identities))), dict.fromkeys(named(4), part()))
    )
    told.confirmed["site 02"] = Confirmed(
        {
            "another's": told.confirmed["site 01"].signature,
            "of another key": SigningKey.generate().sign(
                survivors_signed(told.sites["site 00"]._roster, told.survivors)
            ),
            "empty": b"",
            "changed": true[:-1] + bytes([true[-1] ^ 1]),
            "of another session": other.confirmed["site 02"].signature,
        }[forged]
    )
    with refused("'site 02' confirmed other survivors"):
        told.sites["site 00"].reveal(told.confirmations())


@pytest.mark.parametrize("number", [3, 4, 6, 7])
def test_fewer_confirmations_than_the_threshold_are_refused(number: int) -> None:
    told = confirm(contributed(number))
    few = named(number)[: 2 * number // 3]
    with refused(f"{len(few)} sites confirmed"):
        told.sites["site 00"].reveal(told.confirmations(few))


def test_a_confirmation_counts_once_and_is_of_a_survivor() -> None:
    told = confirm(contributed(6, away=["site 05"]))
    one = told.confirmed["site 00"].signature
    with refused("not one of each"):
        told.sites["site 00"].reveal(Confirmations(told.nonce, ("site 00",) * 5, (one,) * 5))
    with refused("not one of each"):
        told.sites["site 01"].reveal(Confirmations(told.nonce, told.survivors, (one,)))
    gone = told.identities["site 05"].sign(survivors_signed(told.sites["site 02"]._roster, told.survivors))
    told.confirmed["site 05"] = Confirmed(gone)
    with refused("'site 05' confirmed other survivors"):
        told.sites["site 02"].reveal(told.confirmations())


# ------------------------------------------------------------------------------------- both shares, and the order


def test_of_nobody_are_both_shares_revealed() -> None:
    """Seeds of those that contributed, keys of those that did not; those that never shared have neither."""
    told = open_sum(group(8))
    share_secrets(told, named(7))
    contribute(told, {site: part() for site in named(6)})
    reveal(confirm(told))
    assert told.survivors == tuple(named(6))
    assert set(told.revealed) == set(named(6))
    for by, given in told.revealed.items():
        assert len(given.shares) == len(told.senders) == 7
        for owner, found in zip(told.senders, given.shares, strict=True):
            seed, key = told.sites[by]._seed_shares[owner], told.sites[by]._key_shares.get(owner)
            assert seed != key
            assert found == (seed if owner in told.survivors else key)
        assert told.sites[by]._key_shares.keys() == set(named(7)) - {by}


def test_nothing_is_revealed_twice_nor_after_a_refusal() -> None:
    told = reveal(confirm(contributed(4)))
    with refused("came again, or before its turn"):
        told.sites["site 00"].reveal(told.confirmations())
    told = confirm(contributed(4))
    with refused("which are too few"):
        told.sites["site 00"].reveal(told.confirmations(named(2)))
    with refused("came again"):
        told.sites["site 00"].reveal(told.confirmations())


def test_survivors_are_confirmed_once() -> None:
    told = confirm(contributed(4))
    for shown in (told.survivors, told.survivors[:3]):
        with refused("came again"):
            told.sites["site 00"].confirm(Survivors(told.nonce, shown))


QUESTIONS: dict[str, Callable[[Group, str], Any]] = {
    "share": lambda told, site: told.sites[site].share(told.keys),
    "receive": lambda told, site: told.sites[site].receive(named(4), ()),
    "confirm": lambda told, site: told.sites[site].confirm(Survivors(told.nonce, tuple(named(4)))),
    "reveal": lambda told, site: told.sites[site].reveal(Confirmations(told.nonce, (), ())),
}
REACHED: dict[str, Callable[[], Group]] = {
    "share": lambda: open_sum(group(4)),
    "receive": lambda: shared(4),
    "confirm": lambda: contributed(4),
    "reveal": lambda: confirm(contributed(4)),
    "nothing": lambda: reveal(confirm(contributed(4))),
}


@pytest.mark.parametrize("due", list(REACHED))
@pytest.mark.parametrize("asked", list(QUESTIONS))
def test_a_question_out_of_its_order_is_refused(due: str, asked: str) -> None:
    if due == asked:
        return
    told = REACHED[due]()
    with refused("came again, or before its turn"):
        QUESTIONS[asked](told, "site 01")


def test_a_second_contribution_is_not_masked_in_the_same_sum() -> None:
    """Two under the same masks give their difference away; one before the shares are here has its seed's mask alone,
    which a coordinator takes away."""
    told = contributed(4)
    with pytest.raises((Refused, AssertionError)):
        told.sites["site 00"].masked(part(2.0), told.encoder)
    told = shared(4)
    with pytest.raises((Refused, AssertionError)):
        told.sites["site 00"].masked(part(2.0), told.encoder)


def test_a_contribution_beyond_its_bound_is_not_masked_and_not_told() -> None:
    told = shared(3)
    told.sites["site 00"].receive(told.senders, told.coordinator.boxes_for("site 00"))
    with pytest.raises(DataError, match="'delta'") as error:
        told.sites["site 00"].masked(part(4.5678), told.encoder)
    assert "5678" not in str(error.value)


# ----------------------------------------------------------------------------------------- sums of a run at a site


@dataclass(frozen=True, eq=False)
class Question(Message, wire="test.masking_session.question"):
    """What a step is asked."""

    number: int


class Kept(dict[bytes, tuple[str, ...]]):
    """Sums that were formed, in memory."""

    def formed(self, question: bytes) -> tuple[str, ...]:
        return self.get(question, ())

    def form(self, question: bytes, sites: tuple[str, ...]) -> None:
        assert question not in self
        self[question] = sites


STEP: Step[Message, Message] = Step("test.part", lambda _site, _message: part(), Question, Part, Release.SUM, None)


@dataclass
class Run:
    """A run of four sites, and a coordinator that may ask them anything."""

    maskings: dict[str, Masking]

    def ask(self, sites: Iterable[str], message: Any) -> dict[str, Any]:
        return {site: self.maskings[site].answer(message) for site in sites}

    def opened(self, number: int = 1, asked: int = 4, nonce: bytes | None = None) -> tuple[Opening, Unmasking]:
        opening = Opening(nonce or secrets.token_bytes(32), question_of(STEP.name, Question(number)), asked)
        return opening, Unmasking(session_of("task", "run", opening), opening.nonce, asked)

    def until_shared(self, number: int = 1) -> tuple[Opening, Unmasking]:
        opening, sum_ = self.opened(number)
        keys = sum_.key_list(self.ask(named(4), opening))
        for site, boxes in self.ask(named(4), keys).items():
            sum_.take_boxes(site, boxes)
        return opening, sum_

    def until_masked(self, number: int = 1, sites: Iterable[str] = tuple(named(4))) -> tuple[Opening, Unmasking]:
        opening, sum_ = self.until_shared(number)
        for site in sites:
            told = Contribution(opening.nonce, sum_.senders, sum_.boxes_for(site), Question(number))
            self.maskings[site].receive(STEP.name, told)
            sum_.add(site, self.maskings[site].contribution(STEP, part(rows=int(site[-1]))), Encoder(Part, 4))
        return opening, sum_

    def total(self, opening: Opening, sum_: Unmasking) -> Part:
        survivors = sum_.survivors()
        signed = self.ask(survivors, Survivors(opening.nonce, survivors))
        told = Confirmations(opening.nonce, survivors, tuple(signed[site].signature for site in survivors))
        total = sum_.total(self.ask(survivors, told), Encoder(Part, 4))
        assert isinstance(total, Part)
        return total


def run(asked: int = 4, known: Mapping[str, Kept] | None = None) -> Run:
    identities = {site: SigningKey.generate() for site in named(4)}
    parties = {site: key.verify_key for site, key in identities.items()}
    kept = known or {site: Kept() for site in named(4)}
    return Run(
        {
            site: Masking(site, key, parties, Openings("task", "run", asked, len(parties), kept[site]), None)
            for site, key in identities.items()
        }
    )


def test_a_sum_over_all_sites_of_a_run() -> None:
    told = run()
    assert told.total(*told.until_masked()).rows == 0 + 1 + 2 + 3


def test_the_number_of_an_earlier_sum_is_refused() -> None:
    told = run()
    opening, sum_ = told.until_masked()
    told.total(opening, sum_)
    with refused("number of an earlier one"):
        told.ask(["site 00"], opening)
    with refused("number of an earlier one"):
        told.ask(["site 00"], replace(opening, question=question_of(STEP.name, Question(2))))


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_number_of_another_size_is_refused(size: int) -> None:
    told = run()
    with refused("number of an earlier one"):
        told.ask(["site 00"], Opening(bytes(size), bytes(32), 4))


@pytest.mark.parametrize(("least", "asked"), [(4, 3), (4, 5), (3, 2), (3, 0), (3, -1), (4, 2**70)])
def test_a_sum_of_fewer_sites_than_the_task_says_or_more_than_it_has_is_refused(least: int, asked: int) -> None:
    told = run(least)
    with refused("other sites than the task says"):
        told.ask(["site 00"], told.opened(asked=asked)[0])


@pytest.mark.parametrize(
    ("step", "content"), [("test.part", Question(2)), ("test.other", Question(1)), ("", Question(1))]
)
def test_another_question_than_the_sum_was_opened_for_is_refused(step: str, content: Question) -> None:
    told = run()
    opening, sum_ = told.until_shared(1)
    boxes = sum_.boxes_for("site 00")
    with refused("another question is asked"):
        told.maskings["site 00"].receive(step, Contribution(opening.nonce, sum_.senders, boxes, content))


@pytest.mark.parametrize("first", [tuple(named(4)), tuple(named(3))])
def test_the_same_question_over_other_sites_is_refused(first: tuple[str, ...]) -> None:
    """The difference of the two totals is the contribution of site 03."""
    told = run()
    second = named(3) if len(first) == 4 else named(4)
    told.total(*told.until_masked(1, first))
    opening, sum_ = told.until_masked(1, second)
    for site in named(3):
        with refused("formed before over other sites"):
            told.ask([site], Survivors(opening.nonce, sum_.survivors()))


def test_the_same_question_over_other_sites_is_refused_by_a_site_that_was_started_anew() -> None:
    kept = {site: Kept() for site in named(4)}
    told = run(known=kept)
    told.total(*told.until_masked())
    again = run(known=kept)
    opening, sum_ = again.until_masked(1, named(3))
    with refused("formed before over other sites"):
        again.ask(["site 00"], Survivors(opening.nonce, sum_.survivors()))


def test_the_same_question_over_the_same_sites_gives_the_same_total() -> None:
    told = run()
    one = told.total(*told.until_masked())
    two = told.total(*told.until_masked())
    assert one.rows == two.rows
    assert np.array_equal(one.delta, two.delta)
    assert told.maskings["site 00"].answer(told.opened(1)[0]).formed == tuple(named(4))
    assert told.maskings["site 00"].answer(told.opened(2)[0]).formed == ()


def test_another_question_over_other_sites_is_answered() -> None:
    told = run()
    told.total(*told.until_masked(1))
    assert told.total(*told.until_masked(2, named(3))).rows == 0 + 1 + 2


def test_survivors_are_kept_before_the_signature_leaves() -> None:
    """A coordinator that breaks off after the confirmations has a second try over the same sites only."""
    told = run()
    opening, sum_ = told.until_masked()
    told.ask(["site 00"], Survivors(opening.nonce, sum_.survivors()))
    opening, sum_ = told.until_masked(1, named(3))
    with refused("formed before over other sites"):
        told.ask(["site 00"], Survivors(opening.nonce, sum_.survivors()))


def test_survivors_that_are_refused_are_not_kept() -> None:
    told = run()
    opening, _ = told.until_masked()
    with refused("2 sites would make the total"):
        told.ask(["site 00"], Survivors(opening.nonce, tuple(named(2))))
    assert told.maskings["site 00"].openings.sums == {}


@pytest.mark.parametrize("question", [KeyList, Survivors, Confirmations])
def test_a_question_for_a_sum_whose_keys_are_gone_is_refused(question: type[Message]) -> None:
    told = run()
    before, _ = told.until_masked()
    told.ask(["site 00"], told.opened(2)[0])
    empty = {KeyList: ((), ()), Survivors: ((),), Confirmations: ((), ())}[question]
    for nonce in (before.nonce, b"", bytes(32)):
        with refused("holds no keys for that secure sum"):
            told.ask(["site 00"], question(nonce, *empty))
    with refused("holds no keys"):
        told.maskings["site 00"].receive(STEP.name, Contribution(before.nonce, (), (), Question(1)))


def test_a_site_that_was_opened_for_no_sum_answers_nothing() -> None:
    told = run()
    with refused("holds no keys"):
        told.ask(["site 00"], Survivors(b"", tuple(named(4))))


def test_sites_that_were_asked_unlike_things_form_no_sum() -> None:
    """The number of sites that are asked, and the question, are in the session that keys are signed for."""
    told = run(asked=3)
    one, sum_ = told.opened(1, asked=4)
    for other in (replace(one, asked=3), replace(one, question=question_of(STEP.name, Question(2)))):
        told = run(asked=3)
        keys = sum_.key_list({**told.ask(["site 00"], other), **told.ask(named(4)[1:], one)})
        with refused("'site 00' were not signed by it for this sum"):
            told.ask(["site 01"], keys)
        with refused("'site 01' were not signed by it for this sum"):
            told.ask(["site 00"], keys)


def test_sessions_of_any_two_unlike_sums_are_unlike() -> None:
    opening = Opening(bytes(32), b"q", 4)
    sums = [
        ("task", "run", opening),
        ("tas", "krun", opening),
        ("task", "run2", opening),
        ("task", "run", replace(opening, nonce=bytes(31) + b"\1")),
        ("task", "run", replace(opening, question=b"r")),
        ("task", "run", replace(opening, asked=5)),
    ]
    assert len({session_of(*each) for each in sums}) == len(sums)
    assert len(session_of(*sums[0])) == 32


def test_masks_of_a_pair_are_derived_alike_at_both_and_unlike_for_all_else() -> None:
    assert pair_info(SESSION, "a", "b") == pair_info(SESSION, "b", "a")
    told = [pair_info(SESSION, "a", "b"), pair_info(SESSION, "a", "a"), pair_info(bytes(32), "a", "b")]
    told += [box_info(SESSION, "a", "b"), box_info(SESSION, "b", "a"), pair_info(SESSION, "ab", "")]
    assert len(set(told)) == len(told)


def test_boxes_are_one_of_each_neighbour() -> None:
    told = open_sum(group(4))
    assert len(told.sites["site 00"].share(told.keys).boxes) == 3
    assert isinstance(told.sites["site 01"].share(told.keys), Boxes)
