"""Which configuration owns a run folder, and what a saved model's folder holds."""

import errno
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from hardneg.embedding.model_files import check_whole
from hardneg.embedding.models import load_model
from hardneg.judging.candidates import Candidate, CandidateList
from hardneg.learning.model_card import model_card
from hardneg.learning.run_folder import (
    check_apart,
    check_disk,
    check_finished,
    check_idle,
    check_owner,
    claimed,
    copy_as_final,
    finished_iterations,
    graded_candidates,
    run_of,
    save_model,
)
from hardneg.running.errors import InputError
from hardneg.running.files import sha256_file, write_json
from tests.records import CONFIGURATION, make_query, make_record

ROOT = Path(__file__).parent.parent
QUERY = make_query("q", 2)
LISTS = [CandidateList(QUERY, (Candidate(2, 1, 0.5, True, 4.0),))]


def claim(folder: Path, configuration: dict[str, Any]) -> None:
    """As a process that ended before its first iteration did."""
    with claimed(folder, configuration):
        pass


def test_a_folder_is_claimed_and_found_again(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "run"
    claim(folder, CONFIGURATION)
    assert json.loads((folder / "run.json").read_text()) == CONFIGURATION
    (folder / "iteration_0").mkdir()
    claim(folder, dict(reversed(CONFIGURATION.items())))


def test_an_iteration_that_is_gone_is_not_made_anew_beside_the_later_ones(tmp_path: Path) -> None:
    """Those were built on the one that is gone."""
    for name in ("iteration_1", "iteration_10", "iteration_2"):
        write_json(tmp_path / name / "training.json", {})
    with pytest.raises(InputError, match=r"iteration_0 is missing, and .*iteration_10 was built on it; restore"):
        check_finished(tmp_path)


def test_copies_of_an_iteration_are_no_iterations(tmp_path: Path) -> None:
    for name in ("iteration_5.bak", "iteration_0 (copy)"):
        write_json(tmp_path / name / "training.json", {})
    check_finished(tmp_path)


def test_finished_iterations_end_before_the_first_that_is_not(tmp_path: Path) -> None:
    for number in (0, 1, 3):
        (tmp_path / f"iteration_{number}").mkdir()
        (tmp_path / f"iteration_{number}" / "training.json").write_text(json.dumps({"iteration": number}))
    (tmp_path / "iteration_2").mkdir()
    assert [record["iteration"] for record in finished_iterations(tmp_path)] == [0, 1]


def test_an_empty_folder_may_be_claimed(tmp_path: Path) -> None:
    claim(tmp_path, CONFIGURATION)
    assert (tmp_path / "run.json").exists()


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        ({"seed": 2}, "seed: 1 there, 2 now"),
        ({"prompt_sha256": "ab"}, "prompt_sha256: None there, ab now"),
        ({"seed": 2, "base_model": "big"}, "base_model: tiny there, big now; seed: 1 there, 2 now"),
    ],
)
def test_another_configuration_is_refused_with_the_difference(
    tmp_path: Path, other: dict[str, Any], difference: str
) -> None:
    claim(tmp_path, CONFIGURATION)
    (tmp_path / "iteration_0").mkdir()
    with pytest.raises(InputError) as caught:
        claim(tmp_path, CONFIGURATION | other)
    assert f"holds a run of another configuration ({difference}); choose another --output-dir" in str(caught.value)
    assert json.loads((tmp_path / "run.json").read_text()) == CONFIGURATION


def test_a_setting_that_is_gone_is_a_difference(tmp_path: Path) -> None:
    claim(tmp_path, CONFIGURATION | {"extra": 1})
    (tmp_path / "iteration_0").mkdir()
    with pytest.raises(InputError, match="extra: 1 there, None now"):
        claim(tmp_path, CONFIGURATION)


def test_a_part_of_the_configuration_is_compared_with_that_part_alone(tmp_path: Path) -> None:
    claim(tmp_path, CONFIGURATION)
    (tmp_path / "iteration_0").mkdir()
    check_owner(tmp_path, {"seed": 1}, in_part=True)
    with pytest.raises(InputError, match=r"\(seed: 1 there, 2 now\)"):
        check_owner(tmp_path, {"seed": 2}, in_part=True)
    with pytest.raises(InputError, match=r"\(base_model: tiny there, None now; guard_tolerance"):
        check_owner(tmp_path, {"seed": 1})


