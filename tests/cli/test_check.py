"""The commands that look at training data."""

from tests.cli.console import fails_in_one_line, invoke
from tests.data.released import draw, write_json
from tests.data.test_validation import asked
from tests.model.tiny import save_tiny


def test_training_data_is_checked(tmp_path):
    images = draw(tmp_path / "images" / "a.png").parent
    file = write_json(tmp_path / "x.json", [asked(), asked(image="b.png", id="7")])
    arguments = ["data", "check", str(file), "--images", str(images), "--output", str(tmp_path / "x.csv")]
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert "row 2 (id 7): missing image" in result.stdout
    assert "2 rows, 2 images, 1 broken rows" in result.stdout
    assert (tmp_path / "x.csv").read_text().splitlines()[1].startswith("2,7,missing image,")
    draw(images / "b.png")
    result = invoke(*arguments, "--open-images")
    assert result.exit_code == 0, result.output
    assert "2 rows, 2 images, 0 broken rows" in result.stdout
    assert "answer characters" in result.stdout


def test_lengths_of_training_data_are_the_model_s(tmp_path):
    images = draw(tmp_path / "images" / "a.png").parent
    save_tiny(tmp_path / "model")
    file = write_json(tmp_path / "x.json", [asked(), asked(answer="why " * 600)])
    arguments = ["data", "check", str(file), "--images", str(images), "--model", str(tmp_path / "model")]
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert "row 2: too long" in result.stdout
    assert "512 are allowed" in result.stdout
    assert "1 broken rows" in result.stdout
    result = invoke(*arguments, "--max-length", "5000")
    assert result.exit_code == 0, result.output
    assert "needs --model" in fails_in_one_line(*arguments[:-2], "--max-length", "5000")
    assert "no usable tokenizer" in fails_in_one_line(*arguments[:-1], str(images))


def test_absent_training_data_is_one_line(tmp_path):
    message = fails_in_one_line("data", "check", str(tmp_path / "absent.json"), "--images", str(tmp_path))
    assert "absent.json" in message
