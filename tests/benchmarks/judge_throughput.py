"""How fast the judge's client is: against a bare load loop, and against a server that can only do so much.

    python -m tests.benchmarks.judge_throughput [--pairs 4000] [--concurrency 64]
    python -m tests.benchmarks.judge_throughput --memory 10000 200000   # instead: peak memory at so many pairs

Everything runs on this machine: a stub server in a process of its own, with 50 ms latency, and the client. The bare
loop and the judge take turns, so that other load on the machine meets both; the judge does everything it does in
earnest (prompts, keys, probabilities, one durable sqlite transaction per group of answers).
"""

import argparse
import asyncio
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai

from hardneg.judging.judge import Pair
from hardneg.judging.judge_requests import CONSTRAINTS, TOP_LOGPROBS
from hardneg.judging.judgment_store import JudgmentStore
from hardneg.judging.llm_judge import DEFAULT_CONCURRENCY, LLMJudge
from tests.llm_stub import MODEL, LLMStub

PROMPT = "Grade how well the passage answers the question.\n\nQuestion: {query}\n\nPassage: {passage}\n\nGrade (1-4):"
LATENCY = 0.05  # seconds
RATE = 250.0  # answers per second of the slow server


def make_pairs(count: int, seed: int) -> Iterator[Pair]:
    """Pairs of 50 passages of about 1,000 characters per question, none like those of another seed."""
    for number in range(count):
        query = {"query_id": f"q{number // 50}", "query": f"What helps against condition {seed}-{number // 50}?"}
        text = f"Passage {seed}-{number}. " + "It is treated with rest and fluids. " * 27
        chunk = {"chunk_id": number, "title": "", "qa_ids": [number], "text": text}
        yield Pair(query, chunk)  # type: ignore[arg-type]


def bare_loop(judge: LLMJudge, pairs: Iterator[Pair], concurrency: int) -> float:
    """Answers per second of the same client library, transport, requests and concurrency, results thrown away."""
    requests = [judge.request(pair) for pair in pairs]
    bodies = [judge.body(request, "choice", TOP_LOGPROBS[0]) for request in requests]

    async def worker(client: openai.AsyncOpenAI, todo: Iterator[dict]) -> None:
        for body in todo:
            extra = {name: body.pop(name) for name in CONSTRAINTS["choice"]}
            await client.chat.completions.create(**body, extra_body=extra)

    async def run() -> float:
        client = openai.AsyncOpenAI(
            base_url=judge.endpoints[0], api_key="EMPTY", max_retries=0, http_client=openai.DefaultAioHttpClient()
        )
        async with client:
            todo = iter(bodies)
            start = time.perf_counter()
            await asyncio.gather(*(worker(client, todo) for _ in range(concurrency)))
            return len(bodies) / (time.perf_counter() - start)

    return asyncio.run(run())


def judge_rate(judge: LLMJudge, pairs: Iterator[Pair], count: int) -> float:
    """Judgments per second, store included."""
    judge.check()
    start = time.perf_counter()
    judged = sum(judgment.grade is not None for judgment in judge.judge(pairs))
    assert judged == count
    return count / (time.perf_counter() - start)


def compare(folder: Path, count: int, concurrency: int, rounds: int) -> None:
    """Print the judge's rate against the bare loop's, each the median of some turns."""
    bare, judged = [], []
    with LLMStub(latency=LATENCY) as stub, JudgmentStore(folder / "judgments.sqlite") as store:
        for turn in range(rounds):
            judge = LLMJudge([stub.url], MODEL, PROMPT, store, concurrency=concurrency)
            bare.append(bare_loop(judge, make_pairs(count // rounds, 2 * turn), concurrency))
            judged.append(judge_rate(judge, make_pairs(count // rounds, 2 * turn + 1), count // rounds))
    ratio = statistics.median(judged) / statistics.median(bare)
    print(f"latency {LATENCY * 1000:.0f} ms, concurrency {concurrency}, {count} pairs in {rounds} turns")
    print(f"  bare loop  {statistics.median(bare):6.0f}/s   turns {' '.join(f'{rate:.0f}' for rate in bare)}")
    print(f"  judge      {statistics.median(judged):6.0f}/s   turns {' '.join(f'{rate:.0f}' for rate in judged)}")
    print(f"  judge / bare loop = {ratio:.2f}   (wanted: at least 0.90)")


def saturate(folder: Path, count: int, concurrency: int, **server: Any) -> None:
    """Print the judge's rate against a server that does RATE per second."""
    with LLMStub(rate=RATE, **server) as stub, JudgmentStore(folder / f"{len(server)}.sqlite") as store:
        judge = LLMJudge([stub.url], MODEL, PROMPT, store, concurrency=concurrency)
        rate = judge_rate(judge, make_pairs(count, 0), count)
        stats = stub.stats()
    refused = stats["statuses"].get("429", 0)
    print(f"server of {RATE:.0f}/s, {server or 'queues what comes'}: {rate:.1f}/s = {rate / RATE:.3f} R (wanted: 0.97)")
    print(f"  in flight at most {stats['peak']} of {concurrency}; requests refused {refused} of {stats['chats']}")


def memory(folder: Path, counts: list[int], concurrency: int) -> None:
    """Print the process's peak memory after judging so many pairs, each time with a new judge and store."""
    for turn, count in enumerate(sorted(counts)):  # the peak never falls
        with LLMStub() as stub, JudgmentStore(folder / f"memory{turn}.sqlite") as store:
            judge = LLMJudge([stub.url], MODEL, PROMPT, store, concurrency=concurrency)
            rate = judge_rate(judge, make_pairs(count, turn), count)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{count:,} pairs: peak memory {peak:.0f} MiB ({rate:.0f}/s without latency)", flush=True)


def main(argv: list[str] | None = None) -> None:
    """Print both figures, or the memory."""
    parser = argparse.ArgumentParser(description="Throughput of the judge's client on this machine.")
    parser.add_argument("--pairs", type=int, default=4000, help="pairs per measurement (default 4000)")
    parser.add_argument("--concurrency", type=int, default=DEFAULT_CONCURRENCY, help="requests in flight (default 64)")
    parser.add_argument("--turns", type=int, default=4, help="turns of bare loop and judge (default 4)")
    parser.add_argument("--memory", type=int, nargs="+", metavar="PAIRS", help="measure peak memory at these instead")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.memory:
            memory(Path(folder), arguments.memory, arguments.concurrency)
            return
        compare(Path(folder), arguments.pairs, arguments.concurrency, arguments.turns)
        saturate(Path(folder), arguments.pairs, arguments.concurrency)
        saturate(Path(folder), arguments.pairs, arguments.concurrency, queue=16)
        saturate(Path(folder), arguments.pairs, arguments.concurrency, queue=16, retry_after=0.05)


if __name__ == "__main__":
    main()
