"""What is refused before any work, and what debug=… and ablation=… do to a config."""

import pytest

from cptlab.errors import UserError
from cptlab.settings.config_source import compose_config
from cptlab.settings.debug import shrink
from cptlab.settings.entry import prepare
from cptlab.settings.validation import validate

BASE = ["run=null", "backbone=kata_lm", "benchmark=kata"]


def prepared(command, *overrides):
    config = compose_config(command, "print_config=false", *overrides)
    prepare(config)
    return config


@pytest.mark.parametrize(
    "command, overrides, said",
    [
        ("train", ["seed=-1"], "seed=-1 cannot be: it must be a whole number from 0 up."),
        ("train", ["+stages.epochs=3"], "There is no setting stages.epochs."),
        ("train", ["+decoding.sampling.topp=0.9"], "Did you mean decoding.sampling.top_p?"),
        ("train", ["+decoding.tokens_budget=1"], "Did you mean decoding.token_budget?"),
        ("train", ["+sed=1"], "Did you mean seed?"),
        ("train", ["pairs.selection.prefer=size"], "it must be score, similarity or ches"),
        ("train", ["decoding=spa", "+decoding.gate.treshold=1"], "There is no setting decoding.gate.treshold."),
        (
            "train",
            ["decoding=spa", "decoding.omega=much"],
            "decoding.omega=much cannot be: it must be a number or tuned",
        ),
        ("train", ["backbone.dtype=int8"], "backbone.dtype=int8 cannot be: it must be float32, bfloat16 or float16"),
        ("evaluate", [*BASE, "ks=[0]"], "ks=[0] cannot be"),
        ("evaluate", [*BASE, "extra_disabled=[unused]"], "[W0621,E0602]"),
        ("evaluate", [*BASE, "optimized_metric=pylint_mean"], "a name like tuned/all/pylint_mean"),
        ("evaluate", ["against=x"], "needs completions"),
        ("evaluate", ["completions=x", "benchmark=kata", "limit=3"], "Leave limit out"),
        ("evaluate", ["completions=x", "benchmark=kata", "n=3"], "Leave n out"),
        ("evaluate", ["completions=x", "benchmark=kata", "prompting=chat"], "Leave prompting out"),
        ("omega", [*BASE, "method=guess"], "it must be unimodal or grid"),
        ("dilution", [*BASE, "compare=x"], "compare=x cannot be: it must be a list of texts"),
        ("train", ["+adapter.seed=5"], "There is no setting adapter.seed."),
        ("train", ["data.loader.token_budget=0"], "it must be a whole number from 1 up"),
        ("train", ["data.loader.seed=x"], "it must be a whole number from 0 up"),
        ("evaluate", ["benchmark=humaneval", "benchmark.data_dir=3"], "it must be a text, or null"),
        ("evaluate", ["system=[spa]", "+system.spa.decoding.foo=1"], "There is no setting system.spa.decoding.foo."),
        ("evaluate", ["system=[spa]", "system.spa.decoding.token_budget=0"], "it must be a whole number from 1 up"),
        ("train", ["task_name=foo"], "Leave task_name out"),
        ("train", ["pairs=injected", "scorer=ruff"], "about messages of pylint"),
        ("train", ["pairs=mixed", "scorer=bandit"], "about messages of pylint"),
        ("train", ["debug=fdr", "debug.at_most.pairs.n=x"], "debug.at_most.pairs.n=x cannot be: it must be a number"),
        ("train", ["debug=fdr", "debug.at_most.pairs.n=-3"], "pairs.n=-3 cannot be"),
        ("train", ["debug=fdr", "debug.at_most=3"], "Use debug=fdr"),
        ("train", ["ablation.sets=null"], "Use ablation=<file>"),
        ("train", ["+ablation.sets.foo.bar=3"], "there is no foo"),
        ("train", ["stages.first_epochs=0", "stages.second_epochs=0"], "nothing to train"),
        ("train", ["pairs.selection.beta1=0", "pairs.selection.beta2=0"], "make all pairs equal"),
        ("train", ["+trainer.max_epochs=5"], "Set stages.first_epochs and stages.second_epochs"),
        ("train", ["+trainer.gradient_clip_val=3"], "Set stages.gradient_clip"),
        ("evaluate", ["decoding=spa", "decoding.second_try=true"], "control without a second stream"),
        ("evaluate", ["decoding=second_try", "decoding.sampling.temperature=0"], "would give the same programs again"),
        ("evaluate", ["decoding=spa", "decoding.engine=vllm"], "those of cptlab's own engine"),
        ("evaluate", ["decoding=beams", "decoding.engine=vllm"], "those of cptlab's own engine"),
        ("pairs", ["extra_disabled=[unused]"], "[W0621,E0602]"),
        ("evaluate", ["ks=[]"], "ks=[] cannot be"),
        ("evaluate", ["ks=[1,1]"], "ks=[1,1] cannot be"),
        ("omega", ["low=2", "high=1"], "Set low below high"),
        ("evaluate", ["decoding=spa", "decoding.guidance.omega=1.5"], "Set decoding.omega alone"),
        ("evaluate", ["system=[spa]", "system.spa.decoding.guidance.omega=1.5"], "Set system.spa.decoding.omega alone"),
    ],
)
def test_refused(command, overrides, said):
    with pytest.raises(UserError) as error:
        prepared(command, *overrides)
    assert said in str(error.value)


