"""Compare the specialized model with its baseline on questions about topics that training has not seen.

    python evaluate.py --baseline-model sentence-transformers/all-MiniLM-L12-v2 \\
        --specialized-model models/medical-specialized/final --k 5
    python evaluate.py --graded bundled --require-target    # also graded consumer questions; exit 1 on a miss

Prints MRR, DCG (binary gain, not normalised), precision and recall at k of both models, the relative improvement with
95% intervals over questions and over groups of tied topics, and whether MRR and DCG improve by the target.
evaluation_results.json has all of it as fractions (0.15 is +15%), with all question types and the questions that
changed most.
"""

import argparse
import platform
import time
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from hardneg.corpus.artifacts import Chunk, Query, load_chunks, load_queries, read_manifest
from hardneg.corpus.normalising import names_topic, normalise_question, normalise_topic
from hardneg.corpus.topics import BOILERPLATE_ROWS, boilerplate_ids
from hardneg.embedding.device import claim_device, describe_device, find_gpu
from hardneg.embedding.encoder import CachedEncoder
from hardneg.embedding.model_files import foreign_training, training_record
from hardneg.embedding.models import DEFAULT_MODEL, check_comparable, load_model, resolve_model, truncation_notes
from hardneg.embedding.search import top_k
from hardneg.measuring.graded import GradedSet, open_graded, score_graded
from hardneg.measuring.metrics import (
    RESAMPLING_SEED,
    K,
    bounds_or_none,
    finite_or_none,
    metrics_without,
    ndcg_of_random_order,
    relative_gain,
    retrieval_metrics,
)
from hardneg.running import flag_types
from hardneg.running.errors import InputError
from hardneg.running.files import check_writable, write_json
from hardneg.running.script import run
from hardneg.running.tables import excerpt

RULE = "=" * 50
METRICS = ("MRR", "DCG", "Precision", "Recall")  # as printed
TARGETED = ("MRR", "DCG")  # the success criteria
DEEP = 50  # Recall@50: what a candidate list of that depth can reach
TYPES_PRINTED = 12
QUESTIONS_LISTED = 10  # that gained most, and that lost most
QUESTION_WIDTH = 80  # characters of a question on the terminal
LAST_BIT = 1e-9  # a gain of exactly the target must not miss it by the last bit of a division
# Groups below which an interval over them is too narrow, the fewer the more (Cameron et al. 2008).
FEW_GROUPS = 30
VERSIONS_OF = ("torch", "transformers", "sentence-transformers", "numpy", "scipy")


def main(argv: list[str] | None = None) -> None:
    """Check everything, compare both models on the split's questions."""
    args = parse_arguments(argv)
    evaluate_models(args, load_inputs(args))


