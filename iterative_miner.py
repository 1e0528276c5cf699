"""Adapt an embedding model to a domain by iterative hard-negative mining with a judge.

Each iteration embeds the corpus, retrieves candidates per training question, has every (query, chunk) pair graded
1-4, mines answers and hard negatives to learn from, and fine-tunes. What is kept is the model that is best
on the validation questions without having forgotten the guard questions; test questions are never read.

    python iterative_miner.py --num-queries 1000 --llm-endpoint http://localhost:8000/v1
    python iterative_miner.py --judge answer-key --base-model all-MiniLM-L6-v2   # no LLM, no GPU, no hub

Needs the outputs of prepare_corpus.py and prepare_queries.py. Killed at any instant and started again with the same
arguments it resumes where it stopped: judgments, embeddings and finished iterations are all kept.
"""

import argparse
import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import closing, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from inspect import signature
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from hardneg.corpus.artifacts import Chunk, Query, load_chunks, load_queries, read_manifest
from hardneg.corpus.topics import BOILERPLATE_ROWS, boilerplate_ids
from hardneg.embedding.device import claim_device, describe_device, find_gpu
from hardneg.embedding.encoder import CachedEncoder
from hardneg.embedding.memory import (
    activation_bytes,
    check_room,
    free_bytes,
    give_back,
    mini_batch_size,
    sizes_to_try,
    weight_bytes,
)
from hardneg.embedding.model_files import corpora_of, foreign_training, strength_of, training_record
from hardneg.embedding.models import DEFAULT_MODEL, check_trainable, load_model, resolve_model, truncation_notes
from hardneg.judging import judge_report
from hardneg.judging.batch_files import check_files, export_batch, import_batch
from hardneg.judging.candidates import (
    CandidateList,
    Index,
    candidate_pairs,
    is_graded,
    rank_candidates,
    training_index,
    with_grades,
)
from hardneg.judging.judge import NOT_STORED, AnswerKeyJudge, Judge, JudgeStats, Judgment, Pair, describe_reasons
from hardneg.judging.judge_requests import CONSTRAINTS, PromptTemplate
from hardneg.judging.judgment_store import JUDGMENTS, JudgmentStore
from hardneg.judging.llm_judge import DEFAULT_CONCURRENCY, LLMJudge
from hardneg.learning import run_folder
from hardneg.learning.averaging import average_weights, average_with_earlier, weights_of
from hardneg.learning.mining import (
    FUSION_K,
    Mined,
    MiningRules,
    accumulate,
    check_examples,
    describe_mining,
    examples_of,
    irrelevant_up_to,
    surest,
)
from hardneg.learning.recipe import FEW_STEPS, Recipe
from hardneg.learning.validation import (
    Score,
    Tried,
    Validator,
    best_iteration,
    choose_strength,
    describe_score,
    past_the_best,
    why_none,
)
from hardneg.measuring.graded import GradedSet, open_guard
from hardneg.measuring.metrics import CONFIDENCE, RESAMPLING_SEED, K
from hardneg.running import flag_types
from hardneg.running.errors import InputError, explain_memory_errors
from hardneg.running.files import read_text, write_json_lines
from hardneg.running.script import run

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# ---------------------------------------------------------------- the stage


@dataclass(frozen=True)
class Setting:
    """Everything an iteration works with."""

    args: argparse.Namespace
    chunks: list[Chunk]
    queries: list[Query]  # all training questions
    judge: Judge
    base: CachedEncoder  # the base model
    validator: Validator  # validation questions against the whole corpus
    pool: Validator  # fewer of them against the base model's candidates: to compare strengths quickly
    recipe: Recipe  # with its scale, if anything is left to train
    configuration: dict[str, Any]

    def encoder(self, model: "SentenceTransformer") -> CachedEncoder:
        """The model with the project's embedding cache."""
        return CachedEncoder(model, self.args.data_dir)


def main(argv: Sequence[str] | None = None, judge: Judge | None = None) -> None:
    """Adapt the model: iterations of five steps, then keep the best. `judge` replaces the one that the flags name."""
    args = parse_arguments(argv)
    if args.export_judgments:
        run_folder.check_apart(args.output_dir, {"--export-judgments": args.export_judgments})
        export_judgments(args.data_dir, args.export_judgments)
        return
    with prepared(args, judge) as setting:
        for number in range(args.iterations):
            if not run_iteration(number, setting):
                return
        if ends_before_judging(args):
            print(f"All iterations of {args.output_dir} are done: nothing is left to judge")
        else:
            keep_best(setting, run_folder.finished_iterations(args.output_dir))


