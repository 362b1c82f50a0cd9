"""The report of an autopsy: figures are functions of results, and a browser can show it all."""

import dataclasses
import math
import re
import shutil
import subprocess

import numpy as np
import pytest

from ftfl.cli.demo_report import LOOKED_AT, autopsy_sections
from ftfl.cli.findings import show
from ftfl.forensics import examination
from ftfl.forensics.audit import Plan
from ftfl.forensics.autopsy import Autopsy, examine
from ftfl.forensics.evidence import Estimate, Finding
from ftfl.forensics.instruments.attribution import Arm, Attribution
from ftfl.forensics.instruments.forks import ForkArm, PairedForks
from ftfl.forensics.instruments.screen import ScreenSight
from ftfl.forensics.instruments.share_history import ShareHistory
from ftfl.forensics.instruments.shares import RewardShares
from ftfl.forensics.instruments.targets import TargetComparison
from ftfl.forensics.instruments.units import UnitChange, UnitInvariance
from ftfl.forensics.listing import listed
from ftfl.forensics.registry import INSTRUMENTS
from ftfl.forensics.subject import Subject
from ftfl.report.autopsy import autopsy_report, findings_section, sections
from ftfl.report.html import render
from ftfl.report.instruments.dots import MOST_ROWS, Axis, dots, picked
from ftfl.report.instruments.views import VIEWS
from ftfl.report.parts import Notice, Section
from ftfl.store.rundir import RunDir
from helpers import tiny
from known import saved

SIMULATED = "envs_for_tests:make_simulated_lqr"
EVIL = "<script>$x$</script>"
SMALL = Plan(states=30, episodes=5, actions=6, horizon=12, nudged_states=5, nudged_steps=4)
CHROMIUM = next((p for n in ("chromium", "chromium-browser", "google-chrome")
                 if (p := shutil.which(n))), None)  # fmt: skip


def around(value, half=0.1, n=5):
    return Estimate(value, value - half, value + half, n, "bootstrap over clusters")


def results_by_hand():
    """Of the instruments that train anew, and of the one that asks a screen."""
    seeds = np.zeros(3)
    arms = [
        Arm(name, {}, seeds + r, seeds + r, np.full((3, 2), s), np.full((3, 2), s), np.ones((3, 3)))
        for name, r, s in (("as it is", 0.1, 0.5), ("scale", 0.9, 0.6), ("floor", 0.2, 0.5))
    ]
    skills = {"residual": np.full((3, 2), 0.4), "direct": np.full((3, 2), 0.7)}
    return {
        "screen_sight": ScreenSight(
            "m2ac", around(0.4), around(0.0), around(0.6), around(-0.5), around(-0.4), around(0.5),
            True, 0, "raw",
        ),
        "paired_forks": PairedForks(
            tuple(ForkArm(n, "--algo sac", seeds + r, {"skill": seeds}) for n, r in
                  (("as it is", 1.0), ("real rows alone", 9.0), (EVIL, 2.0))),
            (0, 1, 2), 1_000, 5.0, "forks",
        ),
        "attribution": Attribution(
            arms[0], (arms[1],), (arms[1], arms[2]), ("a", EVIL), 100, (0, 1, 2)
        ),
        "residual_or_direct": TargetComparison(
            ("a", EVIL), skills, skills, (around(0.9), around(0.2)), 100
        ),
        "share_history": ShareHistory({
            updates: RewardShares(*(around(0.1 * (i + 1)) for i in range(6)), np.ones((3, 2)), 2)
            for updates in (0, 10, 100)
        }),
        "unit_invariance": UnitInvariance(
            tuple(
                UnitChange(what, power, 0.9, around(0.5), around(0.3), around(0.01))
                for what in ("reward", "channels") for power in (-10, 10)
            ),
            "residual, raw", 100,
        ),
    }  # fmt: skip


@pytest.fixture(scope="module")
def examined(tmp_path_factory, quick_compiles):
    """A run without and one with a model, small; and by hand what takes other or longer runs."""
    folder = tmp_path_factory.mktemp("runs")
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(examination, "plan", lambda subject, quick: SMALL)
        for algo in ("sac", "ftfl"):
            path = saved(folder / algo / "seed_0", tiny(algo, SIMULATED, steps=60), 60)
            skipped = [] if algo == "ftfl" else ["target_scales"]
            wanted = [i for i in INSTRUMENTS if i.name not in skipped]
            found.append(examine(Subject.load(path), True, instruments=wanted))
    sac, ftfl = found
    whole = Autopsy(ftfl.subject, {**ftfl.results, **results_by_hand()}, {}, (EVIL,), ftfl.truth)
    return [sac, whole]


def test_every_instrument_has_a_meaning_and_a_figure():
    assert VIEWS.keys() == {i.name for i in INSTRUMENTS}
    assert all(len(view.meaning) > 100 and view.figures for view in VIEWS.values())


def test_every_instrument_is_drawn_with_units_n_intervals_and_what_to_see(examined):
    found = sections(examined, {})
    assert [s.title for s in found[1:]] == [i.title for i in INSTRUMENTS]
    for section in found[1:]:
        (table,) = section.tables
        assert table.rows
        for figure in section.figures:
            assert figure.svg, figure.title
            assert "n = " in " ".join(e.label for e in figure.legend) + figure.caption
            assert "Bars: " in figure.caption, figure.title
            assert len(figure.caption) > 100
    account = next(s for s in found if s.title == "Critic account")
    assert [e.label.partition(",")[0] for e in account.figures[0].legend] == ["sac", "ftfl"]
    assert account.tables[0].columns == ("quantity", "sac", "ftfl")


def test_a_small_number_is_printed_whole_beside_its_interval(examined, monkeypatch, capsys):
    """-1.67e-05 ± 6.6e-05 once lost its last character, and so read as ± 6.6."""
    monkeypatch.setenv("COLUMNS", "80")
    whole = examined[1]
    sight = dataclasses.replace(
        whole.results["screen_sight"], state_error_stored=around(-1.67e-5, 6.6e-5)
    )
    show([dataclasses.replace(whole, results={"screen_sight": sight})] * 2, {})
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "-1.67e-05" in line]
    assert line.count("-1.67e-05 ± 6.6e-05") == 2
    assert len(line) <= 80


def test_runs_and_numbers_with_long_names_are_told_apart_in_80_columns(
    examined, monkeypatch, capsys
):
    """2⁻⁷ and 2⁻¹⁰ of one option were once both `mbpo+reward_unit=0`."""
    monkeypatch.setenv("COLUMNS", "80")
    long = ["mbpo+reward_unit=0.0078125", "mbpo+reward_unit=0.0009765625"]
    monkeypatch.setattr("ftfl.cli.findings.labels", lambda autopsies: long)
    show(list(examined), {})
    lines = capsys.readouterr().out.splitlines()
    assert next(line for line in lines if line.startswith("[")).startswith(f"[1] {long[0]}: ")
    heads = [line.split()[-2:] for line in lines if line.isupper() and "[" in line]
    assert heads
    assert all(head == ["[1]", "[2]"] for head in heads)
    rows = [row for result in examined[1].results.values() for row, _ in listed(result.numbers())]
    shown = "\n".join(lines)
    assert max(map(len, rows)) > 37
    assert all(f"  {row}" in shown for row in rows)


def test_the_demos_report_has_findings_and_the_instruments_that_see_the_dial(examined, tmp_path):
    runs = {f"arm {a.subject.label}": RunDir(a.subject.path) for a in examined}
    runs["gone"] = RunDir(tmp_path / "gone")
    found = autopsy_sections(runs, ["model_variance"])
    assert [s.title for s in found] == ["What was found", "Model variance"]
    assert [e.label.partition(",")[0] for e in found[1].figures[0].legend] == ["arm ftfl"]
    assert "Not examined: there is no run directory" in " ".join(found[0].tables[0].notes)
    assert set(LOOKED_AT) <= VIEWS.keys()


def test_equal_results_give_equal_figures(examined):
    once, again = (sections(examined, {}) for _ in range(2))
    assert once == again


def test_findings_come_first_the_worst_on_top_and_the_same_in_two_runs_once(examined):
    def finding(name, severity, value):
        return Finding(
            name, severity, f"it is {value}", {"size": around(value)}, "a rule", "--do it"
        )

    class Told:
        def __init__(self, *findings):
            self.told = list(findings)

        def numbers(self):
            return {}

        def findings(self):
            return self.told

    one = Autopsy(
        examined[0].subject, {"a": Told(finding("mild", "info", 1.0))}, {"b": "no"}, (), None
    )
    two = Autopsy(
        examined[1].subject,
        {"a": Told(finding("mild", "warning", 2.0), finding("bad", "failure", 3.0))}, {},
        ("x",), None,
    )  # fmt: skip
    section = findings_section({"sac": one, "ftfl": two}, {"/gone": "it is gone"})
    assert [(n.level, n.title, n.where) for n in section.notices] == [
        ("failure", "bad", "ftfl"), ("warning", "mild", "sac, ftfl"),
    ]  # fmt: skip
    assert section.notices[1].paragraphs == ("sac: It is 1.0.", "ftfl: It is 2.0.")
    facts = dict(section.notices[1].facts)
    assert facts["Numbers, ftfl"] == "size 2.00 (1.90 to 2.10, n = 5)"
    assert facts["What to do"] == "--do it."
    notes = " ".join(section.tables[0].notes)
    assert "Not examined: it is gone" in notes
    assert "Not measured in sac: b: no" in notes
    assert "ftfl: x" in notes
    nothing = findings_section({"sac": Autopsy(examined[0].subject, {}, {}, (), None)}, {})
    assert "nothing that calls for action" in nothing.paragraphs[0]
    assert nothing.notices == ()
    assert findings_section({}, {"/gone": "x"}).paragraphs == ("No run could be examined.",)


