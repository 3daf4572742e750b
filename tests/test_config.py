from dataclasses import fields

import pytest

from mlx_lvm.config import Config, field_types
from mlx_lvm.encoders.bert import BertConfig
from mlx_lvm.encoders.mpnet import MPNetConfig
from mlx_lvm.errors import UsageError
from mlx_lvm.models import architecture, config_from_dict, trained
from mlx_lvm.models.amn import AMNConfig
from mlx_lvm.models.ramn_config import RAMNConfig
from mlx_lvm.models.transformer import TransformerConfig
from mlx_lvm.training.config import PRESETS, TrainConfig, preset


def test_unknown_key_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown key 'batchsize'. Did you mean 'batch_size'\?"):
        TrainConfig.from_dict({"batchsize": 3})


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("lr", 0.0, "above 0"),
        ("lr", -1.0, "above 0"),
        ("lr", float("nan"), "finite"),
        ("lr", float("inf"), "finite"),
        ("lr", "fast", "a number"),
        ("epochs", 0, "at least 1"),
        ("epochs", 2.5, "whole number"),
        ("epochs", True, "whole number"),
        ("batch_size", -4, "at least 1"),
        ("context", 101, "at most 100"),
        ("plateau_factor", 1.0, "below 1"),
        ("weight_decay", -0.1, "at least 0"),
        ("residual_init", "ones", "zero, torch"),
    ],
)
def test_a_bad_value_is_named_with_its_limit(key: str, value: object, words: str) -> None:
    with pytest.raises(UsageError) as error:
        TrainConfig.from_dict({key: value})
    assert key in str(error.value) and repr(value) in str(error.value) and words in str(error.value)


def test_all_problems_come_at_once() -> None:
    with pytest.raises(UsageError) as error:
        TrainConfig(lr=-1, epochs=0, clip=-2)
    assert all(name in str(error.value) for name in ("lr", "epochs", "clip", "3 problems"))


def test_all_loss_weights_zero_is_refused() -> None:
    with pytest.raises(UsageError, match="all loss weights are zero"):
        TrainConfig(loss_mse=0)
    assert TrainConfig(loss_mse=0, loss_cosine=0.5).loss_weights()["cosine"] == 0.5


def test_whole_numbers_serve_as_floats() -> None:
    lr = TrainConfig(lr=1).lr
    assert lr == 1.0 and isinstance(lr, float)


def test_round_trip_and_types() -> None:
    config = TrainConfig(lr=0.1, corpus="moby")
    assert TrainConfig.from_dict(config.to_dict()) == config
    assert field_types(AMNConfig)["hidden_dim"] is int


def test_model_config_needs_a_known_type() -> None:
    with pytest.raises(UsageError, match="Did you mean 'amn'"):
        config_from_dict({"model_type": "amm"})
    with pytest.raises(UsageError, match="model_type"):
        config_from_dict({"dim": 3})


def test_unknown_preset() -> None:
    with pytest.raises(UsageError, match="Did you mean 'seed'"):
        preset("sed", AMNConfig())
    assert preset("seed", AMNConfig()) == ({"residual_init": "torch"}, {})


def test_a_recipe_is_of_the_head() -> None:
    regress, retrieve = (preset("best", RAMNConfig(head=head))[0] for head in ("regress", "retrieve"))
    assert (regress["epochs"], retrieve["epochs"]) == (3, 12) and regress["lr"] < retrieve["lr"]


def test_a_recipe_holds_options_of_the_training_and_of_the_model() -> None:
    train, model = preset("best", TransformerConfig())
    assert (train["lr"], model) == (3e-4, {"dropout": 0.3})
    assert preset("seed", TransformerConfig())[1] == {}, "the research project's dropout is the default"


@pytest.mark.parametrize("name", trained())
def test_what_an_architecture_says_of_its_training_are_options(name: str) -> None:
    model = architecture(name)
    options, sizes = (
        {field.name for field in fields(config)} for config in (TrainConfig, model.config_class)
    )
    assert {*model.unused_options} <= options and {*model.search} <= sizes and {*model.presets} <= {*PRESETS}
    for variant, recipe in model.recipes.items():
        TrainConfig.from_dict({key: value for key, value in recipe.items() if key in options})
        head = variant.removeprefix(name).removeprefix("-")
        own = {key: value for key, value in recipe.items() if key not in options}
        assert model.config_class.from_dict(own | ({"head": head} if head else {})).variant == variant
    heads = model.config_class.__dataclass_fields__.get("head")
    variants = {
        model.config_class.from_dict({} if heads is None else {"head": head}).variant
        for head in (heads.metadata["choices"] if heads else ("",))
    }
    assert {*model.recipes} <= variants, "a recipe that no variant asks for"


def test_what_is_no_field_says_its_type() -> None:
    """Python 3.10 cannot read a class's types where a `ClassVar` names none."""
    classes = [Config]
    for one in classes:
        classes += one.__subclasses__()
        assert "ClassVar" not in one.__annotations__.values(), one
    assert {BertConfig, MPNetConfig, AMNConfig, TrainConfig} <= set(classes)
