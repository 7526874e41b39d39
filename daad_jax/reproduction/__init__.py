"""The paper's tables and figures: what is run for them, the paper's numbers, the pages."""
