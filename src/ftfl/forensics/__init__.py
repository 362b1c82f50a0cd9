"""What synthetic data did to a run, measured: evidence, ground truth, instruments, verdicts."""