@contextmanager
def prepared(args: argparse.Namespace, judge: Judge | None) -> Iterator[Setting]:
    """Check every input before anything costs time or money, and measure the base model.

    The output folder is locked meanwhile, except where the flags end the run before any judging.
    """
    check_beforehand(args)
    if not ends_before_judging(args):
        run_folder.check_idle(args.output_dir)  # claimed below, but told before server and GPU are asked for anything
    manifest = read_manifest(args.data_dir)
    chunks = load_chunks(args.data_dir, manifest)
    queries, val_queries = (load_queries(args.data_dir, manifest, split) for split in ("train", "val"))
    guard = open_guard(args.guard)
    for warning in foreign_training(args.base_model, manifest["corpus"]["sha256"]):
        print(warning)
    judge = judge or open_judge(args)
    if isinstance(judge, LLMJudge) and asks_server(args):
        findings = judge.check()
        print(judge_report.describe_findings(findings))
        for warning in judge_report.name_warnings(findings, judge.store.answered_as(judge.model)):
            print(f"Warning: {warning}")
    model = load_base(args, chunks)
    if trains(args):
        left = args.iterations - len(run_folder.finished_iterations(args.output_dir))
        # with the final one, which is written whole before an older one is deleted
        run_folder.check_disk(args.output_dir, left + 2, weight_bytes(model))
        if model.device.type == "cuda":
            texts = (chunk["text"] for chunk in chunks), (query["query"] for query in queries)
            check_room(free_bytes("cuda"), weight_bytes(model), activation_bytes(model, *texts))
    base = CachedEncoder(model, args.data_dir)
    configuration = whole_configuration(args, manifest, base.fingerprint, judge, guard)
    if is_dry := ends_before_judging(args):
        run_folder.check_owner(args.output_dir, configuration)
    with nullcontext() if is_dry else run_folder.claimed(args.output_dir, configuration):
        run_folder.check_finished(args.output_dir)
        validator = Validator(chunks, val_queries, guard, base)
        with progress_bar("Embedding (base model)", len(chunks)) as bar:
            base.encode_passages([chunk["text"] for chunk in chunks], bar.update)
        found = describe_score(validator.base_score)
        print(f"Base model {args.base_model} on {len(val_queries)} validation questions: {found}")
        pool = validator.pool(POOL_QUERIES, POOL_DEPTH, args.seed)
        recipe = with_scale(recipe_of(args), validator, args.seed) if trains(args) else recipe_of(args)
        yield Setting(args, chunks, queries, judge, base, validator, pool, recipe, configuration)


def load_base(args: argparse.Namespace, chunks: Sequence[Chunk]) -> "SentenceTransformer":
    """The base model on the device that --device names; says what it does not read of the chunks.

    Raises:
        InputError: it cannot be loaded, or not be trained here.
    """
    base = load_model(args.base_model, claim_device(args.device))
    print(f"Embedding model on {describe_device(base.device.type)}")
    check_trainable(base, args.base_model)
    for note in truncation_notes(args.base_model, base, chunks):
        print(note)
    return base


def run_iteration(number: int, setting: Setting) -> bool:
    """The five steps, unless this iteration is saved already. False where --dry-run or --judge-batch ends the run."""
    args = setting.args
    rule, folder = "=" * 60, run_folder.iteration_folder(args.output_dir, number)
    print(f"\n{rule}\nITERATION {number}\n{rule}")
    if run_folder.is_finished(folder):
        print(f"Already done: {folder}")
        return True
    started = time.monotonic()
    print("\n[Step 1/5] Embedding corpus...")
    index = embed_corpus(load_retriever(setting, number), setting.chunks)

    print("\n[Step 2/5] Retrieving candidates...")
    queries = questions_of(setting, number)
    lists = retrieve_candidates(queries, args.num_candidates, index=index, known_answers=args.positives == "known")
    print(f"Retrieved candidates for {len(lists)} queries")
    del index  # and with it the last iteration's model
    give_back(setting.base.model.device.type)  # the judge's server may want it

    if args.judge_results:
        take_in_results(setting, lists)
    if ends_before_judging(args):
        end_before_judging(setting, lists)
        return False
    print("\n[Step 3/5] LLM judging relevance...")
    lists = llm_judge_relevance(lists, setting.chunks, setting.judge, args.gpu_hour_price)
    judged = sum(is_graded(candidate) for item in lists for candidate in item.candidates)
    print(f"LLM judged {judged} (query, chunk) pairs")
    check_unjudged(lists, args.max_unjudged, setting.judge.stats.reasons)

    print("\n[Step 4/5] Mining hard examples...")
    mined = mine_hard_examples(lists, boilerplate_ids(setting.chunks))
    print(f"Mined {len(mined.hard_positives)} hard positives, {len(mined.hard_negatives)} hard negatives")
    print(describe_mining(mined.counts, MINING))
    check_examples(mined)

    print("\n[Step 5/5] Fine-tuning model...")
    learnt = accumulate([*mined_before(setting, number), mined])
    print(f"Training on {len(learnt.examples)} examples...")
    model, findings = adapt(setting, learnt, number)
    findings["counts"] = {**mined.counts, "examples": len(learnt.examples)}
    findings["seconds"] = round(time.monotonic() - started, 1)
    run_folder.save_model(model, folder, iteration_record(setting, number, findings), lists)
    print(f"\nModel saved to: {folder}")
    return True


def load_retriever(setting: Setting, number: int) -> CachedEncoder:
    """What iteration `number` retrieves with: the base model, then the last iteration's. All train from the base."""
    if number == 0:
        return setting.base
    folder = run_folder.iteration_folder(setting.args.output_dir, number - 1)
    return setting.encoder(load_model(str(folder), setting.base.model.device.type))


def embed_corpus(encoder: CachedEncoder, chunks: Sequence[Chunk]) -> Index:
    """Embed every chunk; index those that training may see."""
    with progress_bar("Embedding", len(chunks)) as bar:
        vectors = encoder.encode_passages([chunk["text"] for chunk in chunks], bar.update)
    print(f"Embedded {len(vectors)} chunks")
    return training_index(encoder, chunks, vectors)


