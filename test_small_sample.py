"""Judge a small sample before the full run: 30 training questions x 10 candidates, minutes instead of hours.

    python test_small_sample.py --llm-endpoint http://localhost:8000/v1 --llm-model Qwen/Qwen2.5-7B-Instruct
    python test_small_sample.py --graded bundled --min-kappa 0.5    # measure the judge against people; status 1 below
    python test_small_sample.py --judge answer-key --base-model all-MiniLM-L6-v2    # no LLM, no GPU, no hub

Needs the outputs of prepare_corpus.py and prepare_queries.py. Prints how the grades are distributed, what training
would use of them, what the model ranks wrongly, single judgments, the agreement with the answer key (and with people),
the time that the full run would take, and what looks wrong and where to turn; ends with status 1 where nothing can be
learnt from an LLM's grades. small_sample_results.json has all of it, every judgment included. The embeddings and
judgments are kept in the data folder. The questions are among the first that iterative_miner.py asks with the same seed
and as many queries as --full-run says: it pays for none of them again.
"""

import argparse
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from hardneg.corpus.artifacts import Chunk, Query, load_chunks, load_queries, read_manifest
from hardneg.corpus.topics import boilerplate_ids
from hardneg.embedding.device import find_gpu
from hardneg.embedding.encoder import CachedEncoder
from hardneg.embedding.models import DEFAULT_MODEL, resolve_model
from hardneg.judging.candidates import CandidateList, candidate_pairs, with_grades
from hardneg.judging.judge import GRADES, NOT_STORED, Judge, Judgment, Pair, as_read, describe_reasons
from hardneg.judging.judge_report import (
    MIN_ASKED,
    describe_effort,
    describe_findings,
    duration,
    effort_record,
    estimate_full_run,
    judge_record,
    name_warnings,
)
from hardneg.judging.llm_judge import LLMJudge
from hardneg.judging.probing import JudgeFindings
from hardneg.learning.mining import Mined, describe_mining
from hardneg.measuring.agreement import agreement, auc, whole_grade
from hardneg.measuring.graded import GradedSet, graded_pairs, open_graded
from hardneg.measuring.judge_quality import JudgedPair, biases, calibration, corrections, has_grade, judged_pairs
from hardneg.measuring.metrics import RELEVANT_GRADE, finite_or_none
from hardneg.running import flag_types
from hardneg.running.errors import InputError, Unavailable
from hardneg.running.files import check_writable, write_json
from hardneg.running.script import run
from hardneg.running.tables import aligned, excerpt
from iterative_miner import (
    MAX_UNJUDGED,
    MINING,
    add_judge_arguments,
    check_judge_arguments,
    embed_corpus,
    judge_pairs,
    load_base,
    mine_hard_examples,
    open_judge,
    retrieve_candidates,
    sample_queries,
)
from iterative_miner import parse_arguments as miner_arguments

# When something looks wrong
DOMINATING = 0.8  # share of the judged pairs with one and the same score
MAX_UNCERTAIN = 0.5  # share of the pairs graded neither as answers nor as irrelevant
MAX_REFUTED = 0.2  # share of the known answers that are graded 1
MAX_WITHOUT_PROBABILITIES = 0.02  # share of the grades without, from a server that gives them: some are never readable
# AUC within questions, 0.5 by chance. The noisy judge that training was measured with has 0.76 to 0.86 with the answer
# key on samples of 30 questions (LOG.md, "A judge that is misled as the model is").
LOW_AUC = 0.75
# Share of the passages ranked above an answer that are graded below it, 0.5 by chance: there 0.62 to 0.85. A judge that
# errs where the model errs has 0.54 to 0.62: training gains a little less with it, and where no answers are known a
# quarter of what it gains with the other (LOG.md, "Judges that err", "The scale by validation questions").
LOW_CORRECTIONS = 0.65
ENOUGH_QUESTIONS = 10  # that such passages must be found for
LOW_KAPPA_WITH_PEOPLE = 0.5  # quadratically weighted; the noisy judge would have 0.54 with the bundled questions
LENGTH_BIAS = 0.5  # rank correlation of grade and passage length

