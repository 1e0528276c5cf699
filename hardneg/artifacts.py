"""What passes between the stages: pickles of builtins, JSON beside them, every file written whole or not at all."""

import hashlib
import io
import json
import math
import os
import pickle
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypedDict

from hardneg.errors import InputError, clear_os_errors

SPLITS = ("train", "val", "test")
SHARED = "shared"  # a chunk that answers questions of several splits (boilerplate)
_LEFTOVER = re.compile(r"\.(.+)\.[^.]+\.(?:tmp|old)")  # how atomic_file and atomic_dir name what they have in hand
# what the unpickler raises on bytes that are no whole pickle
UNPICKLING_ERRORS = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    TypeError,
    ValueError,
)


class Chunk(TypedDict):
    """One passage of the corpus; `chunk_id` is its position in the list."""

    chunk_id: int
    text: str
    title: str  # the topic of all that it answers; empty where they have several, or one has none
    qa_ids: list[str]
    qtype: str
    source: str
    url: str
    split: str  # one of SPLITS, or SHARED: whose questions this chunk answers


class QAPair(TypedDict):
    """One answered question of the source data and the chunks its answer was cut into."""

    qa_id: str
    question: str
    topic: str
    concept: str  # the source's annotation of the topic, "" where it has none
    synonyms: str  # the source's other names of the topic with | between, "" where it has none
    group: str  # the rows that no two splits may share, named after one of their topics
    qtype: str
    split: str
    chunk_ids: list[int]


class Query(TypedDict):
    """One question, asked once, with every chunk known to answer it."""

    query_id: str
    query: str
    ground_truth_chunk_ids: list[int]
    qtype: str
    topic: str
    group: str  # as in QAPair: questions of one group were split together and are no independent sample


class _BuiltinsUnpickler(pickle.Unpickler):
    """Refuses every global: lists, dicts, strings and numbers need none, and a global is what runs code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it refers to {module}.{name}")


def read_pickle(path: Path, remedy: str) -> tuple[Any, str]:
    """Read a pickle of builtin objects without ever running code from it.

    Args:
        path: the pickle.
        remedy: what helps where it cannot be read, for the error.

    Returns:
        the objects, and the hex SHA-256 of the bytes that they were read from.

    Raises:
        InputError: the file is missing, empty, truncated, no pickle, or holds anything but builtins.
    """
    payload = _read(path, remedy)
    if not payload:
        raise InputError(f"{path} is empty; {remedy}")
    try:
        return _BuiltinsUnpickler(io.BytesIO(payload)).load(), hashlib.sha256(payload).hexdigest()
    except UNPICKLING_ERRORS as error:
        reason = str(error) or type(error).__name__
        raise InputError(f"{path} is not a whole pickle of plain lists and dicts ({reason}); {remedy}") from error


def _read(path: Path, remedy: str) -> bytes:
    with clear_os_errors(path, "read"):
        if not path.exists():
            raise InputError(f"{path} is missing; {remedy}")
        return path.read_bytes()


def _read_records(path: Path, remedy: str, fields: type) -> tuple[list[Any], str]:
    """As `read_pickle`, of a list of records that have these fields."""
    records, sha256 = read_pickle(path, remedy)
    if not isinstance(records, list) or not records:
        raise InputError(f"{path} holds no list of records; {remedy}")
    wanted = set(fields.__annotations__)
    for position, record in enumerate(records):
        if not isinstance(record, dict) or not wanted <= record.keys():
            found = sorted(record) if isinstance(record, dict) else type(record).__name__
            raise InputError(f"{path}: record {position} has {found}, not the fields {sorted(wanted)}; {remedy}")
    return records, sha256


def _corpus_remedy(data_dir: Path) -> str:
    """The remedy of a corpus that cannot be used. Followed to the letter it must not replace another folder's data."""
    return f"run {_command('prepare_corpus.py', data_dir)} with the --source and other flags of this corpus"


def _queries_remedy(data_dir: Path) -> str:
    """The same of queries."""
    return f"run {_command('prepare_queries.py', data_dir)}"


def _command(script: str, data_dir: Path) -> str:
    return f"`python {script} --data-dir {shlex.quote(str(data_dir))}`"


