"""Reads question/answer rows in every form MedQuAD and people's own data come in: hub set, table file, XML, sample."""

import csv
import hashlib
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet

from hardneg.running.errors import InputError, explain_os_errors, one_line
from hardneg.running.files import sha256_file
from hardneg.running.hub import hub_revision, load_hub_dataset
from hardneg.running.tables import excerpt

SAMPLE = "sample"
SAMPLE_DIR = Path(__file__).parents[1] / "sample" / "medquad"
TABLE_SUFFIXES = (".parquet", ".jsonl", ".csv")
SPREADSHEETS = (".xlsx", ".xls", ".ods", ".numbers")
NAME_WIDTH = 40  # characters of a column's name in a message
LONGEST_CELL = 2**31 - 1  # characters of a CSV cell; the csv module's own limit is 128 Ki
FORMS = "a hub data set id like lavita/MedQuAD, a .parquet, .jsonl or .csv file, a folder of MedQuAD XML, or `sample`"

# What each field is called in lavita/MedQuAD, in keivalya/MedQuad-MedicalQnADataset, and otherwise (case-folded).
COLUMN_NAMES: Mapping[str, tuple[str, ...]] = {
    "question": ("question",),
    "answer": ("answer",),
    "topic": ("question_focus", "focus", "topic"),
    "concept": ("umls_cui",),
    "synonyms": ("synonyms",),
    "qtype": ("question_type", "qtype"),
    "source": ("document_source", "source"),
    "url": ("document_url", "url"),
    "question_id": ("question_id", "qid"),
}

_OTHER_SEPARATOR = re.compile(r"[;\t|]")  # that spreadsheets may write into a CSV file
COPIED = ("qtype", "source", "url", "question_id")  # fields that decide nothing
SEVERAL = ("concept", "synonyms")  # fields of several values in one, with | between or as a list

# What a reader returns: the names of all columns, and what gives the cells of one of them.
Table = tuple[Sequence[str], Callable[[str], list[Any] | pa.ChunkedArray]]

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")

# The wordings that 99.8% of MedQuAD's questions follow: they give the topic where no column does.
_TEMPLATES = re.compile(
    r"(?:what (?:is \(are\)|causes|to do for|is the outlook for|research \(or clinical trials\) is being done for)"
    r"|what are the (?:symptoms of|treatments for|genetic changes related to|stages of|complications of)"
    r"|how (?:to diagnose|to prevent|many people are affected by)|who is at risk for|do you have information about"
    r"|is(?=.* inherited)) +(?P<topic>[^\s?].*?)(?: inherited)?[ ?]*",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Row:
    """One question of the source and its answer; whitespace of all but the answer is collapsed."""

    qa_id: str  # unique; the source's own id where it has one
    question: str
    answer: str  # "" where the source has none
    topic: str  # "" where the source tells of none
    qtype: str
    source: str
    url: str
    concept: str = ""  # what the topic is, whatever its name: identifiers (MedQuAD: UMLS) with | between; "" for none
    synonyms: str = ""  # other names of the topic with | between; "" for none


def read_rows(source: str, columns: Mapping[str, str], tell: Callable[[str], object] = lambda words: None) -> list[Row]:
    """Read every row of a source, in its order.

    Args:
        source: one of FORMS.
        columns: column names by field ("question", "answer", "topic"), where the usual ones are not meant.
        tell: called with one line on which columns are read.

    Raises:
        InputError: the source is unknown, unreachable or unreadable, lacks a column, or has one that is not text.
    """
    names, cells_of = _read_table(source)
    chosen = _choose_columns(source, names, columns)
    unused = ", ".join(name for name in names if name not in chosen.values()) or "none"
    used = ", ".join(f"{chosen.get(field, 'none')} ({field})" for field in ("question", "answer", "topic"))
    tell(f"Columns: {used}; not used: {unused}")
    return _to_rows({field: _texts(source, name, cells_of(name), field in SEVERAL) for field, name in chosen.items()})


def source_version(source: str) -> str | None:
    """What a source's content is known by: hex SHA-256 of a file or a folder of XML, the commit of a hub data set.

    None for the sample, and where neither the hub answers nor a copy is here.

    Raises:
        InputError: a file cannot be read.
    """
    path = Path(source)
    if source in ("", SAMPLE):
        return None
    with explain_os_errors(source, "read"):
        if path.suffix.lower() in TABLE_SUFFIXES and not path.is_dir():
            return sha256_file(path) if path.is_file() else None
        if path.is_dir():
            files = (f"{file.relative_to(path)} {sha256_file(file)}" for file in sorted(path.rglob("*.xml")))
            return hashlib.sha256("\n".join(files).encode(errors="surrogateescape")).hexdigest()
        return hub_revision(source) if _HUB_NAME.fullmatch(source) and not path.exists() else None


def _read_table(source: str) -> Table:
    path = Path(source)
    if source == SAMPLE:
        return _read_xml_folder(SAMPLE_DIR)
    with explain_os_errors(source, "read"):
        is_dir, exists = bool(source) and path.is_dir(), path.exists()
    if is_dir:
        return _read_xml_folder(path)
    if path.suffix.lower() in TABLE_SUFFIXES:
        return _read_table_file(path)
    if path.suffix.lower() in SPREADSHEETS:
        raise InputError(f'{source} is a spreadsheet; save it as "CSV UTF-8 (comma delimited)"')
    if not exists and _HUB_NAME.fullmatch(source):
        return _read_hub(source)
    raise InputError(f"unknown source {source!r}; give {FORMS}")


def _read_table_file(path: Path) -> Table:
    if not path.exists():
        raise InputError(f"{path} does not exist; give {FORMS}")
    with explain_os_errors(path, "read"):
        try:
            suffix = path.suffix.lower()
            if suffix == ".parquet":
                table = pyarrow.parquet.read_table(path)
                return table.column_names, table.column
            with path.open(encoding="utf-8-sig", newline="") as file:
                return _read_json_lines(file) if suffix == ".jsonl" else _read_csv(file)
        except (pa.ArrowException, ValueError, RecursionError) as error:
            raise InputError(
                f"{path} is no readable {suffix} file in UTF-8 ({one_line(error)}); export it again"
                + (', as "CSV UTF-8 (comma delimited)" from a spreadsheet' if suffix == ".csv" else "")
            ) from error


def _read_json_lines(lines: Iterable[str]) -> Table:
    """One object per line, numbers as they are written."""
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line, parse_int=str, parse_float=str, parse_constant=lambda _: None))
        except json.JSONDecodeError as error:
            raise ValueError(
                f"line {number}, column {error.colno}: {error.msg}; it must be one object per line"
            ) from error
        if not isinstance(rows[-1], dict):
            raise ValueError(f"line {number} is no object")
    if not rows:
        raise ValueError("it is empty")
    return _table_of(rows)


