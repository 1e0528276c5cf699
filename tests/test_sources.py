"""Every form a source may have, and what is said of those that cannot be read."""

import hashlib
import io
import json
import math
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from httpx2 import HTTPError

from hardneg.corpus.sources import Row, read_rows, source_version, topic_of_question
from hardneg.running.errors import InputError

ROOT = Path(__file__).parent.parent
LAVITA = {
    "document_id": "0000011",
    "document_source": "GARD",
    "document_url": "a/b",
    "question_id": "0000011-1",
    "question_focus": "Gout",
    "umls_cui": "C0018099|C0003868",
    "synonyms": "Podagra|Gouty arthritis",
    "question_type": "causes",
    "question": "What  causes\nGout ?",
    "answer": " Urate crystals.\n\n  They hurt. ",
}
GOUT = Row(
    qa_id="GARD/0000011-1",
    question="What causes Gout ?",
    answer="Urate crystals.\n\n  They hurt.",
    topic="Gout",
    qtype="causes",
    source="GARD",
    url="a/b",
    concept="C0018099|C0003868",
    synonyms="Podagra|Gouty arthritis",
)
XML = """<?xml version="1.0" encoding="UTF-8"?>
<Document id="0000011" source="GARD" url="a/b"><Focus>Gout</Focus>
<FocusAnnotations><UMLS><CUIs><CUI>C0018099</CUI><CUI>C0003868</CUI></CUIs></UMLS>
<Synonyms><Synonym>Podagra</Synonym><Synonym>Gouty arthritis</Synonym></Synonyms></FocusAnnotations><QAPairs>
<QAPair pid="1"><Question qid="0000011-1" qtype="causes">What  causes
Gout ?</Question><Answer> Urate crystals.

  They hurt. </Answer></QAPair>
<QAPair pid="2"><Question qid="0000011-2" qtype="outlook">Will it pass?</Question></QAPair>
</QAPairs></Document>"""


def test_columns_of_lavita_from_parquet(tmp_path: Path) -> None:
    path = tmp_path / "medquad.parquet"
    pyarrow.parquet.write_table(
        pa.Table.from_pylist([LAVITA, {**LAVITA, "answer": None, "question_focus": None}]), path
    )
    again = Row(**{**{name: getattr(GOUT, name) for name in Row.__slots__}, "qa_id": f"{GOUT.qa_id}~2", "answer": ""})
    assert read_rows(str(path), {}) == [GOUT, again]  # the missing focus is in the question


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "medquad.jsonl"
    path.write_text(json.dumps(LAVITA) + "\n" + json.dumps({"question": "Why?", "answer": "So."}) + "\n")
    assert read_rows(str(path), {}) == [GOUT, Row("row1", "Why?", "So.", "", "unknown", "", "")]