def test_a_setting_in_a_part_of_the_configuration_is_named_with_its_part(tmp_path: Path) -> None:
    claim(tmp_path, CONFIGURATION | {"training": {"scale": 20, "rate": 0.1, "steps": {"few": 3}, "old": 1}})
    (tmp_path / "iteration_0").mkdir()
    now = CONFIGURATION | {"training": {"scale": 10, "rate": 0.1, "steps": {"few": 2}, "new": 2}}
    told = (
        "(training.scale: 20 there, 10 now; training.steps.few: 3 there, 2 now; training.old: 1 there, None now; "
        "training.new: None there, 2 now)"
    )
    with pytest.raises(InputError, match=re.escape(told)):
        claim(tmp_path, now)


def test_a_folder_where_nothing_came_of_a_run_is_free_for_another(tmp_path: Path) -> None:
    claim(tmp_path, CONFIGURATION)
    (tmp_path / ".iteration_0.tmp").mkdir()  # what a killed process left
    assert run_of(tmp_path) is None
    other = CONFIGURATION | {"seed": 2}
    check_owner(tmp_path, other)
    assert json.loads((tmp_path / "run.json").read_text()) == CONFIGURATION
    claim(tmp_path, other)
    assert json.loads((tmp_path / "run.json").read_text()) == other
    (tmp_path / "iteration_0").mkdir()
    assert run_of(tmp_path) == other


def test_what_would_make_a_free_folder_another_s_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "models"
    check_apart(folder, {"--output": tmp_path / "e.json", "--judge-batch": None})
    for inside in (folder, folder / "e.json", folder / "a" / "e.json", tmp_path / "data" / ".." / "models" / "e.json"):
        with pytest.raises(
            InputError, match=r"--output .* is in --output-dir .*models, which training would then refuse"
        ):
            check_apart(folder, {"--output": inside})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="is in --output-dir"):  # however either is written
        check_apart(folder, {"--output": Path("models")})
    with pytest.raises(InputError, match="is in --output-dir"):
        check_apart(tmp_path / "data" / ".." / "models", {"--output": folder / "e.json"})
    claim(folder, CONFIGURATION)
    (folder / "iteration_0").mkdir()
    check_apart(folder, {"--output": folder / "e.json"})  # by now it is a run's


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"is not empty and holds no run\.json; choose another --output-dir"):
        claim(tmp_path, CONFIGURATION)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def leave_half_written(folder: Path) -> list[Path]:
    """What killed processes leave: an iteration that was being saved, a final model that was being replaced, a note."""
    folders = [folder / ".iteration_12.ab_c1234.tmp", folder / ".final.xyz98765.tmp"]
    for path in folders:
        path.mkdir(parents=True)
    (folder / ".run.json.a1b2c3d4.tmp").touch()
    return [*folders, folder / ".run.json.a1b2c3d4.tmp"]


def test_only_one_process_works_on_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    check_idle(folder)
    assert not folder.exists()  # to look makes nothing
    script = "import sys; from pathlib import Path; from hardneg.learning.run_folder import claimed\n"
    script += "with claimed(Path(sys.argv[1]), {'seed': 2}): print('in', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script, str(folder)]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert other.stdout is not None and other.stdout.readline() == "in\n"
    half_written = leave_half_written(folder)
    busy = r"another process is at work on .*run; wait for it"
    with pytest.raises(InputError, match=busy):
        check_idle(folder)
    with pytest.raises(InputError, match=busy):  # though nothing came of that run yet
        claim(folder, CONFIGURATION)
    assert json.loads((folder / "run.json").read_text()) == {"seed": 2}
    assert all(path.exists() for path in half_written)
    other.kill()  # not even a killed one bars the folder
    other.communicate()
    check_idle(folder)
    for _ in range(2):
        claim(folder, CONFIGURATION)


def test_what_killed_processes_left_is_deleted_when_the_folder_is_claimed(tmp_path: Path) -> None:
    claim(tmp_path, CONFIGURATION)
    (tmp_path / "iteration_0").mkdir()
    (tmp_path / ".results.json.ab.tmp").touch()  # what another script may be writing
    half_written = leave_half_written(tmp_path)
    (tmp_path / ".final.xyz98765.old").mkdir()
    with pytest.raises(InputError, match="another configuration"):
        claim(tmp_path, CONFIGURATION | {"seed": 2})
    assert all(path.exists() for path in half_written)
    claim(tmp_path, CONFIGURATION)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {".lock", "run.json", "iteration_0", ".results.json.ab.tmp"}


