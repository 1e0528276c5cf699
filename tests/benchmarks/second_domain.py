"""A second domain, not medical: the examples that the AWS command line ships, as questions and answers.

    pip download --no-deps awscli==1.46.3
    python -m tests.benchmarks.second_domain awscli-1.46.3-py3-none-any.whl aws.jsonl
    python prepare_corpus.py --source aws.jsonl --data-dir data/aws && python prepare_queries.py --data-dir data/aws

A question is an example's heading ("To attach a policy to a role"), its answer what stands below, its topic the
command: so nothing here is worded by MedQuAD's templates. An introduction that leads over to the command (`::`) is left
out, for it repeats the heading word by word. Then train and evaluate as usual.
"""

import argparse
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from hardneg.running.errors import InputError, explain_os_errors
from hardneg.running.script import run

HEADING = re.compile(r"^\*\*(?P<title>.+?)\*\*\s*$", re.MULTILINE)
INTRODUCTION = re.compile(r"^\s*\S(?:[^\n]|\n(?!\n))*?::\s*\n")
FURTHER = re.compile(r"^For more information, see .*", re.MULTILINE | re.DOTALL)
LITERAL = re.compile(r"::[ \t]*$", re.MULTILINE)  # reST's mark before an indented block; elsewhere :: is part of a name
LINK = re.compile(r"`([^`<]+?)\s*<[^>]*>`_*")


def read_examples(wheel: Path) -> Iterator[dict[str, str]]:
    """Every example with a heading and some text, in the order of the archive's names."""
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            path = PurePosixPath(name)
            if "examples" in path.parts and path.suffix == ".rst":
                topic = " ".join([*path.parts[path.parts.index("examples") + 1 : -1], path.stem])
                for title, text in split_at_headings(archive.read(name).decode()):
                    yield {"question": title, "answer": text, "topic": topic}


def split_at_headings(document: str) -> Iterator[tuple[str, str]]:
    """Titles and the plain text below each: without reST's marks, introduction and links to further reading."""
    document = document.replace("\r\n", "\n")
    headings = list(HEADING.finditer(document))
    for number, heading in enumerate(headings):
        end = headings[number + 1].start() if number + 1 < len(headings) else len(document)
        title = re.sub(r"^Example \d+: ", "", heading["title"].replace("``", "").strip())
        text = FURTHER.sub("", INTRODUCTION.sub("", document[heading.end() : end]))
        text = LINK.sub(r"\1", text).replace("``", "")
        text = LITERAL.sub(":", text).strip()
        if title and text:
            yield title, text


def main() -> None:
    """Write one JSON line per example."""
    parser = argparse.ArgumentParser(description="AWS command line examples as questions and answers.")
    parser.add_argument("wheel", type=Path, help="the awscli wheel")
    parser.add_argument("output", type=Path, help="JSON lines to write")
    args = parser.parse_args()
    try:
        rows = list(read_examples(args.wheel))
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{args.wheel} is no readable wheel ({error}); download it as the docstring says") from error
    with explain_os_errors(args.output, "write"):
        args.output.write_text("".join(json.dumps(row) + "\n" for row in rows))
    print(f"{len(rows):,} examples of {len({row['topic'] for row in rows}):,} commands written to {args.output}")


if __name__ == "__main__":
    run(main)