SHOWN = 3  # examples of each kind on the terminal
DISAGREEMENTS_LISTED = 20
BAR_WIDTH = 40  # characters of the longest bar
TEXT_WIDTH = 220  # characters of a passage on the terminal

NO_EXAMPLES = "there is nothing to learn from: no question has both an answer to trust and an irrelevant candidate"
PROMPT_PLACE = "iterative_miner.py:llm_judge_relevance(), JUDGE_PROMPT"
MINING_PLACE = "iterative_miner.py:mine_hard_examples(), MINING"


def main(argv: Sequence[str] | None = None) -> None:
    """Sample, retrieve, judge, measure, write, print; exit 1 where the judge misses --min-kappa or leaves it open, or
    training would learn nothing from its grades."""
    args = parse_arguments(argv)
    sample = load_sample(args)
    lists = retrieve(args, sample)
    pairs = list(candidate_pairs(lists, sample.chunks))
    check_server(sample.judge, [*pairs, *graded_pairs(sample.graded)] if sample.graded else pairs)
    print(f"\nJudging {len(pairs):,} (query, chunk) pairs...")
    judgments = judge_pairs(sample.judge, pairs, args.gpu_hour_price)
    effort = effort_record(sample.judge.stats, args.gpu_hour_price)
    mined = mine_hard_examples(with_grades(as_mined(lists, args), judgments), boilerplate_ids(sample.chunks))
    results = measure(lists, judgments, sample.chunks, mined)
    results["judge"] = judge_record(sample.judge)
    results["graded"] = measure_against_people(sample, args.gpu_hour_price) if sample.graded else None
    efforts = [effort, results["graded"]["effort"]] if results["graded"] else [effort]
    results["rate"] = effort | {"full_run_estimate": estimate_full_run(efforts, sample.full_run, args.gpu_hour_price)}
    results["refused"] = why_refused(results["graded"], args.min_kappa) or nothing_to_learn(results, sample.judge)
    results["warnings"] = list(find_warnings(results, sample.judge))
    results["parameters"] = vars(args)
    write_json(args.output_file, results)
    print_report(results, args)
    if results["refused"]:
        sys.stdout.flush()
        sys.stderr.write(f"{results['refused']}\n")
        raise SystemExit(1)


# ---------------------------------------------------------------- flags and inputs


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line. Raises InputError where flags do not go together."""
    parser = flag_types.Parser(__doc__)
    add = parser.add_argument
    add(
        "--num-queries",
        type=flag_types.positive_int,
        default=30,
        help="training questions, spread over the question types",
    )
    add("--num-candidates", type=flag_types.positive_int, default=10, help="chunks retrieved and judged per question")
    add_judge_arguments(parser)
    add("--base-model", default=DEFAULT_MODEL, help="model that retrieves the candidates: hub name or folder")
    add("--data-dir", type=Path, default=Path("data"), help="what the prepare scripts wrote")
    add("--output-file", type=Path, default=Path("small_sample_results.json"), help="JSON to write")
    add("--graded", metavar="FILE", help="also measure the judge on this JSONL set that people graded, or 'bundled'")
    add(
        "--min-kappa",
        type=flag_types.kappa,
        help="least weighted kappa with --graded (-1 to 1): below it, or with over 2%% unjudged, the exit status is 1",
    )
    add(
        "--full-run",
        type=run_size,
        default=miner_run_size(),
        help="queries x candidates x iterations of the run that is to follow: of its first questions some are sampled, "
        "and its time is estimated",
    )
    add("--seed", type=flag_types.seed, default=42, help="seed of the question sample")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    args = parser.parse_args(argv)
    if args.graded and args.judge == "answer-key":
        raise InputError(
            "--graded measures an LLM judge, and the answer key knows nothing of that set; leave out --graded, or use "
            "--judge llm"
        )
    if args.graded == "nanobeir":
        raise InputError(
            "--graded nanobeir has relevant or not, no grades to measure a judge against; use --graded bundled"
        )
    if args.min_kappa is not None and not args.graded:
        raise InputError("--min-kappa is about the agreement with people; name a graded set too, e.g. --graded bundled")
    check_judge_arguments(args)
    return args


def miner_run_size() -> str:
    """What iterative_miner.py does without flags, for `run_size`."""
    full = miner_arguments([])
    return f"{full.num_queries}x{full.num_candidates}x{full.iterations}"


def run_size(text: str) -> tuple[int, int, int]:
    """argparse type: queries, candidates and iterations, as in 1000x50x2; what is left out (1000xx2) is the miner's."""
    numbers = zip(text.split("x"), miner_run_size().split("x"), strict=True)
    try:
        queries, candidates, iterations = (flag_types.positive_int(number or usual) for number, usual in numbers)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not QUERIESxCANDIDATESxITERATIONS, as in 1000x50x2") from None
    return queries, candidates, iterations


