"""Reports: nothing fetched, nothing unescaped, no seed left out, equal bytes for equal runs."""

import itertools
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from ftfl import presets
from ftfl.config import to_dict
from ftfl.errors import FtflError
from ftfl.report.curves import Arm, load_arms, mean_curve, read_seed
from ftfl.report.figures import learning_curves, metric_curves
from ftfl.report.html import render, write_report
from ftfl.report.intervals import summarise
from ftfl.report.parts import Cell, Figure, Section, Table
from ftfl.report.runs import by_task, run_report
from ftfl.report.styles import STYLES, slots
from ftfl.report.tables import difference_table, final_table, seed_table
from ftfl.store.rundir import RunDir

RETURN = "eval/return_mean_reward"
TASK = "gym/Pendulum-v1"
EVIL = "<script>alert('x')</script>\"&"


def make_run(path: Path, algo="ftfl", seed=0, returns=(1.0, 2.0, 3.0), status=None, **changes):
    """A run of 300 steps; one evaluation every 100 of them, model metrics where it has a model."""
    config = presets.build(
        changes.pop("task", TASK), algo, "probe", {"steps": 300, "seed": seed, **changes}
    )
    run = RunDir.create(path, to_dict(config), {"command": f"ftfl train {EVIL}", "ftfl": "0.1"})
    with run.metrics_writer() as writer:
        for number, value in enumerate(returns, start=1):
            writer.write(100 * number, 0, 5.0 * number, {RETURN: value})
            if algo != "sac":
                model = {"model/reward_r2": 0.5 + seed / 10}
                model["rollout/synthetic_reward_mean_reward"] = -0.1 - seed
                model["rollout/real_reward_mean_reward"] = -6.0 - seed
                writer.write(100 * number, 0, 5.0 * number, model)
    run.write_status({"state": "done", "seed": seed, "seconds": 20.0} | (status or {}))
    return run


def three_seeds(tmp_path, algo="ftfl"):
    return [
        make_run(tmp_path / f"{algo}{s}", algo, s, (1.0 + s, 2.0 + s, 3.0 + s)) for s in range(3)
    ]


def text_of(table: Table) -> str:
    cells = [c if isinstance(c, Cell) else Cell(c) for row in table.rows for c in row]
    return "\n".join([*(f"{c.text} | {c.detail}" for c in cells), *table.notes])


# --- numbers ---


def test_interval_of_the_mean_is_students():
    summary = summarise([1.0, 2.0, 3.0])
    assert (summary.n, summary.mean, summary.smallest, summary.largest) == (3, 2.0, 1.0, 3.0)
    # t(0.975, 2 degrees of freedom) = 4.302653, standard error 1/√3.
    assert summary.half_width == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)


def test_two_seeds_get_their_huge_interval_and_one_gets_none():
    assert summarise([1.0, 2.0]).half_width == pytest.approx(12.7062 / 2, rel=1e-4)
    assert summarise([1.0]).half_width is None
    assert summarise([]).n == 0


def test_missing_seeds_are_counted_apart():
    summary = summarise([1.0, math.nan, math.inf])
    assert (summary.n, summary.missing, summary.mean) == (1, 2, 1.0)


def test_a_mean_ends_where_its_first_seed_ends(tmp_path):
    runs = [make_run(tmp_path / "a", seed=0, returns=(1.0, 2.0, 3.0)),
            make_run(tmp_path / "b", seed=1, returns=(3.0, 4.0))]  # fmt: skip
    curve = mean_curve(Arm("x", tuple(runs)), RETURN)
    assert curve is not None
    assert curve.steps.tolist() == [100, 200]
    assert curve.mean.tolist() == [2.0, 3.0]
    assert curve.half_width is None


