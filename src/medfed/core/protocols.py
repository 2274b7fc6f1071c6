"""The protocols by which an upper floor is handed to a lower one."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from medfed.core.examples import Examples, Predictions, Split
from medfed.core.messages import Message, Vector
from medfed.core.steps import Step
from medfed.core.wire import Reply, Request

if TYPE_CHECKING:
    import torch

M = TypeVar("M", bound=Message)
R = TypeVar("R", bound=Message)
S = TypeVar("S", bound=Message)
T = TypeVar("T")


class GradientTransform(Protocol):
    """Changes the gradient of a local step in place, before the optimizer uses it.

    gradient, weights: float32 tensors over all parameters in the order of :data:`Vector`, of shape (d,); or (s, d),
    a row a site, where several sites are stacked. A transform that indexes the last axis only does both.
    """

    def __call__(self, gradient: torch.Tensor, weights: torch.Tensor) -> None:
        """Change ``gradient`` in place."""
        ...


class PrivateGradients(Protocol):
    """Forms the gradients of local updates under record-level differential privacy."""

    def draw(self, rows: int) -> NDArray[np.int64]:
        """The indices of the next batch, drawn from all ``rows``; there may be none."""
        ...

    def write(self, gradient: torch.Tensor, features: torch.Tensor, targets: torch.Tensor) -> None:
        """Overwrite the flat ``gradient``, shape (parameters,), by that of a batch (n, …); n may be 0."""
        ...


@dataclass(frozen=True, eq=False)
class Trained:
    """The outcome of a site's local training: the weights, the number of local updates K, and their rate.

    rows: training rows of the site (the weight of its contribution); lr: the learning rate of the round.
    """

    weights: Vector
    updates: int
    rows: int
    lr: float


class SiteContext(Protocol):
    """What a step sees of the site it runs at."""

    @property
    def site(self) -> str:
        """The site's name."""
        ...

    @property
    def round(self) -> int:
        """The round of the request; 0 while data are prepared."""
        ...

    def examples(self, split: Split) -> Examples:
        """The site's encoded rows of one split. Raises DataError before the data are prepared."""
        ...

    def train(self, weights: Vector, transform: GradientTransform | None = None) -> Trained:
        """Run the task's local training loop from ``weights`` over the training split."""
        ...

    def predict(self, weights: Vector, split: Split) -> Predictions:
        """Score one split by the model of these weights."""
        ...

    def model(self, weights: Vector, split: Split) -> Any:
        """The network that :meth:`predict` scores a split by: of these weights, and of what the site has for itself."""
        ...

    def generator(self, purpose: str) -> np.random.Generator:
        """The seeded generator of (task seed, site, round, purpose)."""
        ...

    def recall(self, kind: type[M]) -> M | None:
        """The message of this type that the site kept last, or None."""
        ...

    def keep(self, memory: Message) -> None:
        """Keep a message between requests; it replaces the one of the same type."""
        ...

    def resource(self, kind: type[T]) -> T:
        """The site's own object of this type: its table of rows, say, for the steps that prepare it."""
        ...


class SiteStack(Protocol):
    """Several simulated sites that run one step on one message at once: what a step's batched twin sees."""

    @property
    def sites(self) -> Sequence[SiteContext]:
        """Each site by itself, in order."""
        ...

    def train(self, weights: Vector, transform: GradientTransform | None = None) -> Sequence[Trained]:
        """As :meth:`SiteContext.train` at every site, all from the same weights, in the order of :attr:`sites`.

        Rows of the transform's tensors are in that order too.
        """
        ...

    def predict(self, weights: Vector, split: Split) -> Sequence[Predictions]:
        """As :meth:`SiteContext.predict` at every site."""
        ...


@dataclass(frozen=True)
class Claim:
    """What evidence of a build has to be bound to.

    party: who shows it. tls_key: SHA-256, in hex, of the public key (DER, SubjectPublicKeyInfo) of the certificate by
    which that party is connected. nonce: 32 random bytes of whoever verifies, in hex, used once.
    """

    party: str
    tls_key: str
    nonce: str


class Attestor(Protocol):
    """Evidence of which build a machine runs, of one kind: made at one party, verified at the other.

    The class is called without arguments. A package brings one by the entry-point group ``medfed.attestation``: the
    place for SEV-SNP and TDX.
    """

    def generate(self, claim: Claim, sign: Callable[[bytes], bytes]) -> bytes:
        """The token for a claim. sign: by the party's own key, for kinds whose hardware does not sign.

        Raises MedFedError where this machine cannot give it.
        """
        ...

    def verify(self, token: bytes, claim: Claim, verifies: Callable[[bytes, bytes], bool]) -> str:
        """The measurement, 64 hexadecimal digits, that the token proves for the claim.

        verifies: whether a signature (first) of the party's own key covers a message. Raises Unattested where the token
        is not evidence of this kind, or of another claim.
        """
        ...