@pytest.mark.parametrize(
    "overrides, name",
    [
        (["+trainer.devices=3"], "trainer"),
        (["+objective.w_lm=-3"], "objective"),
        (["+adapter.r=3"], "adapter"),
        (["+stages.foo=3"], "stages"),
        (["+debug.at_most.n=2"], "debug"),
        (["+ablation=no_bs"], "stages"),
        (["experiment=demo"], "pairs"),
    ],
)
def test_a_command_has_only_its_own_groups(overrides, name):
    with pytest.raises(UserError) as error:
        prepared("evaluate", *overrides)
    assert str(error.value).startswith(f"cptlab evaluate has no {name}: it belongs to cptlab train")


@pytest.mark.parametrize(
    "command, overrides, place",
    [
        ("train", ["stages=null"], "stages"),
        ("train", ["data.loader=null"], "data.loader"),
        ("train", ["pairs.selection=null"], "pairs.selection"),
        ("train", ["decoding.sampling=null"], "decoding.sampling"),
        ("train", ["~decoding.sampling"], "decoding.sampling"),
        ("train", ["~pairs"], "pairs"),
        ("train", ["adapter._partial_=false"], "adapter._partial_"),
        ("train", ["callbacks.progress=3"], "callbacks.progress"),
        ("evaluate", ["decoding=spa", "decoding.guidance.gate=null"], "decoding.guidance.gate"),
        ("evaluate", ["decoding=spa", "decoding.guidance.rule=3"], "decoding.guidance.rule"),
        ("evaluate", ["decoding=spa", "decoding.negative=null"], "decoding.negative"),
        ("evaluate", ["system=[best_of_n]", "system.best_of_n.selection=3"], "system.best_of_n.selection"),
        ("evaluate", ["+system.base.decoding=3"], "system.base.decoding"),
        (
            "evaluate",
            ["system=[ruff_fix]", "system.ruff_fix.post_processing=[3]"],
            "system.ruff_fix.post_processing[0]",
        ),
        ("evaluate", ["system=[ruff_fix]", "system.ruff_fix.post_processing=3"], "system.ruff_fix.post_processing"),
        ("evaluate", ["system=[clean_prompt]", "system.clean_prompt.prompt=foo"], "system.clean_prompt.prompt"),
        ("evaluate", ["+system.mine.run=x"], "system.mine"),
    ],
)
def test_what_is_built_must_be_described(command, overrides, place):
    with pytest.raises(UserError) as error:
        prepared(command, *overrides)
    assert str(error.value).startswith((f"{place}=", f"{place} is not set", f"{place} has no _target_"))


def test_what_may_be_left_out_can_be_null():
    systems = ["system=[clean_prompt,ruff_fix]", "system.clean_prompt.prompt=null"]
    prepared("evaluate", *systems, "system.ruff_fix.post_processing=null", "decoding=spa", "decoding.guidance=null")


def test_a_decoding_of_a_system_has_the_defaults_too():
    assert prepared("evaluate", "system=[base,spa]").system.spa.decoding.token_budget is None


def test_any_system_can_be_optimised():
    prepared("evaluate", *BASE, "optimized_metric=tuned_best_of_n/all/pass@1")


def test_tuned_omega_is_a_value():
    assert prepared("evaluate", *BASE, "decoding=spa", "decoding.omega=tuned").decoding.omega == "tuned"


# The ablations that debug=fdr must leave alone: what is off, and which objective and loggers there are.
@pytest.mark.parametrize(
    "overrides, epochs",
    [([], (1, 1)), (["ablation=no_bs"], (1, 0)), (["ablation=no_pt"], (0, 1)), (["objective=dpo"], (1, 0))],
)
def test_debug_shrinks_what_is_on(overrides, epochs):
    config = prepared("train", "debug=fdr", *overrides)
    assert (config.stages.first_epochs, config.stages.second_epochs) == epochs
    assert (config.pairs.n, config.pairs.train_tasks, config.pairs.validation_tasks) == (6, 18, 6)
    assert not config.logger


def test_debug_keeps_the_chosen_logger_objective_and_smaller_numbers():
    config = prepared("train", "debug=fdr", "logger=csv", "objective=dpo", "pairs.n=4", "pairs.train_tasks=null")
    assert set(config.logger) == {"csv"} and config.objective._target_.endswith(".DPO")
    assert (config.pairs.n, config.pairs.train_tasks) == (4, 18)


def test_debug_passes_over_what_a_run_does_not_have():
    config = prepared("train", "debug=fdr", "pairs=sven")
    assert "n" not in config.pairs
    before = compose_config("train")
    shrink(before)
    assert before == compose_config("train")


@pytest.mark.parametrize(
    "overrides, said",
    [
        (["ablation=no_bs", "stages.second_epochs=1"], "ablation=no_bs sets stages.second_epochs=0"),
        (["ablation=no_pt", "stages.first_epochs=2"], "ablation=no_pt sets stages.first_epochs=0"),
        (["ablation=no_rank", "objective.w_rank=4"], "ablation=no_rank sets objective.w_rank=0.0"),
        (["ablation=no_rank", "objective=dpo"], "ablation=no_rank sets objective.w_rank, which"),
        (["ablation=no_kl", "objective=dpo"], "ablation=no_kl sets objective.w_kl, which"),
    ],
)
def test_an_ablation_that_would_not_hold_is_refused(overrides, said):
    with pytest.raises(UserError) as error:
        validate(compose_config("train", *overrides))
    assert str(error.value).startswith(said)


@pytest.mark.parametrize(
    "overrides", [["ablation=no_rank", "objective.w_rank=0"], ["ablation=no_kl", "objective=sven"]]
)
def test_an_ablation_that_holds_is_accepted(overrides):
    validate(compose_config("train", *overrides))
