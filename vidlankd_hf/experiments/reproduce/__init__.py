"""The paper's experiment: its tables, what the runs will cost, and the preparation of the data."""
