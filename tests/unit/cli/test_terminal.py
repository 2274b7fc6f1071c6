"""Names from data and folders reach the terminal without steering it."""

from hypothesis import given
from hypothesis import strategies as st

from medfed.cli.options import printable


@given(st.text())
def test_no_control_character_reaches_the_terminal(text: str) -> None:
    shown = printable(text)
    assert all(c.isprintable() or c == "\n" for c in shown)
    assert shown == text or any(not c.isprintable() and c != "\n" for c in text)


def test_an_escape_sequence_is_shown_as_text() -> None:
    assert printable("A\x1b[31mX") == "A\\x1b[31mX"
    assert printable("Zürich – 北京\nnext") == "Zürich – 北京\nnext"
