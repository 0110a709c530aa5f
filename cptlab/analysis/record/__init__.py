"""The papers' tables and figures, drawn from the stored results of a record."""
