import re

import numpy as np

from cupola.report import Figure, Gallery, Page, Table, write_page


def test_the_page_is_whole_and_self_contained(tmp_path):
    image = np.full((8, 16, 3), 200, np.uint8)
    page = Page(
        "A <title>",
        "lead",
        [
            Table("figures", ["name", "PQ"], [["a & b", "0.5"]], note="n"),
            Figure("curve", image),
            Gallery("frames", ["input", "truth"], [("0000_000000", [image, None])], legend=[("road", (1, 2, 3))]),
        ],
        {"seed": "0"},
    )
    write_page(tmp_path / "report.html", page)
    html = (tmp_path / "report.html").read_text()
    assert "A &lt;title&gt;" in html
    assert "a &amp; b" in html
    assert len(re.findall(r'<img[^>]* src="data:image/jpeg;base64,[^"]{100,}"', html)) == 1
    assert len(re.findall(r'<img[^>]* src="data:image/png;base64,[^"]{100,}"', html)) == 1
    assert "rgb(1,2,3)" in html
    # Nothing is fetched from elsewhere.
    assert not re.findall(r'(?:src|href)="(?!data:)', html)
