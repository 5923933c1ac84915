"""Pages to look at: one HTML file that opens offline, of a run, of a study, of runs compared.

folder   reads a run folder that may come from anybody
facts    what a run is: its models' success, its log, its configuration
run study compare    which facts a page shows, and in what order, as blocks
blocks panels plots videos    what a page is made of
render   blocks as HTML: page.html.j2, page.css, page.js and the plotting library of the Python
         package, all inline
"""

from wamrl.page.blocks import Page
from wamrl.page.compare import compare_page, comparison
from wamrl.page.folder import RunFolder, is_study
from wamrl.page.render import write_page
from wamrl.page.run import run_page


def study_page(folder: RunFolder) -> Page:
    """What `wamrl.page.study` makes of a study; ValueError of one sentence if it is none."""
    from wamrl.page.study import study_page  # and torch with it: the others do without

    return study_page(folder)


__all__ = [
    "RunFolder",
    "compare_page",
    "comparison",
    "is_study",
    "run_page",
    "study_page",
    "write_page",
]
