"""What does popk run with? ``popk doctor``."""

import os

import typer


def doctor() -> None:
    """Say which versions, devices, precision and cache popk runs with.

    Example: popk doctor
    """
    import platform
    from importlib.metadata import version

    import jax

    from popk.inference.compilation import cache_folder
    from popk.inference.draws import VERSIONS

    typer.echo(f"python {platform.python_version()} on {platform.system()} {platform.machine()}")
    for name in (*VERSIONS, "pandas", "equinox", "pymc"):
        typer.echo(f"{name} {version(name)}")
    devices = ", ".join(f"{d.platform} ({d.device_kind})" for d in jax.devices())
    typer.echo(f"devices: {devices}; {os.cpu_count()} processors")
    wide = jax.config.read("jax_enable_x64")
    typer.echo(
        f"precision: {'float64' if wide else 'float32 (JAX_ENABLE_X64 is off: do not fit with it)'}"
    )
    folder = cache_folder()
    kept = list(folder.iterdir()) if folder.is_dir() else []
    size = sum(file.stat().st_size for file in kept if file.is_file()) / 1e6
    writable = os.access(next(p for p in (folder, *folder.parents) if p.exists()), os.W_OK)
    typer.echo(
        f"compiled programs: {folder}, {len(kept)} files, {size:.1f} MB"
        f"{'' if writable else ' (not writable: every start compiles anew)'}"
    )