def questions_of(setting: Setting, number: int) -> list[Query]:
    """The training questions that iteration `number` asks; says so where there are too few for new ones."""
    there, count = len(setting.queries), setting.args.num_queries
    if there < (number + 1) * count:
        taken = "all" if there <= count else "some"
        print(f"There are only {there:,} training questions: {taken} are asked{' again' if number else ''}")
    return sample_queries(setting.queries, count, setting.args.seed, number)


REASONS_SHOWN = 3  # the commonest, of answers without a grade and of failures


def take_in_results(setting: Setting, lists: list[CandidateList]) -> None:
    """Store the results of the batch file of --judge-results."""
    assert isinstance(setting.judge, LLMJudge)  # see check_batch_arguments
    results = setting.args.judge_results
    taken = import_batch(setting.judge, candidate_pairs(lists, setting.chunks), results)
    print(
        f"Took in {results}: {taken.judged:,} judged, {taken.unjudged.total():,} without a grade, "
        f"{taken.failed.total():,} failed, {taken.unknown:,} that nothing here waits for"
    )
    for what, reasons in (("without a grade", taken.unjudged), ("failed", taken.failed)):
        for reason, count in reasons.most_common(REASONS_SHOWN):
            print(f"  {count:,} {what}: {reason}")


def end_before_judging(setting: Setting, lists: list[CandidateList]) -> None:
    """Print what is left to judge (--dry-run), or write it to a batch file (--judge-batch)."""
    args, judge = setting.args, setting.judge
    pairs = list(candidate_pairs(lists, setting.chunks))
    if not isinstance(judge, LLMJudge):
        print(f"{len(pairs):,} pairs for the answer key, which asks nobody")
        return
    if args.judge_batch:
        written = export_batch(judge, pairs, args.judge_batch, args.batch_constraint or "choice")
        then = "come back with their results: --judge-results FILE" if written else "nothing is left to ask"
        print(f"{written:,} requests written to {args.judge_batch}; {then}")
    if args.dry_run:
        print(f"{judge_report.describe_plan(judge.plan(pairs))} in this iteration; nothing was asked")


def mined_before(setting: Setting, number: int) -> list[Mined]:
    """What the iterations before `number` mined, from the graded candidates in their folders."""
    folders = (run_folder.iteration_folder(setting.args.output_dir, earlier) for earlier in range(number))
    boilerplate = boilerplate_ids(setting.chunks)
    return [mine_hard_examples(run_folder.graded_candidates(folder), boilerplate) for folder in folders]


def adapt(setting: Setting, learnt: Mined, number: int) -> tuple["SentenceTransformer", dict[str, Any]]:
    """The base model fine-tuned, averaged and measured on validation questions; with what was found on the way."""
    recipe, seed = setting.recipe, setting.args.seed + number
    with explain_memory_errors("training"):
        model = deepcopy(setting.base.model)
        losses = fine_tune(model, learnt, setting.chunks, recipe, seed, setting.base)
    strongest = average_with_trained(setting, model, number)
    strengths = average_with_base(setting, model, strongest)
    print(f"Fine-tuning complete for iteration {number}")
    with progress_bar("Validating", setting.validator.n_passages) as bar:
        score = setting.validator.score(setting.encoder(model), bar.update)
    print(f"Validation after iteration {number}: {describe_score(score, setting.validator.base_score)}")
    findings = {"scale": recipe.scale, "epoch_losses": losses, "strengths": strengths, "validation": asdict(score)}
    return model, findings


def iteration_record(setting: Setting, number: int, findings: dict[str, Any]) -> dict[str, Any]:
    """An iteration's training.json: what determined the result, and what was found."""
    judge = judge_report.judge_record(setting.judge)
    if isinstance(setting.judge, LLMJudge):
        judge["effort"] = judge_report.effort_record(setting.judge.stats, setting.args.gpu_hour_price)
    return run_record(setting) | {"iteration": number, "judge": judge} | findings


def run_record(setting: Setting) -> dict[str, Any]:
    """What the training.json of every model of a run says, also that of the base model where none is better."""
    return {
        "configuration": setting.configuration,
        "base_validation": asdict(setting.validator.base_score),
        "base_trained_on": corpora_of(training_record(Path(setting.configuration["base_model"]))),
        "arguments": vars(setting.args),
        "versions": {name: version(name) for name in ("torch", "transformers", "sentence-transformers")},
    }


def keep_best(setting: Setting, records: Sequence[dict[str, Any]]) -> None:
    """Make `final/` the best iteration on validation that the guard passes, or else the base model."""
    scores, bases = ([Score(**record[of]) for record in records] for of in ("validation", "base_validation"))
    base, tolerance = setting.validator.base_score, setting.args.guard_tolerance
    final = setting.args.output_dir / "final"
    best = best_iteration(scores, bases, tolerance)
    if best is None:
        reason = f"the base model: {why_none(scores, bases, tolerance)}"
        record = run_record(setting) | {"validation": asdict(base), "chosen": reason}
        run_folder.save_model(setting.base.model, final, record)
    else:
        passed = "" if base.guard_low is None else " among those that the guard passes"
        reason = f"iteration {best} is the best on validation{passed}: {describe_score(scores[best], bases[best])}"
        source = run_folder.iteration_folder(setting.args.output_dir, best)
        run_folder.copy_as_final(source, final, records[best] | {"chosen": reason})
    print(f"\nFinal model: {reason}")
    print(f"Model saved to: {final}")


