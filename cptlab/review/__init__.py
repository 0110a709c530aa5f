"""Blind review by people (CPT RQ5, Table XI): pairs of programs, a local page that shows them, and what the votes say."""