def read_manifest(data_dir: Path) -> dict[str, dict[str, Any]]:
    """What the prepare scripts noted of their files, under "corpus" and "queries" (empty where not yet prepared).

    Raises:
        InputError: it is missing or of another shape.
    """
    path = data_dir / "manifest.json"
    manifest = read_json(path, _corpus_remedy(data_dir))
    if isinstance(manifest, dict):
        manifest = {"corpus": {}, "queries": {}} | manifest
        checksums = manifest["queries"].get("sha256", {}) if isinstance(manifest["queries"], dict) else None
        if isinstance(manifest["corpus"], dict) and isinstance(checksums, dict):
            return manifest
    raise InputError(f"{path} is no manifest of a prepared corpus; {_corpus_remedy(data_dir)}")


@contextmanager
def one_preparation(data_dir: Path) -> Iterator[dict[str, dict[str, Any]]]:
    """The manifest, for reading files that belong together. Raises InputError where they were replaced meanwhile."""
    manifest = read_manifest(data_dir)
    yield manifest
    if read_manifest(data_dir) != manifest:
        raise InputError(f"{data_dir} was prepared anew while it was read; run the same command again")


def load_chunks(data_dir: Path) -> list[Chunk]:
    """Read the corpus. Raises InputError where it is missing, damaged, or not the one the manifest tells of."""
    path = data_dir / "corpus_chunks.pkl"
    chunks, found = _read_records(path, _corpus_remedy(data_dir), Chunk)
    _check_checksum(path, found, read_manifest(data_dir)["corpus"].get("sha256"), _corpus_remedy(data_dir))
    return chunks


def load_qa_pairs(data_dir: Path) -> list[QAPair]:
    """Read the question/answer pairs behind the corpus. Raises InputError as `load_chunks` does."""
    path = data_dir / "qa_pairs.pkl"
    pairs, found = _read_records(path, _corpus_remedy(data_dir), QAPair)
    _check_checksum(path, found, read_manifest(data_dir)["corpus"].get("qa_pairs_sha256"), _corpus_remedy(data_dir))
    return pairs


def load_queries(data_dir: Path, split: str) -> list[Query]:
    """Read the queries of one of SPLITS. Raises InputError as `load_chunks`, and where made for another corpus."""
    path, remedy = data_dir / f"{split}_queries.pkl", _queries_remedy(data_dir)
    queries, found = _read_records(path, remedy, Query)
    manifest = read_manifest(data_dir)
    if manifest["queries"].get("corpus_sha256") != manifest["corpus"].get("sha256"):
        raise InputError(f"the corpus was prepared anew since {path} was made; {remedy}")
    _check_checksum(path, found, manifest["queries"].get("sha256", {}).get(path.name), remedy)
    return queries


def _check_checksum(path: Path, found: str, told: str | None, remedy: str) -> None:
    """Raise InputError where what was read is not the file of the manifest's checksum."""
    if found != told:
        raise InputError(f"{path} is not the file that manifest.json beside it tells of; {remedy}")


def _sync(path: Path) -> None:
    """Wait until a file's content is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, renamed onto it when the block ends well and removed when it does not.

    A link stays one: what it points to is replaced.

    Raises:
        InputError: the place cannot be written (disk full, no permission, a folder or a device in the way).
    """
    with clear_os_errors(path, "write"):
        path = _real(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(descriptor)
        temporary = Path(name)
        try:
            yield temporary
            _sync(temporary)
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Raise InputError where no file can be written at `path`, so that this is known before the work is done."""
    with clear_os_errors(path, "write"):
        path = _real(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()


def _real(path: Path) -> Path:
    """The file that a path, which may be a link, stands for. Raises InputError where no file can take its place."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file")
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is a device or a pipe, which a finished file would replace; name another")
    try:
        return path.resolve()
    except RuntimeError as error:  # Python before 3.13 says so of links in a circle
        raise InputError(f"cannot write {path}: its links go in a circle; name another") from error