def test_seeds_recorded_at_other_steps_are_interpolated_and_a_nan_stays_a_gap(tmp_path):
    run = make_run(tmp_path / "a", seed=0, returns=(1.0, math.nan, 3.0))
    other = make_run(tmp_path / "b", seed=1, returns=())
    with other.metrics_writer() as writer:
        for step in (100, 150, 300):
            writer.write(step, 0, 0.0, {RETURN: step / 100})
    curve = mean_curve(Arm("x", (run, other)), RETURN)
    assert curve is not None
    assert curve.steps.tolist() == [100, 150, 200, 300]
    np.testing.assert_array_equal(curve.mean, [1.0, np.nan, np.nan, 3.0])


def test_a_step_recorded_twice_keeps_its_later_value(tmp_path):
    run = make_run(tmp_path / "a", returns=(1.0,))
    with run.metrics_writer() as writer:
        writer.write(100, 0, 9.0, {RETURN: 7.0})
    steps, values = read_seed(run).curve(RETURN)
    assert (steps.tolist(), values.tolist()) == ([100], [7.0])


# --- figures ---


def test_every_seed_is_a_line_and_the_mean_one_more(tmp_path):
    arms = load_arms({"ftfl": three_seeds(tmp_path), "sac": three_seeds(tmp_path, "sac")})
    figure = learning_curves(arms)
    for arm, seed in itertools.product(range(2), range(3)):
        assert f'id="arm{arm}-seed{seed}"' in figure.svg
    assert figure.svg.count("-mean") == 2
    assert figure.svg.count("-band") == 2
    assert [entry.label for entry in figure.legend] == ["ftfl, n = 3 seeds", "sac, n = 3 seeds"]
    assert "eval/return_mean_reward (reward)" in figure.svg
    assert "environment steps" in figure.svg
    assert "Student-t 95 % interval" in figure.caption


def test_few_seeds_have_no_band_and_the_caption_says_so(tmp_path):
    two = three_seeds(tmp_path)[:2]
    one = [make_run(tmp_path / "one", "sac")]
    figure = learning_curves(load_arms({"two": two, "one": one}))
    assert "-band" not in figure.svg
    assert "No band below 3 seeds: two." in figure.caption
    assert "One seed only (its own curve is the thick one): one." in figure.caption
    assert figure.legend[1].label == "one, n = 1 seed"


def test_a_failed_seed_is_drawn_and_marked(tmp_path):
    runs = three_seeds(tmp_path)
    runs.append(make_run(tmp_path / "f", seed=3, returns=(1.0,), status={"state": "failed"}))
    figure = learning_curves(load_arms({"ftfl": runs}))
    assert 'id="arm0-seed3-failed"' in figure.svg
    assert "× marks where a failed seed ends: ftfl seed 3." in figure.caption


def test_an_arm_without_the_metric_is_named_and_a_figure_of_nothing_says_so(tmp_path):
    arms = load_arms({"ftfl": three_seeds(tmp_path), "sac": three_seeds(tmp_path, "sac")})
    figure = metric_curves(arms, "model/reward_r2")
    assert "Not recorded by sac." in figure.caption
    nothing = metric_curves(arms[1:], "model/reward_r2")
    assert nothing.svg == ""
    assert "was not recorded by sac" in nothing.caption
    assert "Nothing to draw" in render("t", [Section("s", figures=(nothing,))], {})


def test_a_seed_without_values_leaves_the_arm_without_a_mean(tmp_path):
    runs = [*three_seeds(tmp_path), make_run(tmp_path / "none", seed=3, returns=())]
    figure = learning_curves(load_arms({"ftfl": runs}))
    assert "-mean" not in figure.svg
    assert "No values, hence no mean of their arm: ftfl seed 3." in figure.caption
    assert figure.legend[0].label == "ftfl, n = 3 of 4 seeds"


def test_a_reference_is_dashed_and_named(tmp_path):
    figure = metric_curves(
        load_arms({"ftfl": three_seeds(tmp_path)}),
        "rollout/synthetic_reward_mean_reward",
        reference="rollout/real_reward_mean_reward",
    )
    assert [(e.label, e.dashed) for e in figure.legend] == [
        ("ftfl: synthetic, n = 3 seeds", False),
        ("ftfl: real, n = 3 seeds", True),
    ]
    assert "rollout/…_reward_mean_reward (reward)" in figure.svg