@dataclass(frozen=True)
class Sample:
    """Everything that is judged, and who judges."""

    chunks: list[Chunk]
    queries: list[Query]
    judge: Judge
    graded: GradedSet | None
    full_run: tuple[int, int, int]  # queries, of which there may be fewer than --full-run says, candidates, iterations


def load_sample(args: argparse.Namespace) -> Sample:
    """Check everything that can be wrong before anything is embedded or judged; raises InputError where it is."""
    check_beforehand(args)
    manifest = read_manifest(args.data_dir)
    chunks, queries = load_chunks(args.data_dir, manifest), load_queries(args.data_dir, manifest, "train")
    asked, candidates, iterations = args.full_run
    asked = min(asked, len(queries))
    first = sample_queries(queries, max(asked, args.num_queries), args.seed, 0)  # what the full run asks anyway
    chosen = sample_over_types(first, args.num_queries, args.seed)
    graded = open_graded(args.graded) if args.graded else None
    judge = open_judge(args)
    check_server(judge)
    types = len({query["qtype"] for query in chosen})
    print(f"Sampled {len(chosen)} of {len(queries):,} training questions, of {types} types")
    return Sample(chunks, chosen, judge, graded, (asked, candidates, iterations))


def check_beforehand(args: argparse.Namespace) -> None:
    """Raise InputError if something the flags name is missing or unusable, as far as this can be told without the data:
    the pipeline asks this before its first stage."""
    find_gpu(args.device)
    resolve_model(args.base_model)
    check_writable(args.output_file)
    if args.graded:
        open_graded(args.graded)


def sample_over_types(queries: Sequence[Query], count: int, seed: int) -> list[Query]:
    """A seeded sample, at most all, that takes the question types in turns, so that rare ones occur too."""
    by_type: dict[str, list[Query]] = defaultdict(list)
    for query in random.Random(seed).sample(queries, len(queries)):
        by_type[query["qtype"]].append(query)
    turns = zip_longest(*by_type.values())
    return [query for turn in turns for query in turn if query is not None][:count]


def retrieve(args: argparse.Namespace, sample: Sample) -> list[CandidateList]:
    """The base model's candidates among the chunks that training may see."""
    encoder = CachedEncoder(load_base(args, sample.chunks), args.data_dir)
    index = embed_corpus(encoder, sample.chunks)
    lists = retrieve_candidates(sample.queries, args.num_candidates, index=index)
    print(f"Retrieved candidates for {len(lists)} queries")
    return lists


# ---------------------------------------------------------------- judging


def check_server(judge: Judge, pairs: Sequence[Pair] | None = None) -> None:
    """Find out what an LLM judge's server can do, and print it, unless that is known or all of `pairs` is stored.

    Raises:
        Unavailable: it does not answer. Without `pairs` only where nothing is stored: later it may be seen that all is.
        InputError: it is of no use.
    """
    if not isinstance(judge, LLMJudge) or judge.stored_only or judge.findings is not None:
        return
    try:
        if pairs is None or judge.plan(pairs).to_ask:
            print(describe_findings(judge.check()))
    except Unavailable:
        if pairs is not None or not len(judge.store):
            raise


# ---------------------------------------------------------------- measuring the sample