def test_fields_of_json_lines_that_are_of_no_use_may_hold_anything(tmp_path: Path) -> None:
    """Whatever one line has there and another not, also under a usual name where another column is taken."""
    path = tmp_path / "faq.jsonl"
    lines = [
        {"ask": "Why?", "answer": "So.", "meta": {"a": 1}, "question": ["x"], "url": 1, "document_url": "u"},
        {"ask": "How?", "answer": "Thus.", "meta": "none", "question": "x", "url": "v", "document_url": "u"},
        {"ask": "When?", "answer": "Now.", "meta": "\ud800"},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [row.question for row in read_rows(str(path), {"question": "ask"})] == ["Why?", "How?", "When?"]
    with pytest.raises(
        InputError, match=r"no column 'area' for the topic; it has ask, answer, meta, question, url, document_url$"
    ):
        read_rows(str(path), {"question": "ask", "topic": "area"})
    with pytest.raises(InputError, match="the column 'meta' is not text in every line"):
        read_rows(str(path), {"question": "ask", "topic": "meta"})


def test_other_names_and_concepts_as_lists(tmp_path: Path) -> None:
    path = tmp_path / "medquad.jsonl"
    lists = {"umls_cui": ["C0018099", "C0003868"], "synonyms": ["Podagra", "Gouty arthritis"]}
    path.write_text(json.dumps(LAVITA | lists) + "\n" + json.dumps(LAVITA | {"umls_cui": [], "synonyms": None}) + "\n")
    first, second = read_rows(str(path), {})
    assert first == GOUT
    assert (second.concept, second.synonyms) == ("", "")


def test_ids_are_unique_whatever_the_source_calls_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "faq.csv"
    path.write_text("question_id,question,answer\n" + "".join(f"{name},Why?,So.\n" for name in ("a", "a", "a~2", "a")))
    assert [row.qa_id for row in read_rows(str(path), {})] == ["a", "a~2", "a~2~2", "a~3"]


@pytest.mark.parametrize("error", [RuntimeError("Dataset scripts are no longer supported"), HTTPError("it hung up")])
def test_what_the_hubs_client_stumbles_over_is_one_line(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("hardneg.running.hub._ask", lambda *_: ("", None))
    monkeypatch.setattr("datasets.load_dataset", fail)
    with pytest.raises(InputError, match=rf"cannot load own/faq from the data hub \({error}\)"):
        read_rows("own/faq", {})


def test_columns_of_keivalya_from_csv_give_topics_by_their_wording(tmp_path: Path) -> None:
    path = tmp_path / "medDataset.CSV"
    path.write_text(
        'qtype,Question,Answer\ncauses,What causes Gout ?,"Urate, mostly.\nIt hurts."\n007,Why me ?,Bad luck.\n'
    )
    assert read_rows(str(path), {}) == [
        Row("row0", "What causes Gout ?", "Urate, mostly.\nIt hurts.", "Gout", "causes", "", ""),
        Row("row1", "Why me ?", "Bad luck.", "", "007", "", ""),
    ]


def test_folder_of_xml_in_the_order_of_its_paths(tmp_path: Path) -> None:
    for name in ("b/0000011.xml", "a/0000011.xml"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(XML.replace("GARD", name[0]))
    rows = read_rows(str(tmp_path), {})
    assert [row.qa_id for row in rows] == ["a/0000011-1", "a/0000011-2", "b/0000011-1", "b/0000011-2"]
    assert replace(rows[0], qa_id=GOUT.qa_id, source=GOUT.source) == GOUT
    assert (rows[1].question, rows[1].answer, rows[1].topic) == ("Will it pass?", "", "Gout")


def test_bundled_sample_is_all_answered() -> None:
    rows = read_rows("sample", {})
    assert all(row.question and row.answer and row.topic and row.qtype != "unknown" for row in rows)
    assert len({row.topic for row in rows}) >= 60
    assert len({row.qa_id for row in rows}) == len(rows)


def test_columns_named_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "faq.csv"
    path.write_text("ask,reply,question,area\nWhy?,So.,ignored,Logic\n")
    named = {"question": "ask", "answer": "reply", "topic": "area"}
    assert read_rows(str(path), named) == [Row("row0", "Why?", "So.", "Logic", "unknown", "", "")]


@pytest.mark.parametrize(
    ("column", "field"),
    [
        ("question_focus", "topic"),
        ("focus", "topic"),
        ("Topic", "topic"),
        ("umls_cui", "concept"),
        ("synonyms", "synonyms"),
        ("question_type", "qtype"),
        ("qtype", "qtype"),
        ("document_source", "source"),
        ("source", "source"),
        ("document_url", "url"),
        ("url", "url"),
        ("question_id", "qa_id"),
        ("qid", "qa_id"),
    ],
)
def test_usual_names_of_columns_need_no_flag(tmp_path: Path, column: str, field: str) -> None:
    (tmp_path / "faq.csv").write_text(f"Question,{column},ANSWER\nWhy?,found,So.\n")
    (row,) = read_rows(str(tmp_path / "faq.csv"), {})
    assert (row.question, row.answer, getattr(row, field)) == ("Why?", "So.", "found")


@pytest.mark.parametrize(
    ("question", "topic"),
    [
        ("What is (are) Gout ?", "Gout"),
        ("what research (or clinical trials) is being done for Gout ?", "Gout"),
        ("Is Gout inherited ?", "Gout"),
        ("Who is at risk for Gout? ?", "Gout"),
        ("Do you have information about Foot Care", "Foot Care"),
        ("How to prevent  ?", ""),
        ("Is it bad?", ""),
        ("How is gout treated?", ""),
    ],
)
def test_topic_of_a_question(question: str, topic: str) -> None:
    assert topic_of_question(question) == topic


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("faq.csv", b"", "no readable .csv file .*it is empty"),
        (
            "faq.csv",
            b"question,answer\na,b\nc\n",
            "no readable .csv file .*row that ends in line 3 has 1 cells, not 2",
        ),
        ("faq.csv", b"question,answer\na,\xff\xfe\n", "no readable .csv file .*codec can't decode byte 0xff"),
        ("faq.csv", b"ask,reply\na,b\n", "no column 'question'; it has ask, reply: name .* --question-column"),
        ("faq.csv", b"question,reply\na,b\n", "no column 'answer'; it has question, reply: name .* --answer-column"),
        ("faq.csv", b'question,answer\na,"b\nc,d\n', "no readable .csv file .*line 3: unexpected end of data"),
        ("faq.csv", b'question,answer\na,"b\nc,"d"\n', "no readable .csv file .*expected after"),
        ("faq.jsonl", b"", "no readable .jsonl file .*it is empty"),
        ("faq.jsonl", b"[1]", "no readable .jsonl file .*line 1 is no object"),
        ("faq.jsonl", b"[" * 100_000, "no readable .jsonl file .*recursion"),
        (
            "faq.jsonl",
            b'{"question": "a", "answer": "b", "topic": {"c": 1}}\n{"question": "a", "answer": "b", "topic": "c"}',
            r"faq\.jsonl: the column 'topic' is not text in every line \(.*mix struct.*\); make it so, or rename it",
        ),
        (
            "faq.jsonl",
            b'{"question": "a", "answer": "b", "synonyms": "c"}\n{"question": "a", "answer": "b", "synonyms": ["c"]}',
            "the column 'synonyms' is not text in every line",
        ),
        ("faq.jsonl", b'{"question": "\\ud800", "answer": "b"}', "the column 'question' is not text in .*surrogates"),
        ("faq.jsonl", b'{"question": "a",\n"answer": "b"}', "no readable .jsonl file .*one object per line"),
        ("faq.jsonl", b'{"question": "a", "ans', "no readable .jsonl file .*line 1, column 19: Unterminated string"),
        ("faq.jsonl", b'{"question": {"a": 1}, "answer": "b"}', "the column 'question' is not text"),
        ("faq.jsonl", b'{"question": "Why?", "answer": ["So.", "Because."]}', "the column 'answer' is not text"),
        ("faq.jsonl", b'{"question": "a", "answer": "b", "synonyms": [{"c": 1}]}', "the column 'synonyms' is not text"),
        ("faq.parquet", b"", "no readable .parquet file .*0 bytes"),
        ("faq.parquet", b"PAR1" + b"x" * 100, "no readable .parquet file .*magic bytes"),
        ("xml/a.xml", b"<Document><QAPairs>", "xml/a.xml is not well-formed XML .*fix or remove it"),
        (
            "xml/a.xml",
            b'<?xml version="1.0" encoding="shift_jis"?><a/>',
            "xml/a.xml is not well-formed XML .*multi-byte",
        ),
        (
            "xml/a.xml",
            b'<?xml version="1.0" encoding="foo-8"?><a/>',
            "xml/a.xml is not well-formed XML .*unknown encod",
        ),
        ("xml/a.txt", b"", "holds no MedQuAD XML"),
        ("xml/a.xml", b"<other/>", "holds no MedQuAD XML"),
        ("faq.docx", b"", "unknown source .*give a hub data set id"),
    ],
)
def test_unreadable_sources(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as raised:
        read_rows(str(path.parent if name.startswith("xml/") else path), {})
    assert "\n" not in str(raised.value)


def test_a_long_cell_and_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "faq.csv").write_text(f'\nquestion,answer\n\nWhy?,"{"So. " * 500_000}"\n', encoding="utf-8-sig")
    [row] = read_rows(str(tmp_path / "faq.csv"), {})
    assert (row.question, len(row.answer)) == ("Why?", 4 * 500_000 - 1)


def test_dates_stay_as_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "faq.jsonl").write_text('{"question": "When?", "answer": "2020-01-01"}\n')
    assert [row.answer for row in read_rows(str(tmp_path / "faq.jsonl"), {})] == ["2020-01-01"]


def test_numbers_in_json_lines_are_as_written(tmp_path: Path) -> None:
    """Whatever their size and kind, also where another row has text."""
    lines = [f'{{"question_id": {name}' for name in ("12345678901234567890", "7.50", "NaN", '"A1"')]
    (tmp_path / "faq.jsonl").write_text("".join(f'{line}, "question": "a", "answer": "b"}}\n' for line in lines))
    ids = [row.qa_id for row in read_rows(str(tmp_path / "faq.jsonl"), {})]
    assert ids == ["12345678901234567890", "7.50", "row2", "A1"]


def test_numbers_that_are_none_are_missing(tmp_path: Path) -> None:
    """As a table has them whose makers do not know nulls."""
    columns = {"question": ["a", "b"], "answer": ["c", "d"], "topic": [7.0, math.nan]}
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "faq.parquet")
    assert [row.topic for row in read_rows(str(tmp_path / "faq.parquet"), {})] == ["7", ""]


def test_names_in_a_structure_are_no_names(tmp_path: Path) -> None:
    columns = {"question": ["a"], "answer": ["b"], "synonyms": [{"short": "c", "long": "d"}]}
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "faq.parquet")
    with pytest.raises(InputError, match="the column 'synonyms' is not text"):
        read_rows(str(tmp_path / "faq.parquet"), {})


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "faq.csv").write_text("question,answer\na,b\n")
    with pytest.raises(InputError, match="no column 'area' for the topic; it has question, answer"):
        read_rows(str(tmp_path / "faq.csv"), {"topic": "area"})