def test_an_unknown_metric_lists_near_misses(tmp_path):
    arms = load_arms({"ftfl": [make_run(tmp_path / "a")]})
    with pytest.raises(FtflError, match="did you mean model/reward_r2"):
        metric_curves(arms, "model/reward_r3")


def test_figures_follow_the_theme_of_the_page(tmp_path):
    svg = learning_curves(load_arms({"ftfl": three_seeds(tmp_path)})).svg
    assert "currentColor" in svg
    assert f"var(--arm-2, {STYLES[2].light})" in svg
    assert not re.search(r"(fill|stroke): #(?!fff)", svg), "a colour that dark mode cannot change"


def test_arms_keep_their_looks():
    assert slots(["mine", "ftfl", "mbpo", "sac"]) == {"ftfl": 2, "mbpo": 1, "sac": 0, "mine": 3}
    assert slots(["mbpo (a=1)", "mbpo (a=2)"]) == {"mbpo (a=1)": 1, "mbpo (a=2)": 0}
    assert len(set(slots([f"a{i}" for i in range(8)]).values())) == 8
    assert set(slots([f"a{i}" for i in range(20)]).values()) == set(range(8))


def _linear(colour: str) -> np.ndarray:
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def _lab(linear: np.ndarray) -> np.ndarray:
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x = np.array(to_xyz) @ np.clip(linear, 0, 1) / np.array([0.9505, 1, 1.089])
    f = np.where(x > 0.008856, np.cbrt(x), 7.787 * x + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


# Severity 1.0 of Machado, Oliveira & Fernandes 2009.
VISION = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                     [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                   [0.004733, 0.691367, 0.303900]],
}  # fmt: skip


@pytest.mark.parametrize(("mode", "card"), [("light", "#f6f7f8"), ("dark", "#1d2024")])
def test_colours_can_be_told_apart(mode, card):
    colours = [_linear(getattr(style, mode)) for style in STYLES]
    weights = np.array([0.2126, 0.7152, 0.0722])
    for colour in colours:
        dark, bright = sorted([colour @ weights, _linear(card) @ weights])
        assert (bright + 0.05) / (dark + 0.05) >= 3
    for name, matrix in VISION.items():
        seen = [_lab(np.array(matrix) @ colour) for colour in colours]
        for one, other in itertools.combinations(seen, 2):
            assert np.linalg.norm(one - other) > 10, name


# --- tables ---


def test_final_table_has_n_beside_every_number(tmp_path):
    table = final_table(load_arms({"ftfl": three_seeds(tmp_path)}))
    row = [c if isinstance(c, Cell) else Cell(c) for c in table.rows[0]]
    assert row[2] == Cell("4.00 ± 2.48", "n = 3")
    assert row[3] == Cell("3.00 to 5.00", "n = 3")
    assert row[4] == Cell("0.600", "n = 3; 0.500 to 0.700")
    assert row[5].text == "−1.10"
    assert row[7] == Cell("20s", "n = 3; 20s to 20s")
    assert len(table.columns) == len(row)


def test_failed_and_unfinished_seeds_are_listed_and_counted(tmp_path):
    runs = three_seeds(tmp_path)
    failed = {"state": "failed", "message": f"the critic diverged {EVIL}"}
    runs.append(make_run(tmp_path / "f", seed=3, returns=(9.0,), status=failed))
    runs.append(make_run(tmp_path / "g", seed=4, returns=(), status=failed))
    runs.append(make_run(tmp_path / "h", seed=5, returns=(math.nan,), status={"state": "training"}))
    arms = load_arms({"ftfl": runs})
    table = final_table(arms)
    assert table.rows[0][1] == Cell("6", "2 failed, 1 training", alert=True)
    assert table.rows[0][2] == Cell("5.25 ± 4.18", "n = 4 of 6")
    notes = "\n".join(table.notes)
    assert "ftfl seed 3: failed at step 100 of 300 (the critic diverged" in notes
    assert "it counts with its last evaluation, at step 100." in notes
    assert "ftfl seed 4: failed at step 0 of 300" in notes
    assert "it was never evaluated and is not in the mean" in notes
    assert "seed 5: training" in notes
    assert "was not finite" in notes
    assert text_of(seed_table(arms)).count("failed | the critic diverged") == 2