def as_mined(lists: Sequence[CandidateList], args: argparse.Namespace) -> Sequence[CandidateList]:
    """The candidates as iterative_miner.py has them: where the judge alone finds positives, no answer is known."""
    if args.positives == "known":
        return lists
    return [
        CandidateList(query, tuple(replace(each, known=False) for each in found if each.rank <= args.num_candidates))
        for query, found in lists
    ]


def measure(
    lists: Sequence[CandidateList], judgments: Sequence[Judgment], chunks: Sequence[Chunk], mined: Mined
) -> dict[str, Any]:
    """The sample's part of small_sample_results.json."""
    rows = judged_pairs(lists, judgments, chunks)
    judged = [row for row in rows if has_grade(row)]
    reasons = Counter(row.unjudged_reason for row in rows if not has_grade(row))
    scores = Counter(whole_grade(row.grade) for row in judged)
    return {
        "score_distribution": {str(grade): scores[grade] for grade in GRADES} | {"unjudged": len(rows) - len(judged)},
        "mining": dict(mined.counts) | {"examples": len(mined.examples)},
        "hard_examples": hard_examples(mined, rows),
        # shuffled: the first few are a fair sample
        "sample_judgments": [asdict(row) for row in random.Random(0).sample(rows, len(rows))],
        "unjudged": dict(reasons.most_common()),
        "without_probabilities": sum(row.probabilities is None for row in judged),
        "agreement": agreement(
            [row.answer_key_grade for row in judged],
            [row.grade for row in judged],
            [row.query_id for row in judged],
        ),
        "corrections": corrections(judged),
        "biases": biases(judged),
    }


def hard_examples(mined: Mined, rows: Sequence[JudgedPair]) -> dict[str, list[dict[str, Any]]]:
    """What the model ranks wrongly: positives with the lowest ranked first, negatives with the highest."""
    row_of = {(row.query_id, row.chunk_id): asdict(row) for row in rows}
    positives = sorted(mined.hard_positives, key=lambda found: -found[1].rank)
    negatives = sorted(mined.hard_negatives, key=lambda found: found[1].rank)
    return {
        name: [row_of[query["query_id"], candidate.chunk_id] for query, candidate in found]
        for name, found in (("hard_positives", positives), ("hard_negatives", negatives))
    }


# ---------------------------------------------------------------- measuring the judge against people


def measure_against_people(sample: Sample, gpu_hour_price: float | None) -> dict[str, Any]:
    """Have the graded set judged, and compare."""
    graded = sample.graded
    assert graded is not None
    answers = [answer for question in graded.questions for answer in question.answers]
    print(f"\nJudging the {len(answers):,} answers of {graded.name} to {len(graded.questions)} questions...")
    pairs = graded_pairs(graded)
    judgments = judge_pairs(sample.judge, pairs, gpu_hour_price)
    by_id = {judgment.chunk_id: judgment for judgment in judgments}
    said = [(pair, answer.grade, by_id[pair.chunk["chunk_id"]]) for pair, answer in zip(pairs, answers, strict=True)]
    judged = [
        (pair, people, judgment.grade, judgment.probabilities)
        for pair, people, judgment in said
        if judgment.grade is not None
    ]
    grades = [grade for _, _, grade, _ in judged]
    relevant = [people >= RELEVANT_GRADE for _, people, _, _ in judged]
    return {
        "file": graded.name,
        "prompt_sha256": sample.judge.configuration["prompt_sha256"],
        "questions": len(graded.questions),
        "answers": len(answers),
        "unjudged": dict(Counter(judgment.unjudged_reason for _, _, judgment in said if judgment.grade is None)),
        "without_probabilities": sum(probabilities is None for _, _, _, probabilities in judged),
        "agreement": agreement(
            [people for _, people, _, _ in judged], grades, [pair.query["query_id"] for pair, _, _, _ in judged]
        ),
        "auc": finite_or_none(auc(grades, relevant)),
        "calibration": calibration([probabilities for _, _, _, probabilities in judged], relevant),
        "effort": effort_record(sample.judge.stats, gpu_hour_price),
        "largest_disagreements": [
            {
                "question": pair.query["query"],
                "answer": as_read(pair.chunk),
                "people": people,
                "judge": grade,
                "probabilities": probabilities,
            }
            for pair, people, grade, probabilities in sorted(judged, key=lambda each: -abs(each[1] - each[2]))
        ][:DISAGREEMENTS_LISTED],
    }


