"""What every test stands on: double precision, warnings as errors, real trials and one short fit."""

import gc
import importlib.util
import os
import warnings
from pathlib import Path

import hypothesis
import jax
import numpyro.distributions  # noqa: F401 - where warnings are errors a first import may end half way
import pytest

ROOT = Path(__file__).parents[1]
CONFORMANCE = ROOT.parent / "shared" / "conformance"

#: Warnings that are not popk's to mend. Each with its date and its reason; delete it when it is out.
IGNORED = (
    # 2026-11-23: a compilation cache that two test runs share may lose a race; JAX then compiles.
    "ignore:Error (reading|writing) persistent compilation cache entry:UserWarning",
)


def pytest_configure(config: pytest.Config) -> None:
    """Turn warnings into errors, keep compiled programs between runs, make hypothesis repeatable."""
    for line in ("error", *IGNORED):
        config.addinivalue_line("filterwarnings", line)
    # Compiling is most of what tests do: without LLVM's passes they take a fifth less time.
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
    jax.config.update("jax_enable_x64", True)
    gc.set_threshold(200_000, 20, 100)  # traces are millions of small objects that are soon gone
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(ROOT / ".pytest_cache" / "jax"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    hypothesis.settings.register_profile("popk", deadline=None, derandomize=True, max_examples=25)
    hypothesis.settings.load_profile("popk")


#: A process may have 65,530 maps of memory on Linux, and each compiled program takes some: past that JAX
#: does not fail but crashes.
MOST_MAPS = 25_000


@pytest.fixture(autouse=True, scope="module")
def _few_enough_programs():
    """Forget compiled programs after a file of tests, where a worker holds too many."""
    yield
    maps = Path("/proc/self/maps")
    if maps.is_file() and maps.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()
        gc.collect()


def model_of(name: str):
    """Return the model function of models/NAME.py."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "models" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def trial_of(name: str):
    """Return the trial of data/NAME.csv."""
    import popk

    return popk.read_nonmem(ROOT / "data" / f"{name}.csv")


@pytest.fixture(scope="session")
def theophylline():
    """12 adults, one oral dose, 11 levels each."""
    return trial_of("theophylline")


@pytest.fixture(scope="session")
def phenobarbital():
    """59 newborns, several boluses, one to six levels each."""
    return trial_of("phenobarbital")


@pytest.fixture(scope="session")
def indomethacin():
    """Six volunteers, one bolus, 11 levels each."""
    return trial_of("indomethacin")


@pytest.fixture(scope="session")
def theophylline_model():
    """One compartment, first-order absorption."""
    return model_of("theophylline")


@pytest.fixture(scope="session")
def phenobarbital_model():
    """One compartment, boluses, covariates on CL and V."""
    return model_of("phenobarbital")


@pytest.fixture(scope="session")
def indomethacin_model():
    """Two compartments, bolus."""
    return model_of("indomethacin")


@pytest.fixture(scope="session")
def theophylline_posterior(theophylline_model, theophylline):
    """A short fit: good enough to predict with, too short to call converged."""
    import popk

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", popk.ConvergenceWarning)
        return popk.fit(
            theophylline_model, theophylline, seed=1, chains=2, warmup=200, draws=200,
            progress=False,
        )  # fmt: skip


@pytest.fixture(scope="session")
def theophylline_others_posterior(theophylline_posterior):
    """The same fit, told that it has not seen subject 3, who is a patient in tests of twins."""
    tree = theophylline_posterior.copy()
    levels = tree["observed_data"].dataset
    tree["observed_data"] = levels.isel(observation=(levels["ID"] != "3").values)
    return tree


@pytest.fixture(scope="session")
def conformance() -> Path:
    """Return the folder of the established engines' answers, which the project does not ship."""
    if not CONFORMANCE.is_dir():
        pytest.skip(f"{CONFORMANCE} is absent: the answers of other engines are not shipped")
    return CONFORMANCE


@pytest.fixture
def strict_promotion():
    """Refuse silent promotion of dtypes and ranks (NumPyro itself cannot live with it)."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield
