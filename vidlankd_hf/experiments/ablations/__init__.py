"""The paper's comparisons as tables: what is compared, how it is run, and the report."""
