"""A report says what was fitted to what, whether to trust it, and the same numbers in every format."""

import io
import re
import zipfile

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.figure import Figure

import popk
from popk.plots.picture import number
from popk.reports import compared
from popk.reports import contents as room
from popk.reports import report as writing
from popk.reports.blocks import Drawing, Facts, Finding, Report, Section, Table, Words
from popk.reports.contents import contents
from popk.reports.disposition import disposition
from popk.reports.document import docx
from popk.reports.expressions import Reading, UnreadableError, symbol
from popk.reports.fitted import Fitted
from popk.reports.formulas import FormulaError, drawn, mathml
from popk.reports.page import html
from popk.reports.svg import inline
from popk.reports.tables import zipped

SLOW = [k for k, *_ in room.SECTIONS if k not in ("data", "model", "parameters", "origin")]


@pytest.fixture(scope="module")
def short(theophylline_model, theophylline_posterior, theophylline) -> Report:
    """A report of the sections that need no prediction."""
    fitted = Fitted(theophylline_model, theophylline_posterior, theophylline)
    return contents(fitted, SLOW)


def short_of(trial) -> Fitted:
    """Return a fit of nothing, for sections that look at none of it."""
    return Fitted(lambda trial: None, xr.DataTree(), trial)


# What it says


def test_the_flow_adds_up_to_the_rows_of_the_file(theophylline):
    n = disposition(theophylline)["records"]
    assert n["in the table"] == len(theophylline.to_dataframe()) == 144
    parts = ("doses", "other events", "observations without a level", "levels")
    assert sum(n[p] for p in parts) == n["in the table"]
    assert n["quantified"] + n["below the limit"] + n["above the limit"] == n["levels"]


def test_what_is_excluded_or_below_the_limit_is_counted_once():
    frame = pd.DataFrame({
        "ID": [1, 1, 1, 1, 1, 2], "TIME": [0, 1, 2, 3, 4, 0], "EVID": [1, 0, 0, 0, 2, 1],
        "AMT": [10, 0, 0, 0, 0, 10], "DV": [np.nan, 3.0, np.nan, np.nan, np.nan, np.nan],
        "MDV": [1, 0, 1, 0, 1, 1], "BLQ": [0, 0, 0, 1, 0, 0], "LLOQ": 0.5,
    })  # fmt: skip
    trial = popk.read_nonmem(frame, units={"TIME": "h", "AMT": "mg", "DV": "mg/L"})
    found = disposition(trial)
    assert found["records"].to_dict() == {
        "in the table": 6, "doses": 2, "other events": 1, "observations without a level": 1,
        "levels": 2, "quantified": 1, "below the limit": 1, "above the limit": 0,
    }  # fmt: skip
    assert found["subjects"]["levels"] == 1


def test_a_failed_fit_says_so_first_and_at_its_parameters(short, theophylline_posterior):
    assert not popk.convergence(theophylline_posterior).converged
    assert short.verdict == "The chains did not converge"
    assert not short.good
    page = html(short)
    assert page.index("The chains did not converge") < page.index('id="summary"')
    parameters = next(s for s in short.sections if s.key == "parameters")
    assert "Not to be used" in parameters.blocks[0].text


def test_a_section_that_is_left_out_or_refused_says_why(short, theophylline):
    assert all(s.missing == "it was left out on request" for s in short.sections if s.key in SLOW)

    def refused(_):
        raise popk.ModelError("the moon is in the way")

    def broken(_):
        raise KeyError("log_likelihood")

    found = room._section("a", "A", refused, short_of(theophylline), "")
    assert found.missing == "the moon is in the way"
    found = room._section("b", "B", broken, short_of(theophylline), "")
    assert found.missing == "its computation failed (KeyError: 'log_likelihood')"
    said = room._limitations([found], []).blocks[0].sentences
    assert said == ["Not checked: b, because its computation failed (KeyError: 'log_likelihood')."]