def test_one_and_two_seeds_in_the_table(tmp_path):
    runs = three_seeds(tmp_path)
    table = final_table(load_arms({"one": runs[:1], "two": runs[1:]}))
    assert table.rows[0][2] == Cell("3.00", "n = 1: no interval")
    assert table.rows[1][2] == Cell("4.50 ± 6.35", "n = 2")
    assert "12.7 times" in "\n".join(table.notes)


def test_the_same_seed_twice_is_no_second_sample(tmp_path):
    runs = [make_run(tmp_path / "a", seed=3), make_run(tmp_path / "b", seed=3)]
    notes = "\n".join(final_table(load_arms({"ftfl": runs})).notes)
    assert "seed 3 is there 2 times" in notes


def test_damaged_runs_are_rows_not_errors(tmp_path):
    good, metrics, config = three_seeds(tmp_path)
    metrics.metrics_path.write_text('{"env_steps": 1}\nnonsense\n{"env_steps": 2}\n')
    config.config_path.write_text('{"seed": "many"}')
    arms = load_arms({"ftfl": [good, metrics, config]})
    assert [seed.state for seed in arms[0].seeds] == ["done", "unreadable", "unreadable"]
    text = text_of(seed_table(arms))
    assert "is damaged at line 2" in text
    assert "seed was given as 'many'" in text
    run_report([good, metrics, config], tmp_path / "report.html")
    assert "is damaged at line 2" in (tmp_path / "report.html").read_text()


def test_differences_are_the_two_repairs_and_nothing_else(tmp_path):
    arms = load_arms(
        {a: [make_run(tmp_path / a, a, seed)] for seed, a in enumerate(("sac", "mbpo", "ftfl"))}
    )
    table = difference_table(arms)
    assert table.columns == ("field", "sac", "mbpo", "ftfl")
    assert table.rows == (
        ("dynamics", "none", "present", "present"),
        ("dynamics.scale", "–", "raw", "unit"),
        ("dynamics.target", "–", "residual", "direct"),
        ("rollouts", "none", "present", "present"),
    )


def test_an_arm_of_mixed_configurations_is_named(tmp_path):
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", seed=1, warmup_steps=50)]
    notes = "\n".join(difference_table(load_arms({"ftfl": runs})).notes)
    assert "its seeds do not share one configuration, they differ in warmup_steps" in notes


def test_load_arms_refuses_nothing():
    with pytest.raises(FtflError, match="no runs were given"):
        load_arms({})
    with pytest.raises(FtflError, match="group 'ftfl' has no runs"):
        load_arms({"ftfl": []})
    with pytest.raises(FtflError, match="no runs were given"):
        run_report([], Path("report.html"))


# --- the page ---


class Page(HTMLParser):
    """Checks nesting, collects names and whatever could fetch or run something."""

    VOID = ("meta", "br", "wbr")

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.names: list[str] = []
        self.targets: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self._attributes(attrs)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self._attributes(attrs)

    def _attributes(self, attrs):
        for name, value in attrs:
            assert not name.startswith("on"), "an event handler"
            if name == "id":
                self.names.append(value)
            if name in ("href", "src", "xlink:href", "srcset", "action", "data", "poster"):
                self.targets.append(value)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


@pytest.fixture
def report(tmp_path) -> str:
    runs = [*three_seeds(tmp_path), *three_seeds(tmp_path, "sac")]
    runs.append(make_run(tmp_path / "evil", "mbpo", task=f"mine:{EVIL}",
                         status={"state": "failed", "message": EVIL}))  # fmt: skip
    run_report(runs, tmp_path / "report.html")
    return (tmp_path / "report.html").read_text()


