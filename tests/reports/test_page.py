"""A report is one page that stands alone, says the verdict first, and tells the numbers it was given."""

import html.parser
import re

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.figure import Figure

import popk
from popk.model.outcomes import Outcomes
from popk.plots.picture import number
from popk.reports import disposition, text
from popk.reports import report as writing
from popk.reports.contents import SECTIONS, _verdict
from popk.reports.curves import with_curves
from popk.reports.svg import inline
from tests.diagnostics.test_vpc import NOMINAL, trial_at

SLOW = ("sensitivity", "prediction", "exposure", "nca", "covariates", "priors", "effects")
VOID = {"meta", "link", "br", "hr", "img", "input"}


class Reader(html.parser.HTMLParser):
    """Collects what a page says and loads, and checks that its elements close."""

    def __init__(self, source: str):
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loads: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        """Note an element, and what it would load."""
        given = {k: v or "" for k, v in attrs}
        if tag not in VOID:
            self.open.append(tag)
        if "id" in given:
            self.ids.append(given["id"])
        if tag == "a":
            self.links.append(given.get("href", ""))
        else:
            names = ("src", "href", "xlink:href", "data", "srcset", "action")
            self.loads += [(tag, given[k]) for k in names if k in given]

    def handle_startendtag(self, tag, attrs):
        """Note an element that closes itself."""
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        """Check that the last opened element closes."""
        assert self.open.pop() == tag

    def handle_data(self, data):
        """Note words, not those of the style sheet."""
        if "style" not in self.open:
            self.words.append(data)

    @property
    def says(self) -> str:
        """Return the page's words on one line."""
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def path(theophylline_model, theophylline_posterior, theophylline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "not" / "there"
    return popk.report(
        theophylline_model, theophylline_posterior, theophylline, folder / "page.html", draws=32
    )


@pytest.fixture(scope="module")
def source(path) -> str:
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def reader(source) -> Reader:
    return Reader(source)


@pytest.fixture(scope="module")
def weighted(theophylline_posterior):
    """A posterior as importance sampling gives it: weights in the place of chains."""
    tree = theophylline_posterior.copy()
    draws = tree["posterior"].sizes
    shape = draws["chain"], draws["draw"]
    tree["sample_stats"] = xr.Dataset({"weight": (("chain", "draw"), np.ones(shape))})
    settings = '{"draws": 200, "population_draws": 2000, "individual_draws": 8}'
    tree.attrs |= {
        "method": "laplace", "settings": settings, "pareto_k": 0.34, "importance_ess": 900.0,
    }  # fmt: skip
    return tree


# The page


@pytest.mark.slow
def test_weighted_draws_are_judged_by_their_weights(
    weighted, theophylline_model, theophylline, tmp_path
):
    path = popk.report(
        theophylline_model, weighted, theophylline, tmp_path / "p.html", draws=32, without=SLOW
    )
    said = " ".join(Reader(path.read_text(encoding="utf-8")).words)
    for words in ("The weights can be trusted", "Pareto k of the weights", "0.34", "laplace"):
        assert words in said
    for words in ("Worst R-hat", "The chains converged", "one color a chain", "nan"):
        assert words not in said
    for given in (
        "method='laplace',",
        "draws=200,",
        "population_draws=2000,",
        "individual_draws=8,",
    ):
        assert given in said
    assert "--method laplace --draws 200 --population-draws 2000" in said


def test_the_page_is_one_file_and_complete(path, reader):
    assert [p.name for p in path.parent.iterdir()] == ["page.html"]
    assert path.stat().st_mode & 0o777 == 0o644
    assert reader.open == []


def test_the_page_loads_nothing_from_elsewhere(source, reader):
    assert [load for load in reader.loads if not load[1].startswith(("#", "data:image/png"))] == []
    assert [
        link for link in reader.links if not link.startswith(("#", "https://doi.org/10."))
    ] == []
    assert re.findall(r"@import|<script|url\((?!#)", source) == []


def test_every_id_of_the_page_is_its_own_and_links_lead_somewhere(reader):
    assert len(reader.ids) == len(set(reader.ids))
    targets = {link[1:] for link in reader.links if link.startswith("#")}
    targets |= {value[1:] for _, value in reader.loads if value.startswith("#")}
    assert targets - set(reader.ids) == set()


def test_a_fit_that_did_not_converge_says_so_first_and_in_red(
    source, reader, theophylline_posterior
):
    verdict = popk.convergence(theophylline_posterior)
    assert not verdict.converged
    assert 'class="verdict bad"' in source
    says = reader.says
    assert says.index("The chains did not converge") < says.index("Covariates at the first record")
    for problem in verdict.problems():
        assert problem[1:] in says


def test_a_fit_that_converged_says_so_and_one_of_other_levels_does_not():
    assert _verdict(converged=True, weighted=False, strange=False)[0] == "The chains converged"
    assert (
        _verdict(converged=True, weighted=False, strange=True)[0] == "This is not what was fitted"
    )


def test_the_table_of_parameters_is_the_summary(source, theophylline_posterior):
    table = popk.summary(theophylline_posterior)
    for name, row in table.iterrows():
        begin = source.index(
            f'<td class="name">{name}</td>', source.index('<section id="parameters">')
        )
        cells = re.findall(
            r'<td class="n">(.*?)</td>', source[begin : source.index("</tr>", begin)]
        )
        values = row.to_numpy()
        assert cells[:6] == [number(v) for v in values[:6]]
        assert cells[6] == f"{values[6]:.3f}"
        assert cells[7:] == [number(v) for v in values[7:]]


def test_the_page_tells_data_model_and_origin(reader, theophylline_posterior):
    says, attrs = reader.says, theophylline_posterior.attrs
    assert "Oral theophylline: one compartment, first-order absorption, allometric size" in says
    assert "Subjects 12 Records 144 Doses 12 Levels 132 Levels a subject 11" in says
    assert "WT kg 70.5 54.6 to 86.4 0 no" in says
    assert "Boeckmann AJ, Sheiner LB, Beal SL (1994)" in says
    assert "https://doi.org/10.1146/annurev.pharmtox.48.113006.094708" in reader.links
    assert attrs["model_sha256"] in says
    assert attrs["trial_sha256"] in says
    assert "chains=2, warmup=200, draws=200" in says
    for _, heading, _ in SECTIONS:
        assert heading in says


def test_the_page_has_its_figures_for_those_who_cannot_see_them(source):
    said = re.findall(r'<svg role="img" aria-label="([^"]+)"', source)
    assert len(said) == 14
    assert "Individual weighted residuals" in said


def test_a_page_that_fails_leaves_the_old_one(
    path, theophylline_model, theophylline_posterior, theophylline, monkeypatch, tmp_path
):
    old = tmp_path / "page.html"
    old.write_text("old")
    monkeypatch.setattr(writing.Path, "replace", _full_disk)
    with pytest.raises(OSError, match="no space left"):
        writing._written(b"new", old)
    assert old.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def _full_disk(*_: object) -> None:
    raise OSError("no space left")


@pytest.mark.slow
def test_a_trial_with_bolus_doses_and_levels_below_the_limit_makes_a_page(tmp_path):
    rng = np.random.default_rng(0)
    levels = 5 * np.exp(-0.2 * np.array(NOMINAL)) * rng.lognormal(0, 0.1, (6, 6))
    below = (levels < 0.5).astype(int)
    trial = trial_at(np.array(NOMINAL), levels, BLQ=below, LLOQ=np.full(levels.shape, 0.5))
    draws = {"CL_pop": 4.0, "V_pop": 20.0, "omega_CL": 0.1, "omega_V": 0.1, "sigma_additive": 0.1}
    fitted = {n: rng.lognormal(np.log(v), 0.05, (2, 100)) for n, v in draws.items()}
    fitted["sigma_proportional"] = np.full((2, 100), 0.1)
    eta = rng.normal(0, 0.1, (2, 100, 6, 2))
    names = {"subject": list(trial.ids), "parameter": ["CL", "V"]}
    group = xr.Dataset(
        {**{n: (("chain", "draw"), v) for n, v in fitted.items()},
         "eta": (("chain", "draw", "subject", "parameter"), eta)}, names,
    )  # fmt: skip
    group.attrs["fixed"] = ["sigma_proportional"]
    observed = np.asarray(trial.observations.value)
    posterior = xr.DataTree.from_dict({
        "posterior": group,
        "sample_stats": xr.Dataset({"diverging": (("chain", "draw"), np.zeros((2, 100), bool))}),
        "observed_data": xr.Dataset({"DV": ("observation", observed)}),
    })  # fmt: skip
    made = popk.report(bolus, posterior, trial, tmp_path / "bolus.html", draws=32, without=SLOW)
    says = Reader(made.read_text(encoding="utf-8")).says
    assert "Fixed, not estimated: sigma_proportional = 0.100." in says
    assert f"{below.sum()} levels below the limit of quantification are left out" in says
    assert "Covariates at the first record None." in says
    assert "Intravenous bolus <script>alert(1)</script> & more" in says  # escaped, so it is said


def bolus(trial):
    """Intravenous bolus <script>alert(1)</script> & more."""
    import numpyro

    CL = numpyro.sample("CL_pop", popk.lognormal(4, cv=1))
    V = numpyro.sample("V_pop", popk.lognormal(20, cv=1))
    p = popk.individual(trial, CL=CL, V=V, correlated=False)
    error = popk.combined_error(additive=0.1, proportional=popk.fixed(0.1))
    popk.observe(trial, popk.one_compartment(trial, CL=p.CL, V=p.V), error)


# Its words


def test_another_trial_than_the_fitted_one_is_told(
    theophylline_model, theophylline_posterior, theophylline
):
    other = theophylline.without("1")
    found = text.differences(theophylline_posterior, theophylline_model, other)
    assert len(found) == 1
    assert "the levels of this trial are not those" in found[0]


def test_another_model_than_the_fitted_one_is_told(theophylline_posterior, theophylline):
    found = text.differences(theophylline_posterior, bolus, theophylline)
    assert len(found) == 1
    assert "the source of this model is not that of the fit" in found[0]


def test_categories_are_counted():
    found = disposition.described(np.array([0.0, 1.0, 1.0]), {"0": "male", "1": "female"})
    assert found == ("", "male 1, female 2")


def test_comments_beside_sites_are_their_units():
    source = 'def m(trial):\n    CL = numpyro.sample("CL_pop", x)  # L/h at 70 kg\n    V = 1  # L\n'
    assert text.remarks(source) == {"CL_pop": "L/h at 70 kg"}


def test_source_is_colored_and_escaped():
    colored = text.colored('x = "<b>"  # a < b')
    assert colored == (
        'x = <span class="s">&#34;&lt;b&gt;&#34;</span>  <span class="c"># a &lt; b</span>'
    )
    assert text.colored("(lambda trial: 1,") == "(lambda trial: 1,"


# Its pictures


def figure_of_a_line() -> Figure:
    figure = Figure()
    figure.subplots().plot([0, 1], [0, 1.23456789], color="#0072b2")
    return figure


def test_a_picture_follows_the_page_s_colors_and_is_the_same_each_time():
    once, again = (inline(figure_of_a_line(), "a", "A line") for _ in range(2))
    assert once == again
    assert "var(--blue)" in once
    assert "#0072b2" not in once
    assert 'aria-label="A line"' in once
    assert not set(re.findall(r'id="([^"]+)"', once)) & set(
        re.findall(r'id="([^"]+)"', inline(figure_of_a_line(), "b", "A line"))
    )


def test_words_of_a_picture_are_escaped():
    assert 'aria-label="a &#34;b&#34;"' in inline(figure_of_a_line(), "a", 'a "b"')


# Its curves


def test_curves_keep_the_records_and_ask_for_more_between_them(theophylline):
    dense = with_curves(theophylline, points=50)
    frame, own = dense.host.frame, theophylline.host.frame
    kept = frame[(frame["EVID"] != 0) | (frame["MDV"] == 0)].reset_index(drop=True)
    assert kept.equals(own)
    asked = frame[(frame["EVID"] == 0) & (frame["MDV"] == 1)]
    assert asked.groupby("ID").size().between(40, 80).all()
    assert (frame.groupby("ID")["TIME"].diff().dropna() >= 0).all()
    gaps = frame[frame["ID"] == "1"]["TIME"].diff().max()
    assert gaps <= 24.65 / 50 + 1e-9


def test_a_bolus_jumps_upright():
    trial = trial_at(np.array([1.0, 5.0]), np.ones((1, 2)))
    frame = trial.to_dataframe()
    second = frame.iloc[:1].assign(TIME=3.0)
    frame = frame.iloc[[0, 1]].merge(second, how="outer").merge(frame.iloc[2:], how="outer")
    frame.attrs = trial.to_dataframe().attrs
    dense = with_curves(popk.read_nonmem(frame))
    at = dense.host.frame.query("TIME == 3")
    assert at["EVID"].tolist() == [0, 1, 0]


def test_a_covariate_between_two_records_is_that_of_the_later_one():
    frame = trial_at(np.array(NOMINAL), np.ones((1, 6))).to_dataframe()
    frame["WT"] = np.arange(7.0)
    frame.attrs = {
        "units": {"TIME": "h", "AMT": "mg", "DV": "mg/L", "WT": "kg"},
        "covariates": ["WT"],
    }
    dense = with_curves(popk.read_nonmem(frame)).host.frame
    between = dense[(dense["TIME"] > 8) & (dense["TIME"] < 24)]
    assert len(between) > 10
    assert (between["WT"] == 6).all()


def test_curves_do_not_run_back_to_a_new_occasion():
    frame = trial_at(np.array(NOMINAL), np.ones((1, 6))).to_dataframe()
    frame.loc[4:, "TIME"] = [0.0, 2.0, 4.0]
    frame.loc[4, ["EVID", "MDV", "AMT"]] = [4, 1, 100.0]
    frame.loc[4, "DV"] = np.nan
    dense = with_curves(popk.read_nonmem(frame)).host.frame
    back = np.flatnonzero(np.diff(dense["TIME"]) < 0)
    assert len(back) == 1
    assert dense["EVID"].iloc[back[0] + 1] == 4


def test_curves_ask_for_levels_of_the_kinds_that_a_model_observes():
    frame = pd.DataFrame({
        "ID": 1, "TIME": [0, 4, 8], "EVID": [1, 0, 0], "AMT": [10, 0, 0], "DVID": [0, 1, 2],
        "DV": [np.nan, 3.0, 0.0], "MDV": [1, 0, 0],
    })  # fmt: skip
    units = {"TIME": "h", "AMT": "mg", "DV": "mg/L"}
    dense = with_curves(popk.read_nonmem(frame, units=units)).host.frame
    assert set(dense.loc[dense["EVID"].eq(0), "DVID"]) == {1, 2}  # and not that of the dose
    assert dense.loc[dense["MDV"].eq(1) & dense["TIME"].between(0, 4), "DVID"].max() == 1


def test_outcomes_are_counted_apart_from_levels():
    frame = pd.DataFrame({"ID": 1, "TIME": [0, 4, 8], "DVID": [1, 2, 2], "DV": [3.0, 0, 1]})
    trial = popk.read_nonmem(frame, units={"TIME": "h", "AMT": "mg", "DV": "mg/L"})
    event = {"DV_event": Outcomes("events", (), False, ((0, 2),))}
    counts = dict(disposition.counts(trial, event))
    assert counts["Events (DV_event)"] == "0: 1, 1: 1"
    assert counts["Level (DV)"] == "3 mg/L"
