"""One page of what was measured: a self-contained HTML file in which every number opens what it rests on.

* `page`: the file, filled from `page.html`, `page.css` and `page.js`.
* `listed`, `drawn`: its tables and its figures.
* `provenance`: what is behind each number; `shared` keeps equal values once.
* `methods`, `papers`: sentences and BibTeX entries to paste.
"""

from results.report.page import Report, report_page
from results.report.papers import Paper, bibtex, paper_of

__all__ = ["Paper", "Report", "bibtex", "paper_of", "report_page"]
