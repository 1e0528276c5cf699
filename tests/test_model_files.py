"""Whether a model's folder is whole; that one is not, tests/test_run_folder.py tells."""

from pathlib import Path

from hardneg.model_files import check_whole


def test_a_model_that_tells_of_no_files_is_taken_as_it_is(tiny_model: Path, tmp_path: Path) -> None:
    check_whole(tiny_model)
    (tmp_path / "training.json").write_text("[]")
    check_whole(tmp_path)