class Federation(Protocol):
    """The coordinator's only way to data: two verbs, and who may be asked."""

    @property
    def sites(self) -> tuple[str, ...]:
        """Every site's name, sorted."""
        ...

    @property
    def round(self) -> int:
        """The round in progress; 0 while the run initialises."""
        ...

    def cohort(self) -> tuple[str, ...]:
        """The sites drawn for this round: all of them unless the task samples."""
        ...

    def sum(self, step: Step[M, R], message: M | Mapping[str, M], *, sites: Sequence[str] | None = None) -> R:
        """The total of the sites' replies; the caller sees no single one, and may change the total's arrays.

        message: one for all sites, or a mapping site → message. Raises QuorumLost where too few answer.
        """
        ...

    def ask(
        self, step: Step[M, R], message: M | Mapping[str, M], *, sites: Sequence[str] | None = None
    ) -> dict[str, R]:
        """Each site's own reply, by name; a site may refuse, and is then absent. Raises QuorumLost."""
        ...

    def stream(
        self, step: Step[M, R], message: M | Mapping[str, M], *, sites: Sequence[str] | None = None
    ) -> Iterator[tuple[str, R]]:
        """As :meth:`ask`, in order of arrival."""
        ...


class Engine(Protocol):
    """Carries requests to sites: the whole seam to a transport."""

    def exchange(self, requests: Sequence[Request]) -> Iterator[Reply]:
        """Send each request to the site it names at once; yield replies as they come, one a site at most.

        A site that fails yields a reply whose body is a Failure; one that is silent past the deadline yields
        nothing. The deadline is the engine's own. A reply's arrays stay as they are while it is referred to. The
        iterator ends when no more replies will come, and may be closed early.
        """
        ...


class Law(enum.StrEnum):
    """A promise that an algorithm declares and the conformance tests hold it to."""

    SITE_ORDER = "the order of sites does not change a bit"
    ONE_SITE_IS_LOCAL = "a federation of one site equals local training"
    RESUME = "a resumed run equals an uninterrupted one to the bit"


@dataclass(frozen=True, eq=False)
class ModelWeights(Message, wire="model_weights"):
    """The flat weights of a trained model."""

    weights: Vector


@dataclass(frozen=True, eq=False)
class OwnModel(Message, wire="own_model"):
    """The flat weights of a model that a site keeps for itself: where there is one, it is what is measured there."""

    weights: Vector


@runtime_checkable
class Algorithm(Protocol[S]):
    """A federated algorithm: state in, state out, reaching sites only through a Federation.

    REQUIRES: optional extras it imports. LAWS: the promises it is tested for. STEPS: every step it calls;
    a site admits no other. ASKS: whether it calls ``ask`` or ``stream``, which secure aggregation excludes.
    PLAIN_SGD: whether its formulas hold for plain SGD at the sites alone: no Adam, momentum or clipping.
    AVERAGES: whether the new model is a mean of the sites' models, as running statistics (batch normalisation) need.
    It may also declare POST_PROCESSES: that its training steps release only what follows from the outcome of
    ``site.train`` and from what is public, so that differential privacy by record covers them; and SHARES_NOISE: that
    what a site releases of a round is, beside that, linear in the change of its weights, and by the same factors at all
    sites whose ``rows`` are alike, so that the total of noisy changes says no more than their sum; and OWN_MODELS: that
    sites keep models of their own (:class:`OwnModel`).
    """

    REQUIRES: ClassVar[tuple[str, ...]]
    LAWS: ClassVar[frozenset[Law]]
    STEPS: ClassVar[tuple[Step[Any, Any], ...]]
    ASKS: ClassVar[bool]
    PLAIN_SGD: ClassVar[bool]
    AVERAGES: ClassVar[bool]

    def initialize(self, fed: Federation) -> S:
        """The state before the first round."""
        ...

    def round(self, fed: Federation, state: S) -> S:
        """The state after one more round."""
        ...

    def done(self, state: S) -> bool:
        """Whether it has converged or reached its limit of rounds."""
        ...

    def result(self, state: S) -> ModelWeights:
        """The model of a state."""
        ...