def test_a_file_system_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    half_written = leave_half_written(tmp_path)
    told = r"has no locks \(No locks available\); choose an --output-dir on a local disk"
    for _ in range(2):
        with pytest.raises(InputError, match=told):
            check_idle(tmp_path)  # the pipeline's first look
        with pytest.raises(InputError, match=told):
            claim(tmp_path, CONFIGURATION)
    assert all(path.exists() for path in half_written) and not (tmp_path / "run.json").exists()


def test_a_run_that_another_finished_an_iteration_of_meanwhile_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def after_another_run(*_: object) -> None:
        write_json(tmp_path / "run.json", CONFIGURATION | {"seed": 2})
        (tmp_path / "iteration_0").mkdir()

    monkeypatch.setattr("fcntl.flock", after_another_run)
    with pytest.raises(InputError, match=r"holds a run of another configuration \(seed: 2 there, 1 now\)"):
        claim(tmp_path, CONFIGURATION)


@pytest.mark.parametrize("name", ["candidates.jsonl", "model.safetensors", "tokenizer.json", "1_Pooling/config.json"])
@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-20])])
def test_a_folder_that_is_not_whole_is_refused(
    tiny_model: Path, tmp_path: Path, name: str, damage: Callable[[Path], object]
) -> None:
    """Some of these would be loaded all the same, and give other embeddings."""
    folder = tmp_path / "iteration_0"
    save_model(load_model(str(tiny_model), "cpu"), folder, make_record(), LISTS * 2)
    assert graded_candidates(folder) == LISTS * 2
    (folder / "README.md").write_text("people may write here")
    check_finished(tmp_path)
    damage(folder / name)
    with pytest.raises(InputError, match=f"{name} is not the file that was saved with this model; copy the folder aga"):
        check_finished(tmp_path)
    if name == "candidates.jsonl":
        check_whole(folder)  # as a model it is whole


@pytest.mark.parametrize("name", ["weights", "candidates.jsonl"])
def test_every_iteration_has_to_be_whole(tmp_path: Path, name: str) -> None:
    for number in range(3):
        folder = tmp_path / f"iteration_{number}"
        folder.mkdir()
        for file in ("weights", "candidates.jsonl"):
            (folder / file).write_text(f"{file} of {number}")
        of_files = {"weights": sha256_file(folder / "weights")}
        of_candidates = sha256_file(folder / "candidates.jsonl")
        write_json(folder / "training.json", {"files_sha256": of_files, "candidates_sha256": of_candidates})
    (tmp_path / "iteration_7").mkdir()  # which holds no model, so none is missing before it
    check_finished(tmp_path)
    (tmp_path / "iteration_2" / name).write_text("another's")
    with pytest.raises(InputError, match=f"iteration_2/{name} is not the file that was saved"):
        check_finished(tmp_path)


def test_a_record_that_was_cut_names_a_way_out(tmp_path: Path) -> None:
    """To run again would not help: it would be found damaged again."""
    for number in range(2):
        write_json(tmp_path / f"iteration_{number}" / "training.json", {})
    (tmp_path / "iteration_1" / "training.json").write_text('{"iteration": ')
    way_out = (
        r"iteration_1/training\.json is not JSON \(.*\); copy the folder again, or delete it \(and later iterations\)"
    )
    with pytest.raises(InputError, match=way_out):
        check_finished(tmp_path)
    with pytest.raises(InputError, match=way_out):
        check_whole(tmp_path / "iteration_1")
    shutil.rmtree(tmp_path / "iteration_1")
    assert len(finished_iterations(tmp_path)) == 1


def test_a_kill_while_claiming_does_not_bar_the_folder(tmp_path: Path) -> None:
    """What `atomic_file` leaves where it is killed before its rename."""
    (tmp_path / ".run.json.x1y2.tmp").touch()
    claim(tmp_path, CONFIGURATION)
    assert (tmp_path / "run.json").exists()


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(InputError, match="a file stands where a folder is needed"):
        claim(tmp_path / "run", CONFIGURATION)


@pytest.mark.parametrize("content", ["{", "[]", "3"])
def test_a_damaged_note(tmp_path: Path, content: str) -> None:
    """To run again would not help: it would be found damaged again."""
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(
        InputError, match=r"run\.json .*; copy the folder again, choose another .* or delete that folder"
    ):
        claim(tmp_path, CONFIGURATION)