def why_refused(graded: dict[str, Any] | None, min_kappa: float | None) -> str | None:
    """One line where the judge agrees less with people than --min-kappa asks for, or was not judging: of a part of the
    pairs no kappa says how good it is. None where it passes, or nothing is asked for."""
    if graded is None or min_kappa is None:
        return None
    unjudged = sum(graded["unjudged"].values())
    if unjudged > MAX_UNJUDGED * graded["answers"]:
        return (
            f"judge not measured: {unjudged:,} of the {graded['answers']:,} answers of {graded['file']} are unjudged, "
            f"more than {MAX_UNJUDGED:.0%}; fix the server (or leave out --stored-only) and run again: what is stored "
            "is not asked again"
        )
    reached = graded["agreement"]["weighted_kappa"]
    if reached is None or reached < min_kappa:
        return (
            f"judge not good enough: weighted kappa {figure(reached)} with {graded['file']}, --min-kappa is "
            f"{min_kappa:g}; improve the prompt ({PROMPT_PLACE}, or --prompt FILE) or serve a better model"
        )
    return None


def nothing_to_learn(results: dict[str, Any], judge: Judge) -> str | None:
    """One line where an LLM graded other passages than known answers, and no question gives an example."""
    judged = [row for row in results["sample_judgments"] if row["grade"] is not None and not row["known_answer"]]
    if results["mining"]["examples"] or not judged or not isinstance(judge, LLMJudge):
        return None
    return (
        f"{NO_EXAMPLES}; see {where_to_turn(results['agreement'])} (`run_full_pipeline.sh --from train` trains all the "
        "same)"
    )


# ---------------------------------------------------------------- what looks wrong


def find_warnings(results: dict[str, Any], judge: Judge) -> Iterator[str]:
    """One line per thing that looks wrong, with the place to turn to."""
    is_judged = any(results["score_distribution"][str(grade)] for grade in GRADES)
    if is_judged and not results["mining"]["examples"] and not results["refused"]:
        yield f"{NO_EXAMPLES}; with more --num-candidates there may be some"
    if not isinstance(judge, LLMJudge):  # the answer key's scores are the data's, and nothing to mend
        return
    yield from score_warnings(results["score_distribution"])
    yield from server_warnings(judge.findings)
    if judge.findings is not None:
        yield from name_warnings(judge.findings, judge.store.answered_as(judge.model))
    if judge.findings is not None and judge.findings.probabilities:
        yield from stored_warnings(results, judge.store.path)
    yield from unjudged_warnings(results["unjudged"], len(results["sample_judgments"]), "the sample's")
    yield from order_warnings(results["agreement"], "the answer key")
    yield from correction_warnings(results["corrections"])
    yield from mining_warnings(results)
    length = results["biases"]["length"]["spearman"]
    if length is not None and abs(length) > LENGTH_BIAS:
        kind = "longer" if length > 0 else "shorter"
        yield f"{kind} passages are graded higher (Spearman {length:+.2f}); see {PROMPT_PLACE}"
    if results["refused"]:
        yield results["refused"]
    elif graded := results["graded"]:
        yield from unjudged_warnings(graded["unjudged"], graded["answers"], f"{graded['file']}'s")
        yield from people_warnings(graded)


def score_warnings(distribution: dict[str, int]) -> Iterator[str]:
    """On scores that dominate or never occur."""
    counts = {grade: distribution[str(grade)] for grade in GRADES}
    total = sum(counts.values())
    if not total:
        yield f"no pair was judged; see {PROMPT_PLACE}"
        return
    most = max(counts, key=lambda grade: counts[grade])
    if counts[most] > DOMINATING * total:
        yield f"score {most} dominates: {counts[most] / total:.0%} of the judged pairs; see {PROMPT_PLACE}"
    if never := [str(grade) for grade, count in counts.items() if not count]:
        yield f"score {' and '.join(never)} never given; see {PROMPT_PLACE}"


