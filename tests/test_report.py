"""The report: one page that opens offline, agrees with the run, and says what it shows."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from fake_run import THRESHOLD, write_fake_run

from retina_utils import data, images, metrics, models, report, runs


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
    dice = report.read_run(run).metrics["splits"]["test"]["pooled"]["dice"]
    opening = page[page.index('class="verdict"') : page.index("<h2>")]
    assert f"<b>{dice:.3f}</b>" in opening
    for word in ("eyes, test split", "4 photographs of 3 people", "field of view", "pooled",
                 f"{THRESHOLD:.4f}", "validation", "seed\n5", "Command"):  # fmt: skip
        assert word in opening


def test_every_image_and_chart_is_described_in_words(page):
    for tag in re.findall(r"<img [^>]*>", without_viewer(page)):
        assert re.search(r'alt="[^"]+"', tag)
    charts = re.findall(r"<svg [^>]*>", without_viewer(page))
    assert len(charts) == 4
    assert all("aria-label" in chart for chart in charts)
    assert len(re.findall(r"<b>Figure \d\.</b>", page)) == page.count("<figcaption>") == 6


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
    with pytest.raises(runs.RunError, match=rf"(?s){notebook}.*[Rr]un {notebook}\.ipynb"):
        report.write_report(run)
    assert not (run / "report.html").exists()


def test_maps_of_another_run_are_refused(tmp_path):
    run = write_fake_run(tmp_path, size=48)
    path = run / "probability" / "test" / "test_0.png"
    images.write_probability(path, 1 - images.read_probability(path))
    with pytest.raises(runs.RunError, match="different runs"):
        report.write_report(run)


def test_moved_photographs_are_asked_for(tmp_path):
    run = write_fake_run(tmp_path, size=48)
    (tmp_path / "eyes").rename(tmp_path / "elsewhere")
    with pytest.raises(runs.RunError, match="data_dir"):
        report.write_report(run)


def test_the_command_line_says_where_the_page_is_or_what_is_wrong(run, page, tmp_path, capsys):
    assert report.main([str(run)]) == 0
    assert "report.html" in capsys.readouterr().out
    assert (run / "report.html").read_text(encoding="utf-8") == page  # the same bytes again
    assert report.main([str(tmp_path / "none")]) == 1
    assert "no such run folder" in capsys.readouterr().err


def test_intervals_cover_the_true_score_about_as_often_as_they_say():
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(200):
        recall = np.clip(rng.normal(0.8, 0.05, 40), 0, 1)
        tp = np.round(1000 * recall).astype(int)
        counts = [{"tp": int(t), "fp": 0, "fn": 1000 - int(t), "tn": 9000} for t in tp]
        low, high = report.bootstrap_intervals(counts, [str(i) for i in range(40)])["recall"]
        inside += low <= 0.8 <= high
    assert 0.88 <= inside / 200 <= 0.99


def test_eyes_of_one_person_are_drawn_together():
    good, bad = {"tp": 9, "fp": 1, "fn": 1, "tn": 9}, {"tp": 5, "fp": 5, "fn": 5, "tn": 5}
    alike = report.bootstrap_intervals([good, good, bad, bad], ["a", "a", "b", "b"])["dice"]
    apart = report.bootstrap_intervals([good, good, bad, bad], ["a", "b", "c", "d"])["dice"]
    assert alike == (0.5, 0.9)  # only both good, both bad, or one of each
    assert apart[0] >= alike[0] and apart[1] <= alike[1]
    assert np.isnan(report.bootstrap_intervals([good, bad], ["a", "a"])["dice"]).all()


def test_a_threshold_chosen_by_eye_is_told_and_changes_no_score(run):
    before = report.write_report(run).read_text()
    runs.keep_threshold(run, 0.31, "thin vessels <matter>")
    after = report.write_report(run).read_text()
    (run / "threshold_by_eye.json").unlink()
    assert "by eye" not in before
    assert "by eye, 0.310: “thin vessels &lt;matter&gt;”" in after
    assert f"{THRESHOLD:.4f}" in after


def on_given_weights(run, weights="pretrained"):
    """Turn a fake run into one that trained nothing."""
    for name in ("02_model.json", "03_train.json", "model.json", "history.csv"):
        (run / name).unlink()
    model = models.build_model("unet", {"c_in": 1, "widths": [4, 8]})
    summary = json.loads((run / "metrics.json").read_text())
    photographs = {"chase_db1": ["Image_01L", "Image_01R"]}
    facts = {"card": {"photographs": photographs, "recipe": {"seed": 7}}}
    summary["network"] = report.describe_network(model, weights, facts)
    summary["threshold"]["chosen_on"] = "the weights' own training"
    summary["protocol"]["weights"] = "These weights were trained on <others>."
    runs.write_json(run / "metrics.json", summary)
    parameters = {"seed": 5, "weights": weights}
    runs.record(run, "04_evaluate", parameters, {}, ["metrics.json", "metrics.csv"])
    return run


def test_a_run_on_given_weights_needs_no_training_and_says_so(tmp_path):
    page = report.write_report(on_given_weights(write_fake_run(tmp_path, size=48))).read_text()
    assert "Nothing was trained in this run.</b> These weights were trained on &lt;oth" in page
    assert "2 photographs of CHASE_DB1, Image_01L to Image_01R" in page and "seed\n7" in page
    assert "on the weights&#x27; own training photographs and not moved" in page
    assert "nothing: the weights were given" in page
    numbers = re.findall(r"<b>Figure (\d)\.</b>", page)
    assert numbers == ["1", "2", "3", "4", "5"]


def test_given_weights_do_not_excuse_a_missing_evaluation(tmp_path):
    run = on_given_weights(write_fake_run(tmp_path, size=48))
    (run / "metrics.csv").unlink()
    with pytest.raises(runs.RunError, match=r"Run 04_evaluate\.ipynb"):
        report.write_report(run)


def test_the_record_of_a_network_changes_with_its_weights():
    model = models.build_model("unet", {"c_in": 1, "widths": [4, 8]})
    before = report.describe_network(model, "", {"data": "eyes", "seed": 3})
    assert before["parameters"] == models.count_parameters(model)
    assert (before["trained_on"], before["seed"], before["weights"]) == ("eyes", 3, "")
    assert report.describe_network(model, "", {})["sha256"] == before["sha256"]
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1e-3
    assert report.describe_network(model, "", {})["sha256"] != before["sha256"]


CARD = {"photographs": {"chase_db1": ["Image_01L", "Image_01R"], "hrf": ["01_h"]}}


@pytest.mark.parametrize(
    ("facts", "title", "names", "words"),
    [
        ({"card": CARD}, "CHASE_DB1", ["Image_01L", "Image_11L"], "1 of these 2 test photographs"),
        ({"card": CARD}, "CHASE_DB1", ["Image_11L"], "None of these test photographs is there"),
        ({"card": CARD}, "HRF (High-Resolution Fundus)", ["01_h"], "1 of these 1 test"),
        (
            {"card": CARD},
            "",
            ["Image_01L"],
            "HRF (High-Resolution Fundus), 01_h to 01_h. Scores on photographs from",
        ),
        ({"data": "mine"}, "CHASE_DB1", ["Image_01L"], "trained on mine. Scores on photographs"),
        ({}, "", ["a"], "photographs they do not name. Scores"),
    ],
)
def test_photographs_the_given_weights_have_seen_are_told(facts, title, names, words):
    assert words in report.seen_in_training(facts, title, names)


def test_the_network_in_the_box_tells_what_it_has_seen():
    if not models.PRETRAINED.is_file():
        pytest.skip("no network in the box yet: make pretrained")
    _, facts = models.load_model("pretrained")
    told = report.seen_in_training(facts, "CHASE_DB1", ["Image_10R", "Image_11L"])
    assert "20 photographs of CHASE_DB1, Image_01L to Image_10R" in told
    assert "1 of these 2 test photographs" in told


def test_scores_of_other_weights_are_refused():
    report.require_weights({}, "")
    report.require_weights({"network": {"weights": "pretrained"}}, "pretrained")
    with pytest.raises(runs.RunError, match=r"the run's own weights, and 'pretrained' are asked"):
        report.require_weights({"network": {"weights": ""}}, "pretrained")
    with pytest.raises(runs.RunError, match=r"'pretrained' weights, and the run's own"):
        report.require_weights({"network": {"weights": "pretrained"}}, "")


def test_a_second_observer_counts_only_if_all_photographs_have_one(run):
    pairs = report.read_run(run).splits.test
    assert len(report.count_observer(pairs)) == len(pairs) > 1
    assert report.count_observer([pairs[0]._replace(second=None), *pairs[1:]]) == []
    assert report.count_observer([]) == []