def test_a_report_needs_nothing_else(report):
    page = Page(report)
    assert page.open == []
    assert page.targets
    assert all(target.startswith("#") for target in page.targets)
    assert not {target[1:] for target in page.targets} - set(page.names), "a link to nowhere"
    assert len(page.names) == len(set(page.names)), "a name given twice"
    assert not page.tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    assert not re.search(r"https?://|@import|url\((?!#)", report)
    assert "default-src 'none'" in report


def test_every_text_is_escaped(tmp_path, report):
    assert "<script" not in report
    assert "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;&quot;&amp;" in report
    arms = load_arms({EVIL: [make_run(tmp_path / "a")]})
    section = Section(
        EVIL, (EVIL,), (learning_curves(arms, title=EVIL), Figure(EVIL, "", EVIL)),
        (Table(EVIL, (EVIL, EVIL), ((EVIL, Cell(EVIL, EVIL, alert=True)),), (EVIL,)),), (EVIL,),
    )  # fmt: skip
    page = render(EVIL, [section], {EVIL: [EVIL, {EVIL: EVIL}]})
    assert "<script" not in page
    assert Page(page).open == []
    assert page.count("&lt;script&gt;") >= 16
    assert "\x1b" not in render("a\x1b[2Jb", [], {})


def test_equal_runs_give_equal_bytes(tmp_path):
    runs = three_seeds(tmp_path)
    run_report(runs, tmp_path / "one.html")
    command = "import sys; from pathlib import Path; from ftfl.store.rundir import RunDir; "
    command += "from ftfl.report.runs import run_report; "
    command += "run_report([RunDir(Path(p)) for p in sys.argv[2:]], Path(sys.argv[1])); "
    command += "assert 'matplotlib.pyplot' not in sys.modules"
    paths = [str(run.path) for run in runs]
    subprocess.run([sys.executable, "-c", command, tmp_path / "two.html", *paths], check=True)
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_arms_are_equal_configurations_and_named_by_what_sets_them_apart(tmp_path):
    runs = three_seeds(tmp_path)
    runs.append(make_run(tmp_path / "other", seed=0, **{"dynamics.scale": "raw"}))
    runs.append(make_run(tmp_path / "elsewhere", "sac", task="gym/Hopper-v5"))
    tasks = by_task(runs)
    assert list(tasks) == [TASK, "gym/Hopper-v5"]
    labels = {arm.label: len(arm.runs) for arm in tasks[TASK]}
    assert labels == {"ftfl (dynamics.scale=unit)": 3, "ftfl (dynamics.scale=raw)": 1}


def test_the_same_run_given_twice_counts_once(tmp_path):
    run = make_run(tmp_path / "a")
    run_report([run, RunDir.open(run.path)], tmp_path / "r.html")
    assert "ftfl (1 seed)" in (tmp_path / "r.html").read_text()


def test_a_report_that_cannot_be_written_is_one_sentence(tmp_path):
    with pytest.raises(FtflError, match="cannot write the report"):
        write_report(tmp_path / "nowhere" / "r.html", "t", [], {})


def test_importing_the_room_is_light():
    command = "import sys, ftfl.report.runs; "
    command += "print([m for m in ('matplotlib', 'scipy', 'jax') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", command], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]"


def test_drawing_leaves_global_settings_alone(tmp_path):
    import matplotlib

    arms = load_arms({"ftfl": three_seeds(tmp_path)})
    usual = learning_curves(arms).svg
    with matplotlib.rc_context({"font.size": 33, "svg.fonttype": "path"}):
        # Reading the backend would choose one.
        names = [name for name in matplotlib.rcParams if not name.startswith("backend")]
        before = [matplotlib.rcParams[name] for name in names]
        assert learning_curves(arms).svg == usual
        assert [matplotlib.rcParams[name] for name in names] == before