@pytest.mark.parametrize(
    ("name", "content"),
    [("faq.csv", "question,answer,réponse\na,b,c\n"), ("faq.jsonl", '{"question": "q", "answer": "é"}\n')],
)
def test_a_table_that_is_not_utf_8(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match=r"faq\.(csv|jsonl) is no readable .* in UTF-8 \(.*can't decode byte 0xe9"):
        read_rows(str(tmp_path / name), {})


def test_columns_of_one_name(tmp_path: Path) -> None:
    (tmp_path / "faq.csv").write_text("question,answer,note,note\na,b,c,d\n")
    assert [row.answer for row in read_rows(str(tmp_path / "faq.csv"), {})] == ["b"]
    (tmp_path / "faq.csv").write_text("question,answer,question\na,b,c\n")
    with pytest.raises(InputError, match="several columns 'question' and 'question'; rename all but one"):
        read_rows(str(tmp_path / "faq.csv"), {})


def test_columns_that_are_only_copied_may_differ_in_case_alone(tmp_path: Path) -> None:
    (tmp_path / "faq.csv").write_text("question,answer,URL,url\na,b,c,d\n")
    assert [row.url for row in read_rows(str(tmp_path / "faq.csv"), {})] == ["c"]


def test_columns_whose_names_differ_in_case_alone(tmp_path: Path) -> None:
    """Rows of the one would be read as rows without a question."""
    path = tmp_path / "faq.jsonl"
    path.write_text('{"Question": "q", "answer": "a"}\n{"question": "r", "answer": "b"}\n')
    with pytest.raises(InputError, match="'Question' and 'question'; rename all but one, or name one with --question-"):
        read_rows(str(path), {})
    assert [row.question for row in read_rows(str(path), {"question": "question"})] == ["", "r"]


