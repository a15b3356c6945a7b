"""The report: one page that opens offline, agrees with the run, and says what it shows."""

import json
import math
import re
from html.parser import HTMLParser

import fake_run
import numpy as np
import pytest
from fake_run import THRESHOLD, write_fake_run
from sklearn.metrics import f1_score

from retina_utils import RetinaError, checkpoint, data, evaluate, images, metrics, models
from retina_utils.commands.__main__ import main
from retina_utils.datasets import ledger
from retina_utils.machine import files, runs
from retina_utils.patches import Preparation
from retina_utils.show import report


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_fake_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def page(run):
    return report.write_report(run).read_text(encoding="utf-8")


def without_viewer(page: str) -> str:
    return re.sub(r"<script.*?</script>|<style>.*?</style>", "", page, flags=re.S)


def test_the_page_is_written_beside_the_run_and_is_small(run, page):
    assert (run / "report.html").stat().st_size < report.MAX_BYTES
    assert not list(run.glob(".report*"))  # no temporary file stays


def test_nothing_is_loaded_from_elsewhere(page):
    attributes = re.findall(r'(?:src|href|xlink:href)="([^"]*)"', page)
    assert attributes
    assert all(value.startswith(("data:", "#")) for value in attributes)
    assert not re.search(r"@import|<link|<iframe|url\((?!#)", page)


def test_every_tag_is_closed(page):
    parser, opened = HTMLParser(), []
    parser.handle_starttag = lambda tag, _: tag in ("meta", "img") or opened.append(tag)
    parser.handle_startendtag = lambda tag, _: None
    parser.handle_endtag = lambda tag: opened.pop() == tag or pytest.fail(f"</{tag}> too early")
    parser.feed(page)
    assert opened == []


def test_the_headline_is_the_recorded_score_and_never_naked(run, page):
    dice = report.read_run(run).results.splits["test"].pooled["dice"]
    opening = page[page.index('class="verdict"') : page.index("<nav")]
    assert f"<b>{dice:.3f}</b>" in opening
    for word in ("eyes, test split", "4 photographs of 3 people", "field of view", "pooled",
                 f"{THRESHOLD:.3f}", "validation", "seed\n5", "Command"):  # fmt: skip
        assert word in opening


def test_scores_have_the_names_they_have_in_the_notebooks(page):
    for words in metrics.SCORES.values():
        assert re.search(rf'<th scope="row">{words}</th>', page, re.IGNORECASE)


def test_every_image_and_chart_is_described_in_words(page):
    for tag in re.findall(r"<img [^>]*>", without_viewer(page)):
        assert re.search(r'alt="[^"]+"', tag)
    charts = re.findall(r"<svg [^>]*>", without_viewer(page))
    assert len(charts) == 4
    assert all("aria-label" in chart for chart in charts)
    assert len(re.findall(r"<b>Figure \d\.</b>", page)) == page.count("<figcaption>") == 6


