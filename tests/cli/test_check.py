"""The commands that look at training data."""

from tests.cli.console import fails_in_one_line, invoke, succeeds
from tests.data.released import draw, write_json
from tests.data.test_validation import asked
from tests.model.tiny import save_tiny


def test_training_data_is_checked(tmp_path):
    images = draw(tmp_path / "images" / "a.png").parent
    file = write_json(tmp_path / "x.json", [asked(), asked(image="b.png", id="7")])
    arguments = ["data", "check", file, "--images", images, "--output", tmp_path / "x.csv"]
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert "row 2 (id 7): missing image" in result.stdout
    assert "2 rows, 2 images, 1 broken rows" in result.stdout
    assert (tmp_path / "x.csv").read_text().splitlines()[1].startswith("2,7,missing image,")
    draw(images / "b.png")
    output = succeeds(*arguments, "--open-images")
    assert "2 rows, 2 images, 0 broken rows" in output
    assert "answer characters" in output


def test_lengths_of_training_data_are_the_model_s(tmp_path):
    images = draw(tmp_path / "images" / "a.png").parent
    save_tiny(tmp_path / "model")
    file = write_json(tmp_path / "x.json", [asked(), asked(answer="why " * 600)])
    arguments = ["data", "check", file, "--images", images, "--model", tmp_path / "model"]
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert "row 2: too long" in result.stdout
    assert "512 are allowed" in result.stdout
    assert "1 broken rows" in result.stdout
    succeeds(*arguments, "--max-length", "5000")
    assert "needs --model" in fails_in_one_line(*arguments[:-2], "--max-length", "5000")
    assert "no usable tokenizer" in fails_in_one_line(*arguments[:-1], images)


def test_absent_training_data_is_one_line(tmp_path):
    assert "absent.json" in fails_in_one_line("data", "check", tmp_path / "absent.json", "--images", tmp_path)
