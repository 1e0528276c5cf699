"""The miner with a judge that is as noisy as a small LLM: does the gain survive, and does nothing collapse?

    python -m tests.benchmarks.noisy_judge --base-model all-MiniLM-L6-v2 --data-dir data --output-dir models/noisy

Takes the miner's flags. The judge sees the answer key through noise and reports grade probabilities as an LLM's digit
tokens would; what agreement with the key that amounts to is printed at the end. Then run evaluate.py as usual.
"""

import hashlib
import sys
from collections.abc import Generator, Iterable, Sequence

import numpy as np
from scipy.stats import norm

import iterative_miner as miner
from hardneg.graded import GradedSet, open_graded
from hardneg.judge import GRADES, JudgeStats, Judgment, Pair, answer_key_grade
from hardneg.judge_quality import agreement, whole_grade
from hardneg.metrics import confusion_matrix, weighted_kappa
from hardneg.script import run

NOISE = 0.6  # standard deviation of what the judge sees around the true level
BLUR = 0.35  # its own uncertainty: how soft the probabilities are
LEVELS = {1: 0.0, 2: 0.55, 3: 0.9, 4: 1.25}  # where true grades lie on the judge's scale; the key has no 3
CUTS = np.array([0.4, 1.05, 1.4])  # between its grades 1|2, 2|3 and 3|4


class NoisyJudge:
    """An ordinal probit judge over the answer key, seeded per pair, so that it never changes its mind.

    It sees LEVELS[true grade] + NOISE * e with standard normal e, and believes in grade g with the probability that a
    normal variable of standard deviation BLUR around what it saw lies between the cuts of g.
    """

    def __init__(self, seed: int = 0) -> None:
        self.configuration = {"judge": "noisy answer-key"}  # another run than the key's own
        self.stats = JudgeStats()
        self.queries: list[str] = []
        self.true: list[int] = []
        self.said: list[int] = []  # the likeliest digits
        self.expected: list[float] = []  # what is trained by
        self._seed = seed

    def judge(self, pairs: Iterable[Pair]) -> Generator[Judgment, None, None]:
        """See `Judge`."""
        for query, chunk in pairs:
            query_id, chunk_id, true = query["query_id"], chunk["chunk_id"], answer_key_grade(query, chunk)
            probabilities = self._probabilities(true, f"{self._seed} {query_id} {chunk_id}")
            self.queries.append(query_id)
            self.true.append(true)
            self.said.append(int(np.argmax(probabilities)) + 1)
            grade = float(np.dot(GRADES, probabilities))
            self.expected.append(grade)
            yield Judgment(query_id, chunk_id, grade, tuple(probabilities.tolist()))

    def _probabilities(self, true: int, key: str) -> np.ndarray:
        uniform = (int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big") + 0.5) / 2**56
        seen = LEVELS[true] + NOISE * norm.ppf(uniform)
        return np.diff(norm.cdf((CUTS - seen) / BLUR), prepend=0.0, append=1.0)

    def kappa_with(self, graded: GradedSet) -> float:
        """Its weighted kappa with people, were their grades the true ones."""
        true, judged = [], []
        for question in graded.questions:
            for answer in question.answers:
                true.append(whole_grade(answer.grade))
                probabilities = self._probabilities(true[-1], f"{self._seed} {question.question} {answer.text}")
                judged.append(whole_grade(float(np.dot(GRADES, probabilities))))
        return weighted_kappa(confusion_matrix(true, judged))

    def agreement(self) -> str:
        """How far it agrees with the key over all pairs judged in this process."""
        if not self.true:
            return "nothing was judged, all iterations were done already"
        found = agreement(self.true, self.said, self.queries)
        weighted = weighted_kappa(confusion_matrix(self.true, [whole_grade(grade) for grade in self.expected]))
        true, said = np.array(self.true), np.array(self.said)
        rates = [f"{(said[true == level] >= 3).mean():.1%} of grade {level}" for level in sorted(set(self.true))]
        return (
            f"{len(true):,} pairs: kappa {found['cohen_kappa']:.2f} on four levels, {found['binary_kappa']:.2f} on "
            f"answers (3, 4) or not, weighted {weighted:.2f} ({self.kappa_with(open_graded('bundled')):.2f} with the "
            f"bundled questions, as --min-kappa asks for); called an answer: {', '.join(rates)}"
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the miner with this judge instead of the one that the flags ask for."""
    judge = NoisyJudge()
    flags = sys.argv[1:] if argv is None else list(argv)
    miner.main(["--judge", "answer-key", *flags], judge)
    print(f"\nNoisy judge: {judge.agreement()}")


if __name__ == "__main__":
    run(main)