def mining_warnings(results: dict[str, Any]) -> Iterator[str]:
    """On grades that training makes little of."""
    counts, known = results["mining"], results["biases"]["known_answers"]
    if counts["uncertain"] > MAX_UNCERTAIN * counts["candidates"]:
        share = counts["uncertain"] / counts["candidates"]
        yield (
            f"{share:.0%} of the pairs are graded between irrelevant and relevant, and so not used; see "
            f"{where_to_turn(results['agreement'])}"
        )
    if known["pairs"] and known["share_graded_1"] > MAX_REFUTED:
        share = known["share_graded_1"]
        yield f"{share:.0%} of the {known['pairs']} known answers are graded 1; see {PROMPT_PLACE}"


def server_warnings(findings: JudgeFindings | None) -> Iterator[str]:
    """On what the server cannot do."""
    if findings is None:
        return
    if findings.constraint == "none":
        yield (
            "the server does not hold the model to a grade: no constraint of "
            "hardneg/judging/judge_requests.py:CONSTRAINTS binds; use vLLM 0.12 or newer, or llama.cpp's server"
        )
    if not findings.probabilities:
        yield (
            "the server gives no usable token probabilities, so grades are whole numbers, not weighted means; fix "
            "that before judging more, as stored grades stay as they are (see "
            "hardneg/judging/judge_answers.py:read_answer())"
        )
    for url, reason in findings.unreachable.items():
        yield f"{url} did not answer ({reason}); see hardneg/judging/probing.py:survey()"


def stored_warnings(results: dict[str, Any], store: Path) -> Iterator[str]:
    """On grades stored without probabilities, by a server that gives them now: they are not asked again."""
    judged = len(results["sample_judgments"]) - sum(results["unjudged"].values())
    counts = [("the sample's", results["without_probabilities"], judged)]
    if graded := results["graded"]:
        judged = graded["answers"] - sum(graded["unjudged"].values())
        counts.append((f"{graded['file']}'s", graded["without_probabilities"], judged))
    many = [
        f"{without:,} of {whose} {judged:,} judged pairs"
        for whose, without, judged in counts
        if without > MAX_WITHOUT_PROBABILITIES * judged
    ]
    if many:
        yield (
            f"{' and '.join(many)} have no token probabilities, though the server gives them now; their grades stay "
            "whole numbers. If an earlier run stored them (from_store in the results), have them judged anew: "
            f"take another --data-dir, or move {store} away (with its -wal file)"
        )


def unjudged_warnings(reasons: dict[str, int], pairs: int, whose: str) -> Iterator[str]:
    """On too many pairs without a grade."""
    count = sum(reasons.values())
    if count > MAX_UNJUDGED * pairs:
        place = (
            "leave out --stored-only" if NOT_STORED in reasons else "see hardneg/judging/judge_answers.py:read_answer()"
        )
        yield f"{count / pairs:.1%} of {whose} pairs are unjudged ({describe_reasons(reasons)}); {place}"


def order_warnings(found: dict[str, Any], whom: str) -> Iterator[str]:
    """On a judge that does not tell a question's answers from other passages."""
    order = found["auc_within_questions"]
    if order is not None and order < LOW_AUC:
        yield (
            f"the judge hardly tells answers from other passages of their question (AUC {order:.2f} with {whom}, 0.50 "
            f"by chance): serve a better model or try another prompt ({PROMPT_PLACE}); other thresholds hardly help"
        )


def correction_warnings(found: dict[str, Any]) -> Iterator[str]:
    """On a judge that is misled by what misleads the model."""
    if found["questions"] >= ENOUGH_QUESTIONS and found["share"] < LOW_CORRECTIONS:
        yield (
            f"of the passages that the model ranks above an answer, the judge grades {found['share']:.0%} below it "
            "(half by chance): it takes hard negatives for answers. Serve a better model, try another prompt, or "
            f"compare the result with that of --judge answer-key; see {PROMPT_PLACE}"
        )


