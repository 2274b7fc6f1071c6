"""The errors that MedFed explains.

Each carries a stable ``code``, the ``cause`` in a sentence that never quotes a patient's value, the
``remedy``, and ``where`` it happened (``file:line``, a site, a column). The class decides the exit status.
"""

from __future__ import annotations

import enum
from typing import ClassVar


class MedFedError(Exception):
    """The root of every error that is explained to a person; by itself, a fault of ours (exit 1)."""

    exit_status: ClassVar[int] = 1
    code: ClassVar[str] = "internal"

    def __init__(self, cause: str, *, remedy: str = "", where: str = "") -> None:
        super().__init__(cause)
        self.cause = cause
        self.remedy = remedy
        self.where = where

    def __str__(self) -> str:
        prefix = f"{self.where}: " if self.where else ""
        suffix = f"\n  remedy: {self.remedy}" if self.remedy else ""
        return f"{prefix}{self.cause}{suffix}"


class UserError(MedFedError):
    """Something the user can mend (exit 2)."""

    exit_status = 2
    code = "usage"


class TaskError(UserError):
    """A task, site, policy or party file is wrong; ``where`` is ``file:line``."""

    code = "task"


class DataError(UserError):
    """A site's data cannot be used as the task describes them; ``where`` names site and file."""

    code = "data"


class MissingExtra(UserError):
    """A part needs an optional dependency that is not installed."""

    code = "extra"


class RunFolderError(UserError):
    """A run folder cannot be written, read, or resumed."""

    code = "run_folder"


class RefusalReason(enum.StrEnum):
    """Why a site refused: the key of its policy, or of the task, that said no, or what else keeps a reply back."""

    UNSPECIFIED = "refused"
    TASKS = "policy.tasks"
    TASK_TYPES = "policy.task_types"
    ALGORITHMS = "policy.algorithms"
    STEPS = "policy.steps"
    QUIET_HOURS = "policy.quiet_hours"
    RELEASES = "policy.releases"
    EXPLANATIONS = "policy.explanations"
    MINIMUM_PATIENTS = "policy.minimum_patients"
    ROUNDS = "policy.limits.rounds"
    REQUESTS = "policy.limits.requests"
    REQUEST_BYTES = "policy.limits.request_bytes"
    RELEASED_BYTES = "policy.limits.released_bytes"
    SECURE_SUM = "secure_sum"
    BUDGET = "policy.epsilon"
    PLANNED_STEPS = "privacy.record"
    ATTESTATION = "attestation"
    PLANNED_UPDATES = "privacy.site"
    PLANNED_LABELS = "privacy.labels"
    LEDGER = "ledger_unwritable"


class Refused(MedFedError):
    """A site's policy said no, or its ledger could not be written (exit 3); ``reason`` says which rule."""

    exit_status = 3
    code = "refused"

    def __init__(
        self,
        cause: str,
        *,
        reason: RefusalReason = RefusalReason.UNSPECIFIED,
        remedy: str = "",
        where: str = "",
    ) -> None:
        super().__init__(cause, remedy=remedy, where=where)
        self.reason = reason


class Unattested(Refused):
    """A party did not prove that it runs an allowed build (exit 3)."""

    code = "attestation"

    def __init__(self, cause: str, *, remedy: str = "", where: str = "") -> None:
        super().__init__(cause, reason=RefusalReason.ATTESTATION, remedy=remedy, where=where)


class QuorumLost(MedFedError):
    """Fewer sites answered than the task's quorum asks for (exit 4)."""

    exit_status = 4
    code = "quorum"


class LedgerError(MedFedError):
    """A ledger does not verify (exit 3: it is not to be trusted)."""

    exit_status = 3
    code = "ledger"


class CodecError(MedFedError):
    """Bytes that are not a message, or a message that is not well formed."""

    code = "codec"


class MemoryLost(MedFedError):
    """A site does not hold the memory on which a request builds."""

    code = "memory"