def _table_of(records: Sequence[Mapping[str, Any]]) -> Table:
    """Objects as a table; a field that only some have is empty in the others."""
    names = list(dict.fromkeys(name for record in records for name in record))
    return names, lambda name: [record.get(name) for record in records]


def _read_csv(lines: Iterable[str]) -> Table:
    """Every cell as text, so that an id like "0007" stays what it is; a quote that nothing closes is an error."""
    csv.field_size_limit(LONGEST_CELL)
    reader = csv.reader(lines, strict=True)
    rows: list[list[str]] = []
    try:
        for row in filter(None, reader):  # but blank lines
            rows.append(row if rows else [name.strip() for name in row])
            if len(rows) == 1 and len(row) == 1 and (found := _OTHER_SEPARATOR.search(row[0])):
                raise ValueError(f"its columns are separated by {found[0]!r}, not by commas")
            if len(row) != len(rows[0]):
                raise ValueError(
                    f"the row that ends in line {reader.line_num} has {len(row)} cells, not {len(rows[0])}"
                )
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from error
    if not rows:
        raise ValueError("it is empty")
    names, *rows = rows
    return names, lambda name: [row[names.index(name)] for row in rows]


def _read_xml_folder(folder: Path) -> Table:
    """Rows of all XML files below `folder`, in the order of their paths, in lavita/MedQuAD's columns."""
    records = [record for path in sorted(folder.rglob("*.xml")) for record in _read_xml(path)]
    if not records:
        raise InputError(f"{folder} holds no MedQuAD XML (<Document> with <QAPair>s); give {FORMS}")
    return _table_of(records)


def _read_xml(path: Path) -> list[dict[str, str]]:
    try:
        with explain_os_errors(path, "read"):
            document = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the last two of unknown encodings
        raise InputError(f"{path} is not well-formed XML ({error}); fix or remove it") from error
    records = []
    concept, synonyms = ("|".join(filter(None, (one.text for one in document.iter(tag)))) for tag in ("CUI", "Synonym"))
    for pair in document.iter("QAPair"):
        question, answer = pair.find("Question"), pair.find("Answer")
        if question is not None:
            records.append(
                {
                    "question": "".join(question.itertext()),
                    "answer": "" if answer is None else "".join(answer.itertext()),
                    "question_focus": document.findtext("Focus", ""),
                    "umls_cui": concept,
                    "synonyms": synonyms,
                    "question_type": question.get("qtype", ""),
                    "document_source": document.get("source", ""),
                    "document_url": document.get("url", ""),
                    "question_id": question.get("qid", ""),
                }
            )
    return records