def people_warnings(graded: dict[str, Any]) -> Iterator[str]:
    """On a judge that agrees too little with people."""
    whom, kappa = f"people ({graded['file']})", graded["agreement"]["weighted_kappa"]
    badly_ordered = list(order_warnings(graded["agreement"], whom))
    yield from badly_ordered
    if not badly_ordered and kappa is not None and kappa < LOW_KAPPA_WITH_PEOPLE:
        yield f"weighted kappa with {whom} is only {kappa:.2f}; see {PROMPT_PLACE}"


def where_to_turn(found: dict[str, Any]) -> str:
    """What to change where grades are of no use: thresholds only for a judge that orders passages well."""
    order = found["auc_within_questions"]
    return PROMPT_PLACE if order is None or order < LOW_AUC else MINING_PLACE


# ---------------------------------------------------------------- the report


def print_report(results: dict[str, Any], args: argparse.Namespace) -> None:
    """The findings in readable form."""
    print_scores(results["score_distribution"])
    print(f"\nWHAT TRAINING WOULD USE: {results['mining']['examples']:,} examples")
    print(describe_mining(results["mining"], MINING))
    hard = results["hard_examples"]
    print_examples("HARD POSITIVES: relevant, but ranked low by the model", hard["hard_positives"])
    print_examples("HARD NEGATIVES: irrelevant, but ranked high by the model", hard["hard_negatives"])
    judgments = results["sample_judgments"]
    print(f"\nSAMPLE JUDGMENTS: {SHOWN} of {len(judgments):,}")
    print_rows(judgments[:SHOWN])
    print_biases(results["biases"])
    if args.judge == "llm":
        print_agreement("AGREEMENT WITH THE ANSWER KEY", results["agreement"], "key")
        print_corrections(results["corrections"])
        print_rate(results["rate"])
    if results["graded"]:
        print_graded(results["graded"])
    print_verdict(results["warnings"], args.output_file)


def print_scores(distribution: dict[str, int]) -> None:
    """Counts, shares and bars."""
    print("\nSCORE DISTRIBUTION")
    total, most = sum(distribution.values()), max(distribution.values())
    for name, count in distribution.items():
        print(f"  {name:<8} {count:>6,} {count / total:>6.1%}  {'█' * round(BAR_WIDTH * count / most)}".rstrip())


def print_examples(title: str, examples: Sequence[dict[str, Any]]) -> None:
    """The most striking example of each of a few questions."""
    print(f"\n{title} ({len(examples):,})")
    of_question: dict[str, dict[str, Any]] = {}
    for example in examples:
        of_question.setdefault(example["query_id"], example)
    print_rows(list(of_question.values())[:SHOWN])


def print_rows(rows: Iterable[dict[str, Any]]) -> None:
    """Judged pairs, in three lines each."""
    for row in rows:
        grade = f"unjudged ({row['unjudged_reason']})" if row["grade"] is None else f"grade {row['grade']:.2f}"
        if row["probabilities"]:
            grade += f" (1-4: {' '.join(f'{p:.2f}' for p in row['probabilities'])})"
        known = ", known answer" if row["known_answer"] else ""
        print(f"  {grade}, rank {row['rank']}, cosine {row['cosine']:.2f}{known}")
        print(f"    Q: {excerpt(row['question'], TEXT_WIDTH)}")
        print(f"    P: {excerpt(row['chunk_text'], TEXT_WIDTH)}")


def print_biases(found: dict[str, Any]) -> None:
    """Mean grades by what they should not depend on."""
    print("\nMEAN GRADE")
    known = found["known_answers"]
    others = figure(known["mean_grade_of_rest"])
    print(f"  known answers {figure(known['mean_grade'])} ({known['pairs']}), other passages {others}")
    for name, unit in (("length", "characters"), ("rank", "rank")):
        cells = []
        for found_bin in found[name]["by_bin"]:
            first, last = found_bin["from"], found_bin["to"]
            span = f"{first}-{last}" if last > first else str(first)
            cells.append(f"{span}: {found_bin['mean_grade']:.2f}")
        print(f"  other passages by {unit}   {'   '.join(cells)}   (Spearman {figure(found[name]['spearman'])})")


