"""Everything a run leaves on disk: metrics, checkpoints, status, provenance."""
