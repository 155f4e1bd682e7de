"""How a stage runs: contract, planning, Dask, progress, budgets."""
