"""The evaluations of a sweep as one: tables over seeds, the trade-off figure, and one page. Needs no model.

`results` reads them, `configurations` tells them apart, `summary` averages them over seeds and tasks.
"""
