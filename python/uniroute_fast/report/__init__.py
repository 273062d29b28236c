"""Reports as one HTML page each: no network, no server, the figures of ``--json`` inside."""

from uniroute_fast.report.figure import FORMATS, check_format, save_curves
from uniroute_fast.report.page import evaluation_page, save_page, what_if_page

__all__ = ["FORMATS", "check_format", "evaluation_page", "save_curves", "save_page", "what_if_page"]
