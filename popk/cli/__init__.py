"""Who asks from the shell: ``popk check|nca|fit|batch|report|compare|predict|twin|doctor``.

Exit codes: 0 done, 2 an input that cannot be used (one clear sentence), 3 a fit that did not converge,
4 a store of twins that was altered.
"""

import typer

from popk.cli.advice import group as twins  # with what is advised on them
from popk.cli.fitting import check, fit
from popk.cli.machine import doctor
from popk.cli.many import batch
from popk.cli.noncompartmental import nca
from popk.cli.using import compare, predict, report

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False,
    help="Bayesian population pharmacokinetics: from a trial's records to a posterior, a report and twins.",
)  # fmt: skip

for command in (check, nca, fit, batch, report, compare, predict, doctor):  # as --help lists them
    app.command()(command)
app.add_typer(twins, name="twin")


def main() -> None:
    """Run the command line; turn what users can mend into one sentence and exit code 2."""
    try:
        app()
    except (ValueError, OSError) as error:
        ours = type(error).__module__.startswith("popk.")
        mendable = ours or type(error) is ValueError or isinstance(error, OSError)
        if not mendable:
            raise
        typer.echo(f"popk: {error}", err=True)
        raise SystemExit(2) from None
