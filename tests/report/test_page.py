"""The frame of all pages: what figures may bring along, colours for both schemes, values, links; a run followed."""

from __future__ import annotations

import html
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.report.test_run_report import small
from tinymim.cli.main import main
from tinymim.report import against, curves, figures, hover, run_report, runs, watch
from tinymim.report.confusion import Classified, section
from tinymim.report.document import Document, Link, Picture, Section, Table
from tinymim.report.inline_svg import both, inline
from tinymim.report.narrow import narrow
from tinymim.report.run_report import Seen
from tinymim.training import lock

HOSTILE = "</svg></title><script>alert(1)</script><img src=x onerror=alert(1)>&#x3c;"
ATTACK = b"""<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 9 9"
 onload="x()">
<script>alert(1)</script><foreignObject><b>x</b></foreignObject><style>* {display: none}</style>
<g onclick="x()"><a xlink:href="javascript:x()"><text>in a link</text></a></g>
<image xlink:href="http://example.org/a.png"/><image xlink:href="data:image/svg+xml;base64,AA"/>
<use xlink:href="http://example.org/#a"/><use xlink:href="#a"/><path style="fill: url(http://example.org/)" d="M0 0"/>
<rect style="fill: url(#a)" id="a"/><animate attributeName="href" to="javascript:x()"/></svg>"""


def test_figures__bring_no_script_link_style_or_address_along() -> None:
    shown = inline(ATTACK, HOSTILE, 7)
    assert not re.search(r"script>|foreign|<style|onload|onclick|javascript|http|animate|<a |in a link|svg\+xml", shown)
    assert re.findall(r'href="([^"]*)"', shown) == ["#f7-a"]
    assert 'style="fill: url(#f7-a)" id="f7-a"' in shown
    assert "<img" not in shown


def test_names__are_text_in_a_figure_and_under_the_pointer() -> None:
    with figures.figure() as (figure, axes):
        axes.plot([1, 2], [3, 4], label=HOSTILE)
        axes.set(title=HOSTILE, xlabel=HOSTILE)
        axes.legend()
        picture = Picture(HOSTILE, figures.svg(figure))
    page = Document(HOSTILE, [Section(HOSTILE, pictures=[picture])]).html()
    assert page.count("<script>") == page.count("</script>") == 1, "the page's own"
    assert "<img" not in page
    assert html.unescape(page).count(HOSTILE) >= 5


def test_colours__are_read_on_dark_pages_too() -> None:
    for colour in (*figures.COLOURS, "#00224e"):
        dark = both(colour).removesuffix(")")[-7:]
        if dark != "ntColor":  # black is the text's
            assert max(int(dark[place : place + 2], 16) for place in (1, 3, 5)) > 150
    assert [both(colour) for colour in figures.ON_MAP] == list(figures.ON_MAP)


def test_values__of_lines_and_cells() -> None:
    with figures.figure(columns=2) as (figure, (left, right)):
        left.plot(range(1000), range(1000), label="long")
        left.plot([1, np.nan, 3], [0, 1, 2], label="_behind")
        left.axhline(5)
        right.imshow([[0.5, 1.0]])
        right.set(xlabel="block", ylabel="model")
        hover.told(right, lambda place: "ab"[round(place)], lambda place: "c")
        told = re.findall("<title>(.*?)</title>", figures.svg(figure).decode())
    assert told[-2:] == ["model c, block a: 0.5", "model c, block b: 1"]
    assert sum(text.startswith("long: ") for text in told) <= hover.POINTS
    assert "long: 999 at 999" in told
    assert [text for text in told if "behind" in text] == ["behind: 2 at 3", "behind: 0 at 1"]
    assert len(told) == sum("long" in text for text in told) + 4, "a rule across the axes has no values"


def test_links__are_paths_whatever_a_folder_is_called() -> None:
    page = Document("t", [Section("s", tables=[Table(["a"], [[Link("<b>", 'javascript:x("y")/report.html')]])])]).html()
    assert 'href="./javascript%3Ax%28%22y%22%29/report.html">&lt;b&gt;</a>' in page