def export_judgments(data_dir: Path, target: Path) -> None:
    """Every judgment of the store as JSON lines."""
    path = data_dir / JUDGMENTS
    if not path.exists():
        raise InputError(f"{path} is missing; judge something first, or name its --data-dir")
    with JudgmentStore(path) as store:
        print(f"{write_json_lines(target, store):,} judgments written to {target}")


def progress_bar(what: str, n_passages: int) -> tqdm:
    """A bar that vanishes when done, so that the stage's own line stays."""
    return tqdm(desc=what, total=n_passages, unit="passage", leave=False)


# ---------------------------------------------------------------- what to judge


def sample_queries(queries: Sequence[Query], count: int, seed: int, number: int) -> list[Query]:
    """The training questions of one iteration: new ones until all have been asked, then from the first again.

    They come in one seeded order, whatever the count: a run of more questions begins with those of a smaller one, whose
    judgments are stored. The same questions mined again added nothing, others a little (LOG.md,
    "Other questions in the second iteration").

    Args:
        queries: all training questions.
        count: how many of them; all, where there are fewer.
        seed: of the order.
        number: of the iteration, from 0.
    """
    count = min(count, len(queries))
    order = random.Random(seed).sample(queries, len(queries))
    return list(islice(cycle(order), number * count, (number + 1) * count))


def retrieve_candidates(
    queries: Sequence[Query], k: int = 50, *, index: Index, known_answers: bool = True
) -> list[CandidateList]:
    """Each query's k nearest chunks by cosine, plus its known answers wherever the model ranks them.

    Args:
        queries: training queries.
        k: chunks per query; what is set here is the default of --num-candidates. 50 as in the paper; 10 would
            need a fifth of the judgments.
        index: the searchable chunks.
        known_answers: False for a corpus without an answer key: the judge alone decides what is relevant.
    """
    vectors = index.encoder.encode_queries([query["query"] for query in queries])
    return rank_candidates(queries, vectors, index, k, known_answers)


DEFAULT_ENDPOINT = "http://localhost:8000/v1"
JUDGE_PROMPT = """\
You grade how well a passage answers a question.

4 = the passage answers the question explicitly and completely
3 = the passage answers the question in part
2 = the passage is about the same subject but does not answer the question
1 = the passage is about something else

A passage about a different condition than the one asked about is at most 2, however similar it sounds. A passage on
the right condition that deals with another aspect of it than the one asked about is at most 2.
Respond with the grade only: 1, 2, 3 or 4.

Question: {query}

Passage: {passage}"""


def llm_judge_relevance(
    lists: Sequence[CandidateList], chunks: Sequence[Chunk], judge: Judge, gpu_hour_price: float | None = None
) -> list[CandidateList]:
    """Have every candidate graded; `JUDGE_PROMPT` above is what an LLM judge is asked.

    Args:
        lists: candidates per query; one query's candidates are asked together, so that a server's prefix cache works.
            A passage that does not name its topic is shown to the LLM under its title (`judge.as_read`).
        chunks: the corpus, by chunk id.
        judge: an LLM behind a server or the answer key.
        gpu_hour_price: price of an hour of the server, for the progress bar.

    Returns:
        the same candidates with expected grades; those the judge gave no usable answer for stay None.
    """
    pairs = list(candidate_pairs(lists, chunks))
    print(f"Judging {len(pairs)} candidates...")
    graded = with_grades(lists, judge_pairs(judge, pairs, gpu_hour_price))
    if isinstance(judge, LLMJudge):
        print(judge_report.describe_effort(judge_report.effort_record(judge.stats, gpu_hour_price)))
    return graded


def judge_pairs(judge: Judge, pairs: Sequence[Pair], gpu_hour_price: float | None) -> list[Judgment]:
    """Judge under a progress bar. Prints first what an LLM has to do, and how long it will take once that is known.

    Where it is left early, what a server is answering is waited for and stored. The judge's `stats` are of these pairs
    afterwards.
    """
    judged: list[Judgment] = []
    to_ask, is_told = 0, False
    judge.stats = stats = JudgeStats()
    if isinstance(judge, LLMJudge):
        plan = judge.plan(pairs)
        to_ask = plan.to_ask
        print(judge_report.describe_plan(plan) + (" (but no server is asked)" if judge.stored_only else ""))
    unjudged = 0
    try:
        with closing(judge.judge(pairs)) as judgments, tqdm(total=len(pairs), unit="pair") as bar:
            for judgment in judgments:
                judged.append(judgment)
                unjudged += judgment.grade is None
                left = judge_report.describe_left(stats, to_ask, gpu_hour_price)
                if left and not is_told:
                    tqdm.write(f"At {stats.rate:.1f} answers/s: {left}")
                    is_told = True
                bar.set_postfix_str(f"unjudged {unjudged}" + (left and f", {left}"), refresh=False)
                bar.update()
    except InputError as error:
        raise type(error)(
            f"{error}; {stats.judged:,} judgments of this run are stored, and {to_ask - stats.judged:,} of "
            f"{len(pairs):,} pairs are left to ask: the same command resumes there"
        ) from None
    return judged