def test_a_saved_model_loads_and_is_documented(model: SentenceTransformer, tmp_path: Path) -> None:
    folder = tmp_path / "iteration_3"
    save_model(model, folder, make_record(), LISTS)
    loaded = SentenceTransformer(str(folder), device="cpu")
    np.testing.assert_array_equal(loaded.encode("Gout?"), model.encode("Gout?"))
    record = json.loads((folder / "training.json").read_text())
    files, of_candidates = record.pop("files_sha256"), record.pop("candidates_sha256")
    assert record == make_record()
    assert of_candidates == sha256_file(folder / "candidates.jsonl") and "model.safetensors" in files
    candidates = json.loads((folder / "candidates.jsonl").read_text())
    assert candidates["candidates"][0]["grade"] == 4.0 and candidates["query"] == QUERY
    assert (folder / "README.md").read_text() == model_card(record)
    assert [path.name for path in tmp_path.iterdir()] == ["iteration_3"]


def test_a_path_that_is_no_utf_8_costs_no_iteration(model: SentenceTransformer, tmp_path: Path) -> None:
    record = make_record() | {"configuration": {**make_record()["configuration"], "source": "caf\udce9.csv"}}
    save_model(model, tmp_path / "iteration_0", record, LISTS)
    assert r"caf\udce9.csv" in (tmp_path / "iteration_0" / "README.md").read_text()


def test_a_model_without_candidates_has_no_file_of_them(model: SentenceTransformer, tmp_path: Path) -> None:
    """As the base model that is kept as `final`."""
    save_model(model, tmp_path / "final", make_record())
    assert not (tmp_path / "final" / "candidates.jsonl").exists()


def test_a_failed_save_leaves_what_was_there(model: SentenceTransformer, tmp_path: Path) -> None:
    folder = tmp_path / "iteration_3"
    save_model(model, folder, make_record(), LISTS)
    with pytest.raises(KeyError):
        save_model(model, folder, {"iteration": 4}, LISTS)
    assert json.loads((folder / "training.json").read_text())["iteration"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["iteration_3"]
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        save_model(model, tmp_path / "file" / "iteration_0", make_record(), LISTS)


def test_final_is_a_copy_with_its_own_record(model: SentenceTransformer, tmp_path: Path) -> None:
    source, final = tmp_path / "iteration_3", tmp_path / "final"
    save_model(model, source, make_record(), LISTS)
    final.mkdir()
    (final / "stale").touch()  # an older final is replaced, not added to
    copy_as_final(source, final, make_record(chosen="it is best"))
    assert json.loads((final / "training.json").read_text())["chosen"] == "it is best"
    assert "chosen" not in json.loads((source / "training.json").read_text())
    names = {path.name for path in source.iterdir()}
    assert {path.name for path in final.iterdir()} == names - {"candidates.jsonl"}
    assert "Why this one: it is best." in (final / "README.md").read_text()
    assert "Why this one" not in (source / "README.md").read_text()
    assert (final / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    check_whole(final)


def test_what_cannot_be_copied_is_told_and_leaves_the_final_model_as_it_was(tmp_path: Path) -> None:
    source, final = tmp_path / "iteration_3", tmp_path / "final"
    source.mkdir()
    (source / "weights").symlink_to("gone")
    write_json(final / "training.json", {"iteration": 2})
    with pytest.raises(
        InputError, match=r"^cannot copy .*iteration_3 to .*final: .*No such file .*; fix that and run again$"
    ):
        copy_as_final(source, final, make_record())
    assert json.loads((final / "training.json").read_text()) == {"iteration": 2}
    assert {path.name for path in tmp_path.iterdir()} == {"iteration_3", "final"}


def test_a_disk_without_room_for_the_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def disk_usage(place: Path) -> SimpleNamespace:
        asked.append(place)
        return SimpleNamespace(total=2**40, free=2**31)

    monkeypatch.setattr("shutil.disk_usage", disk_usage)
    check_disk(tmp_path / "models" / "new", 4, 2**29)
    with pytest.raises(
        InputError, match=r"new has 2\.0 GiB free, and the models of this run need up to 2\.5 GiB; free"
    ):
        check_disk(tmp_path / "models" / "new", 5, 2**29)
    assert asked == [tmp_path, tmp_path]