def _umask() -> int:
    """The permissions that the user denies new files; to be read it has to be set."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


@contextmanager
def atomic_dir(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that takes its place when the block ends well.

    An older folder at `path` is replaced. A kill leaves no half-written folder at `path`: the old one, the new one, or
    (between two renames) none, beside hidden `.tmp` or `.old` folders that `clear_leftovers` deletes or puts back.

    Raises:
        InputError: the place cannot be written.
    """
    with clear_os_errors(path, "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
        retired = temporary.with_suffix(".old")
        try:
            temporary.chmod(0o777 & ~_umask())
            yield temporary
            for inside in temporary.rglob("*"):
                if inside.is_file():
                    _sync(inside)  # a machine lost after the rename must not come back with half of a model
            if path.exists():
                path.rename(retired)
            temporary.rename(path)
        finally:
            if retired.exists() and not path.exists():  # stopped between the two renames
                retired.rename(path)
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.rmtree(retired, ignore_errors=True)


def clear_leftovers(folder: Path, names: str) -> None:
    """Delete what killed writes left in `folder`; only for who knows that nobody else writes there.

    A folder that a kill took away between the two renames of `atomic_dir` is put back.

    Args:
        folder: where `atomic_file` and `atomic_dir` wrote.
        names: a pattern of the whole names of what they wrote; leftovers of others stay.

    Raises:
        InputError: the folder cannot be read, or what was taken away not be put back.
    """
    with clear_os_errors(folder, "clear"):
        matches = {path: _LEFTOVER.fullmatch(path.name) for path in folder.iterdir()}
        left = {path: match[1] for path, match in matches.items() if match and re.fullmatch(names, match[1])}
        for path in sorted(left):  # .old before the .tmp that tells what it is
            written = folder / left[path]
            if path.suffix == ".tmp" or written.exists():
                _delete(path)
            elif path.with_suffix(".tmp") in left:
                path.rename(written)
            # else somebody removed what had replaced it: it may be half deleted, or all that there is


def _delete(path: Path) -> None:
    """Delete a file or a folder, or as much of it as can be."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def pickle_bytes(records: list[Any]) -> bytes:
    """Builtin records as a pickle."""
    return pickle.dumps(records, protocol=pickle.HIGHEST_PROTOCOL)


def json_bytes(value: Any) -> bytes:
    """Indented JSON in UTF-8, paths as text; what UTF-8 cannot say, of an odd file name, as JSON's own escapes."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=os.fspath)
    return (text + "\n").encode(errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically. Raises InputError where the place cannot be written."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(json_bytes(value))


def write_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write several files so that all of them appear, in the order given, or none.

    The last one marks that all are there: its older version goes before the first of the others is replaced.

    Args:
        folder: where to.
        contents: bytes by file name.

    Raises:
        InputError: the place cannot be written.
    """
    marker = _real(folder / list(contents)[-1])
    with ExitStack() as stack:
        for name in reversed(contents):  # a stack: what is entered last is renamed first
            temporary = stack.enter_context(atomic_file(folder / name))
            with clear_os_errors(folder / name, "write"):
                temporary.write_bytes(contents[name])
                _sync(temporary)  # here already, so that the renames below follow each other at once
        with clear_os_errors(marker, "replace"):
            marker.unlink(missing_ok=True)


def spread(records: Sequence[Any], count: int) -> Sequence[Any]:
    """At most `count` of the records, in equal steps from the first one on: a sample to look at."""
    return records[:: max(1, math.ceil(len(records) / count))]


def write_json_lines(path: Path, records: Iterable[Any]) -> int:
    """Write one line of JSON per record, whole or not at all, and return their number. Raises as `write_json`."""
    count = 0
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            count += 1
    return count


def read_text(path: Path) -> str:
    """A text file in UTF-8, without the mark that some editors put first. Raises InputError where it is none."""
    try:
        with clear_os_errors(path, "read"):
            return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        reason = f"{error.reason} at byte {error.start}"
        raise InputError(f"{path} is not UTF-8 text ({reason}); save it as UTF-8") from error


def read_json(path: Path, remedy: str) -> Any:
    """Read JSON. Raises InputError with that remedy where the file is missing or no JSON."""
    content = _read(path, remedy)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}); {remedy}") from error


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes. Raises InputError where it cannot be read."""
    digest = hashlib.sha256()
    with clear_os_errors(path, "read"), path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
