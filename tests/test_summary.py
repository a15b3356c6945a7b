"""summary.csv: linear in the photographs, whole after a kill at any point."""

import csv
import errno
import os

import pytest

from retina_utils.commands import summary
from retina_utils.commands.summary import Outcome, Summary


@pytest.fixture
def places(tmp_path):
    """Where maps go, and two hundred photographs; failed ones, which need no maps."""
    out, root = tmp_path / "maps", tmp_path / "photographs"
    out.mkdir()
    root.mkdir()
    outcomes = [Outcome(f"é {n:03d}.png", "failed", message='a "b",\n') for n in range(200)]
    for outcome in outcomes:
        (root / outcome.name).touch()
    return out, root, outcomes


def names_in(out):
    with (out / "summary.csv").open(newline="", encoding="utf-8") as file:
        return [row["name"] for row in csv.DictReader(file)]


def killed(kept):
    """As a kill leaves it: nothing more is written."""
    kept.file.close()


def test_no_kill_loses_an_outcome_and_the_table_stays_sound(places):
    out, root, outcomes = places
    for stop in (1, 7, 60, 130):
        kept = Summary(out, root).__enter__()
        for outcome in outcomes[:stop]:
            kept.add(outcome)
        killed(kept)
        assert set(names_in(out)) <= {o.name for o in outcomes}
        assert len(names_in(out)) >= 0.9 * stop
        assert list(Summary(out, root).outcomes.values()) == outcomes[:stop]
    with Summary(out, root):
        pass
    assert names_in(out) == [o.name for o in outcomes[:130]]
    assert not (out / ".summary.journal").exists()


@pytest.mark.parametrize("torn", [1, 30, -1])
def test_a_torn_last_line_costs_that_outcome_only(places, torn):
    out, root, outcomes = places
    kept = Summary(out, root).__enter__()
    for outcome in outcomes[:20]:
        kept.add(outcome)
    killed(kept)
    (out / "summary.csv").unlink()
    whole = (out / ".summary.journal").read_bytes()
    start = whole[:-1].rindex(b"\n") + 1
    (out / ".summary.journal").write_bytes(whole[: start + torn] if torn > 0 else whole[:torn])
    assert list(Summary(out, root).outcomes.values()) == outcomes[:19]
    with Summary(out, root) as again:
        again.add(outcomes[19])
    assert names_in(out) == [o.name for o in outcomes[:20]]


def test_the_lines_written_grow_with_the_photographs_not_with_their_square(places, monkeypatch):
    out, root, outcomes = places
    real, written = summary.write_summary, []

    def counting(out, outcomes, judged):
        written.append(len(outcomes))
        real(out, outcomes, judged)

    monkeypatch.setattr(summary, "write_summary", counting)
    with Summary(out, root) as kept:
        for outcome in outcomes:
            kept.add(outcome)
    assert sum(written) < 13 * len(outcomes)


def test_what_a_spreadsheet_saves_in_between_loses_nothing(places):
    out, root, outcomes = places
    kept = Summary(out, root).__enter__()
    for outcome in outcomes[:40]:
        kept.add(outcome)
    rows = list(csv.reader((out / "summary.csv").open(encoding="utf-8")))
    with (out / "summary.csv").open("w", encoding="utf-16", newline="") as file:
        csv.writer(file, delimiter="\t").writerows(rows[:30])
    kept.add(outcomes[40])
    killed(kept)
    assert set(Summary(out, root).outcomes) == {o.name for o in outcomes[:41]}


def test_lines_stand_by_name_whoever_came_first(places):
    out, root, outcomes = places
    with Summary(out, root) as kept:
        for outcome in reversed(outcomes):
            kept.add(outcome)
    assert names_in(out) == [o.name for o in outcomes]


def test_a_disk_that_is_full_is_raised_and_one_that_cannot_sync_is_not(places, monkeypatch):
    out, root, outcomes = places

    def failing(number):
        def fsync(handle):
            raise OSError(number, os.strerror(number))

        return fsync

    kept = Summary(out, root).__enter__()
    monkeypatch.setattr(os, "fsync", failing(errno.ENOTSUP))
    kept.add(outcomes[0])
    monkeypatch.setattr(os, "fsync", failing(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left"):
        kept.add(outcomes[1])
    killed(kept)
