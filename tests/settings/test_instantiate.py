"""Whose mistake it is where an object cannot be made: the user's is a UserError, ours keeps its own error."""

import pytest
from omegaconf import OmegaConf

from cptlab.errors import UserError
from cptlab.settings.instantiate import instantiate
from cptlab.tasks import benchmark


def made(target, **settings):
    return instantiate(OmegaConf.create({"_target_": target, **settings}), "benchmark")


@pytest.mark.parametrize("planted", [lambda: len(None), lambda: int("x"), lambda: {}["x"]])  # pyright: ignore
def test_a_mistake_of_ours_keeps_its_error(planted, monkeypatch):
    monkeypatch.setattr(benchmark.Benchmark, "__init__", lambda self, *args, **kwargs: planted())
    with pytest.raises((TypeError, ValueError, KeyError)) as error:
        made("cptlab.tasks.kata.kata")
    assert not isinstance(error.value, UserError)


def test_a_nested_mistake_of_ours_keeps_its_error(monkeypatch):
    monkeypatch.setattr("cptlab.pairs.selection.check_settings", lambda made: len(None))  # pyright: ignore
    with pytest.raises(TypeError, match="NoneType"):
        made("cptlab.pairs.SampledPairs", selection={"_target_": "cptlab.pairs.SelectionOptions"})


@pytest.mark.parametrize(
    "target, settings, said",
    [
        ("cptlab.tasks.kata.kata", {"no_such": 1}, "benchmark cannot be made from its settings"),
        ("cptlab.pairs.SelectionOptions", {"min_gap": 2}, "min_gap=2 cannot be"),
        ("fractions.Fraction", {"numerator": "x"}, "benchmark cannot be made from its settings"),
        ("pathlib.Path", {"_args_": [3]}, "benchmark cannot be made from its settings"),
    ],
)
def test_a_mistake_of_the_user_is_a_sentence(target, settings, said):
    with pytest.raises(UserError, match=said):
        made(target, **settings)