MAX_UNJUDGED = 0.02  # share of the pairs that may stay without a grade


def check_unjudged(lists: Iterable[CandidateList], most: float, reasons: Counter[str]) -> None:
    """Raise InputError where more than this share of the pairs has no grade: nothing should be trained on the rest."""
    grades = [candidate.grade for item in lists for candidate in item.candidates]
    unjudged = grades.count(None)
    if unjudged > most * len(grades):
        remedy = "fix the server or the prompt, and run the same command again"
        if NOT_STORED in reasons:
            remedy = "write the rest to a batch file (--judge-batch FILE), or leave out --stored-only and "
            remedy += "--judge-results, so that a server is asked"
        raise InputError(
            f"{unjudged:,} of {len(grades):,} pairs are unjudged, more than --max-unjudged {most:g}; nothing was "
            f"trained. Reasons: {describe_reasons(reasons) or 'none given'}. What was judged is stored; {remedy}"
        )


# ---------------------------------------------------------------- what to learn from


MINING = MiningRules(
    relevant_grade=3.0,
    irrelevant_grade=2.0,
    refuted_below=1.5,
    clearly_below=0.5,
    negatives=4,
    max_positives=2,
    max_found=1,  # what a noisy judge finds second is mostly wrong (LOG.md, "A noisy judge")
)


def mine_hard_examples(
    lists: Iterable[CandidateList], boilerplate: AbstractSet[int], rules: MiningRules = MINING
) -> Mined:
    """Find what the model ranks wrongly, and build training examples.

    A query trains on its surest positives (see `surest`): the first against its hardest negatives, the next against the
    negatives after these.

    A hard positive is a relevant chunk ranked below an irrelevant one; a hard negative is an irrelevant chunk ranked
    above a relevant one: among the candidates, by their order alone.

    Args:
        lists: graded candidates, best ranked first.
        boilerplate: chunks that answer many questions alike: a positive only where the query has no other.
        rules: the thresholds.
    """
    mined = Mined([], {}, set(), [], [], Counter())
    for query, candidates in lists:
        graded = [candidate for candidate in candidates if is_graded(candidate)]
        # The data says that a known answer is one; a judge that may be wrong must be sure of the contrary to refute it.
        positives = [c for c in graded if c.grade >= (rules.refuted_below if c.known else rules.relevant_grade)]
        up_to = irrelevant_up_to(graded, rules)
        irrelevant = [c for c in graded if c.grade <= up_to and not c.known]
        refuted = [c for c in graded if c.grade < rules.refuted_below and c.known]
        hard_positives = [c for c in positives if irrelevant and c.rank > irrelevant[0].rank]
        hard_negatives = [c for c in irrelevant if positives and c.rank < positives[-1].rank]
        mined.hard_positives.extend((query, c) for c in hard_positives)
        mined.hard_negatives.extend((query, c) for c in hard_negatives)
        mined.candidates.update(candidate.chunk_id for candidate in candidates)
        mined.spared[query["query_id"]] = {
            c.chunk_id for c in candidates if c.known or c.grade is None or c.grade > up_to
        }
        known = [candidate for candidate in candidates if candidate.known]
        trusted = surest(positives, known, boilerplate)[: rules.max_positives if known else rules.max_found]
        examples = examples_of(query, trusted, irrelevant, rules.negatives)
        mined.examples.extend(examples)
        mined.counts.update(
            candidates=len(candidates),
            unjudged=len(candidates) - len(graded),
            relevant=len(positives),
            trained_on=len(examples),
            uncertain=len(graded) - len(positives) - len(irrelevant) - len(refuted),
            irrelevant=len(irrelevant),
            refuted=len(refuted),
            queries_without_answer=int(not trusted),
            queries_without_irrelevant=int(bool(trusted) and not irrelevant),
        )
    return mined


# ---------------------------------------------------------------- how to learn it


RECIPE = Recipe(
    epochs=1,
    # Batches of 8 gain more in one iteration and no more in two, as the guard stops them (LOG.md, "Smaller batches").
    batch_size=32,
    learning_rate=1e-4,  # too much for some models (LOG.md, "A larger model"): --learning-rate
    warmup_fraction=0.1,
    scale=None,  # fitted: models are trained at anything from 20 (all-MiniLM) to 100 (E5) (LOG.md, "The scale")
    # Two ways of staying near the base model; without either, more is forgotten (LOG.md, "Contrast with passages that
    # stay where they are", "Training recipe").
    frozen_contrast_weight=1.0,  # of the contrast of questions with all candidates as the base model embeds them
    distillation_weight=6.0,  # of the distance from the base model's embeddings
)


# The scale is looked for between these: embedding models are trained at temperatures from 0.05 to 0.01. Smaller scales,
# which fit a model that knows little of the domain, were not tried.
SCALES = (20.0, 100.0)


def recipe_of(args: argparse.Namespace) -> Recipe:
    """The recipe at the rate that the flags ask for."""
    return replace(RECIPE, learning_rate=args.learning_rate)


