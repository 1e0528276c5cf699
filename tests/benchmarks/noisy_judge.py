"""The miner with a judge that errs often, at random or where the model errs: does the gain survive?

    python -m tests.benchmarks.noisy_judge --base-model all-MiniLM-L6-v2 --data-dir data --output-dir models/noisy
    python -m tests.benchmarks.noisy_judge --correlation 0.7 ...    # what looks right to the base model misleads it too

Takes the miner's flags. The judge sees the answer key through noise and reports grade probabilities as an LLM's digit
tokens would; what agreement with the key that amounts to is printed at the end. Then run evaluate.py as usual.
"""

import argparse
import hashlib
from collections.abc import Callable, Generator, Iterable, Sequence

import numpy as np
from scipy.stats import norm

import iterative_miner as miner
from hardneg.embedding.encoder import CachedEncoder
from hardneg.embedding.models import load_model
from hardneg.judging.judge import GRADES, JudgeStats, Judgment, Pair, answer_key_grade
from hardneg.measuring.agreement import agreement, confusion_matrix, weighted_kappa, whole_grade
from hardneg.measuring.graded import GradedSet, graded_pairs, open_graded
from hardneg.running.flag_types import share
from hardneg.running.script import run

NOISE = 0.6  # standard deviation of what the judge sees around the true level
BLUR = 0.35  # its own uncertainty: how soft the probabilities are
LEVELS = {1: 0.0, 2: 0.55, 3: 0.9, 4: 1.25}  # where true grades lie on the judge's scale; the key has no 3
CUTS = np.array([0.4, 1.05, 1.4])  # between its grades 1|2, 2|3 and 3|4


class NoisyJudge:
    """An ordinal probit judge over the answer key, seeded per pair, so that it never changes its mind.

    It sees LEVELS[true grade] + NOISE * e with standard normal e, and believes in grade g with the probability that a
    normal variable of standard deviation BLUR around what it saw lies between the cuts of g.

    With `correlation` r, e is r times the passage's `appeal` and sqrt(1 - r * r) times noise of the pair's own.
    """

    def __init__(self, seed: int = 0, correlation: float = 0.0, appeal: "Appeal | None" = None) -> None:
        self.configuration = {"judge": "noisy answer-key"}  # another run than the key's own
        if appeal:
            self.configuration["correlation"] = str(correlation)
        self._correlation, self._appeal = correlation, appeal
        self.stats = JudgeStats()
        self.queries: list[str] = []
        self.true: list[int] = []
        self.said: list[int] = []  # the likeliest digits
        self.expected: list[float] = []  # what is trained by
        self._seed = seed

    def judge(self, pairs: Iterable[Pair]) -> Generator[Judgment, None, None]:
        """See `Judge`."""
        pairs = list(pairs)
        for (query, chunk), appeal in zip(pairs, self._appeals(pairs), strict=True):
            query_id, chunk_id, true = query["query_id"], chunk["chunk_id"], answer_key_grade(query, chunk)
            probabilities = self._probabilities(true, f"{self._seed} {query_id} {chunk_id}", appeal)
            self.queries.append(query_id)
            self.true.append(true)
            self.said.append(int(np.argmax(probabilities)) + 1)
            grade = float(np.dot(GRADES, probabilities))
            self.expected.append(grade)
            yield Judgment(query_id, chunk_id, grade, tuple(probabilities.tolist()))

    def _appeals(self, pairs: Sequence[Pair]) -> np.ndarray:
        return self._appeal(pairs) if self._appeal else np.zeros(len(pairs))

    def _probabilities(self, true: int, key: str, appeal: float = 0.0) -> np.ndarray:
        uniform = (int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big") + 0.5) / 2**56
        noise = self._correlation * appeal + (1 - self._correlation**2) ** 0.5 * norm.ppf(uniform)
        seen = LEVELS[true] + NOISE * noise
        return np.diff(norm.cdf((CUTS - seen) / BLUR), prepend=0.0, append=1.0)

    def kappa_with(self, graded: GradedSet) -> float:
        """Its weighted kappa with people, were their grades the true ones."""
        pairs = graded_pairs(graded)
        true = [whole_grade(answer.grade) for question in graded.questions for answer in question.answers]
        judged = []
        for (query, chunk), grade, appeal in zip(pairs, true, self._appeals(pairs), strict=True):
            probabilities = self._probabilities(grade, f"{self._seed} {query['query']} {chunk['text']}", appeal)
            judged.append(whole_grade(float(np.dot(GRADES, probabilities))))
        return weighted_kappa(confusion_matrix(true, judged))

    def agreement(self) -> str:
        """How far it agrees with the key over all pairs judged in this process."""
        if not self.true:
            return "nothing was judged, all iterations were done already"
        found, trained_by = (agreement(self.true, grades, self.queries) for grades in (self.said, self.expected))
        true, said = np.array(self.true), np.array(self.said)
        rates = [f"{(said[true == level] >= 3).mean():.1%} of grade {level}" for level in sorted(set(self.true))]
        return (
            f"{len(true):,} pairs: kappa {found['cohen_kappa']:.2f} on four levels, {found['binary_kappa']:.2f} on "
            f"answers (3, 4) or not, weighted {trained_by['weighted_kappa']:.2f} "
            f"({self.kappa_with(open_graded('bundled')):.2f} with the bundled questions, as --min-kappa asks for); AUC "
            f"within questions {trained_by['auc_within_questions']:.2f}; called an answer: {', '.join(rates)}"
        )


Appeal = Callable[[Sequence[Pair]], np.ndarray]


def appeal_to(base: CachedEncoder) -> Appeal:
    """How right a passage looks to the base model: its cosine, standardised over the question's passages."""

    def appeal(pairs: Sequence[Pair]) -> np.ndarray:
        """float64 (N,), by pair."""
        query_ids = np.array([query["query_id"] for query, _ in pairs])
        queries = base.encode_queries([query["query"] for query, _ in pairs])
        cosines = np.einsum("nd,nd->n", queries, base.encode_passages([chunk["text"] for _, chunk in pairs])).astype(
            float
        )
        for query_id in np.unique(query_ids):
            of_query = query_ids == query_id
            cosines[of_query] -= cosines[of_query].mean()
            cosines[of_query] /= cosines[of_query].std() or 1.0
        return cosines

    return appeal


def main(argv: Sequence[str] | None = None) -> None:
    """Run the miner with this judge instead of the one that the flags ask for."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--correlation", type=share, default=0.0)
    own, flags = parser.parse_known_args(argv)
    judge = NoisyJudge()
    if own.correlation:
        args = miner.parse_arguments(flags)
        base = CachedEncoder(load_model(args.base_model, "cpu"), args.data_dir)
        judge = NoisyJudge(correlation=own.correlation, appeal=appeal_to(base))
    miner.main(["--judge", "answer-key", *flags], judge)
    print(f"\nNoisy judge: {judge.agreement()}")


if __name__ == "__main__":
    run(main)
