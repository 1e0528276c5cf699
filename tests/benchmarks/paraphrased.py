"""evaluate.py on held-out questions asked in other words than MedQuAD's.

    python -m tests.benchmarks.paraphrased --baseline-model all-MiniLM-L6-v2 --output paraphrased.json

Takes evaluate.py's flags. Nearly all of MedQuAD's questions follow one wording per type ("What are the treatments for
... ?"), in training and test alike, so that a model could gain by knowing these wordings alone. Here each question
has one of three others, written for this without looking at any ranking; topics, answers and passages stay.
"""

from dataclasses import replace
from zlib import crc32

import evaluate
from hardneg.corpus.artifacts import Query
from hardneg.running.script import run

WORDINGS = {
    "information": (
        "Could you explain {} in plain words?",
        "My doctor mentioned {}. What does that mean?",
        "I just read about {} and would like to understand it",
    ),
    "treatment": (
        "How do doctors deal with {}?",
        "My son has {}, which drugs or therapies help?",
        "Can {} be cured, or at least managed?",
    ),
    "symptoms": (
        "How would I notice that I have {}?",
        "What does {} feel or look like?",
        "Which signs point to {}?",
    ),
    "susceptibility": (
        "Who usually gets {}?",
        "What makes someone more likely to develop {}?",
        "Could I be prone to {}?",
    ),
    "outlook": (
        "How long do people live with {}?",
        "What should my family expect in the years after a diagnosis of {}?",
        "Does {} get worse over time?",
    ),
    "exams and tests": (
        "How do doctors find out whether it is {}?",
        "Which scans or blood work confirm {}?",
        "They suspect {}; what will they check?",
    ),
    "stages": (
        "How far can {} advance, and what are its phases called?",
        "What does it mean when {} is called early or late?",
        "How is the spread of {} graded?",
    ),
    "research": (
        "Are scientists working on {} at the moment?",
        "Can I join a study about {}?",
        "What is new in the science of {}?",
    ),
    "causes": (
        "Why do people get {}?",
        "What is behind {}?",
        "Where does {} come from?",
    ),
    "inheritance": (
        "Can I pass {} on to my children?",
        "Does {} run in families?",
        "Both of us are healthy, could our baby still have {}?",
    ),
    "frequency": (
        "How common is {}?",
        "How rare is {} really?",
        "What share of the population has {}?",
    ),
    "genetic changes": (
        "Which gene is behind {}?",
        "What mutation leads to {}?",
        "What goes wrong in the DNA of someone with {}?",
    ),
    "considerations": (
        "I have {}, what steps should I take?",
        "What can I do myself about {}?",
        "How do I live with {} from day to day?",
    ),
    "complications": (
        "What else can go wrong because of {}?",
        "Which further problems can {} bring?",
        "What damage may {} do in the long run?",
    ),
    "prevention": (
        "How can I avoid {}?",
        "What keeps people from getting {}?",
        "Can {} be warded off?",
    ),
    "support groups": (
        "Where can families touched by {} find others in the same situation?",
        "Who can I talk to who also has {}?",
        "Are there clubs or forums on {}?",
    ),
}


def main(argv: list[str] | None = None) -> None:
    """Evaluate on the questions in other words."""
    args = evaluate.parse_arguments(argv)
    inputs = evaluate.load_inputs(args)
    asked = [paraphrase(query) for query in inputs.queries if query["qtype"] in WORDINGS]
    print(f"{len(asked):,} of {len(inputs.queries):,} {args.split} questions asked in other words")
    evaluate.evaluate_models(args, replace(inputs, queries=asked))


def paraphrase(query: Query, among: slice = slice(None)) -> Query:
    """The same query in one of its type's wordings, always the same one of those `among` them."""
    wordings = WORDINGS[query["qtype"]][among]
    wording = wordings[crc32(query["query_id"].encode()) % len(wordings)]
    return {**query, "query": wording.format(query["topic"])}


if __name__ == "__main__":
    run(main)