def with_scale(recipe: Recipe, validator: Validator, seed: int) -> Recipe:
    """The recipe with a scale: where it has none, the one that fits the base model on the validation questions.

    What was mined would fit another one with each judge: one that errs as the model does finds what the model is sure
    of already, which wants too high a scale (LOG.md, "The scale by validation questions").
    """
    if recipe.scale is not None:
        return recipe
    scale = validator.base_scale(POOL_QUERIES, seed, MINING.max_positives, SCALES)
    end = " (the end of what is tried)" if min(abs(scale - bound) for bound in SCALES) < 0.05 else ""
    print(f"Scale of the cosines, fitted to the base model: {scale:.1f}{end}")
    return replace(recipe, scale=scale)


def fine_tune(
    model: "SentenceTransformer",
    mined: Mined,
    chunks: Sequence[Chunk],
    recipe: Recipe,
    seed: int,
    base: CachedEncoder,
) -> list[float]:
    """Train `model` in place on the mined examples, held near `base`, at the recipe's scale.

    Out of memory does not call for a smaller batch size in the recipe: `mini_batch_size` bounds the passages held at
    once by the free memory, and where that was too many, fewer are tried; it affects rounding only.

    Returns:
        the mean loss of each epoch.

    Raises:
        torch.OutOfMemoryError: one passage at once is too much too.
    """
    import torch

    from hardneg.learning.training import make_teacher, train

    texts = [chunk["text"] for chunk in chunks]
    teacher = make_teacher(base, mined.examples, mined.candidates, texts, model.device)
    free = free_bytes(model.device.type)  # beside the teacher
    longest = activation_bytes(model, texts, [example.query for example in mined.examples])
    most = mini_batch_size(free, weight_bytes(model), longest)
    sizes = sizes_to_try(most, rows=recipe.batch_size, columns=1 + len(mined.examples[0].negative_ids))
    start = weights_of(model)
    for attempt, at_once in enumerate(sizes):
        if attempt:
            give_back("cuda")
            print(f"Out of GPU memory; once more with {at_once} passages at once")
            model.load_state_dict(start)
        try:
            losses = train(
                model, mined.examples, texts, mined.spared, recipe, seed=seed, mini_batch_size=at_once, teacher=teacher
            )
            break
        except torch.OutOfMemoryError:  # what failed holds its memory through the error, until behind this block
            if at_once == sizes[-1]:
                raise
    for epoch, loss in enumerate(losses, start=1):
        print(f"Epoch {epoch}: loss {loss:.4f}")
    return losses


# ---------------------------------------------------------------- how strongly to adapt


# Shares of the tuned weights when averaged with the base model's. In steps of a tenth: where the guard's limit falls
# between two is chance, and steps of a fifth once cost four to seven points of gain (LOG.md, "All of MedQuAD, split by
# names too"). The weakest are for guards of few questions.
STRENGTHS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)  # the strongest first
# Of a single training. Above it a little more is gained, but more than twice as much is forgotten on LiveQA, which the
# guard does not see. A mean of several trainings may go as far from the base model as this share of the last one would.
STRONGEST_ALONE = 0.8
LITTLE = 0.5  # a share that shows that the learning rate may be too high for the model
UNMOVED = 0.001  # differences in gain between all shares that show that it may be too low
POOL_QUERIES = 200  # validation questions that choose the strength, and fit the scale
POOL_DEPTH = 10  # the base model's candidates per such question that they are ranked among


def average_with_trained(setting: Setting, tuned: "SentenceTransformer", number: int) -> float:
    """Replace the newest weights by the mean over the trainings of the iterations 0 to `number`, in place.

    Alone, a later iteration gains less where questions are worded otherwise than in training (LOG.md, "The
    mean of what the iterations trained").

    Returns:
        the largest share of the mean that may be tried: STRONGEST_ALONE, or more where that takes the model no further
        from the base model than STRONGEST_ALONE takes the last training.
    """
    if number == 0:
        return STRONGEST_ALONE
    folder = run_folder.iteration_folder(setting.args.output_dir, number - 1)
    mixed, strength = load_model(str(folder), "cpu"), strength_of(training_record(folder))
    further = average_with_earlier(tuned, setting.base.model, mixed, strength, count=number)
    print(f"Averaged with the weights of {number} earlier iteration{'s' if number > 1 else ''}")
    return STRONGEST_ALONE * max(1.0, further)


def average_with_base(setting: Setting, tuned: "SentenceTransformer", strongest: float) -> list[dict[str, Any]]:
    """Average the tuned model with the base model, in place, at the best strength up to the `strongest`; returns all
    that were tried."""
    base_score, tolerance = setting.pool.base_score, setting.args.guard_tolerance
    base_weights, tuned_weights = setting.base.model.state_dict(), weights_of(tuned)
    tried: list[Tried] = []
    for strength in (each for each in STRENGTHS if each <= strongest):
        average_weights(tuned, base_weights, tuned_weights, strength)
        with progress_bar(f"Trying {strength:.0%}", setting.pool.n_passages) as bar:
            score = setting.pool.score(setting.encoder(tuned), bar.update)
        print(f"  {strength:.0%} tuned + base: {describe_score(score, base_score)}")
        tried.append(Tried(strength, score, score.gain_over(base_score)))
        if past_the_best(tried, tolerance):
            break
    chosen = choose_strength(tried, tolerance)
    average_weights(tuned, base_weights, tuned_weights, chosen.strength)
    print(f"Share of the tuned weights: {chosen.strength:.0%}, the rest the base model's")
    if hint := rate_hint(tried, tolerance, setting.args.learning_rate):
        print(hint)
    return [{**asdict(each), "chosen": each is chosen} for each in tried]


