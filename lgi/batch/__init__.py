"""Batch systems behind one interface: local processes, Slurm, PBS, Grid Engine, LSF and LoadLeveler."""