def test_names_from_outside_are_text_and_never_mathematics(examined, tmp_path):
    autopsy_report(examined, tmp_path / "a.html", {"x": EVIL})
    page = (tmp_path / "a.html").read_text()
    assert "<script" not in page
    assert page.count("&lt;script&gt;$x$") >= 3
    assert not re.search(r"https?://|@import|url\((?!#)", page)
    names = re.findall(r'id="([^"]+)"', page)
    assert len(names) == len(set(names))


def test_what_is_beyond_the_frame_unbounded_or_unknown_is_said():
    unbounded = Estimate(0.5, -math.inf, math.inf, 1, "bootstrap over clusters")
    rows = {"far": around(-50.0), "hollow": unbounded, "none": math.nan, "plain": 0.3}
    figure = dots("t", {"a": rows, "b": {"none": math.nan}}, Axis("x", frame=(-1, 1)), "See.")
    assert figure.caption == (
        "See. Bars: 95 % intervals (bootstrap over episodes). Hollow: too few for an interval."
        " Arrows: beyond the frame; the table has the number. Without a value: b."
    )
    assert [e.label for e in figure.legend] == ["a, n = 1 to 5"]
    assert "none" not in re.findall(r">([^<]*)</text>", figure.svg)
    assert dots("t", {"a": {"x": 0.0}}, Axis("x", log=True), "See.").svg == ""


def test_of_many_channels_the_largest_the_smallest_and_the_reward_are_drawn():
    sizes = {f"c{i}": float(i) for i in range(40)} | {"reward": 20.0, "unknown": math.nan}
    names = picked(sizes, ("reward",))
    assert len(names) == MOST_ROWS
    assert {"c0", "c39", "reward"} <= set(names)
    assert names == [name for name in sizes if name in names]
    assert picked({"a": 1.0, "b": 2.0}) == ["a", "b"]


def test_numbers_of_channels_are_listed_as_median_and_reward():
    numbers = {
        "names": ["a", "b", "reward"],
        "std": [1.0, 3.0, around(9.0)],
        "x": {"y": around(1.0)},
    }
    assert dict(listed(numbers)) == {
        "std, median": 2.0, "std, reward": around(9.0), "x: y": around(1.0)
    }  # fmt: skip
    alone = {"names": ["a", "b", "c"], "skill": [0.1, 0.2, 0.9]}
    assert dict(listed(alone)) == {"skill, median": 0.2}  # none of them is a reward


def test_options_are_code_and_nothing_else_is():
    told = ("What to do", "--scale unit, or --dynamics.reward-draw mean — not a--b <i>")
    notice = Notice("info", "name", "run", (), (told,))
    found = render("title", [Section("section", (), notices=(notice,))], {})
    assert "<code>--scale</code> unit, or <code>--dynamics.reward-draw</code> mean" in found
    assert "a--b &lt;i&gt;" in found


WIDE = """<script>
addEventListener("load", () => {
  const page = document.documentElement, over = [...document.querySelectorAll("body *")]
    .filter(e => e.getBoundingClientRect().right > page.clientWidth + 0.5 && !e.closest("svg"));
  document.title = JSON.stringify({inner: innerWidth, scroll: page.scrollWidth,
    over: over.map(e => e.outerHTML.slice(0, 80)), figures: document.querySelectorAll("svg").length,
    errors: window.failures || 0});
});
addEventListener("error", () => { window.failures = (window.failures || 0) + 1; });
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_browser_shows_it_at_360_pixels_without_error_or_overflow(examined, tmp_path, dark):
    path = tmp_path / "a.html"
    autopsy_report(examined, path, {"x": "a/very/long/path/" * 12})
    page = path.read_text()
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    assert page.count("<details>") >= 5
    page = page.replace("<details>", "<details open>")  # what is folded must not overflow either
    # A window of headless Chromium is never narrower than 500 pixels, a frame in it is.
    (tmp_path / "inner.html").write_text(page.replace("<head>", f"<head>{WIDE}"))
    (tmp_path / "outer.html").write_text(
        '<iframe src="inner.html" width="360" height="9000" style="border:0"'
        " onload=\"document.title=this.contentDocument.title\"></iframe>"
    )  # fmt: skip
    assert CHROMIUM is not None
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         "--allow-file-access-from-files",
         f"--blink-settings=preferredColorScheme={0 if dark else 1}",
         f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=3000",
         "--dump-dom", (tmp_path / "outer.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title, done.stdout[-500:] + done.stderr[-500:]
    assert '"inner":360,"scroll":360,"over":[]' in title[1]
    assert '"errors":0' in title[1]
    assert int(re.search(r'"figures":(\d+)', title[1])[1]) >= 12
