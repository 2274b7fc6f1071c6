from __future__ import annotations

from dataclasses import dataclass

import pytest

from medfed.core.errors import CodecError
from medfed.core.examples import Split
from medfed.core.messages import Message, adds
from medfed.core.protocols import SiteContext
from medfed.core.steps import Release, installed_step, step


@dataclass(frozen=True)
class Ask(Message, wire="test.steps.ask"):
    number: int


@dataclass(frozen=True)
class AskSplit(Message, wire="test.steps.ask_split"):
    split: Split


@dataclass(frozen=True)
class Total(Message, wire="test.steps.total"):
    number: int = adds(bound=10)


@step(releases=Release.SUM)
def double(site: SiteContext, message: Ask) -> Total:
    """Twice the number."""
    return Total(2 * message.number)


@step(releases=Release.SITE, reads=None)
def every_row(site: SiteContext, message: AskSplit) -> Ask:
    """Reads every row, unless the message says which."""
    return Ask(1)


def test_a_step_is_found_by_its_file_and_name():
    assert double.name == "test_step_registry.double"
    assert installed_step("test_step_registry.double") is double
    assert (double.message, double.reply, double.releases, double.reads) == (Ask, Total, Release.SUM, Split.TRAIN)
    assert double.run(None, Ask(4)) == Total(8)


def test_a_message_with_a_split_chooses_it():
    assert double.split(Ask(1)) is Split.TRAIN
    assert every_row.split(Ask(1)) is None
    assert every_row.split(AskSplit(Split.TEST)) is Split.TEST


@pytest.mark.parametrize("name", ["", "os.system", "test_step_registry", "test_step_registry.helper", "double"])
def test_no_code_but_installed_steps_can_be_named(name):
    with pytest.raises(CodecError, match="no installed step"):
        installed_step(name)


def test_a_summed_reply_whose_fields_do_not_add_is_refused_at_import():
    with pytest.raises(TypeError, match=r"Ask\.number"):

        @step(releases=Release.SUM)
        def wrong(site: SiteContext, message: Ask) -> Ask:
            return message

    with pytest.raises(CodecError):
        installed_step("test_step_registry.wrong")


def test_two_files_of_one_name_cannot_register_the_same_step():
    def double(site: SiteContext, message: Ask) -> Total:
        return Total(0)

    double.__module__ = "somewhere.else.test_step_registry"
    with pytest.raises(TypeError, match=r"share the name 'test_step_registry\.double'"):
        step(releases=Release.SUM)(double)
    assert installed_step("test_step_registry.double").run(None, Ask(4)) == Total(8)