def print_agreement(title: str, found: dict[str, Any], rows: str) -> None:
    """The confusion matrix and the kappas."""
    print(f"\n{title} ({found['pairs']:,} pairs)")
    header = (f"{rows} \\ judge", *GRADES)
    print(
        aligned(
            [header, *((grade, *counts) for grade, counts in zip(map(str, GRADES), found["confusion"], strict=True))]
        )
    )
    low, high = found["weighted_kappa_ci95"]
    print(
        f"  Cohen's kappa {figure(found['cohen_kappa'])}, weighted kappa {figure(found['weighted_kappa'])} "
        f"(95% CI over questions {figure(low)} to {figure(high)}), relevant or not {figure(found['binary_kappa'])}"
    )
    low, high = found["auc_within_questions_ci95"]
    print(
        f"  AUC of answers against other passages of their question {figure(found['auc_within_questions'])} "
        f"(95% CI over questions {figure(low)} to {figure(high)}; 0.50 by chance)"
    )


def print_corrections(found: dict[str, Any]) -> None:
    """Whether the judge contradicts the model where the model is wrong."""
    low, high = found["share_ci95"]
    print(
        f"  of {found['pairs']:,} passages that the model ranks above an answer, the judge grades below it "
        f"{figure(found['share'])} (95% CI over {found['questions']} questions {figure(low)} to {figure(high)}; 0.50 "
        "by chance)"
    )


def print_rate(rate: dict[str, Any]) -> None:
    """Judgments per second, and what follows for the full run."""
    print("\nRATE")
    full = rate["full_run_estimate"]
    if full is None:
        print("  none measured: nothing was asked; another --seed draws other questions (without --stored-only)")
        return
    few = f", measured on {full['measured_on']} judgments only" if full["measured_on"] < MIN_ASKED else ""
    print(f"  {describe_effort(rate)}")
    size = f"{full['queries']} queries x {full['candidates']} candidates x {full['iterations']} iterations"
    price = "" if full["cost"] is None else f", and cost {full['cost']:.2f}"
    took = f"{duration(full['seconds'])} of judging at {full['judgments_per_second']:.1f}/s{price}{few}"
    print(f"  the full run ({size} = {full['judgments']:,} judgments) would take {took}")


def print_graded(graded: dict[str, Any]) -> None:
    """How the judge compares with people."""
    title = f"JUDGE AGAINST PEOPLE: {graded['file']}, {graded['questions']} questions, {graded['answers']:,} answers"
    print_agreement(title, graded["agreement"], "people")
    print(f"  AUC of the expected grade at people's grade >= {RELEVANT_GRADE}: {figure(graded['auc'])}")
    if found := graded["calibration"]:
        error = found["expected_calibration_error"]
        print(f"  P(grade >= {RELEVANT_GRADE}) against the share that people grade so, calibration error {error:.2f}:")
        rows = [
            (f"{b['from']:.1f}-{b['to']:.1f}", b["pairs"], f"{b['mean_predicted']:.2f}", f"{b['observed_share']:.2f}")
            for b in found["bins"]
        ]
        print(aligned([("judge says", "pairs", "mean", "people"), *rows], indent="    "))
    print(f"  prompt {graded['prompt_sha256'][:8]}: {describe_effort(graded['effort'])}")


def print_verdict(warnings: Sequence[str], output_file: Path) -> None:
    """What looks wrong, and where to go next."""
    if warnings:
        print("\nSOMETHING LOOKS WRONG")
        print("\n".join(f"  - {warning}" for warning in warnings))
        print("Mend that first and run this again. Nothing is asked twice; --prompt FILE tries another wording.")
    else:
        print("\nLooks right. Read ten judgments yourself, then go on to training")
    print(f"Wrote {output_file}; see .score_distribution, .mining, .hard_examples and .sample_judgments with jq")


def figure(value: float | None) -> str:
    """Two decimals, n/a where there is none."""
    return "n/a" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    run(main)
