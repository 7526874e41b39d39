"""Text tables, HTML report and plots."""
