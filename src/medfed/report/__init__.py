"""The HTML report and the model card: a run folder's files, made readable."""

from medfed.report.card import write_model_card
from medfed.report.page import write_report

__all__ = ["write_model_card", "write_report"]