@pytest.mark.parametrize(
    ("people", "title", "labels"),
    [
        ("e", "The only photograph", ["The only photograph"]),
        ("ee", "The best and the worst photograph", ["Best", "Worst"]),
        ("eef", "The best, the middle and the worst photograph", ["Best", "Middle", "Worst"]),
        ("eefg", "The best, the middle and the worst photograph", ["Best", "Middle", "Worst"]),
    ],
)
def test_the_extremes_are_named_and_their_pictures_too(
    tmp_path, monkeypatch, people, title, labels
):
    monkeypatch.setitem(fake_run.PEOPLE, "test", people)
    run = write_fake_run(tmp_path, size=48)
    ranked = report.read_run(run).measured["test"].ranked(THRESHOLD)
    places = {"Middle": len(people) // 2, "Worst": len(people) - 1}  # of two middles the lower
    page = without_viewer(report.write_report(run).read_text(encoding="utf-8"))
    shown = re.findall(r"<p><b>([^:<]*): (test_\d)</b> · Dice", page)
    assert shown == [(label, ranked[places.get(label, 0)].pair.name) for label in labels]
    assert f'<h2 id="photographs">{title}</h2>' in page
    first = page[page.index('<div class="panels">') :].split("<p>")[1]
    for heading in ("photograph", "errors", "detail with most errors", "errors of the detail"):
        assert f"<span>{heading}</span>" in first
    assert "edian" not in page


def test_one_person_gives_no_interval_to_be_inside_of(tmp_path, monkeypatch):
    monkeypatch.setitem(fake_run.PEOPLE, "test", "ee")
    page = report.write_report(write_fake_run(tmp_path, size=48)).read_text(encoding="utf-8")
    page = re.sub(r"\s+", " ", without_viewer(page))
    assert "(1 person), a U-Net with 1,234 parameters reaches a pooled Dice of" in page
    assert "– to –" not in page and "that interval" not in page
    assert "no 95 % interval can be given" in page


@pytest.mark.parametrize(("people", "several"), [("efgh", False), ("efghi", True)])
def test_an_interval_takes_five_people(tmp_path, monkeypatch, people, several):
    monkeypatch.setitem(fake_run.PEOPLE, "test", people)
    page = report.write_report(write_fake_run(tmp_path, size=48)).read_text(encoding="utf-8")
    page = re.sub(r"\s+", " ", without_viewer(page))
    opening = page[page.index('class="verdict"') : page.index("<nav")]
    assert bool(re.search(r"95 % interval 0\.\d+ to 0\.\d+", opening)) == several
    assert ("4 people, so no interval" in opening) != several
    assert ('<th scope="col">95 % interval</th>' in page) == several
    assert ("that interval" in page) == ("itself rough" in page) == several
    assert ("no 95 % interval can be given, for it takes 5." in page) != several


def test_a_sentence_ends_once(tmp_path):
    run = write_fake_run(tmp_path, size=48)
    summary = json.loads((run / "metrics.json").read_text())
    summary["protocol"]["took_part"] = ledger.in_words(["camera trained on"])
    files.write_json(run / "metrics.json", summary)
    runs.record(run, "04_evaluate", {"seed": 5}, {}, ["metrics.json", "metrics.csv"])
    page = report.write_report(run).read_text(encoding="utf-8")
    assert "Others of their camera were trained on." in page and "trained on.." not in page


def test_a_single_photograph_has_no_column_that_would_be_empty(tmp_path, monkeypatch):
    monkeypatch.setitem(fake_run.PEOPLE, "test", "e")
    page = report.write_report(write_fake_run(tmp_path, size=48)).read_text(encoding="utf-8")
    page = re.sub(r"\s+", " ", without_viewer(page))
    table = page[page.index("Scores, test") :].split("</table>")[0]
    heads = re.findall(r'<th scope="col">(.*?)</th>', table)
    assert heads == ["test", "pooled", "2nd observer"]
    opening = page[page.index('class="verdict"') : page.index("<nav")]
    assert "–" not in opening and "±" not in opening and "pooled over" not in opening
    assert "1 photographs" not in page and "1 people" not in page and "worst first" not in page
    assert "is itself rough" not in page and "drawn again" not in page


def cells_of(table: str) -> list[list[str]]:
    rows = (re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in table.split("<tr>")[1:])
    return [[cell.strip() for cell in row] for row in rows]


def test_all_numbers_of_the_page_are_those_of_the_files(run, page):
    """The tables, the opening and the slider at the chosen threshold: to the last digit shown."""
    found = json.loads((run / "metrics.json").read_text())
    each = {row["name"]: row for row in files.read_csv(run / "metrics.csv")}
    text, keys = report.as_text, list(report.HEADINGS)
    for split, scores in found["splits"].items():
        part = page[page.index(f"Scores, {split}") :].split("</table>")[0]
        rows = cells_of(part)
        at = {head: rows[0].index(head) for head in ("pooled", "mean ± SD")}
        for key, row in zip(keys, rows[1:], strict=True):
            assert row[at["pooled"]] == text(scores["pooled"][key])
            assert row[at["mean ± SD"]] == report.mean_sd(scores["mean"][key], scores["sd"][key])
    pooled = found["splits"]["test"]["pooled"]
    lead = page[page.index('class="lead-numbers"') :].split("</div>\n</div>")[0]
    assert re.findall(r"<b>(.*?)</b>", lead) == [
        text(pooled[key]) for key in ("dice", "recall", "precision", "auc")
    ]
    photographs = page[page.index('aria-label="Scores of every photograph"') :].split("</table>")[0]
    for name, *shown in cells_of(photographs)[1:]:
        assert shown == [text(float(each[name][key])) for key in keys]
    slider = json.loads(re.search(r'application/json">(.*?)</script>', page, re.S)[1])
    level = slider["marks"]["chosen"]["level"]
    for key, values in slider["whole"].items():
        assert text(values[level]) == text(pooled[key])
    assert len(slider["cases"]) == 4
    for case in slider["cases"]:
        name = case["name"].split(" ")[0]
        for key, values in case["scores"].items():
            assert text(values[level]) == text(float(each[name][key]))


def test_the_slider_rounds_once(run, page):
    """At every threshold, as a table would print it: rounded to four digits first, some differ."""
    counted = report.read_run(run).measured["test"].pooled
    slider = json.loads(re.search(r'application/json">(.*?)</script>', page, re.S)[1])
    for level, threshold in enumerate(slider["levels"]):
        for key, value in metrics.scores(metrics.confusion_at(counted, threshold)).items():
            if key in slider["whole"]:
                assert report.as_text(slider["whole"][key][level]) == report.as_text(value)


@pytest.mark.parametrize(
    ("dice", "precision", "recall", "auc", "words"),
    [
        (0.2, 0.2, 0.2, 0.6, "marking every pixel would have scored as well"),
        (math.nan, math.nan, 0.0, math.nan, "marking every pixel would have scored as well"),
        (0.3, 0.3, 0.3, 0.57, "hardly tells vessels"),
        (0.6, 0.9, 0.45, 0.95, "many were missed"),
        (0.6, 0.45, 0.9, 0.95, "marked that is none"),
        (0.8, 0.8, 0.8, 0.98, "Most of the vessels were found"),
    ],
)
def test_the_verdict_follows_from_the_scores(dice, precision, recall, auc, words):
    pooled = {"dice": dice, "precision": precision, "recall": recall, "auc": auc}
    assert words in report.verdict(pooled, 0.23)


def test_an_area_near_one_half_does_not_read_as_calmly_as_one_near_one():
    words = [report.auc_in_words(auc) for auc in (0.57, 0.7, 0.85, 0.95, 0.98, math.nan)]
    assert len(set(words)) == 6 and words[0].startswith("close to guessing")


def test_the_baseline_is_the_score_of_marking_every_pixel(run, page):
    samples = [data.load_sample(pair) for pair in report.read_run(run).splits.test]
    vessels = np.concatenate([sample.vessels[sample.fov] for sample in samples])
    expected = f1_score(vessels, np.ones_like(vessels))
    assert f"marking every pixel would score\n{expected:.3f}" in page


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({}, "the epoch kept, the threshold"),
        ({"schedule": "cosine", "patience": 0}, "the epoch kept, the threshold"),
        (
            {"schedule": "plateau", "patience": 9},
            "the learning rate, when training stops, the epoch kept, the threshold",
        ),
    ],
)
def test_validation_decides_what_it_does_decide(tmp_path, parameters, words):
    run = write_fake_run(tmp_path, size=48)
    runs.record(run, "03_train", {"seed": 5, **parameters}, {}, ["history.csv"])
    assert f"<td>{words}</td>" in report.write_report(run).read_text(encoding="utf-8")


