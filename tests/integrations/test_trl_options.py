"""The guard's options are read as TRL's are: from Python, a command line or a YAML file; what is wrong is one line."""

import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from trl import DPOConfig, TrlParser

from flipguard.errors import DataError, FlipGuardError, RecipeError
from flipguard.integrations.trl import GuardedDPOConfig, GuardedDPOTrainer, GuardedKTOConfig, GuardedKTOTrainer
from flipguard.integrations.trl.guard import VERSIONS, KeptOutput, guard_of

CONFIGS = [GuardedDPOConfig, GuardedKTOConfig]
BASE = {"output_dir": "run", "use_cpu": True, "bf16": False}


@pytest.mark.parametrize("config", CONFIGS)
def test_a_command_line_sets_every_option(config):
    words = "--gamma 0.5 --epsilon 0.1 --gate always --divergence ce --reduction mean --output_dir run --use_cpu"
    (args,) = TrlParser((config,)).parse_args_and_config(shlex.split(words))
    assert (args.gamma, args.epsilon, args.gate, args.reduction) == (0.5, 0.1, "always", "mean")


@pytest.mark.parametrize("config", CONFIGS)
def test_a_yaml_file_sets_every_option_also_where_yaml_misreads_it(config, tmp_path):
    """TRL's YAML reads 1e-2 as text and off as false."""
    (tmp_path / "c.yaml").write_text(
        "gamma: 1e-2\nepsilon: 1\ngate: off\nreduction: mean\noutput_dir: run\nuse_cpu: true\n"
    )
    (args,) = TrlParser((config,)).parse_args_and_config(["--config", str(tmp_path / "c.yaml")])
    assert (args.gamma, args.epsilon, args.gate, args.reduction) == (0.01, 1.0, "off", "mean")


@pytest.mark.parametrize("config", CONFIGS)
def test_the_help_explains_every_option(config, capsys):
    with pytest.raises(SystemExit):
        TrlParser((config,)).parse_args_and_config(["--help"])
    help_text = capsys.readouterr().out
    for option in ("--gamma", "--epsilon", "--gate", "--divergence", "--reduction"):
        assert option in help_text
    assert "flips are only counted" in " ".join(help_text.split())


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": -1}, "gamma: -1 is not possible: it must be a number, at least 0."),
        ({"gamma": "much"}, "gamma: 'much' is not possible"),
        ({"gamma": None}, "gamma: None is not possible"),
        ({"gamma": True}, "gamma: True is not possible"),
        ({"gamma": [0.1]}, "gamma: [0.1] is not possible"),
        ({"epsilon": float("inf")}, "epsilon: inf is not possible"),
        ({"epsilon": float("nan")}, "epsilon: nan is not possible"),
        ({"gate": "flips"}, "gate: unknown value 'flips'. Did you mean 'flip'? Choose one of: flip, always, off."),
        ({"gate": True}, "gate: unknown value True."),
        ({"gate": ["flip"]}, "gate: unknown value ['flip']."),
        ({"reduction": "max"}, "reduction: unknown value 'max'."),
        ({"divergence": "kl"}, "divergence: 'kl' needs whole distributions"),
        ({"divergence": "l2"}, "divergence: unknown value 'l2'. Choose one of: ce."),
        ({"sync_ref_model": True}, "sync_ref_model: True cannot go with the guard"),
    ],
)
def test_what_is_not_possible_is_said_in_one_line(config, options, message):
    with pytest.raises(RecipeError) as raised:
        config(**BASE, **options)
    assert str(raised.value).startswith(f"{config.__name__}: {message}")
    assert "\n" not in str(raised.value)


def test_length_desensitised_dpo_is_refused():
    with pytest.raises(RecipeError, match=r"ld_alpha: 0\.5 cannot go with the guard"):
        GuardedDPOConfig(**BASE, ld_alpha=0.5)


def test_trls_own_config_is_refused_with_the_way_out(make_model, tokenizer, rows):
    with pytest.raises(RecipeError, match=r"DPOConfig does not hold the guard's options\. Use Guarded"):
        GuardedDPOTrainer(
            make_model(),
            args=DPOConfig(**BASE),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )


def test_the_config_of_the_other_trainer_is_refused(make_model):
    with pytest.raises(RecipeError, match="Use GuardedKTOConfig"):
        GuardedKTOTrainer(make_model(), args=GuardedDPOConfig(**BASE))


def test_images_are_refused():
    with pytest.raises(RecipeError, match="train_dataset: has images, and the guard reads text only"):
        guard_of(SimpleNamespace(_is_vision_dataset=True, args=None))


def test_a_trl_that_computes_its_loss_otherwise_is_refused():
    with pytest.raises(FlipGuardError, match=r"Install the supported one: 'trl>=1\.16,<1\.18'"):
        KeptOutput(None, torch.zeros(2, 3)).token_logps  # noqa: B018 - the property raises


def test_the_supported_versions_are_those_that_are_installed_with_us():
    assert f'"{VERSIONS}"' in (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("trainer", [GuardedDPOTrainer, GuardedKTOTrainer])
def test_nothing_to_train_and_nothing_to_train_on_are_said_in_one_line(trainer, make_model):
    args = {GuardedDPOTrainer: GuardedDPOConfig, GuardedKTOTrainer: GuardedKTOConfig}[trainer](**BASE)
    with pytest.raises(RecipeError, match="model: None cannot be trained"):
        trainer(None, args=args)
    with pytest.raises(DataError, match="train_dataset: has no rows"):
        trainer(make_model(), args=args, train_dataset=Dataset.from_list([]))
