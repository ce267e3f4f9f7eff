"""The report says what the run folder holds, in plain words, with everything escaped and nothing loaded."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fake_run import ALL, EVIL, make_run

from medkit.errors import MedkitError
from medkit.report import charts, wording
from medkit.report.build import write_report

LIMIT = 3_000_000


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> str:
    run = make_run(tmp_path_factory.mktemp("runs") / "fake")
    path = write_report(run)
    assert path == run / "report.html"
    return path.read_text(encoding="utf-8")


def plain(page: str) -> str:
    """The text that a reader sees, one space between words."""
    body = re.sub(r"<(style|svg)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def test_headline_is_one_sentence_with_intervals_and_p(report):
    assert (
        "On 200 held-out questions about 20 images, accuracy rose from 41.0 % (95 % interval 38.0–44.0) with "
        "the base to 93.0 % (90.0–96.0) after adaptation: +52.0 points (+49.0 to +55.0; exact McNemar, "
        "p < 0.001)."
    ) in plain(report)


def test_no_gain_is_said_plainly(tmp_path):
    page = plain(write_report(make_run(tmp_path / "fake", rates={"instruct": 0.42})).read_text())
    assert "No gain is shown: on 200 held-out questions about 20 images, accuracy went from 41.0 %" in page
    assert "includes zero: +1.0 points (−2.0 to +4.0; exact McNemar, p = 0.620)." in page
    assert "accuracy rose" not in page


def test_a_loss_is_said_plainly(tmp_path):
    page = plain(write_report(make_run(tmp_path / "fake", rates={"instruct": 0.30})).read_text())
    assert "The adapted model is worse: on 200 held-out questions" in page
    assert "Caution Worse than the base" in page


def test_what_to_distrust(report):
    text = plain(report)
    assert "Caution held-out: a small test 200 questions about 20 images" in text
    assert (
        "Caution held-out: kinds that do not beat the most frequent answer class (88.0 % against 95.0 %)."
        in text
    )
    assert "Caution Train and test overlap 2 near-duplicate images of the test also occur in training" in text
    assert "Caution general-scenes: something was forgotten" in text and "−4.0 points (−7.0 to −1.0)" in text
    assert (
        "Note instruct-no-replay: validation loss rose again It ended at 0.203 after a lowest value of 0.165."
        in text
    )
    assert "1 truncated of 200 answers" in text
    assert (
        "Checked held-out: the image is used Accuracy is 93.0 % with the right image, 44.0 % with a blank "
        "image (44.0 % of the right answers survive), 45.0 % with noise in place of the image (45.0 % of the "
        "right answers survive), 46.0 % with another question's image (47.0 % of the right answers survive) and "
        "51.0 % with no image at all"
    ) in text


def test_wording_has_one_source_unless_the_set_has_questions_of_its_own(report, tmp_path):
    said = "The wording of train and test has one source"
    assert said in plain(report)
    run = make_run(tmp_path / "fake")
    path = next(run.glob("*-ingest/summary.json"))
    summary = json.loads(path.read_text())
    summary["result"]["kinds"] = {"record": 4, "question": 20}
    path.write_text(json.dumps(summary))
    assert said not in plain(write_report(run).read_text())


def test_a_control_that_survives_is_a_caution(tmp_path):
    page = plain(write_report(make_run(tmp_path / "fake", rates={"instruct": 0.50})).read_text())
    assert "Caution held-out: the image hardly matters Accuracy is 50.0 % with the right image" in page


def test_controls_tell_the_share_of_the_gain_that_is_kept(report):
    text = plain(report)
    controls = text[text.index("Does it look at the image?") :]
    assert "instruct, blank image 44.0 % 41.0–47.0 44.0 % −4.0 % instruct, noise as image" in controls
    assert "instruct, no image 51.0 % 48.0–54.0 52.0 % 10.0 %" in controls
    assert (
        "Note held-out: questions that answer themselves Without any image 51.0 % are right, and the most "
        "frequent answer gives 44.0 %"
    ) in text


def test_poor_pictures_have_a_table_and_a_drawing_with_intervals(report):
    text = plain(report)
    assert "blurred 3 39.5 % 36.5–42.5 −1.5 −4.5 to +1.5 75.0 % 72.0–78.0 −18.0 −21.0 to −15.0" in text
    assert "JPEG, strongly compressed 1" in text and "Checked held-out: poorer pictures cost what" in text
    label = (
        "severity: base 41.0\u00a0% at none, 40.5\u00a0% at 1, 39.5\u00a0% at 3, 38.5\u00a0% at 5; instruct"
    )
    assert f'aria-label="{label} 93.0\u00a0% at none, 87.0\u00a0% at 1' in report
    drawn = report[
        report.index(label) : report.index("</svg>", report.index("</svg>", report.index(label)) + 6)
    ]
    assert drawn.count('<circle class="dot final"') == 4 == drawn.count('<line class="whisker final"')


@pytest.mark.parametrize(
    ("kind", "severity", "change", "told"),
    [
        ("blur", "1", -0.2, "Caution held-out: slightly poorer pictures cost much Accuracy falls by more than 10 "
         "points with pictures blurred at severity 1 (−20.0 points)."),
        ("window", "5", 0.0, "Note held-out: very poor pictures cost nothing No fall is shown with pictures grey "
         "window set wrongly at severity 5: are the details looked at?"),
    ],
)  # fmt: skip
def test_what_poor_pictures_say(tmp_path, kind, severity, change, told):
    run, path, scores = _changed(tmp_path)
    entry = scores["benchmarks"]["held-out"]["corruptions"][kind][severity]
    entry["change"] = {"value": change, "low": change - 0.02, "high": change + 0.02}
    path.write_text(json.dumps(scores))
    assert told in plain(write_report(run).read_text())


def test_poor_pictures_that_cost_nothing_for_sure_are_not_called_fine(tmp_path):
    run, path, scores = _changed(tmp_path)
    corruptions = scores["benchmarks"]["held-out"]["corruptions"]
    for levels in corruptions.values():  # asked at slight severities only
        for level in [level for level in levels if int(level) > 3]:
            del levels[level]
        for entry in levels.values():
            entry["change"] = {"value": 0.0, "low": -0.02, "high": 0.02}
    path.write_text(json.dumps(scores))
    assert "poorer pictures cost what they should" not in plain(write_report(run).read_text())
    run, path, scores = _changed(tmp_path / "better")
    entry = scores["benchmarks"]["held-out"]["corruptions"]["window"]["5"]
    entry["change"] = {"value": 0.05, "low": 0.01, "high": 0.09}
    path.write_text(json.dumps(scores))
    assert "very poor pictures cost nothing" in plain(write_report(run).read_text())


def test_without_an_image_alone_is_no_control(tmp_path):
    run, path, scores = _changed(tmp_path)
    controls = scores["benchmarks"]["held-out"]["controls"]
    scores["benchmarks"]["held-out"]["controls"] = {"text": controls["text"]}
    path.write_text(json.dumps(scores))
    text = plain(write_report(run).read_text())
    assert "Caution held-out: no image control was run" in text and "held-out: the image is used" not in text


def test_a_share_of_a_gain_that_may_be_none_is_not_told(tmp_path):
    run, path, scores = _changed(tmp_path)
    scores["benchmarks"]["held-out"]["majority"] = 0.91  # within 90 to 96
    scores["benchmarks"]["held-out"]["controls"]["blank"]["gain_kept"] = -23.5
    path.write_text(json.dumps(scores))
    assert "2350.0" not in plain(write_report(run).read_text())


def _changed(tmp_path):
    run = make_run(tmp_path / "fake")
    path = next(run.glob("*-evaluate-instruct/scores.json"))
    return run, path, json.loads(path.read_text())


def test_certainty_is_drawn_and_judged(report, tmp_path):
    text = plain(report)
    assert "instruct 200 98.0 % 93.0 % 12.4 94.8 % 95.8 % 96.0 %" in text
    assert "Note held-out: the model is too sure of itself It is sure of its answers to 98.0 %" in text
    assert report.count("how sure the model was: base 20.2") == 1
    assert report.count("share of questions answered, the surest first: base") == 1
    run, path, scores = _changed(tmp_path)
    scores["benchmarks"]["held-out"]["calibration"]["ece"] = 0.02
    path.write_text(json.dumps(scores))
    assert "Checked held-out: confidence means what it says" in plain(write_report(run).read_text())


def test_every_score_of_a_profile_stands_with_its_counts(report):
    text = plain(report)
    assert "held-out · medkit: corrected definitions, version 1" in text
    assert (
        "yes/no Its yes or no, read as a whole word. 50 41.0 % 38.0–44.0 93.0 % 90.0–96.0 3 unparsed, 1 truncated"
        in text
    )
    assert "pope f1 F1 of yes. 50 41.0 % 38.0–44.0 93.0 % 90.0–96.0 –" in text
    assert "cider CIDEr. 50 1.23 1.1–1.4 1.23 1.1–1.4" in text


def test_how_it_was_asked_is_told(report, tmp_path):
    text = plain(report)
    assert (
        "Counts found questions 200, images 20 Counts expected questions 203 Differs questions: 200 found"
        in text
    )
    assert (
        "method greedy; precision fp32; device cpu; batch size 32; 8 of 8 answers asked alone are the same"
        in text
    )
    assert "Caution held-out: the data differ from what is published" in text
    run, path, scores = _changed(tmp_path)
    scores["decoding"] = {"method": "greedy", "endpoint": "http://127.0.0.1:1/v1", "served_by": ["m-1"], "tries": 7,
                          "failed": {"timed out": 3}, "batch_check": {"asked_alone": 8, "same": 7}}  # fmt: skip
    entry = scores["benchmarks"]["held-out"]
    entry |= {
        "failed": 3,
        "bounds": {"low": 0.9, "high": 0.95},
        "answering": "likelihood",
        "by_likelihood": 50,
    }
    path.write_text(json.dumps(scores))
    text = plain(write_report(run).read_text())
    assert "Decoding, instruct method greedy; endpoint http://127.0.0.1:1/v1; served by m-1; tries 7" in text
    assert "failed: timed out 3" in text and "Decoding, base, align and instruct-no-replay" in text
    assert (
        "Caution held-out: questions without a reply 3 questions got no reply and enter no number; had all of"
        in text
    )
    assert "Note instruct: answers depend on the batch 1 of 8 answers are others when asked alone" in text


def test_budgets_stand_beside_accuracy_with_all_stages_added_up(report, tmp_path):
    text = plain(report)
    assert (
        "What each model saw since the base, its stages added up, beside its accuracy on held-out: the budgets differ"
        in text
    )
    assert "base – 0 0 0 0.0 s 41.0 % 38.0–44.0" in text
    assert "align align 200 3,200 50 % of the most 41,234 1 min 35 s 55.0 % 52.0–58.0" in text
    assert "instruct align → instruct 400 6,400 82,468 3 min 10 s 93.0 % 90.0–96.0" in text
    assert "Note Models of unequal budgets Samples seen since the base: align 3,200, instruct 6,400" in text
    two = tuple(step for step in ALL if step not in ("evaluate-align",))
    page = plain(write_report(make_run(tmp_path / "fake", steps=two)).read_text())
    assert "Models of unequal budgets" not in page and "of the most" not in page


def test_benchmarks_by_model_and_forgetting_with_and_without_replay(report):
    text = plain(report)
    assert "instruct 93.0 % 90.0–96.0 +52.0 +49.0 to +55.0; p < 0.001 108 / 4" in text
    forgotten = text[text.index("What was forgotten general-scenes") :]
    assert "instruct 20 % 87.0 % 84.0–90.0 −4.0 −7.0 to −1.0" in forgotten
    assert "instruct-no-replay none 52.0 % 49.0–55.0 −39.0 −42.0 to −36.0" in forgotten
    assert "has no pair of stages" not in text
    assert "instruct and instruct-no-replay start from the same model and differ in replay." in text
    assert "They also differ in length" not in text


def test_stages_with_and_without_replay_that_differ_in_length_say_so(tmp_path):
    run = make_run(tmp_path / "fake")
    for name, epochs in (("instruct", 1.1), ("instruct-no-replay", 0.15)):
        path = next(one for one in run.glob("*/summary.json") if one.parent.name.partition("-")[2] == name)
        summary = json.loads(path.read_text())
        summary["settings"]["epochs"] = epochs
        path.write_text(json.dumps(summary))
    text = plain(write_report(run).read_text())
    assert "They also differ in length: instruct 1.1 epochs, instruct-no-replay 0.15." in text


def test_slices_show_count_interval_and_majority(report):
    assert "position 50 38.0 % 90.0 % 85.0–95.0 35.0 %" in plain(report)
    assert "class 50 36.0 % 88.0 % 83.0–93.0 not beaten 95.0 %" in plain(report)
    label = "base 38.0\u00a0% (33.0–43.0); adapted 90.0\u00a0% (85.0–95.0); most frequent answer 35.0\u00a0%"
    assert f'aria-label="{label}"' in report


def test_gallery_groups_by_a_seeded_rule(report, tmp_path):
    text = plain(report)
    assert "the questions of held-out with the smallest sha256 of “seed|question id” (seed 3)" in text
    totals = re.findall(r"(Fixed|Still wrong|Newly wrong|Right before and after) · (\d+) of (\d+)", text)
    assert [name for name, _, _ in totals] == [
        "Fixed",
        "Still wrong",
        "Newly wrong",
        "Right before and after",
    ]
    assert sum(int(amount) for _, amount, _ in totals) == 200 and {total for _, _, total in totals} == {"200"}
    assert text.count("Gold ") == 6 + 3 + 0 + 3
    again = write_report(make_run(tmp_path / "fake")).read_text()
    questions = re.compile(r'<p class="question">(.*?)</p>')
    assert questions.findall(again) == questions.findall(report)


def test_cards_ledger_and_commands(report):
    text = plain(report)
    assert "ingest rejected image can't be read 2 r900: r900.png is cut off" in text
    assert "told near duplicate across splits 1 r7: r7 (train) and r9 (test) differ by 2 bits of 64" in text
    assert "drawn by medkit from a seed: invented, no patient and no photograph" in text
    assert "derived from annotations by the rule teacher (card version 2)" in text
    assert "Splits test 20, train 40" in text
    assert "Not a medical device." in text
    assert "vision 0, projector 73,920, language 1,500,000" in text
    assert "pip install medkit-lmm==0.1.0 medkit run recipes/fake.yaml --set instruct.epochs=2" in text
    assert "torch 2.13.0" in text and "base: tiny-general" in text
    assert "instruct 200 3,200 41,234 20 % 1 min 35 s" in text


def test_text_of_the_run_is_escaped_and_no_script_runs(report):
    assert EVIL not in report and "<script" not in report.lower()
    assert "What is in &lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; place" in report
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in report


def test_hostile_names_are_escaped_in_charts(tmp_path):
    run = make_run(tmp_path / "fake")
    folder = next(run.glob("*-evaluate-instruct"))
    scores = json.loads((folder / "scores.json").read_text())
    scores["benchmarks"]["held-out"]["slices"]["kind"]['"><script>k'] = {
        "count": 9,
        "value": 0.5,
        "majority": 0.2,
    }
    scores["benchmarks"]["held-out"]["controls"]['"><script>c'] = {"value": 0.5, "low": 0.4, "high": 0.6}
    entry = scores["benchmarks"]["held-out"]
    entry["corruptions"]['"><script>d'] = {"1": {"value": 0.5}, "x": {"value": 0.4}}
    entry["profiles"]['"><script>p'] = entry["profiles"]["medkit"] | {"title": '"><script>p'}
    entry["calibration"]["bins"] = [None, {"confidence": "x", "accuracy": 1}]
    entry["data"]["differs"] = ['"><script>e']
    scores["decoding"]['"><script>f'] = '"><script>g'
    (folder / "scores.json").write_text(json.dumps(scores))
    page = write_report(run).read_text()
    assert "<script" not in page
    assert all(f"&lt;script&gt;{letter}" in page for letter in "kcdpefg")


def test_nothing_is_loaded_from_outside_and_the_file_is_small(report):
    targets = re.findall(r'\b(?:src|srcset|href|action|poster|data|background)="([^"]*)"', report)
    assert len(targets) > 12 and all(
        target.startswith(("#", "data:image/webp;base64,")) for target in targets
    )
    assert not re.search(r"url\(|@import|https?://", report)
    assert report.count("data:image/webp;base64,") >= 12
    assert len(report.encode()) < LIMIT


def test_a_page_of_a_reader_who_cannot_see(report):
    assert all(re.search(r'\balt="[^"]+"', tag) for tag in re.findall(r"<img\b[^>]*>", report))
    assert all("aria-label" in tag or "aria-hidden" in tag for tag in re.findall(r"<svg class[^>]*>", report))
    assert report.count("<table") == report.count("<caption")
    assert all("scope=" in tag for tag in re.findall(r"<th\b[^>]*>", report))
    assert (
        '<html lang="en">' in report and "@media print" in report and "prefers-color-scheme: dark" in report
    )


@pytest.mark.parametrize("count", range(len(ALL)))
def test_a_run_that_stopped_anywhere_gives_a_report_that_says_so(tmp_path, count):
    page = plain(write_report(make_run(tmp_path / "fake", steps=ALL[:count])).read_text())
    assert "This run is not complete." in page
    assert "The step compare has not run: no paired test of base and adapted model, no leak count." in page
    if count <= ALL.index("evaluate-base"):
        assert "Nothing has been evaluated yet" in page
    elif count == ALL.index("evaluate-base") + 1:
        assert "Only the base model has been evaluated (41.0 % (95 % interval 38.0–44.0) on held-out)" in page
    else:
        assert "there is no paired test yet, so no gain is claimed" in page


def test_an_empty_folder_still_gives_a_report(tmp_path):
    page = plain(write_report(tmp_path).read_text())
    assert "resolved.json is not there: commands and versions can't be shown." in page
    assert "The step train has not run: no training curves, no adapted model." in page


def test_broken_files_are_named_not_fatal(tmp_path):
    run = make_run(tmp_path / "fake")
    next(run.glob("*-compare/comparisons.json")).write_text("{broken")
    next(run.glob("*-instruct/log.jsonl")).write_text('{"step": 1, "loss": NaN}\nnot json\n')
    next(run.glob("*-evaluate-align/scores.json")).write_text(
        '{"model": "align", "benchmarks": {"held-out": null}}'
    )
    next(run.glob("*-teach/images.arrow")).write_bytes(b"")
    page = plain(write_report(run).read_text())
    assert "compare/comparisons.json can't be read as JSON: differences and p-values can't be shown." in page
    assert "instruct/log.jsonl: 1 unreadable line left out." in page
    assert "no gain is claimed" in page


def test_a_single_evaluation_has_a_report_of_its_own(tmp_path):
    folder = next(make_run(tmp_path / "fake").glob("*-evaluate-instruct"))
    page = write_report(folder)
    assert page == folder / "report.html"
    text = plain(page.read_text())
    assert (
        "On 200 held-out questions about 20 images, instruct answers 93.0 % (95 % interval 90.0–96.0) correctly."
    ) in text
    assert "instruct · evaluation" in text
    assert "Leaks were not counted An evaluation does not know what its model was trained on" in text
    assert "blurred 3 75.0 % 72.0–78.0 −18.0 −21.0 to −15.0" in text
    assert "position 50 90.0 % 85.0–95.0 35.0 %" in text
    for absent in (
        "adaptation",
        "Adapted",
        "not complete",
        "Ledger",
        "Model card",
        "Against base",
        "Won / lost",
    ):
        assert absent not in text, absent
    base = plain(write_report(next((tmp_path / "fake").glob("*-evaluate-base"))).read_text())
    assert "base model answers 41.0 %" in base and "position 50 38.0 % 33.0–43.0" in base
    assert "Written by medkit" in text and page.read_text().count("<section") == page.read_text().count(
        "</section"
    )


def test_a_missing_folder_is_an_error_with_the_way_out(tmp_path):
    with pytest.raises(MedkitError, match="no run folder is there"):
        write_report(tmp_path / "nowhere")


def test_many_large_images_stay_within_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("medkit.report.gallery.IMAGES_BYTES", 3_000)
    page = write_report(make_run(tmp_path / "fake")).read_text()
    assert page.count("data:image/webp;base64,") < 12 and "image not available" in page


def test_charts_place_values_in_percent():
    mark = charts.mark("base", {"value": 0.5, "low": 0.25, "high": 1.0}, "base")
    drawing = charts.dots([mark, None], majority=0.0)
    assert 'cx="50.00%"' in drawing and 'x1="26.00%" x2="98.00%"' in drawing
    assert 'class="majority" x1="2.00%"' in drawing
    assert charts.mark("none", {"value": None}, "base") is None


def test_curves_are_thinned_and_survive_one_point_and_nan():
    points = [(float(step), 1.0 + step / 1000) for step in range(5000)]
    drawing = charts.curves(points, [(2500.0, 2.0)], "loss")
    assert drawing.count(" L") == 239
    assert charts.curves([(1.0, float("nan"))], [], "loss") == ""
    assert "<circle" in charts.curves([], [(1.0, 0.5)], "loss")
    assert "log scale" in charts.curves([(1.0, 5.0), (2.0, 0.1)], [], "loss")


def test_wording():
    assert wording.percent(0.9312) == "93.1\u00a0%"
    assert wording.percent(None) == "–"
    assert wording.points(-0.0004) == "0.0"
    assert wording.points(-0.051) == "−5.1"
    assert wording.p_value(0.0004) == "p\u00a0<\u00a00.001"
    assert wording.p_value(0.05) == "p\u00a0=\u00a00.050"
    assert wording.interval({"low": 0.1, "high": 0.25}) == "10.0–25.0"
    assert wording.duration(7810) == "2\u00a0h 10\u00a0min"
    assert wording.listed(["a", "b", "c"]) == "a, b and c"
    assert wording.plural(1, "question") == "1\u00a0question"


def test_the_report_needs_no_heavy_library(tmp_path):
    run = make_run(tmp_path / "fake", steps=ALL[:2])
    code = (
        "import sys; from medkit.report.build import write_report; write_report(sys.argv[1]); "
        "print([name for name in ('torch', 'transformers', 'datasets') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, text=True, check=True,
                          cwd=Path(__file__).resolve().parent.parent)  # fmt: skip
    assert done.stdout.strip() == "[]"