def test_links_lead_to_places_on_the_page(page):
    wanted = set(re.findall(r'<a href="#([^"]+)"', without_viewer(page)))
    assert len(wanted) == 7
    assert wanted <= set(re.findall(r' id="([^"]+)"', page))


def test_the_second_observer_is_scored_like_the_network(run, page):
    read = report.read_run(run)
    pair, counts = read.splits.test[0], read.measured["test"].second[0]
    human, sample = images.read_binary(pair.second), data.load_sample(pair)
    assert counts == metrics.confusion(human, sample.vessels, sample.fov)
    assert "second human observer" in page


def test_synthetic_photographs_carry_a_banner_and_real_ones_do_not(tmp_path, page):
    synthetic = report.write_report(write_fake_run(tmp_path, synthetic=True)).read_text()
    assert 'class="banner"' in synthetic
    assert "say nothing about real photographs" in re.sub(r"\s+", " ", synthetic)
    assert 'class="banner"' not in page


def test_less_room_leaves_photographs_out_of_the_slider_and_says_so(run, monkeypatch):
    monkeypatch.setattr(report, "MAX_BYTES", 1)
    page = report.write_report(run).read_text(encoding="utf-8")
    assert "3 more were left out" in page


@pytest.mark.parametrize(
    ("missing", "notebook"),
    [
        ("01_data.json", "01_data"),
        ("03_train.json", "03_train"),
        ("metrics.json", "04_evaluate"),
        ("probability/test/test_1.png", "04_evaluate"),
    ],
)
def test_a_missing_piece_names_the_notebook_to_run(tmp_path, missing, notebook):
    run = write_fake_run(tmp_path, size=48)
    (run / missing).unlink()
    with pytest.raises(RetinaError, match=rf"(?s){notebook}.*[Rr]un {notebook}\.ipynb"):
        report.write_report(run)
    assert not (run / "report.html").exists()


def test_maps_of_another_run_are_refused(tmp_path):
    run = write_fake_run(tmp_path, size=48)
    path = run / "probability" / "test" / "test_0.png"
    images.write_probability(path, 1 - images.read_probability(path))
    with pytest.raises(RetinaError, match="different runs"):
        report.write_report(run)


def test_moved_photographs_are_asked_for(tmp_path):
    run = write_fake_run(tmp_path, size=48)
    (tmp_path / "eyes").rename(tmp_path / "elsewhere")
    with pytest.raises(RetinaError, match="data_dir"):
        report.write_report(run)


