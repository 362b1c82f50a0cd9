"""Commands that run at once take different cores while there are any."""

import os
import subprocess
import sys

from ftfl.training.cores import claim


def test_claims_go_round_the_cores_and_come_free_again(tmp_path):
    held = [claim([2, 5], tmp_path) for _ in range(4)]
    assert [c.core for c in held] == [2, 5, 2, 5]
    held[1].release()
    assert claim([2, 5], tmp_path).core == 5
    assert claim([2], tmp_path).core == 2  # shared rather than waited for


def test_a_claim_lasts_as_long_as_the_process_that_inherited_it(tmp_path):
    mine = claim([0, 1], tmp_path)
    assert mine.lock is not None
    child = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[mine.lock]
    )
    try:
        mine.release()
        other = claim([0, 1], tmp_path)
        assert other.core == 1
        other.release()
    finally:
        child.communicate(b"\n")
    assert claim([0, 1], tmp_path).core == 0


def test_a_folder_that_cannot_be_made_costs_nothing_but_the_knowledge(tmp_path):
    (tmp_path / "file").write_text("")
    assert claim([3, 4], tmp_path / "file" / "locks").core == 3
    assert os.listdir(tmp_path) == ["file"]
