import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfed.core.errors import TaskError
from medfed.spec.document import MAX_BYTES, Document, dotted, read_value, read_yaml


def written(tmp_path, content):
    path = tmp_path / "task.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("off", "off"),
        ("1e-3", 0.001),
        ("-1E5", -100000.0),
        ("5.", 5.0),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2020-01-01", "2020-01-01"),
        (".inf", float("inf")),
        ("-.INF", float("-inf")),
        ("~", None),
        ("'1'", "1"),
        ("true", True),
        ("9" * 500, "9" * 500),
    ],
)
def test_scalars_follow_the_core_schema_of_yaml_1_2(text, value):
    read = read_value(text, "here")
    assert read == value
    assert type(read) is type(value)


def test_every_key_has_its_line(tmp_path):
    path = written(tmp_path, "# a comment\na: 1\nb:\n  c: [x,\n      y]\n  d: {e: 2}\n")
    document = read_yaml(path)
    assert document.data == {"a": 1, "b": {"c": ["x", "y"], "d": {"e": 2}}}
    lines = {
        ("a",): 2, ("b",): 3, ("b", "c"): 4, ("b", "c", 1): 5, ("b", "d", "e"): 6,
        ("b", "d", "missing"): 6, ("b", "missing", "deeper"): 3, ("missing",): 1, (): 1,
    }  # fmt: skip
    assert {keys: document.where(*keys) for keys in lines} == {k: f"{path}:{n}" for k, n in lines.items()}


def test_a_document_without_lines_names_the_key():
    assert Document("task", {"a": 1}).where("a", "b") == "task: a.b"
    assert dotted(("compare", "strategies", 0, "name")) == "compare.strategies[0].name"


def test_keys_are_text_as_written(tmp_path):
    assert read_yaml(written(tmp_path, "1: a\nno: b\n'null': c\n")).data == {"1": "a", "no": "b", "null": "c"}


def test_a_byte_order_mark_and_tabs_in_json_are_accepted(tmp_path):
    document = read_yaml(written(tmp_path, '\ufeff{\n\t"a": 1,\n\t"b": "\\u00e9"\n}\n'))
    assert document.data == {"a": 1, "b": "é"}
    assert document.where("b").endswith(":3")


def test_a_plain_alias_is_accepted(tmp_path):
    assert read_yaml(written(tmp_path, "a: &x [1, 2]\nb: *x\n")).data == {"a": [1, 2], "b": [1, 2]}


BAD = {
    "empty": ("", 1, "empty"),
    "comments": ("# nothing\n\n", 1, "empty"),
    "null": ("---\n", 1, "empty"),
    "list": ("- a\n- b\n", 1, "no sections"),
    "text": ("hello\n", 1, "no sections"),
    "latin-1": (b"a: 1\nb: caf\xe9\n", 2, "UTF-8"),
    "utf-16": ("a: 1\n".encode("utf-16"), 1, "UTF-8"),
    "nul": (b"a: 1\nb: \x00\n", 2, "not printable"),
    "binary": (bytes(range(128)), 1, "not printable"),
    "large": (b"a: " + b"x" * MAX_BYTES, 1, "larger than 1 MiB"),
    "duplicate": ("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n", 5, "`b.c` is given twice"),
    "tab": ("a:\n  b: 1\n\tc: 2\n", 3, "tab"),
    "deep": ("a:\n  " + "[" * 40 + "]" * 40, 2, "levels are nested"),
    "python tag": ("a: 1\nb: !!python/object:os.system {}\n", 2, "tag"),
    "tag": ("a: !thing x\n", 1, "tag"),
    "merge": ("a: &x {b: 1}\nc:\n  <<: *x\n", 3, "merge keys"),
    "recursive alias": ("a: &x\n  b: *x\n", 2, "alias"),
    "unknown alias": ("a: 1\nb: *x\n", 2, "alias"),
    "two documents": ("a: 1\n---\nb: 2\n", 2, "second document"),
    "complex key": ("a: 1\n? [b]\n: 2\n", 2, "not plain text"),
    "colon": ("a: b: c\n", 1, "colon"),
    "bracket": ("a: 1\nb: [1, 2\nc: 3\n", 3, "malformed"),
    "quote": ("a: 1\nb: 'x\n", 3, "malformed"),
    "escape": ('a: "\\U99999999"\n', 1, "malformed"),
    "surrogate": ('a: 1\nb: "\\ud800"\n', 2, "half a character"),
    "many values": ("a: [" + "1," * 100_001 + "]\n", 1, "more than 100000 values"),
}


@pytest.mark.parametrize(("content", "line", "cause"), BAD.values(), ids=BAD)
def test_a_bad_file_is_refused_at_its_line(tmp_path, content, line, cause):
    path = written(tmp_path, content)
    with pytest.raises(TaskError) as caught:
        read_yaml(path)
    assert caught.value.where == f"{path}:{line}"
    assert cause in caught.value.cause
    assert caught.value.remedy


def test_a_missing_file_suggests_its_neighbour(tmp_path):
    written(tmp_path, "a: 1\n")
    with pytest.raises(TaskError, match="no such file") as caught:
        read_yaml(tmp_path / "tsak.yaml")
    assert caught.value.where == str(tmp_path / "tsak.yaml")
    assert str(tmp_path / "task.yaml") in caught.value.remedy


@pytest.mark.parametrize("name", ["nowhere/task.yaml", "", ".", "a\0b", "x" * 5000, "unreadable.yaml"])
def test_what_cannot_be_read_is_explained(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "unreadable.yaml").symlink_to("unreadable.yaml")
    with pytest.raises(TaskError) as caught:
        read_yaml(name)
    assert caught.value.remedy


BOMBS = {
    "laughs": "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)),
    "quadratic": "a: &a [" + "1," * 10_000 + "]\nb: [" + "*a," * 10_000 + "]\n",
    "nesting": "[" * 2**20,
    "indentation": "- " * 2**19,
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_defused_within_a_second(tmp_path, text):
    path = written(tmp_path, text)
    begin = time.process_time()
    with pytest.raises(TaskError):
        read_yaml(path)
    assert time.process_time() - begin < 1


@given(st.text() | st.text(alphabet="ab:-[]{}&*!?|>'\"%@`#,. \n\t\\<~1"))
def test_any_text_reads_or_is_refused(text):
    try:
        read_value(text, "here")
    except TaskError as error:
        assert error.where == "here"
        assert error.remedy
