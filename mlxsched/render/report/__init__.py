"""A report of runs as one HTML file that needs no network: figures by bokeh, text by a template."""

from __future__ import annotations

from mlxsched.render.report.page import ReportedRun, report_html, runs_html

__all__ = ["ReportedRun", "report_html", "runs_html"]