def rate_hint(tried: Sequence[Tried], tolerance: float, rate: float) -> str | None:
    """What the shares that were tried say against the learning rate; None where it seems right."""
    most = max((each.strength for each in tried if each.score.is_harmless(tolerance)), default=0.0)
    if most <= LITTLE:
        passed = f"at most {most:.0%} of the tuned weights" if most else "no share of the tuned weights"
        return (
            f"The guard passes {passed}: --learning-rate {rate:g} may be too high for this model (a third of it is "
            "worth a try, in another --output-dir), or the guard has few questions"
        )
    gains = [each.gain for each in tried]
    if tried[-1].strength == STRENGTHS[-1] and max(gains) - min(gains) < UNMOVED:
        return (
            f"All shares rank alike: --learning-rate {rate:g} may be too low for this model (static embeddings want "
            "about 1e-2; try another rate in another --output-dir)"
        )
    return None


# ---------------------------------------------------------------- what the flags ask for


def open_judge(args: argparse.Namespace) -> Judge:
    """The judge that the flags of `add_judge_arguments` ask for; nothing is sent to a server yet."""
    return AnswerKeyJudge() if args.judge == "answer-key" else open_llm_judge(args)


def open_llm_judge(args: argparse.Namespace) -> LLMJudge:
    """The LLM judge that the flags describe, as `open_judge` opens it."""
    store = JudgmentStore(args.data_dir / JUDGMENTS)
    return LLMJudge(
        args.llm_endpoint or [DEFAULT_ENDPOINT],
        args.llm_model,
        prompt_text(args),
        store,
        concurrency=args.concurrency,
        stored_only=args.stored_only,
        tell=tqdm.write,
    )


def prompt_text(args: argparse.Namespace) -> str:
    """What an LLM judge is asked, before question and passage are put in. Raises InputError as `read_text` does."""
    return read_text(args.prompt) if args.prompt else JUDGE_PROMPT


def ends_before_judging(args: argparse.Namespace) -> bool:
    """Whether the flags ask for something that ends before any judging."""
    return bool(args.dry_run or args.judge_batch or args.export_judgments)


def trains(args: argparse.Namespace) -> bool:
    """Whether the flags and what is finished leave an iteration to train."""
    return len(run_folder.finished_iterations(args.output_dir)) < args.iterations and not ends_before_judging(args)


def asks_server(args: argparse.Namespace) -> bool:
    """Whether an LLM judge needs its server: not for a plan or batch file, with --stored-only, or when all is done."""
    return trains(args) and not args.stored_only


def check_beforehand(args: argparse.Namespace) -> None:
    """Raise InputError if something the flags name is missing or unusable, as far as this can be told without the data:
    the pipeline asks this before its first stage."""
    run_folder.check_apart(args.output_dir, {"--data-dir": args.data_dir, "--judge-batch": args.judge_batch})
    find_gpu(args.device)
    resolve_model(args.base_model)
    check_files(args.judge_results, args.judge_batch)


# ---------------------------------------------------------------- what a run's folder belongs to


def whole_configuration(
    args: argparse.Namespace,
    manifest: dict[str, Any],
    base_fingerprint: str,
    judge: Judge,
    guard: GradedSet | None,
) -> dict[str, Any]:
    """Everything that determines the result."""
    return stated_configuration(args) | {
        "base_fingerprint": base_fingerprint,
        "source": manifest["corpus"].get("arguments", {}).get("source"),
        "corpus_sha256": manifest["corpus"]["sha256"],
        "queries_sha256": manifest["queries"].get("sha256"),
        "guard_sha256": guard.sha256 if guard else None,
        **judge.configuration,
    }


def stated_configuration(args: argparse.Namespace) -> dict[str, Any]:
    """The part of the configuration that is known from flags and constants, before anything is read."""
    return {
        "base_model": args.base_model,
        "num_queries": args.num_queries,
        "num_candidates": args.num_candidates,
        "judge": args.judge,
        "positives": args.positives,
        "seed": args.seed,
        "guard": args.guard,
        "guard_tolerance": args.guard_tolerance,
        "mining": asdict(MINING) | {"fusion_k": FUSION_K, "boilerplate_rows": BOILERPLATE_ROWS},
        "training": asdict(recipe_of(args)) | {"few_steps": FEW_STEPS, "scales": list(SCALES)},
        "averaging": {
            "of": "what all iterations trained",
            "strengths": list(STRENGTHS),
            "strongest_alone": STRONGEST_ALONE,
            "pool_queries": POOL_QUERIES,
            "pool_depth": POOL_DEPTH,
            "k": K,
            "confidence": CONFIDENCE,
            "resampling_seed": RESAMPLING_SEED,
        },
    }


def check_output_dir(args: argparse.Namespace, source: str | None) -> None:
    """Raise InputError if --output-dir holds another run, as far as flags and the corpus' source (if given) tell, or if
    another process works there and the flags ask for more than a look."""
    if args.export_judgments:
        return  # which has nothing to do with that folder
    guard = open_guard(args.guard)
    known = stated_configuration(args) | {"guard_sha256": guard.sha256 if guard else None}
    if args.judge == "llm":
        known |= {"llm_model": args.llm_model, "prompt_sha256": PromptTemplate(prompt_text(args)).sha256}
    known |= {"source": source} if source else {}
    run_folder.check_owner(args.output_dir, known, in_part=True)
    if not ends_before_judging(args):
        run_folder.check_idle(args.output_dir)


