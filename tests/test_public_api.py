"""What `import markovgen_app` offers, and that it costs nothing."""

import subprocess
import sys

import pytest

import markovgen_app

PROMISED = {
    "MarkovGenPipeline",
    "MuseTransformer",
    "SuperResolutionTransformer",
    "MarkovRandomField",
    "GenerateRequest",
    "InpaintRequest",
    "OutpaintRequest",
    "EditRequest",
}


def test_every_public_name_is_there() -> None:
    assert set(markovgen_app.__all__) >= PROMISED
    assert sorted(markovgen_app._HOMES) == markovgen_app.__all__
    for name in markovgen_app.__all__:
        assert getattr(markovgen_app, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = markovgen_app.nonsense


def test_importing_it_imports_nothing_heavy() -> None:
    code = "import sys, markovgen_app; sys.exit(any(name in sys.modules for name in ('torch', 'pydantic', 'gradio')))"
    subprocess.run([sys.executable, "-c", code], check=True)
