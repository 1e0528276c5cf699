"""Save the base model plus a share of what each of some models differs from it, for evaluate.py to measure.

    python -m tests.benchmarks.mixture --mix models/medical-specialized/iteration_0=1.25 --output models/full
    python evaluate.py --split val --baseline-model all-MiniLM-L6-v2 --specialized-model models/full --graded bundled

What iteration_0 trained is in its model at the share that is chosen in its training.json: saved at 0.8, 1.25 is all of
it. A later iteration's model has the mean of all trainings so far at its share.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from hardneg.embedding.models import load_model
from hardneg.learning.averaging import weights_of
from hardneg.running.files import atomic_dir
from hardneg.running.flag_types import finite
from hardneg.running.script import run


def main(argv: Sequence[str] | None = None) -> None:
    """Add up and save."""
    args = parse_arguments(argv)
    model = load_model(args.base_model, "cpu")
    base, mixed = weights_of(model), weights_of(model)
    for folder, share in args.mix:
        other = weights_of(load_model(folder, "cpu"))
        for name, tensor in mixed.items():
            if tensor.is_floating_point():
                tensor.add_(other[name] - base[name], alpha=share)
    model.load_state_dict(mixed)
    with atomic_dir(args.output) as temporary:
        model.save(str(temporary), create_model_card=False)
    print(f"Model saved to: {args.output}")


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--base-model", default="all-MiniLM-L6-v2", help="what the models were adapted from")
    add("--mix", type=model_and_share, nargs="+", required=True, metavar="MODEL=SHARE", help="models and their shares")
    add("--output", type=Path, required=True, help="folder to write")
    return parser.parse_args(argv)


def model_and_share(text: str) -> tuple[str, float]:
    """argparse type: a model and a number, as in models/a=0.5."""
    model, is_given, share = text.rpartition("=")
    if not is_given:
        raise argparse.ArgumentTypeError(f"{text} is not MODEL=SHARE, as in models/a=0.5")
    return model, finite(share)


if __name__ == "__main__":
    run(main)
