"""The report: reads a run folder only, writes one self-contained HTML file."""
