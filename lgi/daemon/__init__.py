"""The resource daemon: asks project servers for work, runs the jobs' scripts, reports (LGI 1.41, Resource daemon)."""