def test_limitations_come_from_what_was_found():
    finding = Finding("Shrinkage", "40%", "at most 30%", good=False, limit="Shrinkage is high.")
    section = Section("a", "A", findings=[finding])
    assert room._limitations([section], []).blocks[0].sentences == ["Shrinkage is high."]
    assert "1 of 1 checks at a glance want a look: shrinkage." in room._glance([section])


def test_a_posterior_without_sampler_statistics_makes_a_report(
    theophylline_model, theophylline_posterior, theophylline
):
    bare = theophylline_posterior.copy()
    for group in ("sample_stats", "log_likelihood", "observed_data"):
        del bare[group]
    bare.attrs = {}
    kept = ("convergence", "origin", "sensitivity")
    fitted = Fitted(theophylline_model, bare, theophylline)
    found = contents(fitted, [k for k, *_ in room.SECTIONS if k not in kept])
    by_key = {s.key: s for s in found.sections}
    assert "the posterior has no group log_likelihood" in by_key["sensitivity"].missing
    assert not by_key["convergence"].missing
    assert ("Divergent transitions", "not known", "at most 1 in 1,000") in found.facts
    says = " ".join(by_key["limitations"].blocks[0].sentences)
    assert "Divergences could not be counted" in says
    assert "does not say what it was made from" in says


def test_an_unknown_section_or_format_is_refused(theophylline_model, theophylline_posterior,
                                                 theophylline, tmp_path):  # fmt: skip
    fitted = (theophylline_model, theophylline_posterior, theophylline)
    with pytest.raises(ValueError, match="without names moon; the sections are data, model"):
        popk.report(*fitted, tmp_path / "a.html", without=["moon"])
    with pytest.raises(ValueError, match=r"ends in '.odt', which is no format"):
        popk.report(*fitted, tmp_path / "a.odt")
    with pytest.raises(ValueError, match="'odt' is no format of a report; give some of html, pdf"):
        popk.report(*fitted, tmp_path / "a.html", formats=["odt"])


def test_an_interruption_leaves_no_file_and_says_what_was_going_on(tmp_path, capsys):
    def made(say):
        say("section 3 of 16: priors")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="interrupted at section 3 of 16: priors"):
        writing.write([tmp_path / "a.html"], made, progress=True)
    assert list(tmp_path.iterdir()) == []
    assert "report: section 3 of 16: priors" in capsys.readouterr().out


# The same in every format


def test_a_page_refers_to_nothing_outside_but_dois(short):
    page = html(short)
    found = set(re.findall(r'(?:href|src)="(https?://[^/"]+)', page))
    assert found <= {"https://doi.org"}
    assert "<script" not in page
    assert "@import" not in page


@pytest.mark.filterwarnings("ignore:HarfBuzz-Subset")
def test_a_pdf_has_pages_and_the_verdict(short):
    pypdf = pytest.importorskip("pypdf")
    try:
        import weasyprint  # noqa: F401
    except (ImportError, OSError) as error:
        pytest.skip(f"WeasyPrint, or the system's Pango, is absent: {error}")
    pages = pypdf.PdfReader(io.BytesIO(writing.FORMATS[".pdf"](short))).pages
    assert len(pages) > 2
    assert "The chains did not converge" in pages[0].extract_text()


def test_a_document_has_the_numbers_of_the_summary(short, theophylline_posterior):
    library = pytest.importorskip("docx")
    document = library.Document(io.BytesIO(docx(short)))
    cells = {
        row.cells[0].text: [c.text for c in row.cells] for t in document.tables for row in t.rows
    }
    table = popk.summary(theophylline_posterior)
    for name, row in table.iterrows():
        assert cells[name][2:5] == [number(row[c]) for c in ("median", "lower", "upper")]
    assert short.verdict in [p.text for p in document.paragraphs]


