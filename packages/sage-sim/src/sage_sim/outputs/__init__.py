"""What a run says to others: a page for the browser, Markdown, and JUnit's XML; all made from ``results.json``."""

from sage_sim.outputs.junit import junit_xml
from sage_sim.outputs.markdown import markdown
from sage_sim.outputs.page import run_page

__all__ = ["junit_xml", "markdown", "run_page"]