def run(place: Path, data: str = "tinymim.data.DigitsData", **files: str) -> runs.Run:
    recipe = f"model: {{class_path: tinymim.tasks.Classifier}}\ndata: {{class_path: {data}}}"
    return runs.read(small(place, **{"config.yaml": recipe, **files}))


def test_origin__is_a_teacher_or_what_a_run_starts_from(tmp_path: Path) -> None:
    for option, fact, start in (
        ("teacher", ("teacher", "mae_vitb"), "taught by mae_vitb"),
        ("weights", ("starts from", "mae_vitb"), "from mae_vitb"),
        ("other", ("starts from", "scratch"), "from scratch"),
    ):
        recipe = f"model: {{class_path: tinymim.tasks.Classifier, init_args: {{{option}: mae_vitb}}}}"
        made = runs.read(small(tmp_path / option, **{"config.yaml": recipe}))
        assert made.start == start
        assert run_report._facts(made)[0] == fact


def results(value: float, top5: float = 1.0) -> str:
    return f'{{"metrics": {{"val/top1": {value}, "val/top5": {top5}}}, "epochs": 2, "steps": 8}}'


def test_against__alike_runs_in_order_the_rest_folded_and_top5_only_where_it_says_something(tmp_path: Path) -> None:
    first = run(tmp_path / "first", **{"results.json": results(0.5)})
    others = [run(tmp_path / f"run{i}", **{"results.json": results(i / 20)}) for i in range(14)]
    far = run(tmp_path / "far", "tinymim.data.ShapesData", **{"results.json": results(0.9, 0.95)})
    made = against.section(first, [*others, far], tmp_path)
    near, more, folded = made.tables
    assert [row[0] for row in near.rows] == ["first (this run)", *(f"run{i}" for i in range(13, 1, -1))]
    assert near.heads[:2] == ["run", "top-1"]
    assert "top-5" not in near.heads
    assert "top-5" in folded.heads
    assert [row[0] for row in more.rows] == ["run1", "run0"]
    assert [row[0] for row in folded.rows] == ["far"]
    page = Document("t", [made]).html()
    assert page.count("<details>") >= 2
    (tmp_path / "run3" / "report.html").touch()
    assert Link("run3", "run3/report.html") in [
        row[0] for row in against.section(first, others, tmp_path).tables[0].rows
    ]


def test_curves__in_per_cent_with_epochs_and_the_same_stage_of_a_study_behind(tmp_path: Path) -> None:
    log = "step,val/top1,train/loss\n3,0.25,3\n8,0.5,2\n"  # the last by a validation after the end
    for row in ("a", "b"):
        run(tmp_path / row / "seed0" / "tuned", **{"results.json": results(0.5), "metrics.csv": log})
    run(tmp_path / "b" / "seed0" / "probed", **{"results.json": results(0.5), "metrics.csv": log})
    (tmp_path / "plan.json").write_text("{}")
    tuned = runs.read(tmp_path / "a" / "seed0" / "tuned")
    others = runs.beside(tuned)
    runs.distinguish([tuned, *others])
    assert [other.name for other in others] == ["b/seed0/tuned"]
    assert curves.headline(tuned) == "top1"
    chart = html.unescape(curves.chart("top1", tuned, others).content.decode())
    for text in (">top-1, %<", ">epoch<", "held out: 50.00 % at step 8 (epoch 2)", "b/seed0/tuned: 25.00 % at step 4"):
        assert text in chart
    assert {picture.title for picture in curves.charts(tuned, others, "top1")} == {"loss"}


def test_a_long_training_curve_is_smoothed(tmp_path: Path) -> None:
    log = "step,train/loss\n" + "".join(f"{step},{step % 2}\n" for step in range(100))
    (chart,) = curves.charts(run(tmp_path / "run", **{"metrics.csv": log}), [])
    assert b"training, mean of 4: 0.5 at step 100" in chart.content