def test_the_csv_of_parameters_is_the_summary(short, theophylline_posterior):
    archive = zipfile.ZipFile(io.BytesIO(zipped(short)))
    assert {"parameters.csv", "disposition.csv", "covariates.csv"} <= set(archive.namelist())
    read = pd.read_csv(archive.open("parameters.csv"), index_col=0)
    pd.testing.assert_frame_equal(read, popk.summary(theophylline_posterior), check_exact=True)


# Equations


def test_a_model_s_lines_read_as_equations():
    source = """
def model(trial):
    size, low = trial.covariate("WT") / 70, 1
    CL = numpyro.sample("CL_pop", prior)
    p = popk.individual(trial, CL=CL * size**0.75, V=f(trial), Q=1 - (2 - size))
"""
    read = Reading(source)
    given = {k.arg: k.value for k in read.calls("individual")[0].keywords}
    assert read.latex(given["CL"]) == (
        r"CL_{\mathrm{pop}} \cdot {\left(\frac{WT}{70}\right)}^{0.75}"
    )
    assert read.latex(given["Q"]) == r"1 - \left(2 - \frac{WT}{70}\right)"
    with pytest.raises(UnreadableError):
        read.latex(given["V"])


def test_a_name_that_is_assigned_twice_is_not_read():
    read = Reading("def m(trial):\n    x = 1\n    x = 2\n    individual(trial, CL=x)\n")
    with pytest.raises(UnreadableError, match="not assigned once"):
        read.latex(read.calls("individual")[0].keywords[0].value)


def test_formulas_are_mathml_and_pictures():
    assert mathml(r"s_{ij}^{2}") == (
        '<math display="block"><msubsup><mi>s</mi><mrow><mi>i</mi><mi>j</mi></mrow>'
        "<mn>2</mn></msubsup></math>"
    )
    width, height = drawn(r"\frac{CL}{V}").get_size_inches()
    assert 0.1 < width < 1 > height
    for bad in (r"\nothing", "_{a}", "{a", "a}"):
        with pytest.raises(FormulaError):
            mathml(bad)
    assert symbol("omega_CL") == r"\omega_{CL}"


# Pictures


def test_points_say_what_they_are_under_the_pointer():
    figure = Figure()
    figure.subplots().scatter([1, 2], [3, 4], label="observed")
    svg = inline(figure, "a", "Two points", {0: ["ID 1", "ID <2>"]})
    assert svg.count("<title>ID 1</title>") == 1
    assert "<title>ID &lt;2&gt;</title>" in svg


def test_every_block_is_written_in_every_format():
    figure = Figure()
    figure.subplots().plot([0, 1])
    frame = pd.DataFrame({"x": [0.1 + 0.2]}, index=pd.Index(["a"], name="name"))
    blocks = [Words("w"), Facts([("n", "v")]), Drawing("d", figure, "s", "c"),
              Table("t", ["Name", "x"], {"": [["a", "0.3"]]}, frame)]  # fmt: skip
    report = Report("T", "S", "V", True, "A", [], [], [Section("k", "K", blocks)])
    assert "<figcaption>c</figcaption>" in html(report)
    read = zipfile.ZipFile(io.BytesIO(zipped(report))).read("t.csv").decode()
    assert read == "name,x\na,0.30000000000000004\n"
    assert docx(report)[:2] == b"PK"


# Several models


def test_models_that_cannot_be_told_apart_are_not_ranked():
    table = pd.DataFrame(
        {"elpd_diff": [0.0, -3.3], "dse": [0.0, 7.8]}, index=pd.Index(["one", "two"])
    )
    verdict, advice = compared._best(table, [])
    assert verdict == "The best models cannot be told apart"
    assert "3.30 ± 7.80" in advice
    verdict, _ = compared._best(table.assign(elpd_diff=[0.0, -30.0]), [])
    assert verdict == "one predicts best"
    verdict, _ = compared._best(table, ["two"])
    assert verdict == "1 of 2 models did not converge: two"


def test_what_weights_cannot_tell_stands_beside_a_difference():
    assert compared._careful({"diag_elpd": "3 k > 0.70", "diag_diff": ""}) == "3 k > 0.70"