def test_the_command_line_says_where_the_page_is_or_what_is_wrong(
    run, page, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("RETINA_COMMAND", "pytest")  # the command would leave its own
    assert main(["report", str(run)]) == 0
    assert "report.html" in capsys.readouterr().out
    assert (run / "report.html").read_text(encoding="utf-8") == page  # the same bytes again
    assert main(["report", str(tmp_path / "none")]) == 2
    assert "no such run folder" in capsys.readouterr().err


def test_a_threshold_chosen_by_eye_is_told_and_changes_no_score(run):
    before = report.write_report(run).read_text()
    runs.keep_threshold(run, 0.31, "thin vessels <matter>")
    after = report.write_report(run).read_text()
    (run / "threshold_by_eye.json").unlink()
    assert "by eye" not in before
    assert "by eye, 0.310: “thin vessels &lt;matter&gt;”" in after
    assert f"{THRESHOLD:.3f}" in after


def test_scores_of_another_version_are_told(tmp_path):
    run = write_fake_run(tmp_path, size=48)
    summary = json.loads((run / "metrics.json").read_text())
    del summary["splits"]["test"]["pooled"]["iou"]
    files.write_json(run / "metrics.json", summary)
    runs.record(run, "04_evaluate", {"seed": 5}, {}, ["metrics.json", "metrics.csv"])
    with pytest.raises(RetinaError, match=r"has no iou, .* Run 04_evaluate"):
        report.write_report(run)


def on_given_weights(run, weights="pretrained", seed=7):
    """Turn a fake run into one that trained nothing."""
    for name in ("02_model.json", "03_train.json", "model.json", "history.csv"):
        (run / name).unlink()
    model = models.build_model("unet", {"c_in": 1, "widths": [4, 8]})
    summary = json.loads((run / "metrics.json").read_text())
    network = checkpoint.Network(model, Preparation(), facts={"card": {"recipe": {"seed": seed}}})
    trained_on = "2 photographs of CHASE_DB1, Image_01L to Image_01R"
    summary["network"] = evaluate.describe_network(network, weights, trained_on)
    summary["threshold"]["chosen_on"] = "the weights' own training"
    summary["protocol"]["took_part"] = "These weights were trained on <others>."
    files.write_json(run / "metrics.json", summary)
    parameters = {"seed": 5, "weights": weights}
    runs.record(run, "04_evaluate", parameters, {}, ["metrics.json", "metrics.csv"])
    return run


def test_scores_on_photographs_that_were_trained_on_are_said_to_be_no_test(tmp_path):
    run = write_fake_run(tmp_path, size=48)
    summary = json.loads((run / "metrics.json").read_text())
    names = [pair.name for pair in report.read_run(run).splits.test]
    summary["protocol"]["took_part"] = ledger.in_words(["trained on", "none"])
    summary["network"]["took_part"] = {"test": dict.fromkeys(names, "trained on")}
    files.write_json(run / "metrics.json", summary)
    runs.record(run, "04_evaluate", {"seed": 5}, {}, ["metrics.json", "metrics.csv"])
    page = report.write_report(run).read_text()
    assert "<b>No test.</b> THESE SCORES ARE NO TEST: Of these 2 test photographs: 1 tr" in page
    assert page.count("; took part: trained on") == 3  # best, middle, worst


def test_a_run_on_given_weights_needs_no_training_and_says_so(tmp_path):
    page = report.write_report(on_given_weights(write_fake_run(tmp_path, size=48))).read_text()
    assert "Nothing was trained in this run.</b> These weights were trained on &lt;oth" in page
    assert "2 photographs of CHASE_DB1, Image_01L to Image_01R" in page and "seed\n7" in page
    assert "on the weights&#39; own training photographs and not moved" in page
    assert "nothing: the weights were given" in page
    numbers = re.findall(r"<b>Figure (\d)\.</b>", page)
    assert numbers == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize(("seed", "told"), [(0, "0"), (None, "not recorded")])
def test_seed_zero_is_a_seed(tmp_path, seed, told):
    run = on_given_weights(write_fake_run(tmp_path, size=48), seed=seed)
    assert f"One training run, seed\n{told}. Command" in report.write_report(run).read_text()


def test_given_weights_do_not_excuse_a_missing_evaluation(tmp_path):
    run = on_given_weights(write_fake_run(tmp_path, size=48))
    (run / "metrics.csv").unlink()
    with pytest.raises(RetinaError, match=r"Run 04_evaluate\.ipynb"):
        report.write_report(run)


def test_the_page_names_no_folder_above_the_data(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RETINA_COMMAND", f"make run-all DATA={tmp_path / 'eyes'}")
    page = report.write_report(write_fake_run(tmp_path)).read_text()
    assert str(tmp_path) not in page and "make run-all DATA=~/eyes" in page


def test_finding_is_told_apart_from_drawing(page):
    assert "drawn / annotated width" in page and "0.912" in page
