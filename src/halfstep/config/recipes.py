"""Complete, named configurations: ``smoke`` for tests, ``quick`` for a first look, ``reference`` for results.

``default`` is every setting's own default, to begin a configuration with.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from halfstep.config.load import merged
from halfstep.config.tables import Config
from halfstep.market.splits import REFERENCE_SPLIT
from halfstep.training.settings import PUBLISHED_STUDY


def default() -> Config:
    """Return what each setting's own documentation says."""
    return Config(recipe="default")


def smoke() -> Config:
    """Seconds: made-up bars, tiny networks, two seeds. Proves that the machinery runs, nothing else."""
    return merged(
        Config(recipe="smoke"),
        {
            "data": {"made_up": 2600},
            "model": {"preset": "tiny"},
            "research": {"passes": 16, "group": 16},
            "study_encoder": {"epochs": 2, "patience": 2},
            "study": {"updates": 50, "eval_every": 25},
            "test": {"random_runs": 100, "bootstrap_draws": 500},
            "compare": {
                "optimizers": ("adamw", "adam_mini"),
                "seeds": 2,
                "few_seeds": True,
                "timing_rounds": 5,
            },
            "run": {"rounds": 1},
        },
        source="recipe smoke",
    )


def quick() -> Config:
    """Minutes: a year of real hourly bars, the default networks, five seeds, three optimizers."""
    return merged(
        Config(recipe="quick"),
        {
            "research": {"passes": 64, "group": 64},
            "study_encoder": {"epochs": 5, "patience": 3},
            "study": {"updates": 600, "eval_every": 300},
            "compare": {"seeds": 5},
            "run": {"rounds": 2},
        },
        source="recipe quick",
    )


def reference() -> Config:
    """Under two hours: EURUSD hours of 2023, tested on January 2024; longer training, ten seeds.

    It is the series' algorithm without its defects. The file is given with ``--bars``; it must cover the spans of `REFERENCE_SPLIT` and 620 bars before them.
    """
    return merged(
        Config(recipe="reference"),
        {
            "split": {
                "train": REFERENCE_SPLIT.train,
                "validation": REFERENCE_SPLIT.validation,
                "test": REFERENCE_SPLIT.test,
            },
            "research": {"passes": 250, "group": 250},
            "study_encoder": {"epochs": 40, "patience": 5},
            "study": {**PUBLISHED_STUDY, "updates": 5000, "eval_every": 500},
            "compare": {"seeds": 10},
            "run": {"rounds": 4},
        },
        source="recipe reference",
    )


RECIPES: Mapping[str, Callable[[], Config]] = MappingProxyType(
    {"default": default, "smoke": smoke, "quick": quick, "reference": reference}
)
