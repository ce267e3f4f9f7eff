"""Evaluation: asking, scoring, intervals, controls and the paired comparison. Importing it loads no torch."""
