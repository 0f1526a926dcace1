"""The paper's comparisons as tables of runs: what is compared, the runs, and the report."""