def _read_hub(name: str) -> Table:
    """All splits of a hub data set, one after the other; the cached copy where the hub does not answer."""
    remedy = "give a local file, a git checkout of MedQuAD's XML, or `--source sample`"
    splits = load_hub_dataset(name, remedy)
    tables = [split.with_format("arrow")[:] for split in splits.values()]
    table = pa.concat_tables(tables, promote_options="permissive")  # the splits may differ in unused columns
    return table.column_names, table.column


def _texts(source: str, name: str, column: list[Any] | pa.ChunkedArray, may_be_lists: bool) -> list[str | None]:
    """A column as text; where it may hold lists, those with | between. A number that is none (NaN) is a missing one."""
    try:
        cells = pa.array(column) if isinstance(column, list) else column
        is_record = pa.types.is_struct(cells.type) or pa.types.is_map(cells.type)
        if may_be_lists and pa.types.is_nested(cells.type) and not is_record:
            return ["|".join(filter(None, cell)) if cell else None for cell in cells.to_pylist()]
        if pa.types.is_floating(cells.type):
            cells = pa.compute.if_else(pa.compute.is_nan(cells), pa.scalar(None, cells.type), cells)
        return cells.cast(pa.string()).to_pylist()
    except (pa.ArrowException, TypeError, ValueError) as error:  # the last of text that is no Unicode
        wanted = "text in every line" if isinstance(column, list) else "text"
        raise InputError(
            f"{source}: the column {name!r} is not {wanted} ({one_line(error)}); make it so, or rename it"
        ) from error


def _choose_columns(source: str, available: Sequence[str], named: Mapping[str, str]) -> dict[str, str]:
    """Column per field: the one named, else the first with a usual name. Question and answer must be there."""
    by_folded = {column.casefold(): column for column in reversed(available)}
    chosen = {}
    for field, usual in COLUMN_NAMES.items():
        if field in named:
            if named[field] not in available:
                raise InputError(
                    f"{source} has no column {named[field]!r} for the {field}; it has {', '.join(available)}"
                )
            chosen[field] = named[field]
            continue
        found = next((by_folded[name] for name in usual if name in by_folded), None)
        if found is not None:
            chosen[field] = found
        elif field in ("question", "answer"):
            names = ", ".join(excerpt(name, NAME_WIDTH) for name in available)
            raise InputError(
                f"{source} has no column '{usual[0]}'; it has {names}: name the right one with --{field}-column (or is "
                "the header row missing?)"
            )
    for field, column in chosen.items():
        # a column that is named is meant as it is spelt; of one that is copied along alone the first will do
        alike = str if field in named or field in COPIED else str.casefold
        same = [name for name in available if alike(name) == alike(column)]
        if len(same) > 1:
            has_flag = field in ("question", "answer", "topic") and len(set(same)) > 1
            by_flag = f", or name one with --{field}-column" if has_flag else ""
            raise InputError(
                f"{source} has several columns {' and '.join(map(repr, same))}; rename all but one{by_flag}"
            )
    return chosen


def _to_rows(fields: Mapping[str, Sequence[str | None]]) -> list[Row]:
    cells = {field: [" ".join((cell or "").split()) for cell in cells] for field, cells in fields.items()}
    blank = [""] * len(fields["question"])
    source, question_id, topic = (cells.get(field, blank) for field in ("source", "question_id", "topic"))
    return [
        Row(
            qa_id=qa_id,
            question=cells["question"][position],
            answer=(fields["answer"][position] or "").strip(),
            topic=topic[position] or topic_of_question(cells["question"][position]),
            qtype=cells.get("qtype", blank)[position] or "unknown",
            source=source[position],
            url=cells.get("url", blank)[position],
            concept=cells.get("concept", blank)[position],
            synonyms=cells.get("synonyms", blank)[position],
        )
        for position, qa_id in enumerate(_unique_ids(source, question_id))
    ]


def _unique_ids(sources: Sequence[str], question_ids: Sequence[str]) -> Iterator[str]:
    """Source and question id where there are any, else the row's number; repetitions are numbered."""
    seen: set[str] = set()
    numbers: dict[str, Iterator[int]] = {}
    for position, (source, question_id) in enumerate(zip(sources, question_ids, strict=True)):
        plain = qa_id = "/".join(part for part in (source, question_id or f"row{position}") if part)
        while qa_id in seen:
            qa_id = f"{plain}~{next(numbers.setdefault(plain, count(2)))}"
        seen.add(qa_id)
        yield qa_id


def topic_of_question(question: str) -> str:
    """What a question in one of MedQuAD's wordings asks about, "" for other wordings.

    >>> topic_of_question("What are the treatments for Gout ?")
    'Gout'
    """
    match = _TEMPLATES.fullmatch(question)
    return match["topic"] if match else ""
