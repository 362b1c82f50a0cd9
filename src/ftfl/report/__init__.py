"""Reports: runs → arrays → figures and tables → one HTML file that needs nothing else."""