def test_confusion__matrix_worst_and_each_class() -> None:
    labels, said = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([0, 1, 1, 1, 1, 0])
    result = Classified(["cat", "dog", "<b>"], labels, said, torch.tensor([0.9, 0.8, 0.7, 0.9, 0.9, 0.99]), labels, 10)
    assert result.matrix.tolist() == [[1, 2, 0], [0, 2, 0], [1, 0, 0]]
    made = section(result, {(0, i): {"image": torch.zeros(3, 4, 4)} for i in range(3)})
    assert made.text[0].startswith("3 of 6 of 10 images are taken for another class (50.0%)")
    worst, pairs, each = made.tables
    assert [cell.text for cell in worst.rows[0]] == [
        "<b>, taken for cat (99% sure)", "cat, taken for dog (80% sure)", "cat, taken for dog (70% sure)",
    ]  # fmt: skip
    assert pairs.rows == [["cat, taken for dog", "2", "66.7%"]]
    assert each.rows == [["<b>", "1", "0.0%", "-"], ["cat", "3", "33.3%", "50.0%"], ["dog", "2", "100.0%", "50.0%"]]
    assert b"class dog, taken for dog: 100" in made.pictures[0].content


def test_watch__follows_until_the_run_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = run(tmp_path / "run", **{"metrics.csv": "step,train/loss\n1,5\n", "results.json": ""}).place
    written: list[tuple[list[float], int]] = []
    naps = iter(["2,4\n", "3,bad\n", "3,3\n", ""])

    def nap(seconds: float) -> None:
        if not (line := next(naps)):
            held.__exit__(None, None, None)
        log = (place / "metrics.csv").read_text().replace("3,bad\n", "")
        (place / "metrics.csv").write_text(log + line)

    monkeypatch.setattr("time.sleep", nap)
    held = lock.hold(place, "run_dir")
    held.__enter__()
    watch.follow(
        place,
        lambda run: Seen([], None),
        lambda run, looked, again: written.append((run.curves["train/loss"][1], again)),
    )
    assert written[0] == ([5], watch.EVERY)
    assert written[-1] == ([5, 4, 3], 0), "the last page is read once"
    assert ([5, 4], watch.EVERY) in written


def test_watch__ends_by_a_signal_with_a_last_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = run(tmp_path / "run", **{"results.json": ""}).place

    def interrupt(seconds: float) -> None:
        assert 'http-equiv="refresh" content="5"' in (place / "report.html").read_text()
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupt)
    with lock.hold(place, "run_dir"):
        assert main(["report", str(place), "--watch", "--count", "0"]) == 130
    assert 'http-equiv="refresh"' not in (place / "report.html").read_text()
    assert "following" in capsys.readouterr().out


def test_a_wide_figure__is_drawn_again_for_phones_one_panel_below_the_other() -> None:
    with figures.figure(columns=2, height=50, sharey=True) as (figure, axes):
        for panel, name in zip(axes, "ab", strict=True):
            panel.plot([1, 2], [3, 4], label=name)
        axes[0].set_ylabel("loss")
        figure.legend([*axes[0].lines] * 6, ["a name of nine words"] * 6, loc="outside lower center", ncols=6)
        wide, slim = figures.svg(figure), narrow(figure)
        assert [panel.get_position().y0 > axes[1].get_position().y0 for panel in axes] == [True, False]
        assert [panel.get_ylabel() for panel in axes] == ["loss", "loss"]
        assert figure.legends[0].get_window_extent().width < figure.bbox.width
    width = {svg: float(re.findall(rb'viewBox="0 0 (\S+) ', svg)[0]) for svg in (wide, slim)}
    assert width[slim] == pytest.approx(width[wide] / 2)
    page = Document("", [Section("", pictures=[Picture("A", wide, wide=True, narrow=slim)])]).html()
    shown, identifiers = re.findall(r'class="figure(.*?)"', page), re.findall(r' id="(f.*?)"', page)
    assert shown == [" wide", " narrow"]
    assert len(set(identifiers)) == len(identifiers)
    with figures.figure() as (figure, _):
        assert narrow(figure) == b"", "which is narrow already"


def test_names_up_the_side__are_broken_on_phones() -> None:
    long = "relations of values, queries and keys of all"
    with figures.figure(height=50, width=3 * figures.WIDTH) as (figure, axes):
        axes.plot([0, 1], [0, 1])
        axes.set_yticks([0, 1], [long, "short"])
        drawn = narrow(figure).decode()
        assert axes.get_position().width > 0.5
    assert long not in drawn
    assert "relations of" in drawn
