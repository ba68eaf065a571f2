import sys
from pathlib import Path

import pytest

for room in ("models", "semantics"):
    sys.path.append(str(Path(__file__).parents[1] / room))


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """A cache folder of its own, and no way to the hub."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("CUPOLA_CACHE", str(folder))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "hf"))
    return folder
