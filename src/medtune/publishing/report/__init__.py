"""`report.html`: everything that a run shows, as one page that works offline."""

from medtune.publishing.report.charts import figures as figures
from medtune.publishing.report.page import render_report as render_report
from medtune.publishing.report.page import write_report as write_report
from medtune.publishing.report.reading_run import ReportData as ReportData
from medtune.publishing.report.reading_run import read_report as read_report
