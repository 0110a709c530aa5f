"""From scores and verdicts to figures with intervals. What reporting and analysis import; knows no judge."""
