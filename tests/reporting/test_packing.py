"""A packed run: the same tables, no path of this machine, the same bytes each time."""

import gzip
import json
import shutil

import pytest
from test_reporting import files_of, store_run, store_training

from cptlab.commands.pack import main
from cptlab.commands.report import main as report
from cptlab.errors import UserError
from cptlab.records import Task
from cptlab.reporting import make_report, read_evaluation
from cptlab.reporting.evaluation import RECORDS
from cptlab.reporting.packing import pack_run
from cptlab.storage.jsonl import read_jsonl


@pytest.fixture
def run(tmp_path):
    """A run with what a run directory also holds, and the training run that it names."""
    directory = store_run(tmp_path / "runs" / "one", tasks=3, samples=3)
    training = store_training(tmp_path / "runs" / "training" / "two").parent
    facts = json.loads((directory / "metrics.json").read_text())
    facts |= {"training_run": str(training), "parts": {"tuned": {"run": str(training)}}, "n/a": ["/a/b c/", "x /y"]}
    (directory / "metrics.json").write_text(json.dumps(facts))
    paths = f"paths:\n  logs: {tmp_path}/logs\n  cache: .cache\nlist:\n- {tmp_path}/x.jsonl\nquoted: '{tmp_path}/a b'\n"
    (directory / "config.yaml").write_text(f"{paths}url: https://a.b/c\nratio: 1/2\n")
    for name in (
        ".hydra/config.yaml",
        "wandb/files/config.yaml",
        "csv/metrics.csv",
        "lock",
        "run.json",
        "prefix/a.bin",
    ):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(str(tmp_path))
    return directory


def test_a_packed_run_gives_the_same_tables_and_figures(run, tmp_path, capsys):
    packed = tmp_path / "packed"
    make_report(run)
    mine = files_of(run)
    program = read_evaluation(run).systems["tuned"]["kata/2"][1].completion
    assert main([str(run), str(packed)]) == 0
    assert capsys.readouterr().out.startswith(f"Packed: {packed} (13 files, ")
    shutil.rmtree(tmp_path / "runs")
    records = {f"{system}/{name}.jsonl.gz" for system in ("base", "tuned") for name in RECORDS}
    curves = {f"training/stage{n}/{name}.csv" for n in (1, 2) for name in ("steps", "epochs")}
    kept = {path.relative_to(packed).as_posix() for path in packed.rglob("*") if path.is_file()}
    assert kept == records | curves | {"config.yaml", "metrics.json", "tasks.jsonl.gz"}
    assert report([str(packed)]) == 0 and "Functional correctness" in capsys.readouterr().out
    theirs = files_of(packed)
    assert mine.pop("report.html") != theirs.pop("report.html")  # it shows config.yaml and metrics.json
    assert mine == theirs and "figures/training.svg" in mine
    assert read_evaluation(packed).systems["tuned"]["kata/2"][1].completion == program


def test_no_path_of_this_machine_is_packed(run, tmp_path):
    packed = pack_run(run, tmp_path / "packed")
    for path in packed.rglob("*"):
        if path.is_file():
            text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            assert str(tmp_path).encode() not in text, path
    facts = json.loads((packed / "metrics.json").read_text())
    assert facts["training_run"] == facts["parts"]["tuned"]["run"] == "training" and facts["n/a"] == ["b c", "x /y"]
    config = (packed / "config.yaml").read_text()
    assert config == (
        "paths:\n  logs: logs\n  cache: .cache\nlist:\n- x.jsonl\nquoted: 'a b'\nurl: https://a.b/c\nratio: 1/2\n"
    )


def test_the_same_run_gives_the_same_bytes_also_when_it_is_packed_already(run, tmp_path):
    def files(directory):
        return {p.relative_to(directory): p.read_bytes() for p in directory.rglob("*") if p.is_file()}

    first, second = pack_run(run, tmp_path / "a"), pack_run(run, tmp_path / "b")
    assert files(first) == files(second) == files(pack_run(first, tmp_path / "c"))


def test_a_sweep_keeps_its_jobs(run, tmp_path):
    for job in ("0", "1"):
        shutil.copytree(run, tmp_path / "sweep" / job)
    packed = pack_run(tmp_path / "sweep", tmp_path / "packed")
    assert sorted(path.name for path in packed.iterdir()) == ["0", "1"]
    kept, whole = read_evaluation(packed / "1").tasks, read_evaluation(run).tasks
    assert [(task.id, task.difficulty, len(task.tests)) for task in kept] == [
        (task.id, task.difficulty, len(task.tests)) for task in whole
    ]
    assert not any(task.prompt.text or task.canonical_solution for task in kept)


def test_mistakes(run, tmp_path, capsys):
    with pytest.raises(UserError, match="holds no finished run"):
        pack_run(tmp_path / "nothing", tmp_path / "packed")
    (tmp_path / "there").mkdir()
    assert main([str(run), str(tmp_path / "there")]) == 2 and "already exists" in capsys.readouterr().err
    (run / "metrics.json").unlink()
    with pytest.raises(UserError, match="holds no finished run"):
        pack_run(run, tmp_path / "packed")
    assert not (tmp_path / "packed").exists()


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"x" + data[1:]])
def test_a_damaged_file_is_named(run, tmp_path, damage):
    file = pack_run(run, tmp_path / "packed") / "tasks.jsonl.gz"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError, match="tasks.jsonl.gz is damaged"):
        list(read_jsonl(file.with_suffix(""), Task))