# ---------------------------------------------------------------- flags


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = flag_types.Parser(__doc__)
    add = parser.add_argument
    add("--iterations", type=flag_types.positive_int, default=2, help="rounds of mining and fine-tuning")
    add(
        "--num-queries",
        type=flag_types.positive_int,
        default=1000,
        help="training questions to mine with in each iteration, new ones until all have been asked",
    )
    candidates = signature(retrieve_candidates).parameters["k"].default
    add(
        "--num-candidates",
        type=flag_types.positive_int,
        default=candidates,
        help="chunks retrieved and judged per question",
    )
    add("--base-model", default=DEFAULT_MODEL, help="model to adapt: hub name or folder")
    add("--data-dir", type=Path, default=Path("data"), help="what the prepare scripts wrote")
    add("--output-dir", type=Path, default=Path("models/medical-specialized"), help="where the models go")
    add_judge_arguments(parser)
    add_batch_arguments(parser)
    add(
        "--max-unjudged",
        type=flag_types.share,
        default=MAX_UNJUDGED,
        help="share of unjudged pairs above which nothing is trained",
    )
    add(
        "--guard",
        default="bundled",
        help="questions with graded answers whose ranking must not get worse: a file, bundled, nanobeir or none",
    )
    add(
        "--guard-tolerance",
        type=flag_types.share,
        default=0.02,
        help="relative nDCG@10 loss, as a fraction, that the guard's 95%% interval must rule out",
    )
    add(
        "--learning-rate",
        type=flag_types.positive,
        default=RECIPE.learning_rate,
        help="peak rate of the fine-tuning; training says where it may be too high or too low for the model",
    )
    add("--seed", type=flag_types.seed, default=42, help="seed of the question sample and the training order")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (as nvidia-smi counts)")
    args = parser.parse_args(argv)
    check_judge_arguments(args)
    check_batch_arguments(args)
    args.stored_only |= args.judge_results is not None
    return args


def add_judge_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of who judges and what is made of it, which test_small_sample.py shares."""
    add = parser.add_argument
    add("--judge", choices=("llm", "answer-key"), default="llm", help="who grades: a server's LLM or the data itself")
    add(
        "--llm-endpoint",
        action="append",
        help=f"base URL of a server, may be repeated; {DEFAULT_ENDPOINT} if none; its key, if any, is OPENAI_API_KEY",
    )
    add("--llm-model", default="Qwen/Qwen2.5-7B-Instruct", help="model the endpoints serve")
    add("--concurrency", type=flag_types.positive_int, default=DEFAULT_CONCURRENCY, help="most requests in flight")
    add("--prompt", type=Path, help="file with another prompt for the judge, holding {query} and then {passage}")
    add("--stored-only", action="store_true", help="ask no server: a pair without a stored judgment stays unjudged")
    add(
        "--gpu-hour-price",
        type=flag_types.price,
        help="price per hour of the whole machine that serves the judge, not per GPU: shows what judging costs",
    )
    add(
        "--positives",
        choices=("known", "judge"),
        default="known",
        help="known: the data's answers, unless the judge refutes them; judge: only what the judge finds, as if no "
        "training question's answer were known",
    )


def check_judge_arguments(args: argparse.Namespace) -> None:
    """Raise InputError where a flag that only an LLM judge has a use for is given with --judge answer-key; not for
    those with a default, --llm-model and --concurrency, which the pipeline's settings may name for either judge."""
    given = {
        "--llm-endpoint": args.llm_endpoint,
        "--prompt": args.prompt,
        "--stored-only": args.stored_only,
        "--gpu-hour-price": args.gpu_hour_price is not None,
    }
    about_an_llm = [flag for flag, value in given.items() if value]
    if args.judge != "llm" and about_an_llm:
        raise InputError(
            f"{' and '.join(about_an_llm)} cannot be used with --judge {args.judge}, as no LLM is asked; leave that "
            "out (of JUDGE_FLAGS, in the pipeline), or use --judge llm"
        )


def add_batch_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags to look at what is to be judged, and to have it judged elsewhere."""
    add = parser.add_argument
    add("--dry-run", action="store_true", help="say what the judge would have to do, and stop")
    add("--judge-batch", type=Path, help="write the outstanding requests to an OpenAI batch file, and stop")
    add(
        "--batch-constraint",
        choices=tuple(CONSTRAINTS),
        help="what holds a batch's answers to a grade: choice (if none is given) for vLLM, object for hosted services",
    )
    add("--judge-results", type=Path, help="take in a finished batch file's results, and ask no server")
    add("--export-judgments", metavar="FILE", type=Path, help="write all stored judgments as JSON lines, and stop")


def check_batch_arguments(args: argparse.Namespace) -> None:
    """Raise InputError where the batch flags contradict the others."""
    if args.judge != "llm" and (args.judge_batch or args.judge_results):
        raise InputError("--judge-batch and --judge-results are about an LLM's judgments; use them with --judge llm")
    if args.batch_constraint and not args.judge_batch:
        raise InputError("--batch-constraint is about the file of --judge-batch; name that too")


if __name__ == "__main__":
    run(main)
