from __future__ import annotations

from importlib.util import find_spec

import pytest

from medfed.core.errors import MissingExtra, UserError
from medfed.core.registry import Registry

PLUGINS = {
    "__init__.py": "",
    "alpha.py": "PLUGIN = 'the alpha'",
    "alphabet.py": "PLUGIN = 'the alphabet'",
    "_helper.py": "PLUGIN = 'a helper'",
    "needy.py": "REQUIRES = ('imaging', 'extra')\nIMPORTS = ('json', 'no_such_module_anywhere')\nPLUGIN = 1",
    "content.py": "REQUIRES = ('imaging',)\nIMPORTS = ('json',)\nPLUGIN = 2",
    "broken.py": "import no_such_module_anywhere",
}


@pytest.fixture
def registry(tmp_path, monkeypatch) -> Registry[object]:
    """A registry over a package in a temporary folder, beside an installed distribution with two entry points."""
    name = f"plugins_{tmp_path.name}".replace("-", "_")
    package = tmp_path / name
    package.mkdir()
    for file, text in PLUGINS.items():
        (package / file).write_text(text)
    info = tmp_path / f"{name}_more-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-more\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[medfed.testkinds]\nremote = {name}.alphabet:PLUGIN\nalpha = {name}.alphabet:PLUGIN\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return Registry("testkind", name, "PLUGIN")


def test_names_come_from_files_and_entry_points_without_importing_any(registry):
    assert registry.names() == ["alpha", "alphabet", "broken", "content", "needy", "remote"]


def test_a_file_and_an_entry_point_are_loaded_by_name(registry):
    assert registry.get("alpha") == "the alpha"
    assert registry.get("remote") == "the alphabet"
    assert registry.get("content") == 2


def test_an_unknown_name_is_refused_with_the_nearest_one(registry):
    with pytest.raises(UserError, match="no testkind is called 'alphabt'") as caught:
        registry.get("alphabt")
    assert "did you mean 'alphabet'?" in caught.value.remedy
    assert "known: alpha, alphabet" in caught.value.remedy
    with pytest.raises(UserError) as caught:
        registry.get("zzzzzz")
    assert caught.value.remedy.startswith("known: ")


@pytest.mark.parametrize("name", ["_helper", "__init__", "", "..alpha", "alpha.PLUGIN", "os:system", "../alpha"])
def test_nothing_but_a_plugins_name_is_imported(registry, name):
    with pytest.raises(UserError, match="no testkind is called"):
        registry.get(name)


def test_a_missing_extra_is_named_with_its_pip_line(registry):
    with pytest.raises(MissingExtra, match="no_such_module_anywhere is not installed") as caught:
        registry.get("needy")
    assert caught.value.remedy == "pip install 'medfed[imaging,extra]'"
    assert caught.value.exit_status == 2


def test_any_other_import_error_surfaces(registry):
    with pytest.raises(ModuleNotFoundError, match="no_such_module_anywhere"):
        registry.get("broken")


def test_resnet18_without_its_extra_names_the_extra(monkeypatch):
    from medfed.models.catalogue import MODELS

    monkeypatch.setattr("medfed.core.registry.find_spec", lambda name: None if name == "monai" else find_spec(name))
    assert "resnet18" in MODELS.names()
    with pytest.raises(MissingExtra, match=r"'imaging' \(monai is not installed\)") as caught:
        MODELS.get("resnet18")
    assert caught.value.remedy == "pip install 'medfed[imaging]'"
