"""Files are written whole, cells come back as they were, and names steer no terminal."""

import csv
import errno
import os
import time
from pathlib import Path

import pytest

from retina_utils import RetinaError, printable
from retina_utils.machine import files


def test_a_share_that_refuses_chmod_is_written_to(tmp_path, monkeypatch):
    def refuse(path, mode):
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)
    files.write_text(tmp_path / "a.txt", "whole")
    assert (tmp_path / "a.txt").read_text() == "whole"


def test_content_reaches_the_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    order = []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(files.os, "fsync", lambda file: (order.append("sync"), sync(file)))
    monkeypatch.setattr(Path, "replace", lambda *a: (order.append("name"), replace(*a)))
    files.write_text(tmp_path / "a.txt", "whole")
    assert order == ["sync", "name"]


def test_a_disk_that_reports_an_error_keeps_the_old_file(tmp_path, monkeypatch):
    files.write_text(tmp_path / "a.txt", "old")

    def fail(file):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        files.write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_what_a_kill_left_goes_after_a_day(tmp_path):
    with files.atomic_path(tmp_path / "b.txt") as name:
        begin, end = name.name[:8], name.suffix
        name.write_text("x")
    assert (begin, end) == files.UNFINISHED
    old, new, other = (tmp_path / n for n in (".retina-a.tmp", ".retina-b.tmp", ".other.tmp"))
    for path in (old, new, other):
        path.write_text("left")
    two_days_ago = time.time() - 2 * 86_400
    for path in (old, other):
        os.utime(path, (two_days_ago, two_days_ago))
    files._sweep.cache_clear()
    files.write_text(tmp_path / "a.txt", "whole")
    assert not old.exists() and new.exists() and other.exists()


def test_a_name_as_long_as_a_disk_takes_can_be_written(tmp_path):
    path = tmp_path / ("n" * 251 + ".txt")
    files.write_text(path, "whole")
    assert path.read_text() == "whole"


CELLS = [
    "=1+1", "=HYPERLINK(1)", "+x", "-x", "@SUM(A1)", "\tx", "\rx", "\n=x", "＝1", "-", "--5",
    "-5+3", "'=1", "''=1", "'", "''", "'x", "'-5", "", " =1", "a=b", "-5", "+5", "-5.", "-1e-4",
    "-0.5", "5", "-1_000", "-inf", 'a"b', "a,b", "a\r\nb", "ä",
]  # fmt: skip


def test_a_share_that_knows_no_fsync_is_written_to(tmp_path, monkeypatch):
    def refuse(file):
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(files.os, "fsync", refuse)
    files.write_text(tmp_path / "a.txt", "whole")
    assert (tmp_path / "a.txt").read_text() == "whole"


@pytest.mark.parametrize("cell", CELLS)
def test_a_cell_comes_back_as_it_was(tmp_path, cell):
    files.write_csv(tmp_path / "a.csv", [{"name": cell, "other": "x"}])
    assert files.read_csv(tmp_path / "a.csv") == [{"name": cell, "other": "x"}]


@pytest.mark.parametrize("cell", [c for c in CELLS if c[:1] in tuple("=+-@\t\r\n＝")])
def test_no_cell_is_a_formula_for_a_spreadsheet(tmp_path, cell):
    files.write_csv(tmp_path / "a.csv", [{"name": cell}])
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        written = next(csv.DictReader(file))["name"]
    if cell in ("-5", "+5", "-5.", "-1e-4", "-0.5"):
        assert written == cell
    else:
        assert written == f"'{cell}"


def test_numbers_stay_numbers(tmp_path):
    row = {"a": -0.123456789, "b": -3, "c": None, "d": float("-inf"), "e": True}
    files.write_csv(tmp_path / "a.csv", [row])
    assert (tmp_path / "a.csv").read_text() == "a,b,c,d,e\n-0.123457,-3,,-inf,True\n"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("a\rb\x08\x07", r"a\rb\x08\x07"),
        ("exe\u202egnp", r"exe\u202egnp"),
        ("caf\udce9.png", r"caf\udce9.png"),
        ("\x9b31m", r"\x9b31m"),
        ("Müller 眼 été.png", "Müller 眼 été.png"),
        ("two\nlines", "two\nlines"),
    ],
)
def test_names_steer_no_terminal(name, shown):
    assert printable(name) == shown
    assert str(RetinaError(f"{name}: no such file")) == f"{shown}: no such file"
    assert f"{RetinaError(name)}" == shown


def test_a_folder_is_locked_for_one_at_a_time_and_let_go(tmp_path):
    with files.lock_folder(tmp_path / "new"):
        with (
            pytest.raises(RetinaError, match="another command"),
            files.lock_folder(tmp_path / "new"),
        ):
            pass
        with files.lock_folder(tmp_path / "other"):
            pass
    with pytest.raises(KeyError), files.lock_folder(tmp_path / "new"):
        raise KeyError
    with files.lock_folder(tmp_path / "new"):
        pass


def test_a_share_without_locks_is_used_and_told(tmp_path, monkeypatch, capsys):
    def refused(self, **rest):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.FileLock, "acquire", refused)
    with files.lock_folder(tmp_path):
        assert "cannot be locked" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("delimiter", ",;\t")
def test_csv_that_a_spreadsheet_saved_again_is_read(tmp_path, encoding, delimiter):
    rows = [{"name": 'é "1";, a', "other": "=x"}, {"name": "b\nc", "other": ""}]
    files.write_csv(tmp_path / "a.csv", rows)
    before = list(csv.reader((tmp_path / "a.csv").open(newline="", encoding="utf-8")))
    with (tmp_path / "a.csv").open("w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=delimiter).writerows(before)
    assert files.read_csv(tmp_path / "a.csv") == rows


def test_a_row_longer_than_the_headings_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n1,2,,\n1,2,3\n")
    with pytest.raises(RetinaError, match=r"a\.csv: 3 cells in a row, expected 2"):
        files.read_csv(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("a,b\n1,2,,\n1\n")
    assert files.read_csv(tmp_path / "a.csv") == [{"a": "1", "b": "2"}, {"a": "1", "b": ""}]