@pytest.mark.parametrize(
    ("source", "message"), [("", "unknown source ''"), ("a/b/c", "unknown"), ("gone.csv", "not exist")]
)
def test_unknown_sources(source: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_rows(source, {})


class Hub(BaseHTTPRequestHandler):
    """As much of the data hub as serves one data set, own/faq, of one parquet file with two rows."""

    commit = "a" * 40

    def do_GET(self) -> None:
        buffer = io.BytesIO()
        rows = [{"question": f"Is {name} bad?", "answer": "Yes."} for name in ("gout", "flu")]
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), buffer)
        data = buffer.getvalue()
        digest = hashlib.sha1(data).hexdigest()
        path = self.path.split("?")[0]
        if path.endswith("data.parquet"):
            self.reply(200, data, digest)
        elif "/tree/" in path or "/paths-info/" in path:
            entry = {"type": "file", "path": "data.parquet", "size": len(data), "oid": digest}
            self.reply(200, json.dumps([entry]).encode())
        elif path.startswith("/api/datasets/own/faq"):
            info = {"id": "own/faq", "sha": self.commit, "siblings": [{"rfilename": "data.parquet"}]}
            self.reply(200, json.dumps(info).encode())
        else:
            self.reply(404, b"")

    do_HEAD = do_POST = do_GET

    def reply(self, status: int, body: bytes, etag: str = "x") -> None:
        self.send_response(status)
        if status == 404:
            self.send_header("X-Error-Code", "EntryNotFound" if "own/faq" in self.path else "RepoNotFound")
        self.send_header("X-Repo-Commit", self.commit)
        self.send_header("ETag", f'"{etag}"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class BrokenHub(Hub):
    """Answers every request with an internal error."""

    def do_GET(self) -> None:
        self.reply(503, b"")

    do_HEAD = do_POST = do_GET


def serve(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def hub() -> Iterator[str]:
    yield from serve(Hub)


@pytest.fixture
def broken_hub() -> Iterator[str]:
    yield from serve(BrokenHub)


def read_from_hub(
    name: str, endpoint: str, home: Path, what: str = "[row.question for row in sources.read_rows(sys.argv[1], {})]"
) -> str:
    """What a fresh process (the hub's client reads its settings when imported) makes of a hub data set."""
    script = (
        "import sys; from hardneg.corpus import sources; from hardneg.running import hub;"
        f"from hardneg.running.script import run; hub.TIMEOUT = 1.0; run(lambda: print({what}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, name],
        env={**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (0, 2), done.stderr
    return done.stdout.strip() if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


def test_hub_data_set_and_its_cached_copy_when_the_hub_is_gone(hub: str, tmp_path: Path) -> None:
    questions = "['Is gout bad?', 'Is flu bad?']"
    assert read_from_hub("own/faq", hub, tmp_path) == questions
    assert read_from_hub("own/faq", "http://127.0.0.1:9", tmp_path) == questions
    version = "sources.source_version(sys.argv[1])"  # of what would be read, the hub's or the copy
    assert read_from_hub("own/faq", hub, tmp_path, version) == Hub.commit
    assert read_from_hub("own/faq", "http://127.0.0.1:9", tmp_path, version) == Hub.commit
    assert read_from_hub("own/none", "http://127.0.0.1:9", tmp_path, version) == "None"


def test_hub_without_that_data_set(hub: str, tmp_path: Path) -> None:
    assert "cannot load own/none from the data hub (Dataset 'own/none' doesn't exist" in read_from_hub(
        "own/none", hub, tmp_path
    )


def test_hub_unreachable_is_told_within_seconds_with_the_ways_out(tmp_path: Path) -> None:
    begun = time.monotonic()
    message = read_from_hub("own/faq", "http://127.0.0.1:9", tmp_path)
    assert time.monotonic() - begun < 10
    assert "Connection refused" in message
    for way_out in ("local file", "git checkout", "--source sample"):
        assert way_out in message


def test_hub_that_hangs_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        begun = time.monotonic()
        message = read_from_hub("own/faq", f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path)
    assert time.monotonic() - begun < 10
    assert "timed out" in message


def test_hub_in_trouble(broken_hub: str, tmp_path: Path) -> None:
    assert "HTTP status 503" in read_from_hub("own/faq", broken_hub, tmp_path)


@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_csv_file_of_another_separator_is_told_so(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "faq.csv"
    path.write_text(f"question{separator}answer\nWhy?{separator}So.\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"columns are separated by .*, not by commas.*CSV UTF-8"):
        read_rows(str(path), {})


def test_a_comma_in_an_answer_does_not_hide_another_separator(tmp_path: Path) -> None:
    (tmp_path / "faq.csv").write_text("question;answer\nWhy?;So, as ever.\n", encoding="utf-8")
    with pytest.raises(InputError, match="columns are separated by ';', not by commas"):
        read_rows(str(tmp_path / "faq.csv"), {})


def test_a_spreadsheet_is_told_how_to_save(tmp_path: Path) -> None:
    (tmp_path / "faq.xlsx").touch()
    with pytest.raises(InputError, match=r'faq.xlsx is a spreadsheet; save it as "CSV UTF-8'):
        read_rows(str(tmp_path / "faq.xlsx"), {})


def test_names_of_columns_may_have_blanks_around_them(tmp_path: Path) -> None:
    (tmp_path / "faq.csv").write_text("question, answer\nWhy?,So.\n", encoding="utf-8")
    assert [row.answer for row in read_rows(str(tmp_path / "faq.csv"), {})] == ["So."]


def test_which_columns_are_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "faq.csv").write_text("question,Answer,Topics,Category\nWhy?,So.,Gout,Joints\n", encoding="utf-8")
    told: list[str] = []
    read_rows(str(tmp_path / "faq.csv"), {}, tell=told.append)
    read_rows(str(tmp_path / "faq.csv"), {"topic": "Topics"}, tell=told.append)
    assert told == [
        "Columns: question (question), Answer (answer), none (topic); not used: Topics, Category",
        "Columns: question (question), Answer (answer), Topics (topic); not used: Category",
    ]


def test_the_checksum_of_a_source_that_is_one_file(tmp_path: Path) -> None:
    path = tmp_path / "faq.CSV"
    path.write_bytes(b"question,answer\n")
    assert source_version(str(path)) == hashlib.sha256(b"question,answer\n").hexdigest()
    os.mkfifo(tmp_path / "pipe.csv")  # what is read of it once is not there to be read again
    others = [tmp_path / name for name in ("pipe.csv", "none.csv")]
    assert [source_version(str(source)) for source in ("sample", "own/faq", "", *others)] == [None] * 5


def test_the_checksum_of_a_folder_is_of_its_xml_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("a/1.xml", "2.xml", "README"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    before = source_version(str(tmp_path))
    (tmp_path / "README").unlink()
    assert source_version(str(tmp_path)) == before
    (tmp_path / "a" / "1.xml").write_text("other", encoding="utf-8")
    changed = source_version(str(tmp_path))
    (tmp_path / "2.xml").rename(tmp_path / "3.xml")
    assert len({before, changed, source_version(str(tmp_path)), None}) == 4