def evaluate_models(args: argparse.Namespace, inputs: "Inputs") -> None:
    """Embed and search with both models, compare, write the report, print it."""
    seconds: dict[str, float] = {}
    with timed(seconds, "load_models"):
        device = claim_device(args.device)
        print(f"Embedding models on {describe_device(device)}")
        names = args.baseline_model, args.specialized_model
        encoders = {name: CachedEncoder(load_model(name, device), args.data_dir) for name in names}
    notes = [note for name in encoders for note in training_notes(name, inputs, args.split)]
    notes += base_notes(args, encoders[args.baseline_model].fingerprint) + group_notes(inputs.queries)
    for name, encoder in encoders.items():
        check_comparable(encoder.model, name)
        notes += truncation_notes(name, encoder.model, inputs.chunks)
    for note in notes:
        print(note)

    scores = []
    for role, name in zip(("Baseline", "Specialized"), names, strict=True):
        with timed(seconds, role.lower()):
            scores.append(score_model(role, name, encoders[name], inputs, args.k))
    with timed(seconds, "compare"):
        baseline, specialized = scores
        result = compare(inputs, baseline, specialized, args)

    result |= provenance(inputs, args) | {"notes": notes, "seconds": seconds}
    write_json(args.output, result)
    print_result(result, args.output)
    if args.require_target and not result["verdict"]["met"]:
        raise SystemExit(1)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = flag_types.Parser(__doc__)
    add = parser.add_argument
    add("--baseline-model", default=DEFAULT_MODEL, help="folder or hub name of the model to beat")
    add(
        "--specialized-model",
        default="models/medical-specialized/final",
        help="folder or hub name of the adapted model",
    )
    add("--k", type=flag_types.positive_int, default=K, help="cut-off rank of the metrics")
    add("--data-dir", type=Path, default=Path("data"), help="folder of the prepared data")
    add("--split", choices=("val", "test"), default="test", help="split whose questions are asked")
    add(
        "--graded",
        metavar="FILE",
        help="also compare the models on questions with graded answers: a JSONL file, bundled or nanobeir (on the hub)",
    )
    add("--output", type=Path, default=Path("evaluation_results.json"), help="JSON to write")
    add(
        "--target",
        type=flag_types.finite,
        default=15.0,
        help="improvement to reach in MRR and DCG, percent (default: %(default)g)",
    )
    add("--require-target", action="store_true", help="exit with status 1 when the target is missed")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    return parser.parse_args(argv)


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Note how long the block took."""
    started = time.perf_counter()
    yield
    seconds[stage] = round(time.perf_counter() - started, 2)


# ---------------------------------------------------------------- what is evaluated


@dataclass(frozen=True)
class Inputs:
    """Everything read before the first model is loaded."""

    chunks: list[Chunk]
    queries: list[Query]
    graded: GradedSet | None
    manifest: dict[str, Any]


def load_inputs(args: argparse.Namespace) -> Inputs:
    """Read all files and check model names and the output's place, so that nothing fails after an hour of encoding."""
    check_beforehand(args)
    resolve_model(args.specialized_model)
    manifest = read_manifest(args.data_dir)
    chunks, queries = load_chunks(args.data_dir, manifest), load_queries(args.data_dir, manifest, args.split)
    graded = open_graded(args.graded) if args.graded else None
    return Inputs(chunks, queries, graded, manifest)


def check_beforehand(args: argparse.Namespace) -> None:
    """Raise InputError if something the flags name is missing or unusable, as far as this can be told without the data
    and the specialized model: the pipeline asks this before its first stage."""
    find_gpu(args.device)
    resolve_model(args.baseline_model)
    check_writable(args.output)
    if args.graded:
        open_graded(args.graded)


def training_notes(model_name: str, inputs: Inputs, split: str) -> list[str]:
    """Why, by its training.json, this is no independent test of the model; a line for each reason."""
    record = training_record(Path(model_name))
    configuration = record.get("configuration", {})
    notes = foreign_training(model_name, inputs.manifest["corpus"]["sha256"])
    guard = guard_of(configuration)
    if inputs.graded and inputs.graded.sha256 == configuration.get("guard_sha256"):
        notes.append(f"Note: {inputs.graded.name} was the guard that chose {model_name}: no independent test of it")
    elif guard and inputs.graded:
        graded = [question.question for question in inputs.graded.questions]
        notes += shared_notes(f"questions of {inputs.graded.name}", graded, guard, model_name)
    if guard:
        notes += shared_notes(f"{split} questions", [query["query"] for query in inputs.queries], guard, model_name)
    if split == "val" and "validation" in record:
        notes.append(f"Note: {model_name} was chosen by validation questions: no independent test of it")
    return notes


def guard_of(configuration: dict[str, Any]) -> GradedSet | None:
    """The guard that chose between a run's models, where it is a file that is still as it was."""
    name, sha256 = configuration.get("guard"), configuration.get("guard_sha256")
    if not (name and sha256) or name == "nanobeir":
        return None
    try:
        guard = open_graded(name)
    except InputError:  # moved away, or taken from another folder
        return None
    return guard if guard.sha256 == sha256 else None


def shared_notes(what: str, questions: Sequence[str], guard: GradedSet, model_name: str) -> list[str]:
    """A line where some of these questions are the guard's too."""
    chose = {normalise_question(question.question) for question in guard.questions}
    shared = sum(normalise_question(question) in chose for question in questions)
    if not shared:
        return []
    return [
        f"Warning: {shared:,} of {len(questions):,} {what} are in the guard that chose {model_name}: no independent "
        "test of it"
    ]


