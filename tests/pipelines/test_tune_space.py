"""Search spaces: short names, ranges from the command line and from YAML, and what they make of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vqa_train.core.errors import ConfigError, UsageError
from vqa_train.heads.config import HeadConfig, TrainConfig
from vqa_train.pipelines.fit.config import MemberConfig
from vqa_train.pipelines.tune.range import Choices, NumberRange, parse_range
from vqa_train.pipelines.tune.space import apply, current, read_space, resolve

ONE = [MemberConfig(name="head", train=TrainConfig())]
TWO = [
    MemberConfig(name="mlp", train=TrainConfig()),
    MemberConfig(name="kernel", train=TrainConfig(head=HeadConfig(kind="kernel_ridge"))),
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("float:1e-4:1e-2:log", NumberRange(kind="float", low=1e-4, high=1e-2, log=True)),
        ("float:0:0.5", NumberRange(kind="float", low=0, high=0.5)),
        ("int:20:80", NumberRange(kind="int", low=20, high=80)),
        ("int:1:1000:log", NumberRange(kind="int", low=1, high=1000, log=True)),
        ("categorical:[64,32]|[128]|[]", Choices(kind="categorical", choices=[[64, 32], [128], []])),
        ("categorical:gelu|relu", Choices(kind="categorical", choices=["gelu", "relu"])),
        ("categorical:null|0.99|1e-3", Choices(kind="categorical", choices=[None, 0.99, 0.001])),
    ],
)
def test_ranges_of_the_command_line(text: str, expected: Any) -> None:
    assert parse_range("x", text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "float", "float:1", "float:1:2:lin", "float:1:2:log:3", "float:a:b", "float:2:1", "float:1:1",
        "float:0:1:log", "float:0:inf", "float:nan:1", "int:0.5:2", "uniform:0:1", "categorical:a|a",
        "categorical:[1|2", "int:0:5:log",
    ],
)  # fmt: skip
def test_malformed_ranges_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="'x'"):
        parse_range("x", text)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("lr", "optimizer.lr"), ("weight_decay", "optimizer.weight_decay"), ("dropout", "head.dropout"),
        ("hidden", "head.hidden"), ("epochs", "epochs"), ("plcc", "loss.plcc"), ("optimizer.lr", "optimizer.lr"),
        ("fraction", "validation.fraction"),
    ],
)  # fmt: skip
def test_short_names(name: str, path: str) -> None:
    assert resolve(name, ONE) == path


def test_names_of_several_members() -> None:
    assert resolve("lr", TWO) == "optimizer.lr"
    assert resolve("mlp.lr", TWO) == "mlp.optimizer.lr"
    assert resolve("kernel.weight", TWO) == "kernel.weight"
    assert resolve("gammas", TWO) == "head.options.gammas"
    with pytest.raises(UsageError, match="weight"):
        resolve("weight", ONE)


def test_unknown_and_ambiguous_names() -> None:
    with pytest.raises(UsageError, match="unknown parameter 'lrr' - did you mean 'lr'"):
        resolve("lrr", ONE)
    with pytest.raises(UsageError, match="unknown parameter 'target_weights'"):
        resolve("target_weights", ONE)
    with pytest.raises(UsageError, match=r"could be mlp\.weight or kernel\.weight"):
        # No setting that all members share has this name.
        resolve("weight", TWO)


def test_settings_reach_the_member_they_are_of() -> None:
    changed = apply(TWO, {"optimizer.lr": 0.5, "mlp.head.dropout": 0.1, "kernel.weight": 3.0}, "here")
    # A closed form has no learning rate.
    assert [member.train.optimizer.lr for member in changed] == [0.5, 0.003]
    assert [member.train.head.dropout for member in changed] == [0.1, 0.2]
    assert [member.weight for member in changed] == [1, 3]
    # An option that only one kind has.
    changed = apply(TWO, {"head.options.gammas": [0.7]}, "here")
    assert [member.train.head.options for member in changed] == [{}, {"gammas": [0.7]}]


def test_lists_and_null_are_kept_by_their_text() -> None:
    (hidden,) = read_space(None, ["hidden=categorical:[64,32]|[]"], ONE)
    assert [hidden.stored(choice) for choice in ([64, 32], [])] == ["[64,32]", "[]"]
    assert hidden.value("[64,32]") == [64, 32]
    assert hidden.value("[]") == []
    (ema,) = read_space(None, ["ema=categorical:null|0.99"], ONE)
    assert [ema.value(ema.stored(choice)) for choice in (None, 0.99)] == [None, 0.99]


def test_a_file_and_the_command_line_which_wins(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(
        "schema: vqa-train/space/1\nparams:\n  lr: float:1e-4:1e-2:log\n"
        "  hidden: {kind: categorical, choices: [[8], []]}\n  epochs: {kind: int, low: 5, high: 9}\n",
        encoding="utf-8",
    )
    space = {param.path: param.range for param in read_space(path, ["optimizer.lr=float:1:2"], ONE)}
    assert space == {
        "epochs": NumberRange(kind="int", low=5, high=9),
        "head.hidden": Choices(kind="categorical", choices=[[8], []]),
        "optimizer.lr": NumberRange(kind="float", low=1, high=2),
    }
    path.write_text("schema: vqa-train/space/1\nparams: {lr: {kind: float, low: 1, hi: 2}}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"params\.lr: unknown key 'hi'.*did you mean 'high'"):
        read_space(path, [], ONE)
    path.write_text("schema: vqa-train/space/1\nparams: {lr: [1, 2]}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"params\.lr must be text such as float:"):
        read_space(path, [], ONE)
    # YAML takes 1e-4 for text.
    path.write_text(
        "schema: vqa-train/space/1\nparams: {lr: {kind: float, low: 1e-4, high: 1e-2, log: true}}\n", encoding="utf-8"
    )
    assert read_space(path, [], ONE)[0].range == NumberRange(kind="float", low=1e-4, high=1e-2, log=True)
    path.write_text(
        "schema: vqa-train/space/1\nparams: {lr: 'float:1:2', optimizer.lr: 'float:1:2'}\n", encoding="utf-8"
    )
    with pytest.raises(ConfigError, match=r"names optimizer\.lr twice"):
        read_space(path, [], ONE)


@pytest.mark.parametrize(
    ("param", "message"),
    [
        ("dropout=float:0:2", r"head\.dropout=2\.0"),
        ("activation=categorical:gelu|tanh", "tanh"),
        ("epochs=int:0:5", "epochs=0"),
        ("gammas=categorical:[0.5]|[-1]", "gammas"),
    ],
)
def test_a_range_its_setting_does_not_take_is_refused_before_any_trial(param: str, message: str) -> None:
    members = TWO if param.startswith("gammas") else ONE
    with pytest.raises(ConfigError, match=message):
        read_space(None, [param], members)


def test_an_option_without_a_range_is_refused() -> None:
    with pytest.raises(UsageError, match="write NAME=float"):
        read_space(None, ["lr"], ONE)


def test_the_recipe_s_own_values_where_the_space_has_them() -> None:
    space = read_space(None, ["lr=float:1e-4:1e-2:log", "hidden=categorical:[64,32]|[]"], ONE)
    assert current(ONE, space) == {"head.hidden": [64, 32], "optimizer.lr": 0.003}
    assert current(ONE, read_space(None, ["lr=float:1:2"], ONE)) is None
    assert current(ONE, read_space(None, ["hidden=categorical:[8]|[]"], ONE)) is None
    several = apply(TWO, {"mlp.epochs": 7}, "here")
    assert current(several, read_space(None, ["clip_sd=float:1:9"], several)) == {"head.clip_sd": 6}
    several = apply(several, {"mlp.head.clip_sd": 4}, "here")
    assert current(several, read_space(None, ["clip_sd=float:1:9"], several)) is None
    assert current(several, read_space(None, ["epochs=int:5:90"], several)) == {"epochs": 7}
    assert current(several, read_space(None, ["mlp.epochs=int:5:90"], several)) == {"mlp.epochs": 7}


def test_a_setting_that_no_head_uses_is_refused() -> None:
    for params in (["lr=float:1e-4:1e-2"], ["kernel.epochs=int:1:9"]):
        members = TWO[1:] if params[0].startswith("lr") else TWO
        with pytest.raises(UsageError, match="changes nothing in this recipe: heads of kind"):
            read_space(None, params, members)
    # Where the kind of head varies, it may be used.
    space = read_space(None, ["lr=float:1e-4:1e-2", "kind=categorical:mlp|kernel_ridge"], TWO[1:])
    (changed,) = apply(TWO[1:], {"head.kind": "mlp", "optimizer.lr": 0.004}, "here")
    assert (len(space), changed.train.head.kind, changed.train.optimizer.lr) == (2, "mlp", 0.004)
