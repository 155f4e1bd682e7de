"""The Python API: a workspace in a notebook or a job, and a run without a console."""