def base_notes(args: argparse.Namespace, baseline_fingerprint: str) -> list[str]:
    """A line where the specialized model was adapted from another model than the baseline; two models of one run may be
    compared with each other."""
    names = (args.baseline_model, args.specialized_model)
    baseline, specialized = (training_record(Path(name)).get("configuration", {}) for name in names)
    base = specialized.get("base_fingerprint")
    if base in (None, baseline_fingerprint, baseline.get("base_fingerprint")):
        return []
    return [
        f"Warning: {args.specialized_model} was adapted from {specialized.get('base_model')}, not from "
        f"{args.baseline_model}: the improvement is not the adaptation's alone"
    ]


def group_notes(queries: Sequence[Query]) -> list[str]:
    """A line where no interval over groups tells well how much the gain depends on the topics."""
    groups = len({query["group"] for query in queries})
    if groups == 1:
        return ["Note: all questions belong to one group of tied topics: how the gain varies over topics is not known"]
    if groups < FEW_GROUPS:
        return [f"Note: only {groups} groups of tied topics: the intervals over groups are too narrow"]
    return []


# ---------------------------------------------------------------- how good the models are


@dataclass(frozen=True)
class ModelScores:
    """One model's figures, per question."""

    name: str
    fingerprint: str  # of its weights and settings, SHA-256
    metrics: dict[str, np.ndarray]  # "MRR@5" ... and "Recall@50": (Q,) float64
    graded: dict[str, np.ndarray]  # of the graded questions; empty without a set
    without_boilerplate: dict[str, np.ndarray]  # TARGETED without boilerplate; empty where no question has any


def score_model(role: str, name: str, encoder: CachedEncoder, inputs: Inputs, k: int) -> ModelScores:
    """Embed corpus and questions (from the cache where they are there), search exactly, score."""
    with tqdm(total=len(inputs.chunks) + len(inputs.queries), desc=role, unit="text") as bar:
        chunk_vectors = encoder.encode_passages([chunk["text"] for chunk in inputs.chunks], bar.update)
        query_vectors = encoder.encode_queries([query["query"] for query in inputs.queries], bar.update)
    boilerplate = boilerplate_ids(inputs.chunks)
    ranked = top_k(query_vectors, chunk_vectors, max(k, DEEP) + len(boilerplate))
    relevant = [set(query["ground_truth_chunk_ids"]) for query in inputs.queries]
    metrics = {f"{key}@{k}": values for key, values in retrieval_metrics(ranked, relevant, k).items()}
    metrics[f"Recall@{DEEP}"] = retrieval_metrics(ranked, relevant, DEEP)["Recall"]
    own = metrics_without(boilerplate, ranked, relevant, k)
    without_boilerplate = {f"{key}@{k}": own[key] for key in TARGETED if own}
    graded = score_graded(encoder, inputs.graded) if inputs.graded else {}
    return ModelScores(name, encoder.fingerprint, metrics, graded, without_boilerplate)


# ---------------------------------------------------------------- evaluation_results.json


def compare(
    inputs: Inputs, baseline: ModelScores, specialized: ModelScores, args: argparse.Namespace
) -> dict[str, Any]:
    """The figures of evaluation_results.json; gains and intervals are fractions, null where there is none."""
    groups = [query["group"] for query in inputs.queries]
    improvement = {key: gain_of(before, specialized.metrics[key], groups) for key, before in baseline.metrics.items()}
    types = [query["qtype"] for query in inputs.queries]
    gained, lost = most_changed(inputs.queries, baseline, specialized, args.k)
    return {
        "baseline": summary(baseline),
        "specialized": summary(specialized),
        "improvement": improvement,
        "verdict": verdict(improvement, args),
        "without_boilerplate": compare_without_boilerplate(inputs, baseline, specialized),
        "graded": compare_graded(inputs.graded, baseline, specialized) if inputs.graded else None,
        "by_question_type": mrr_by("qtype", types, baseline, specialized, args.k),
        "by_naming": mrr_by("named", has_answer_naming_topic(inputs), baseline, specialized, args.k),
        "by_right_passages": mrr_by("several", has_several_answers(inputs), baseline, specialized, args.k),
        "gained_most": gained,
        "lost_most": lost,
    }


def gain_of(before: np.ndarray, after: np.ndarray, groups: Sequence[Hashable] | None = None) -> dict[str, Any]:
    """Both means, the relative gain and its intervals over questions and, where these are given, over their groups."""
    gain = relative_gain(before, after)
    row = {
        "baseline": gain.base_mean,
        "specialized": gain.other_mean,
        "gain": finite_or_none(gain.gain),
        "ci95_questions": bounds_or_none((gain.low, gain.high)),
    }
    if groups is None:
        return row
    by_group = relative_gain(before, after, groups)
    return row | {"ci95_groups": bounds_or_none((by_group.low, by_group.high))}


