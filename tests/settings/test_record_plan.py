"""The plan of a record: every table of conf/experiment at every scale, and how steps are shared, named and overridden."""

import re

import pytest

from cptlab.analysis.record.draw import KINDS
from cptlab.errors import UserError
from cptlab.settings.config_source import compose_config, config_directory
from cptlab.settings.entry import prepare
from cptlab.settings.record_plan import COMMANDS, plan, table_names

SCALES = sorted(path.stem for path in (config_directory() / "scale").glob("*.yaml"))
CPT_TABLES = [f"cpt_table_{number}" for number in range(1, 14)] + [f"cpt_fig_{number}" for number in range(6, 14)]
SPA_TABLES = [f"spa_table_{number}" for number in range(1, 4)] + [f"spa_fig_{number}" for number in range(2, 6)]


def steps_of(tables):
    return list(dict.fromkeys(step for table in tables for step in table.steps()))


def one_of_each_kind(steps):
    """One step for each set of settings; those that differ in a backbone or benchmark alone are the same files again."""
    found = {}
    for step in steps:
        found.setdefault((step.command, re.sub(r"(backbone|benchmark)=\w+", r"\1", " ".join(step.overrides))), step)
        for name in re.findall(r"(?:backbone|benchmark)=\w+", " ".join(step.overrides)):
            found.setdefault((step.command, name), step)
    return list(dict.fromkeys(found.values()))


def test_there_is_a_file_for_every_table_and_figure():
    assert set(CPT_TABLES + SPA_TABLES) < set(table_names())


def check_steps(steps):
    assert {step.command for step in steps} == set(COMMANDS)
    for step in steps:
        config = compose_config(step.command, *step.overrides, "print_config=false")
        prepare(config)
        assert config.seed == 0


@pytest.mark.slow
@pytest.mark.parametrize("scale", SCALES)
def test_every_step_composes_and_validates(scale):
    check_steps(one_of_each_kind(steps_of(plan([], scale, ["seeds=[0]"]))))


@pytest.mark.parametrize("scale", SCALES)
def test_the_first_step_of_each_command_composes_and_validates(scale):
    steps = steps_of(plan([], scale, ["seeds=[0]"]))
    check_steps(list({step.command: step for step in reversed(steps)}.values()))


@pytest.mark.parametrize("scale", SCALES)
def test_every_table_is_drawn_by_a_known_kind_and_has_its_reference_row(scale):
    for table in plan([], scale):
        assert table.draw in KINDS
        labels = [row.label for row in table.rows]
        assert table.against is None or not labels or any(label.endswith(table.against) for label in labels)


def test_the_paper_and_kata_are_asked_every_table_and_a_scale_says_what_it_cannot():
    for scale in ("paper", "kata"):
        assert not [table.name for table in plan([], scale) if table.unasked]
    assert {table.name for table in plan([], "qwen") if table.unasked} == {"cpt_table_9", "cpt_table_10"}


def test_trainings_are_shared_between_tables_and_named_apart():
    ablations, baselines = plan(["cpt_table_7", "cpt_table_4"], "kata")
    trained = [{step for step in table.steps() if step.command == "train"} for table in (ablations, baselines)]
    assert len(trained[0]) == 6 * 3 and len(trained[1]) == 4 * 3 and len(trained[0] & trained[1]) == 3
    steps = steps_of([ablations, baselines])
    assert len({step.name for step in steps}) == len(steps)
    for step in steps:
        assert step.needs is None or steps.index(step.needs) < steps.index(step)


@pytest.mark.parametrize("scale", ["paper", "qwen"])
def test_a_row_that_repeats_the_scales_own_model_shares_its_training(scale):
    tables = plan(["cpt_table_2", "cpt_table_13"], scale, ["backbone.path=DIR"])
    assert len({step for table in tables for step in table.steps() if step.command == "train"}) == 1


def test_times_are_of_programs_that_no_other_table_has_left_in_the_cache():
    (overhead,) = plan(["spa_overhead"], "kata")
    others = [table for table in plan([], "kata") if table.name != "spa_overhead"]
    own = {step: {text for text in step.overrides if text.startswith("paths.cache=")} for step in overhead.steps()}
    assert not set(own) & {step for table in others for step in table.steps()}
    assert all(own.values()) and not any("paths.cache" in text for step in steps_of(others) for text in step.overrides)


def test_a_scale_leaves_rows_out():
    for name in ("spa_table_1", "spa_table_2"):
        (table,) = plan([name], "kata")
        labels = [row.label.rpartition(", ")[2] for row in table.rows]
        assert set(labels) == {"kata_lm kata", "kata_starcoder2 kata", "kata_starcoder2 kata_docstring"}


def test_a_group_of_a_row_drops_the_scales_settings_of_another_file():
    (table,) = plan(["cpt_table_13"], "paper")
    evaluated = table.rows[0].steps[0].overrides
    assert "benchmark=humaneval" in evaluated and not any(one.startswith("benchmark.") for one in evaluated)


def test_given_settings_go_to_the_commands_that_they_name():
    (table,) = plan(["cpt_table_2"], "kata", ["seeds=[5]", "evaluate.n=4", "train.pairs.n=6", "paths.cache=/c"])
    train, evaluate = (next(s for s in table.steps() if s.command == name) for name in ("train", "evaluate"))
    assert {"pairs.n=6", "paths.cache=/c", "seed=5"} <= set(train.overrides) and "n=4" not in train.overrides
    assert {"n=4", "paths.cache=/c", "seed=5"} <= set(evaluate.overrides) and "pairs.n=6" not in evaluate.overrides


def test_a_value_may_bring_its_own_settings():
    (table,) = plan(["cpt_table_9"], "kata", ["other_backbones=[smollm2_135m_instruct backbone.path=/models/s]"])
    assert [row.label for row in table.rows] == ["smollm2_135m_instruct base", "smollm2_135m_instruct ours"]
    assert {"backbone=smollm2_135m_instruct", "backbone.path=/models/s"} <= set(table.rows[0].steps[0].overrides)


@pytest.mark.parametrize(
    "names, scale, given, said",
    [
        (["cpt_table_99"], "kata", [], "There is no table 'cpt_table_99'"),
        ([], "moon", [], "scale=moon cannot be"),
        ([], "kata", ["seeds=[-1]"], "seeds="),
        ([], "kata", ["seeds=[]"], "seeds="),
        ([], "kata", ["seed=3"], "Set seeds=[3]."),  # which every step's own seed would have replaced
        ([], "kata", ["train.seed=3"], "Set seeds=[3]."),
        ([], "kata", ["seeds=[0"], "seeds=[0 is no YAML."),
        ([], "kata", ["other_backbones=5"], "other_backbones=5 cannot be"),
    ],
)
def test_mistakes_are_said(names, scale, given, said):
    with pytest.raises(UserError, match=re.escape(said)):
        plan(names, scale, given)


def test_a_table_is_no_experiment_of_one_command():
    with pytest.raises(UserError, match="cptlab record"):
        prepare(compose_config("train", "experiment=cpt_table_8"))


def test_a_mixture_hands_its_numbers_to_its_parts():
    parts = compose_config(
        "pairs", "pairs=mixed", "pairs.train_tasks=9", "pairs.validation_tasks=3", "pairs.n=4"
    ).pairs.parts
    assert parts.sampled.n == 4 and {part.train_tasks for part in parts.values()} == {9}
    assert {part.validation_tasks for part in parts.values()} == {3}