def compare_without_boilerplate(
    inputs: Inputs, baseline: ModelScores, specialized: ModelScores
) -> dict[str, Any] | None:
    """The gain without boilerplate; None where no answer is boilerplate, or no question has another."""
    if not baseline.without_boilerplate:
        return None
    boilerplate = boilerplate_ids(inputs.chunks)
    groups = [query["group"] for query in inputs.queries if set(query["ground_truth_chunk_ids"]) - boilerplate]
    return {
        "passages_left_out": len(boilerplate),
        "questions": len(groups),
        "improvement": {
            key: gain_of(before, specialized.without_boilerplate[key], groups)
            for key, before in baseline.without_boilerplate.items()
        },
    }


def verdict(improvement: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Whether each targeted metric's point estimate reaches the target; a baseline of 0 is no measure of anything."""
    target = args.target / 100
    gains = {key: improvement[key]["gain"] for key in (f"{name}@{args.k}" for name in TARGETED)}
    reached = {key: gain is not None and gain >= target - LAST_BIT for key, gain in gains.items()}
    return {"target": target, "met": all(reached.values()), "reached": reached}


def compare_graded(graded: GradedSet, baseline: ModelScores, specialized: ModelScores) -> dict[str, Any]:
    """The graded set's part of the report."""
    return {
        "file": graded.name,
        "questions": len(graded.questions),
        "answers": graded.n_answers,
        "left_out_of_ndcg": graded.n_of_one_grade,
        "ndcg_of_random_order": ndcg_of_random_order(
            [[answer.grade for answer in question.answers] for question in graded.questions]
        ),
        "improvement": {key: gain_of(before, specialized.graded[key]) for key, before in baseline.graded.items()},
    }


def has_answer_naming_topic(inputs: Inputs) -> list[bool | None]:
    """Of each question, whether one of its answers names its topic; None where the question is its own topic."""
    texts = [chunk["text"] for chunk in inputs.chunks]
    return [
        any(names_topic(texts[chunk_id], query["topic"]) for chunk_id in query["ground_truth_chunk_ids"])
        if normalise_topic(query["topic"]) != normalise_topic(query["query"])
        else None
        for query in inputs.queries
    ]


def has_several_answers(inputs: Inputs) -> list[bool]:
    """Of each question, whether several passages count as right, as those of a long answer do."""
    return [len(query["ground_truth_chunk_ids"]) > 1 for query in inputs.queries]


def mrr_by(
    name: str, groups: Sequence[Hashable], baseline: ModelScores, specialized: ModelScores, k: int
) -> list[dict[str, Any]]:
    """MRR of both models per group of questions, the largest first.

    Args:
        name: what the groups are, for the report.
        groups: of each question; None for one that is in none.
        baseline: the one model's figures.
        specialized: the other's.
        k: cut-off of the MRR.
    """
    rows = defaultdict(list)
    for row, group in enumerate(groups):
        if group is not None:
            rows[group].append(row)
    table = []
    for group, members in sorted(rows.items(), key=lambda item: (-len(item[1]), item[0])):
        before, after = (float(scores.metrics[f"MRR@{k}"][members].mean()) for scores in (baseline, specialized))
        gain = after / before - 1 if before else None
        table.append({name: group, "n": len(members), "baseline": before, "specialized": after, "gain": gain})
    return table


def most_changed(
    queries: Sequence[Query], baseline: ModelScores, specialized: ModelScores, k: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The questions that gained and lost most, by reciprocal rank, then by DCG; fewer where fewer changed."""
    names = [f"{key}@{k}" for key in TARGETED]
    changes = np.stack([specialized.metrics[name] - baseline.metrics[name] for name in names], axis=1).tolist()

    def describe(row: int) -> dict[str, Any]:
        query = {key: queries[row][key] for key in ("query_id", "query", "qtype", "topic")}
        roles = (("baseline", baseline), ("specialized", specialized))
        return query | {role: {name: float(scores.metrics[name][row]) for name in names} for role, scores in roles}

    order = sorted(range(len(queries)), key=lambda row: changes[row])
    lost = [describe(row) for row in order[:QUESTIONS_LISTED] if changes[row] < [0, 0]]
    gained = [describe(row) for row in order[::-1][:QUESTIONS_LISTED] if changes[row] > [0, 0]]
    return gained, lost


def summary(scores: ModelScores) -> dict[str, Any]:
    """One model's means."""
    means = {key: float(values.mean()) for key, values in scores.metrics.items()}
    return {"model": scores.name, "fingerprint": scores.fingerprint, "metrics": means}


def provenance(inputs: Inputs, args: argparse.Namespace) -> dict[str, Any]:
    """What the figures were measured on and with."""
    return {
        "k": args.k,
        "split": args.split,
        "seed": RESAMPLING_SEED,
        "counts": {
            "chunks": len(inputs.chunks),
            "queries": len(inputs.queries),
            "topics": len({normalise_topic(query["topic"]) for query in inputs.queries}),
            "groups": len({query["group"] for query in inputs.queries}),
        },
        "data": {
            "corpus_sha256": inputs.manifest["corpus"].get("sha256"),
            "queries_sha256": inputs.manifest["queries"].get("sha256"),
        },
        "versions": {"python": platform.python_version()} | {name: version(name) for name in VERSIONS_OF},
    }


# ---------------------------------------------------------------- the terminal


def print_result(result: dict[str, Any], output: Path) -> None:
    """RESULTS, the tables, and SUCCESS CRITERIA CHECK last."""
    print(f"{result['counts']['queries']:,} {result['split']} questions, {result['counts']['chunks']:,} chunks")
    heading("RESULTS")
    for role in ("baseline", "specialized"):
        print(f"\n{role.capitalize()} ({result[role]['model']}):")
        for key in printed_metrics(result):
            print(f"  {key}: {result[role]['metrics'][key]:.4f}")
    print_improvement(result)
    print_without_boilerplate(result["without_boilerplate"])
    if result["graded"]:
        print_graded(result["graded"])
    print_types(result, output)
    print_changes(result)
    print_verdict(result)


def print_improvement(result: dict[str, Any]) -> None:
    """Relative gains with intervals; a tick or cross where there is a target."""
    print("\nImprovement:")
    target, reached = result["verdict"]["target"], result["verdict"]["reached"]
    rows = {key: result["improvement"][key] for key in printed_metrics(result)}
    for key, row in rows.items():
        mark = f"  {tick(reached[key])}" if key in reached else ""
        print(f"  {key}: {percent(row['gain'])}{mark}{intervals(row)}")
    for key, is_reached in reached.items():
        questions, groups = rows[key]["ci95_questions"][0], rows[key]["ci95_groups"][0]
        lows = [low for low in (questions, groups) if low is not None]
        begins = f"({percent(questions)} over questions, {percent(groups)} over groups of tied topics)"
        if is_reached and any(low < target - LAST_BIT for low in lows):
            print(f"Note: {key} reaches the target, but its 95% interval begins below it {begins}")
        if not is_reached and lows and all(low > 0 for low in lows):
            print(f"Note: {key} misses the target, but it did improve: its 95% interval begins above 0 {begins}")


def print_without_boilerplate(own: dict[str, Any] | None) -> None:
    """The gains without boilerplate, where there is any."""
    if own:
        left_out = f"{own['passages_left_out']} of the chunks, each in over {BOILERPLATE_ROWS} answers"
        print(f"\nWithout boilerplate ({left_out}; {own['questions']:,} questions):")
        for key, row in own["improvement"].items():
            print(f"  {key}: {percent(row['gain'])}{intervals(row)}")


def print_graded(graded: dict[str, Any]) -> None:
    """Both models on the graded set."""
    heading("GRADED QUESTIONS")
    print(f"\n{graded['file']}: {graded['questions']} questions, {graded['answers']:,} graded answers")
    if graded["left_out_of_ndcg"]:
        print(f"  questions left out of nDCG, as all their answers have the same grade: {graded['left_out_of_ndcg']}")
    print(f"  nDCG@10 of a random order: {graded['ndcg_of_random_order']:.4f}")
    print(f"  {'':8} {'Baseline':>9} {'Specialized':>12}   Change")
    for key, row in graded["improvement"].items():
        figures = f"{row['baseline']:>9.4f} {row['specialized']:>12.4f}"
        print(f"  {key:8} {figures}   {percent(row['gain'])}{intervals(row)}")


def print_types(result: dict[str, Any], output: Path) -> None:
    """MRR per question type, the frequent ones, by whether an answer names the topic, and by how many are right."""
    table, metric = result["by_question_type"], f"MRR@{result['k']}"
    heading("BY QUESTION TYPE")
    print(f"\n  {metric:25} {'n':>6} {'Baseline':>9} {'Specialized':>12}   Change")
    for row in table[:TYPES_PRINTED]:
        print_mrr(row["qtype"], row)
    if len(table) > TYPES_PRINTED:
        print(f"  ... and {len(table) - TYPES_PRINTED} rarer types in {output}")
    for row in result["by_naming"]:
        print_mrr("an answer names the topic" if row["named"] else "no answer names the topic", row)
    for row in result["by_right_passages"]:
        print_mrr("several right passages" if row["several"] else "one right passage", row)


def print_mrr(name: str, row: dict[str, Any]) -> None:
    """One group of questions."""
    figures = f"{row['n']:>6,} {row['baseline']:>9.4f} {row['specialized']:>12.4f}"
    print(f"  {name[:25]:25} {figures}   {percent(row['gain'])}")


def print_changes(result: dict[str, Any]) -> None:
    """The questions that gained and lost most: what the adaptation is good and bad at."""
    names = [f"{key}@{result['k']}" for key in TARGETED]
    heading("QUESTIONS THAT CHANGED MOST")
    for key, title in (("gained_most", "Gained most"), ("lost_most", "Lost most")):
        print(f"\n  {title}, {' and '.join(names)}:" + ("" if result[key] else " none"))
        for entry in result[key]:
            changes = (f"{entry['baseline'][name]:.2f} > {entry['specialized'][name]:.2f}" for name in names)
            print(f"    {'   '.join(changes)}   {excerpt(entry['query'], QUESTION_WIDTH)}")


def print_verdict(result: dict[str, Any]) -> None:
    """The end of the output."""
    target, reached = f"{100 * result['verdict']['target']:+g}%", result["verdict"]["reached"]
    heading("SUCCESS CRITERIA CHECK")
    print(f"Target: {target} improvement in {' and '.join(reached)}\nAchieved:")
    for key in reached:
        print(f"  {key}: {percent(result['improvement'][key]['gain'])} {tick(reached[key])}")
    if result["verdict"]["met"]:
        print("\n🎉 SUCCESS! Specialized model meets success criteria!")
    else:
        gains = {key: result["improvement"][key]["gain"] for key in reached if not reached[key]}
        missed = " and ".join(f"{key}{shortfall(gain, result['verdict']['target'])}" for key, gain in gains.items())
        print(f"\nSpecialized model does not meet the success criteria ({target}): {missed}.")


def printed_metrics(result: dict[str, Any]) -> list[str]:
    """The metrics at k, without Recall@50."""
    return [f"{name}@{result['k']}" for name in METRICS]


def heading(title: str) -> None:
    """A blank line, and a title between rules."""
    print(f"\n{RULE}\n{title}\n{RULE}")


def tick(reached: bool) -> str:
    """The mark behind a targeted figure."""
    return "✓" if reached else "✗"


def shortfall(gain: float | None, target: float) -> str:
    """By how many points a gain misses its target: with two decimals, as +14.96% is shown as +15.0%."""
    if gain is None:
        return " has no relative gain, as the baseline's is 0"
    return f" is {100 * (target - gain):.2f} percentage points short"


def percent(gain: float | None) -> str:
    """A signed percentage with one decimal, without a negative zero; n/a where there is none."""
    return "n/a" if gain is None else f"{round(gain, 3) + 0.0:+.1%}"


def intervals(row: dict[str, Any]) -> str:
    """The intervals of a `gain_of`, to be put at the end of a line; empty where there are none."""
    found = {"95% CI": row["ci95_questions"], "over groups": row.get("ci95_groups", (None, None))}
    words = [
        f"{name} {percent(low)} to {percent(high) if high is not None else 'no upper bound'}"
        for name, (low, high) in found.items()
        if low is not None
    ]
    return f"   ({'; '.join(words)})" if words else ""


if __name__ == "__main__":
    run(main)
